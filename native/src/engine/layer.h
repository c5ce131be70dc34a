/* layer.h - one layer of a forward: its six phases, as forward.h lists them. Functions that take
 * `thread` run on all threads at once. */
#ifndef LLD_LAYER_H
#define LLD_LAYER_H

#include "engine/product.h"

/* Run the phases of a layer. No barrier follows the last one: the caller's does. */
void lld_layer_run(lld_forward *forward, unsigned thread, const lld_layer *layer, uint32_t index);

/* An lld_make_row_fn: row `row` of the residual stream, normalized. */
void lld_normed_row(lld_forward *forward, size_t row, const float *weight, float *values);

#endif
