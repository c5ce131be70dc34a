/* importance.h - sums of squares of the inputs of every matrix, for importance matrices.
 *
 * Each thread adds to sums of its own, so that no row waits for another; reading adds them up. Those of
 * experts are many times as large, and threads share them.
 * Knows nothing of files or names: those are its callers' business.
 */
#ifndef LLD_IMPORTANCE_H
#define LLD_IMPORTANCE_H

#include <stddef.h>
#include <stdint.h>

#include "llamad_engine.h"

/* How many threads may add at once. */
uint32_t lld_importance_threads(const lld_importance *importance);

/* Whether it was created for this model. */
int lld_importance_fits(const lld_importance *importance, const lld_model *model);

/* Add columns [first_col, first_col + n) of one row of an input; values: (n). Nothing if importance
 * is NULL, or in a layer that guesses tokens. A row that comes in pieces is counted with its column 0.
 * Of the output there is one, in layer 0. `thread` is the caller's number. */
void lld_importance_add(lld_importance *importance, unsigned thread, uint32_t layer,
                        lld_importance_input input, size_t first_col, const float *values,
                        size_t n);

/* The same of a row that chose an expert; input: one of LLD_IMPORTANCE_EXPERTS_*. */
void lld_importance_add_expert(lld_importance *importance, uint32_t layer,
                               lld_importance_input input, uint32_t expert, size_t first_col,
                               const float *values, size_t n);

#endif
