/* vecmath.h - float expressions that every kernel file must evaluate alike, bit for bit.
 * Inline, so that each instruction set's file compiles them with its own instructions. Always
 * __builtin_fmaf where a fused step is meant: -ffp-contract=off forbids the compiler to fuse. */
#ifndef LLD_VECMATH_H
#define LLD_VECMATH_H

#include <stdint.h>
#include <string.h>

#define LLD_INLINE static inline __attribute__((always_inline, unused))

/* The fixed reduction of eight lanes. */
LLD_INLINE float lld_reduce8(const float l[8])
{
    float a0 = l[0] + l[4], a1 = l[1] + l[5], a2 = l[2] + l[6], a3 = l[3] + l[7];
    float b0 = a0 + a2, b1 = a1 + a3;
    return b0 + b1;
}

/* exp(x): 2^n * p(r), n = round(x/ln2) by the 1.5*2^23 trick, r = x - n*ln2 in two parts, p the degree-6 polynomial
 * of Cephes' expf (Moshier, netlib cephes/single/expf.c). Relative error < 3e-7 on [-87, 88].
 * Clamped: x < -87.33 gives 0, x > 88.0 is taken as 88.0. NaN is undefined: callers exclude it. */
LLD_INLINE float lld_expf(float x)
{
    float clamped = x > 88.0f ? 88.0f : x;
    clamped = clamped < -87.33f ? -87.33f : clamped;
    float t = __builtin_fmaf(clamped, 1.44269504088896341f, 12582912.0f);
    float n = t - 12582912.0f;
    float r = __builtin_fmaf(n, -0.693359375f, clamped);
    r = __builtin_fmaf(n, 2.12194440e-4f, r);
    float p = 1.9875691500e-4f;
    p = __builtin_fmaf(p, r, 1.3981999507e-3f);
    p = __builtin_fmaf(p, r, 8.3334519073e-3f);
    p = __builtin_fmaf(p, r, 4.1665795894e-2f);
    p = __builtin_fmaf(p, r, 1.6666665459e-1f);
    p = __builtin_fmaf(p, r, 5.0000001201e-1f);
    p = __builtin_fmaf(p, r * r, r + 1.0f);
    uint32_t bits;
    memcpy(&bits, &t, sizeof bits);
    bits = (bits - 0x4B400000u + 127u) << 23; /* t = 12582912 + n, so its low bits hold n */
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    float y = p * scale;
    return x < -87.33f ? 0.0f : y;
}

#endif
