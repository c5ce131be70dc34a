/* hadamard.h - what the kernel sets share of the Walsh-Hadamard transform: the blocks a vector is cut
 * into, their scale, and stages over memory. */
#ifndef LLD_HADAMARD_H
#define LLD_HADAMARD_H

#include <stddef.h>

#include "base/vecmath.h"

/* Elements of the next block of n: the largest power of two in it. n >= 1. */
LLD_INLINE size_t lld_hadamard_block(size_t n)
{
    return (size_t)1 << (8 * sizeof n - 1 - (size_t)__builtin_clzl(n));
}

/* 1 / sqrt(block), rounded once from a product that is exact in double but for the root of two. */
LLD_INLINE float lld_hadamard_scale(size_t block)
{
    const int log2 = __builtin_ctzl(block);
    const double whole = 1.0 / (double)((size_t)1 << log2 / 2);
    return (float)(log2 % 2 == 0 ? whole : whole * 0.70710678118654752440);
}

/* The stages from distance h on, of x: (block). */
LLD_INLINE void lld_hadamard_stages(float *x, size_t block, size_t h)
{
    for (; h < block; h *= 2)
        for (size_t first = 0; first < block; first += 2 * h)
            for (size_t i = first; i < first + h; i++) {
                const float a = x[i], b = x[i + h];
                x[i] = a + b;
                x[i + h] = a - b;
            }
}

#endif
