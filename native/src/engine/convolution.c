/* convolution.c - see convolution.h. */
#include "engine/convolution.h"

#include <string.h>

void lld_convolution_begin(lld_convolution *c, const float *weights, uint32_t width, size_t first,
                           size_t n)
{
    c->width = width;
    c->n = (uint32_t)n;
    for (uint32_t j = 0; j < width; j++)
        for (size_t i = 0; i < n; i++) c->w[j][i] = weights[(first + i) * width + j];
}

void lld_convolution_load(lld_convolution *c, const float *state, size_t first, size_t n_channels)
{
    for (uint32_t j = 0; j + 1 < c->width; j++) {
        if (state == NULL)
            memset(c->x[j], 0, c->n * sizeof(float));
        else
            memcpy(c->x[j], state + j * n_channels + first, c->n * sizeof(float));
    }
}

void lld_convolution_store(const lld_convolution *c, float *state, size_t first, size_t n_channels)
{
    for (uint32_t j = 0; j + 1 < c->width; j++)
        memcpy(state + j * n_channels + first, c->x[j], c->n * sizeof(float));
}

void lld_convolution_row(lld_convolution *c, const float *x, float *out)
{
    const uint32_t n = c->n, last = c->width - 1;
    float sum[LLD_CONV_CHANNELS], input[LLD_CONV_CHANNELS];
    memcpy(input, x, n * sizeof *x);
    for (uint32_t i = 0; i < n; i++) sum[i] = c->w[0][i] * c->x[0][i];
    for (uint32_t j = 1; j < last; j++)
        for (uint32_t i = 0; i < n; i++) sum[i] += c->w[j][i] * c->x[j][i];
    for (uint32_t i = 0; i < n; i++) out[i] = sum[i] + c->w[last][i] * input[i];
    memmove(c->x[0], c->x[1], (last - 1) * sizeof c->x[0]);
    memcpy(c->x[last - 1], input, n * sizeof *input);
}
