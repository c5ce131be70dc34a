/* quantize.h - from float32 to the block formats: one row at a time, and the weights of its columns.
 * The public entry, its checks and its threads are in quantize.c; blocks of 32 in blocks_32.c,
 * blocks of 256 in blocks_256.c, the searches for scales in search.h. The other direction
 * is format.c. */
#ifndef LLD_QUANTIZE_H
#define LLD_QUANTIZE_H

#include "format/format.h"
#include "quantize/search.h"

/* Quantize a row: x (n) finite float32, within the type's range; importance (n) weights >= 0 of the
 * squared errors, or NULL for equal ones; dst (n / block) blocks. */
void lld_quantize_row_32(const lld_search *search, uint32_t type, const float *x,
                         const float *importance, void *dst, size_t n);
void lld_quantize_row_256(const lld_search *search, uint32_t type, const float *x,
                          const float *importance, void *dst, size_t n);

/* w: (n) the importance over its mean, so that no sum overflows; ones when it is NULL or all 0. */
void lld_quantize_weights(const float *importance, float *w, size_t n);

/* The index of a value of lld_iq4_values. */
static inline uint8_t lld_iq4_index(int8_t value)
{
    uint8_t index = 0;
    for (int k = 0; k < 15; k++) index = (uint8_t)(index + (value > lld_iq4_values[k]));
    return index;
}

#endif
