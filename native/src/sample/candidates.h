/* candidates.h - the tokens still in play while one token is sampled, and the filters on them.
 *
 * Words: a candidate's weight is its probability times a constant that is the same for all. The
 * filters see the softmax at temperature 1 over the candidates they get; temperature enters in the
 * draw. Sums are doubles in one fixed order and equal values are ordered by token, so a result
 * depends on nothing but the logits. Every filter keeps at least one candidate.
 *
 * Does not know parameters' ranges, penalties or random numbers: sampler.c does. */
#ifndef LLD_CANDIDATES_H
#define LLD_CANDIDATES_H

#include <stddef.h>
#include <stdint.h>

typedef struct lld_candidate {
    double weight;
    float logit; /* finite */
    int32_t token;
} lld_candidate;

typedef struct lld_candidates {
    lld_candidate *items; /* (capacity), the first n are in play */
    size_t n, capacity;
} lld_candidates;

/* The `capacity` greatest finite ones of logits: (vocab_size), of which at least one is finite. */
void lld_candidates_fill(lld_candidates *c, const float *logits, size_t vocab_size);

/* Locally typical sampling (Meister et al. 2022, "Locally Typical Sampling", section 3): the
 * candidates whose surprise is nearest to the entropy, until they hold more than p of the mass. */
void lld_candidates_keep_typical(lld_candidates *c, double p);

/* Nucleus sampling (Holtzman et al. 2020, section 3.1): the fewest candidates that hold p. */
void lld_candidates_keep_top_p(lld_candidates *c, double p);

/* Min-p (Nguyen et al. 2024): the candidates at least min_p times as probable as the best one. */
void lld_candidates_keep_min_p(lld_candidates *c, double min_p);

/* The token at `position` in [0, 1) of the cumulated softmax at `temperature` > 0. */
int32_t lld_candidates_draw(lld_candidates *c, double temperature, double position);

#endif
