/* search.h - scales and offsets for a few weights that share them.
 *
 * A group of n = 16 or 32 weights x with importance w is to become x ~ scale*q + offset, q one of a
 * format's levels, with the least sum of w*(x - scale*q - offset)^2. The searches try
 * LLD_SEARCH_LANES candidates side by side, one a SIMD lane, so that plain C vectorizes without
 * reordering a sum: every set of functions below, and every machine, computes the same bytes.
 * Knows no block layout: blocks_256.c and blocks_32.c do. */
#ifndef LLD_QUANTIZE_SEARCH_H
#define LLD_QUANTIZE_SEARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { LLD_SEARCH_LANES = 16, LLD_SEARCH_MAX = 32 };

/* What q may be: every integer from lo to hi, or the 16 ascending values of a table. */
typedef struct lld_levels {
    float lo, hi;
    const int8_t *table; /* (16) or NULL */
} lld_levels;

typedef struct lld_fit {
    float scale, offset;
} lld_fit;

/* Fits to choose among. A scale of 0 makes every q the level nearest 0. */
typedef struct lld_fit_candidates {
    float scale[LLD_SEARCH_LANES], offset[LLD_SEARCH_LANES];
} lld_fit_candidates;

/* The searches as compiled for one instruction set. */
typedef struct lld_search {
    /* Scale of either sign, no offset. 0 when all x are too small for a float16 scale. */
    float (*scale)(const float *x, const float *w, size_t n, const lld_levels *levels);

    /* Scale >= 0 and offset, for integer levels from 0. any_offset: else it is at most 0. */
    lld_fit (*affine)(const float *x, const float *w, size_t n, const lld_levels *levels,
                      bool any_offset);

    /* The lane with the least error, the first of equals; *error: its weighted squared error. */
    size_t (*choose)(const float *x, const float *w, size_t n, const lld_levels *levels,
                     const lld_fit_candidates *candidates, float *error);

    /* q: (n) the nearest level of each weight under a fit. */
    void (*levels)(const float *x, size_t n, const lld_levels *levels, lld_fit fit, int8_t *q);
} lld_search;

extern const lld_search lld_search_generic;
extern const lld_search lld_search_avx2; /* x86-64 only */

/* The fastest set among those of lld_cpu_select's flags. */
const lld_search *lld_search_select(uint32_t cpu_flags);

/* Round |x| < 2^22 to the nearest integer, ties to even: adding 1.5 * 2^23 leaves no fraction bits. */
static inline float lld_round_small(float x) { return (x + 0x1.8p23f) - 0x1.8p23f; }

#endif
