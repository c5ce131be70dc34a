/* kv_q4.c - the NEON (armv8.0) kernels of the 4-bit KV cache: rotation, and nibbles to int8. A stage of
 * the rotation within four lanes is x plus its partner, one of the two with its sign flipped: a + (-b)
 * has the bits of a - b. */
#include "kernels/hadamard.h"
#include "kernels/neon/matmul.h"

#if defined(__aarch64__)

/* Stages 1 and 2 of four elements. */
LLD_INLINE float32x4_t within_lanes(float32x4_t x)
{
    static const uint32_t signs1[4] = {0, 0x80000000u, 0, 0x80000000u},
                          signs2[4] = {0, 0, 0x80000000u, 0x80000000u};
    const uint32x4_t sign1 = vld1q_u32(signs1), sign2 = vld1q_u32(signs2);
    float32x4_t signed_x = vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(x), sign1));
    x = vaddq_f32(vrev64q_f32(x), signed_x);
    signed_x = vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(x), sign2));
    return vaddq_f32(vextq_f32(x, x, 2), signed_x);
}

/* The stage of distance h >= 4. */
LLD_INLINE void stage(float *x, size_t block, size_t h)
{
    for (size_t first = 0; first < block; first += 2 * h)
        for (size_t i = first; i < first + h; i += 4) {
            const float32x4_t a = vld1q_f32(x + i), b = vld1q_f32(x + i + h);
            vst1q_f32(x + i, vaddq_f32(a, b));
            vst1q_f32(x + i + h, vsubq_f32(a, b));
        }
}

static void hadamard(float *x, size_t n)
{
    for (size_t block; n > 0; x += block, n -= block) {
        block = lld_hadamard_block(n);
        const float scale = lld_hadamard_scale(block);
        if (block < 4) {
            lld_hadamard_stages(x, block, 1);
            for (size_t i = 0; i < block; i++) x[i] *= scale;
            continue;
        }
        for (size_t i = 0; i < block; i += 4) vst1q_f32(x + i, within_lanes(vld1q_f32(x + i)));
        for (size_t h = 4; h < block; h *= 2) stage(x, block, h);
        for (size_t i = 0; i < block; i += 4)
            vst1q_f32(x + i, vmulq_n_f32(vld1q_f32(x + i), scale));
    }
}

static void kv_unpack_q4(int8_t *out, const uint8_t *packed, size_t n_bytes, size_t run)
{
    const uint8x16_t low = vdupq_n_u8(15);
    const int8x16_t offset = vdupq_n_s8(8);
    for (; n_bytes > 0; n_bytes -= run, packed += run, out += 2 * run) {
        size_t i = 0;
        for (; i + 16 <= run; i += 16) {
            const uint8x16_t b = vld1q_u8(packed + i);
            vst1q_s8(out + i, vsubq_s8(vreinterpretq_s8_u8(vandq_u8(b, low)), offset));
            vst1q_s8(out + run + i, vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(b, 4)), offset));
        }
        for (; i < run; i++) {
            out[i] = (int8_t)((packed[i] & 15) - 8);
            out[run + i] = (int8_t)((packed[i] >> 4) - 8);
        }
    }
}

void lld_neon_init_kv_q4(lld_kernels *table)
{
    table->hadamard = hadamard;
    table->kv_unpack_q4 = kv_unpack_q4;
}

#endif
