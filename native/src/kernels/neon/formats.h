/* formats.h - the block formats that NEON multiplies, and dotprod with it: one line each. How their
 * bytes become integers is in unpack.h, unpack_k.h and unpack_grids.h. */
#ifndef LLD_NEON_FORMATS_H
#define LLD_NEON_FORMATS_H

#if defined(__aarch64__)

#include "kernels/neon/unpack.h"
#include "kernels/neon/unpack_grids.h"
#include "kernels/neon/unpack_k.h"

/* A line makes the constant lld_neon_<function> and the format's products: name and function as in the
 * list of formats; block; then what the constant has besides its defaults. A format of the list without
 * a line here is multiplied by generic C. */
/* clang-format off */
#define LLD_NEON_FORMATS(X) \
    X(Q4_0,   q4_0,    32, .offset = -8) \
    X(Q4_1,   q4_1,    32, .has_min = true) \
    X(Q5_0,   q5_0,    32, .offset = 0) \
    X(Q5_1,   q5_1,    32, .offset = 16, .has_min = true) \
    X(Q8_0,   q8_0,    32, .wide = true) \
    X(IQ4_NL, iq4_nl,  32, .wide = true) \
    X(Q2_K,   q2_k,   256, .sub_16 = true, .has_min = true) \
    X(Q3_K,   q3_k,   256, .sub_16 = true) \
    X(Q4_K,   q4_k,   256, .has_min = true) \
    X(Q5_K,   q5_k,   256, .offset = 16, .has_min = true) \
    X(Q6_K,   q6_k,   256, .sub_16 = true) \
    X(IQ4_XS, iq4_xs, 256, .wide = true) \
    X(MXFP4,  mxfp4,   32, .exponent = true) \
    X(IQ2_XXS, iq2_xxs, 256, .grid = true, .middle = true, .unit = 0.125f) \
    X(IQ2_XS,  iq2_xs,  256, .grid = true, .middle = true, .unit = 0.125f, .sub_16 = true) \
    X(IQ2_S,   iq2_s,   256, .grid = true, .middle = true, .unit = 0.125f, .sub_16 = true) \
    X(IQ3_XXS, iq3_xxs, 256, .grid = true, .middle = true, .unit = 0.25f) \
    X(IQ3_S,   iq3_s,   256, .grid = true)
/* clang-format on */

#define LLD_NEON_CONSTANT(name, function, block, ...)                                              \
    static const lld_neon_format##block lld_neon_##function = {                                    \
        LLD_NEON_DEFAULTS_##block(function), __VA_ARGS__};
#define LLD_NEON_DEFAULTS_32(function)                                                             \
    .bytes = sizeof(lld_block_##function), .unpack = lld_neon_unpack_##function
#define LLD_NEON_DEFAULTS_256(function)                                                            \
    .bytes = sizeof(lld_block_##function), .d_at = offsetof(lld_block_##function, d),              \
    .unpack = lld_neon_unpack_##function, .scales = lld_neon_scales_##function
LLD_NEON_FORMATS(LLD_NEON_CONSTANT)

#endif
#endif
