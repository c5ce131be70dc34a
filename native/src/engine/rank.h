/* rank.h - what a model that ranks texts makes of a text's row, once its step is over. */
#ifndef LLD_RANK_H
#define LLD_RANK_H

#include "model/model.h"

/* scores: (w->output.n_rows) = output(tanh(dense(row))). Scratch: weights (dim), hidden (dim). */
void lld_rank_row(const lld_rank_weights *w, const double *row, float *weights, double *hidden,
                  double *scores);

#endif
