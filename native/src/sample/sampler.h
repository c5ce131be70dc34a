/* sampler.h - the state behind lld_sampler; the public functions are in llamad_engine.h.
 *
 * Order of the steps: logit bias, the constraint and forbidden tokens, then the samplers in their
 * order (default: that of enum lld_sampler_kind) and the draw. When the temperature is 0 only penalties
 * and DRY take part, and the greatest logit wins. With mirostat they and the temperature take part,
 * and mirostat takes the place of the filters. All memory is taken before the first draw. */
#ifndef LLD_SAMPLER_H
#define LLD_SAMPLER_H

#include "constraint/constraint.h"
#include "llamad_engine.h"
#include "sample/candidates.h"
#include "sample/window.h"

struct lld_sampler {
    lld_sampling sampling;
    uint8_t order[LLD_SAMPLER_KINDS];
    size_t n_order;
    uint32_t vocab_size;
    size_t n_bias, n_forbidden;
    int32_t *bias_tokens; /* (n_bias) */
    float *bias_values;   /* (n_bias) */
    int32_t *forbidden;   /* (n_forbidden) */
    uint64_t allowed_at;  /* the draw from which on nothing is forbidden */
    lld_window penalized; /* the last tokens, for the penalties */
    lld_window repeated;  /* the last tokens, for DRY */
    uint32_t *lengths;    /* (repeated.capacity) scratch */
    int32_t *marks; /* (vocab_size) zeros, scratch of penalties and DRY; NULL: neither is on */
    float *logits;  /* (vocab_size) after bias and penalties */
    lld_candidates candidates;
    lld_constraint *constraint; /* NULL: every token is allowed */
    double mu;                  /* of mirostat */
    uint64_t n_draws;           /* tokens drawn: the index of the next random numbers */
};

#endif
