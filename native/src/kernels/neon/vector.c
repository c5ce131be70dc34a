/* vector.c - the NEON (armv8.0) dispatch table, and its kernels on vectors: activation
 * quantization, norm, activation function, rotation. Chains as in kernels.h, tails in the scalar
 * code of vecmath.h. Matmuls: matmul_*.c; attention: attention.c;
 * states: state.c. */
#include "kernels/kernels.h"

#if defined(__aarch64__)

#include <math.h>

#include "kernels/neon/matmul.h"
#include "kernels/neon/simd.h"

static void quantize_q8(const float *x, size_t n, lld_acts *acts, size_t row)
{
    size_t first = row * (acts->n_cols / LLD_QK);
    for (size_t b = 0; b < n / LLD_QK; b++) {
        int8_t *y = acts->y + row * acts->y_stride + b * LLD_QK;
        float d = lld_neon_quantize(x + b * LLD_QK, LLD_QK, y);
        int32_t sum = vaddlvq_s8(vld1q_s8(y)) + vaddlvq_s8(vld1q_s8(y + 16));
        acts->d[first + b] = d;
        acts->sum[first + b] = sum;
        acts->s[first + b] = d * (float)sum;
    }
}

static void quantize_q8k(const float *x, size_t n, lld_acts *acts, size_t row)
{
    size_t first = row * (acts->n_cols / LLD_QK_K);
    for (size_t b = 0; b < n / LLD_QK_K; b++) {
        int8_t *y = acts->y + row * acts->y_stride + b * LLD_QK_K;
        int16_t *sum16 = acts->sum16 + (first + b) * (LLD_QK_K / 16);
        acts->d[first + b] = lld_neon_quantize(x + b * LLD_QK_K, LLD_QK_K, y);
        for (int j = 0; j < LLD_QK_K / 16; j++) sum16[j] = vaddlvq_s8(vld1q_s8(y + 16 * j));
    }
}

static float sum_of_squares(const float *x, size_t n)
{
    float32x4_t low = vdupq_n_f32(0.0f), high = low;
    float lanes[8];
    size_t k = 0;
    for (; k + 8 <= n; k += 8) {
        float32x4_t a = vld1q_f32(x + k), b = vld1q_f32(x + k + 4);
        low = vfmaq_f32(low, a, a);
        high = vfmaq_f32(high, b, b);
    }
    vst1q_f32(lanes, low);
    vst1q_f32(lanes + 4, high);
    for (; k < n; k++) lanes[k % 8] = __builtin_fmaf(x[k], x[k], lanes[k % 8]);
    return lld_reduce8(lanes);
}

static void rmsnorm(float *out, const float *x, const float *w, size_t n, float eps)
{
    float r = 1.0f / sqrtf(sum_of_squares(x, n) / (float)n + eps);
    size_t k = 0;
    for (; k + 4 <= n; k += 4)
        vst1q_f32(out + k, vmulq_f32(vmulq_n_f32(vld1q_f32(x + k), r), vld1q_f32(w + k)));
    for (; k < n; k++) out[k] = (x[k] * r) * w[k];
}

static void silu_mul(float *gate, const float *up, size_t n)
{
    size_t k = 0;
    for (; k + 4 <= n; k += 4) {
        float32x4_t g = vld1q_f32(gate + k);
        float32x4_t divisor = vaddq_f32(vdupq_n_f32(1.0f), lld_neon_expf(vnegq_f32(g)));
        vst1q_f32(gate + k, vmulq_f32(vdivq_f32(g, divisor), vld1q_f32(up + k)));
    }
    for (; k < n; k++) gate[k] = gate[k] / (1.0f + lld_expf(-gate[k])) * up[k];
}

static void gelu_mul(float *gate, const float *up, size_t n)
{
    size_t k = 0;
    for (; k + 4 <= n; k += 4) {
        float32x4_t g = vld1q_f32(gate + k);
        float32x4_t t =
            vfmaq_f32(vdupq_n_f32(1.5957691f), vmulq_f32(g, g), vdupq_n_f32(0.07135481f));
        float32x4_t e = lld_neon_expf(vnegq_f32(vmulq_f32(g, t)));
        float32x4_t gelu = vdivq_f32(g, vaddq_f32(vdupq_n_f32(1.0f), e));
        vst1q_f32(gate + k, vmulq_f32(gelu, vld1q_f32(up + k)));
    }
    for (; k < n; k++) {
        const float g = gate[k], t = __builtin_fmaf(g * g, 0.07135481f, 1.5957691f);
        gate[k] = g / (1.0f + lld_expf(-(g * t))) * up[k];
    }
}

static void gelu_erf_mul(float *gate, const float *up, size_t n)
{
    const float32x4_t one = vdupq_n_f32(1.0f);
    const float terms[] = {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f};
    size_t k = 0;
    for (; k + 4 <= n; k += 4) {
        float32x4_t g = vld1q_f32(gate + k), x = vmulq_n_f32(vabsq_f32(g), 0.70710678f);
        float32x4_t t = vdivq_f32(one, vaddq_f32(one, vmulq_n_f32(x, 0.3275911f)));
        float32x4_t p = vdupq_n_f32(1.061405429f);
        for (int i = 0; i < 4; i++) p = vaddq_f32(vmulq_f32(p, t), vdupq_n_f32(terms[i]));
        float32x4_t half = vmulq_n_f32(vmulq_f32(p, t), 0.5f);
        float32x4_t tail = vmulq_f32(half, lld_neon_expf(vnegq_f32(vmulq_f32(x, x))));
        float32x4_t share = vbslq_f32(vcltzq_f32(g), tail, vsubq_f32(one, tail));
        vst1q_f32(gate + k, vmulq_f32(vmulq_f32(g, share), vld1q_f32(up + k)));
    }
    for (; k < n; k++) gate[k] = lld_gelu_erf(gate[k]) * up[k];
}

static void swiglu_clamped_mul(float *gate, const float *up, size_t n)
{
    const float32x4_t one = vdupq_n_f32(1.0f), limit = vdupq_n_f32(7.0f);
    size_t k = 0;
    for (; k + 4 <= n; k += 4) {
        float32x4_t g = vminq_f32(vld1q_f32(gate + k), limit);
        float32x4_t u = vmaxq_f32(vminq_f32(vld1q_f32(up + k), limit), vnegq_f32(limit));
        float32x4_t divisor = vaddq_f32(one, lld_neon_expf(vmulq_n_f32(g, -1.702f)));
        vst1q_f32(gate + k, vmulq_f32(vdivq_f32(g, divisor), vaddq_f32(u, one)));
    }
    for (; k < n; k++) gate[k] = lld_swiglu_clamped(gate[k], up[k]);
}

static void sigmoid_mul(float *x, const float *gate, size_t n)
{
    size_t k = 0;
    for (; k + 4 <= n; k += 4) {
        float32x4_t e = lld_neon_expf(vnegq_f32(vld1q_f32(gate + k)));
        vst1q_f32(x + k, vdivq_f32(vld1q_f32(x + k), vaddq_f32(vdupq_n_f32(1.0f), e)));
    }
    for (; k < n; k++) x[k] = x[k] / (1.0f + lld_expf(-gate[k]));
}

static void exp_below(float *x, size_t n, float most)
{
    size_t k = 0;
    for (; k + 4 <= n; k += 4)
        vst1q_f32(x + k, lld_neon_expf(vsubq_f32(vld1q_f32(x + k), vdupq_n_f32(most))));
    for (; k < n; k++) x[k] = lld_expf(x[k] - most);
}

static void softcap(float *x, size_t n, float limit)
{
    const float inverse = 2.0f / limit;
    const float32x4_t one = vdupq_n_f32(1.0f);
    size_t k = 0;
    for (; k + 4 <= n; k += 4) {
        float32x4_t v = vld1q_f32(x + k), e = lld_neon_expf(vmulq_n_f32(v, inverse));
        float32x4_t tanh = vdivq_f32(vsubq_f32(e, one), vaddq_f32(e, one));
        vst1q_f32(x + k, vbslq_f32(vceqq_f32(v, v), vmulq_n_f32(tanh, limit), v));
    }
    for (; k < n; k++) {
        const float e = lld_expf(x[k] * inverse);
        x[k] = x[k] != x[k] ? x[k] : limit * ((e - 1.0f) / (e + 1.0f));
    }
}

static void add(float *x, const float *y, size_t n)
{
    size_t k = 0;
    for (; k + 4 <= n; k += 4) vst1q_f32(x + k, vaddq_f32(vld1q_f32(x + k), vld1q_f32(y + k)));
    for (; k < n; k++) x[k] = x[k] + y[k];
}

/* Rotate the pairs (a, b) by cs = (cos, sin). */
LLD_INLINE void rotate_4(float32x4_t *a, float32x4_t *b, float32x4x2_t cs)
{
    float32x4_t x = *a, y = *b;
    *a = vfmaq_f32(vnegq_f32(vmulq_f32(y, cs.val[1])), x, cs.val[0]);
    *b = vfmaq_f32(vmulq_f32(y, cs.val[0]), x, cs.val[1]);
}

LLD_INLINE void rotate_1(float *a, float *b, const float cs[2])
{
    float x = *a, y = *b;
    *a = __builtin_fmaf(x, cs[0], -(y * cs[1]));
    *b = __builtin_fmaf(x, cs[1], y * cs[0]);
}

static void rope_norm(float *x, const float *cos_sin, size_t n_rot)
{
    size_t i = 0;
    for (; i + 4 <= n_rot / 2; i += 4) {
        float32x4x2_t pair = vld2q_f32(x + 2 * i);
        rotate_4(&pair.val[0], &pair.val[1], vld2q_f32(cos_sin + 2 * i));
        vst2q_f32(x + 2 * i, pair);
    }
    for (; i < n_rot / 2; i++) rotate_1(x + 2 * i, x + 2 * i + 1, cos_sin + 2 * i);
}

static void rope_neox(float *x, const float *cos_sin, size_t n_rot)
{
    size_t half = n_rot / 2, i = 0;
    for (; i + 4 <= half; i += 4) {
        float32x4_t a = vld1q_f32(x + i), b = vld1q_f32(x + half + i);
        rotate_4(&a, &b, vld2q_f32(cos_sin + 2 * i));
        vst1q_f32(x + i, a);
        vst1q_f32(x + half + i, b);
    }
    for (; i < half; i++) rotate_1(x + i, x + half + i, cos_sin + 2 * i);
}

void lld_kernels_init_neon(lld_kernels *table)
{
    table->name = "neon";
    table->quantize_q8 = quantize_q8;
    table->quantize_q8k = quantize_q8k;
    table->rmsnorm = rmsnorm;
    table->silu_mul = silu_mul;
    table->gelu_mul = gelu_mul;
    table->gelu_erf_mul = gelu_erf_mul;
    table->swiglu_clamped_mul = swiglu_clamped_mul;
    table->sigmoid_mul = sigmoid_mul;
    table->exp_below = exp_below;
    table->softcap = softcap;
    table->add = add;
    table->rope_norm = rope_norm;
    table->rope_neox = rope_neox;
    lld_neon_init_attn(table);
    lld_neon_init_kv_q4(table);
    lld_neon_init_state(table);
    lld_neon_init_blocks(table);
    lld_neon_init_k(table);
    lld_neon_init_bits(table);
    lld_neon_init_floats(table);
}

#endif
