/* convolution.h - causal convolution of every channel over the tokens of a sequence, a row at a time.
 *
 * out_t = sum over j of w[j] * x_(t - width + 1 + j): products are rounded, then added in the order of
 * j, so the bits do not depend on how rows are cut into runs. What it remembers of the rows before are
 * its last width - 1 inputs: (width - 1, n_channels) floats of a state, the oldest first. */
#ifndef LLD_CONVOLUTION_H
#define LLD_CONVOLUTION_H

#include <stddef.h>
#include <stdint.h>

#include "model/config.h"

enum { LLD_CONV_CHANNELS = 256 }; /* that one unit takes */

/* At most LLD_CONV_CHANNELS consecutive channels on their way over the rows. */
typedef struct lld_convolution {
    uint32_t width, n; /* n: channels */
    float w[LLD_MAX_CONV_WIDTH][LLD_CONV_CHANNELS];
    float x[LLD_MAX_CONV_WIDTH - 1][LLD_CONV_CHANNELS]; /* the inputs before, oldest first */
} lld_convolution;

/* Take channels [first, first + n). weights: (n_channels, width). */
void lld_convolution_begin(lld_convolution *c, const float *weights, uint32_t width, size_t first,
                           size_t n);
/* Take, or leave, the inputs of these channels in a state: (width - 1, n_channels). NULL: zeros. */
void lld_convolution_load(lld_convolution *c, const float *state, size_t first, size_t n_channels);
void lld_convolution_store(const lld_convolution *c, float *state, size_t first, size_t n_channels);
/* The next row: x, out: (n), which may be the same. */
void lld_convolution_row(lld_convolution *c, const float *x, float *out);

#endif
