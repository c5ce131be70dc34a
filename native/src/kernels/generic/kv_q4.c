/* kv_q4.c - the reference kernels of the 4-bit KV cache: rotation, store, and nibbles to the int8 that
 * q8_0's kernels read. Layouts and chains as in kernels.h. */
#include <assert.h>
#include <stdbool.h>

#include "kernels/generic/generic.h"
#include "kernels/hadamard.h"
#include "base/vecmath.h"

static void hadamard(float *x, size_t n)
{
    for (size_t block; n > 0; x += block, n -= block) {
        block = lld_hadamard_block(n);
        lld_hadamard_stages(x, block, 1);
        for (size_t i = 0; i < block; i++) x[i] *= lld_hadamard_scale(block);
    }
}

static float clamp(float x, float low, float high) { return x < low ? low : x > high ? high : x; }

/* Quantize x: (n), n <= 32, to level[i * step] in 0..15; returns the scale as f16. */
static uint16_t quantize_group(const float *x, size_t n, uint8_t *level)
{
    float largest = 0.0f, inverse = 0.0f, scale = 0.0f;
    const bool finite = lld_max_magnitude(x, n) < 0x7F800000u;
    for (size_t i = 0; i < n; i++)
        if (__builtin_fabsf(x[i]) > __builtin_fabsf(largest)) largest = x[i];
    const uint16_t half =
        lld_f32_to_f16(finite ? clamp(largest / -8.0f, -65504.0f, 65504.0f) : __builtin_nanf(""));
    if (finite) scale = lld_f16_to_f32(half);
    if (scale != 0.0f) inverse = 1.0f / scale;
    for (size_t i = 0; i < n; i++)
        level[i] =
            inverse == 0.0f ? 8 : (uint8_t)(lld_q8_round(clamp(x[i] * inverse, -8.0f, 7.0f)) + 8);
    return half;
}

static void kv_store_q4(uint8_t *k_block, uint16_t *kd, uint8_t *v_block, uint16_t *vd, size_t slot,
                        const float *k, const float *v, size_t head_dim)
{
    assert(slot < LLD_KV_BLOCK && head_dim % 2 == 0 && head_dim <= LLD_KV_MAX_DIM);
    const size_t n_groups = (head_dim + LLD_QK - 1) / LLD_QK, half = head_dim / 2;
    uint8_t keys[LLD_KV_MAX_DIM], values[LLD_KV_MAX_DIM];
    for (size_t g = 0; g < n_groups; g++) {
        const size_t first = g * LLD_QK, n = head_dim - first < LLD_QK ? head_dim - first : LLD_QK;
        kd[g * LLD_KV_BLOCK + slot] = quantize_group(k + first, n, keys + first);
        vd[slot * n_groups + g] = quantize_group(v + first, n, values + first);
    }
    for (size_t i = 0; i < half; i++) {
        k_block[i * LLD_KV_BLOCK + slot] = (uint8_t)(keys[2 * i] | keys[2 * i + 1] << 4);
        v_block[slot * half + i] = (uint8_t)(values[i] | values[half + i] << 4);
    }
}

static void kv_unpack_q4(int8_t *out, const uint8_t *packed, size_t n_bytes, size_t run)
{
    assert(n_bytes % run == 0);
    for (size_t first = 0; first < n_bytes; first += run)
        for (size_t i = 0; i < run; i++) {
            out[2 * first + i] = (int8_t)((packed[first + i] & 15) - 8);
            out[2 * first + run + i] = (int8_t)((packed[first + i] >> 4) - 8);
        }
}

void lld_kernels_init_generic_kv_q4(lld_kernels *table)
{
    table->hadamard = hadamard;
    table->kv_store_q4 = kv_store_q4;
    table->kv_unpack_q4 = kv_unpack_q4;
}
