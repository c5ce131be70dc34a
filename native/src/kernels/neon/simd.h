/* simd.h - float expressions of vecmath.h, four lanes at a time, with the same bits; and the
 * quantizer that activations and the KV cache share. */
#ifndef LLD_SIMD_NEON_H
#define LLD_SIMD_NEON_H

#if defined(__aarch64__)

#include <arm_neon.h>

#include "base/vecmath.h"

/* lld_expf of each lane. */
LLD_INLINE float32x4_t lld_neon_expf(float32x4_t x)
{
    float32x4_t top = vdupq_n_f32(88.0f), bottom = vdupq_n_f32(-87.33f), one = vdupq_n_f32(1.0f);
    float32x4_t clamped = vbslq_f32(vcgtq_f32(x, top), top, x);
    clamped = vbslq_f32(vcltq_f32(clamped, bottom), bottom, clamped);
    float32x4_t magic = vdupq_n_f32(12582912.0f);
    float32x4_t t = vfmaq_f32(magic, clamped, vdupq_n_f32(1.44269504088896341f));
    float32x4_t n = vsubq_f32(t, magic);
    float32x4_t r = vfmaq_f32(clamped, n, vdupq_n_f32(-0.693359375f));
    r = vfmaq_f32(r, n, vdupq_n_f32(2.12194440e-4f));
    float32x4_t p = vdupq_n_f32(1.9875691500e-4f);
    p = vfmaq_f32(vdupq_n_f32(1.3981999507e-3f), p, r);
    p = vfmaq_f32(vdupq_n_f32(8.3334519073e-3f), p, r);
    p = vfmaq_f32(vdupq_n_f32(4.1665795894e-2f), p, r);
    p = vfmaq_f32(vdupq_n_f32(1.6666665459e-1f), p, r);
    p = vfmaq_f32(vdupq_n_f32(5.0000001201e-1f), p, r);
    p = vfmaq_f32(vaddq_f32(r, one), p, vmulq_f32(r, r));
    uint32x4_t bits = vaddq_u32(vreinterpretq_u32_f32(t), vdupq_n_u32(127u - 0x4B400000u));
    float32x4_t y = vmulq_f32(p, vreinterpretq_f32_u32(vshlq_n_u32(bits, 23)));
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(y), vcltq_f32(x, bottom)));
}

/* lld_max_magnitude, n a multiple of 4. */
LLD_INLINE uint32_t lld_neon_max_magnitude(const float *x, size_t n)
{
    uint32x4_t max = vdupq_n_u32(0), magnitude = vdupq_n_u32(0x7FFFFFFF);
    for (size_t i = 0; i < n; i += 4)
        max = vmaxq_u32(max, vandq_u32(vreinterpretq_u32_f32(vld1q_f32(x + i)), magnitude));
    return vmaxvq_u32(max);
}

/* Sixteen values times `inverse`, rounded to nearest even. */
LLD_INLINE int8x16_t lld_neon_round_16(const float *x, float inverse)
{
    int16x4_t part[4];
    for (int i = 0; i < 4; i++)
        part[i] = vmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 4 * i), inverse)));
    return vcombine_s8(vmovn_s16(vcombine_s16(part[0], part[1])),
                       vmovn_s16(vcombine_s16(part[2], part[3])));
}

/* Quantize x: (n), n a multiple of 16, to y as kernels.h says, and return the scale. */
LLD_INLINE float lld_neon_quantize(const float *x, size_t n, int8_t *y)
{
    float inverse, scale = lld_q8_scale(lld_neon_max_magnitude(x, n), &inverse);
    for (size_t i = 0; i < n; i += 16)
        vst1q_s8(y + i, inverse == 0.0f ? vdupq_n_s8(0) : lld_neon_round_16(x + i, inverse));
    return scale;
}

#endif
#endif
