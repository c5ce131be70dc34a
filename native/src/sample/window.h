/* window.h - the last tokens of a sequence, in a ring, and what repeating them costs.
 *
 * Both penalties work on logits: (vocab_size) and mark tokens in marks: (vocab_size), which are all 0
 * before and after. A logit of minus infinity stays what it is, a finite one stays finite. */
#ifndef LLD_WINDOW_H
#define LLD_WINDOW_H

#include <stdbool.h>
#include <stddef.h>

#include "llamad_engine.h"

typedef struct lld_recent {
    int32_t token;
    bool breaks; /* for DRY: a sequence breaker ends in its text */
} lld_recent;

typedef struct lld_window {
    lld_recent *items; /* (capacity) ring; capacity 0: nothing is kept */
    size_t capacity, n, next;
} lld_window;

void lld_window_push(lld_window *w, int32_t token);

/* The i-th last token, 0 <= i < n. */
const lld_recent *lld_window_at(const lld_window *w, size_t i);

/* The newest token ends a sequence breaker. */
void lld_window_break(lld_window *w);

/* The logit nearest to a sum in double that a float can hold and is finite. */
float lld_finite_logit(double logit);

/* Repetition, frequency and presence penalty. temperature: that the logits are yet to be divided by
 * when that comes before the penalties in the order of samplers; else 1. */
void lld_penalize(const lld_sampling *sampling, const lld_window *w, double temperature,
                  float *logits, int32_t *marks);

/* DRY ("don't repeat yourself"; p-e-w 2024, text-generation-webui pull request 5677): a token that
 * would lengthen a repetition of L >= dry_allowed_length tokens loses
 * dry_multiplier * dry_base^(L - dry_allowed_length). Repetitions do not reach beyond the last
 * breaker, and a token that was a breaker loses nothing. lengths: (w->capacity) scratch. */
void lld_dry(const lld_sampling *sampling, const lld_window *w, double temperature, float *logits,
             int32_t *marks, uint32_t *lengths);

#endif
