/* candidates.h - the tokens still in play while one token is sampled, their order and their weights.
 *
 * Words: a candidate's weight is its probability times a constant that is the same for all. Logits
 * are never divided: `temperature` is 1 until the sampler of that name, and whoever weighs divides.
 * Sums are doubles in one fixed order and equal values are ordered by token, so a result depends on
 * nothing but the logits.
 *
 * The filters on them are in truncation.h, the order in which they come is sampler.c's. */
#ifndef LLD_CANDIDATES_H
#define LLD_CANDIDATES_H

#include <stdbool.h>
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
    double temperature; /* > 0 */
} lld_candidates;

typedef enum lld_order { LLD_BEST_FIRST, LLD_WORST_FIRST, LLD_TYPICAL_FIRST } lld_order;

typedef struct lld_ranking {
    lld_order by;
    double center; /* LLD_TYPICAL_FIRST: the logit whose surprise is the entropy */
} lld_ranking;

/* The `most` <= capacity greatest finite ones of logits: (vocab_size), of which at least one is
 * finite. */
void lld_candidates_fill(lld_candidates *c, size_t most, const float *logits, size_t vocab_size);

float lld_candidates_greatest(const lld_candidates *c);

/* Set every weight to exp((logit - greatest) / temperature); return the sum, which is >= 1. */
double lld_candidates_weigh(lld_candidates *c);

/* Keep the first candidates in an order: `most` of them, or fewer when their weights reach `mass`
 * (pass it, when `beyond`). Those kept stand in that order. 1 <= most. */
void lld_candidates_keep_first(lld_candidates *c, const lld_ranking *r, size_t most, double mass,
                               bool beyond);

/* The index of the one at `position` in [0, 1) of the cumulated softmax. */
size_t lld_candidates_draw(lld_candidates *c, double position);

#endif
