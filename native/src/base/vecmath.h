/* vecmath.h - float expressions that every kernel file must evaluate alike, bit for bit: reduction,
 * exp, the scale and rounding of int8 activations. Inline, so that each instruction set's file
 * compiles them with its own instructions. Always __builtin_fmaf where a fused step is meant:
 * -ffp-contract=off forbids the compiler to fuse. */
#ifndef LLD_VECMATH_H
#define LLD_VECMATH_H

#include <stddef.h>
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

/* exp(x): 2^n * p(r), n = round(x/ln2) by the 1.5*2^23 trick, r = x - n*ln2 in two parts, p the
 * degree-6 polynomial of Cephes' expf (Moshier, netlib cephes/single/expf.c). Relative error < 3e-7
 * on [-87, 88].
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

/* Of kernels.h: gelu_erf_mul without `up`. */
LLD_INLINE float lld_gelu_erf(float g)
{
    const float x = (g < 0.0f ? -g : g) * 0.70710678f;
    const float t = 1.0f / (1.0f + 0.3275911f * x);
    float p = 1.061405429f * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = (p * t + 0.254829592f) * t;
    const float tail = 0.5f * p * lld_expf(-(x * x)); /* of the normal distribution */
    return g * (g < 0.0f ? tail : 1.0f - tail);
}

/* Of kernels.h: swiglu_clamped_mul. */
LLD_INLINE float lld_swiglu_clamped(float gate, float up)
{
    const float limit = 7.0f, slope = 1.702f;
    const float g = gate > limit ? limit : gate;
    const float u = up > limit ? limit : up < -limit ? -limit : up;
    return g / (1.0f + lld_expf(-slope * g)) * (u + 1.0f);
}

/* max|x| over x: (n) as the bits of a float: above 0x7F800000 (infinity) where any x is NaN.
 * Comparing the bits as integers orders magnitudes as floats do, and NaN above all. */
LLD_INLINE uint32_t lld_max_magnitude(const float *x, size_t n)
{
    uint32_t max = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits &= 0x7FFFFFFFu;
        max = bits > max ? bits : max;
    }
    return max;
}

/* The scale of an int8 block whose max|x| has the bits `magnitude`. *inverse is the factor for
 * lld_q8_round, or 0 where all y are 0 (x tiny, infinite or NaN; x * 0 is then not to be used). */
LLD_INLINE float lld_q8_scale(uint32_t magnitude, float *inverse)
{
    *inverse = 0.0f;
    if (magnitude >= 0x7F800000u) return __builtin_nanf("");
    float amax;
    memcpy(&amax, &magnitude, sizeof amax);
    if (amax < 1e-30f) return 0.0f;
    *inverse = 127.0f / amax;
    return amax / 127.0f;
}

/* Round to nearest even by the 1.5*2^23 trick; |x| <= 127.5. */
LLD_INLINE int8_t lld_q8_round(float x) { return (int8_t)(x + 12582912.0f - 12582912.0f); }

#endif
