/* sampler.h - the state behind lld_sampler; the public functions are in llamad_engine.h.
 *
 * Order of the steps: logit bias, penalties, the constraint, then the greatest logit when the temperature is 0;
 * else top-k, typical-p, top-p, min-p, temperature, draw. All memory is taken in create. */
#ifndef LLD_SAMPLER_H
#define LLD_SAMPLER_H

#include "constraint/constraint.h"
#include "sample/candidates.h"
#include "llamad_engine.h"

typedef struct lld_window { /* the last tokens, for the penalties */
    int32_t *tokens;        /* (capacity) ring; capacity 0: no penalties */
    int32_t *counts;        /* (vocab_size) occurrences in the ring */
    size_t capacity, n, next;
} lld_window;

struct lld_sampler {
    lld_sampling sampling;
    uint32_t vocab_size;
    size_t n_bias;
    int32_t *bias_tokens; /* (n_bias) */
    float *bias_values;   /* (n_bias) */
    lld_window window;
    float *logits; /* (vocab_size) after bias and penalties */
    lld_candidates candidates;
    lld_constraint *constraint; /* NULL: every token is allowed */
    uint64_t n_draws;           /* index of the next random number */
};

/* Random number `index` of a seed, uniform in [0, 1) with 53 bits. */
double lld_sampler_random(uint64_t seed, uint64_t index);

#endif
