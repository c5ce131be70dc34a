/* vector.c - the reference kernels on vectors, in plain C: activation quantization, norm,
 * activation function, rotation. They define what the other instruction sets must return, bit for
 * bit (kernels.h). Others: matmul.c, attention.c, state.c. */
#include "kernels/generic/generic.h"

#include <assert.h>
#include <math.h>

#include "base/vecmath.h"

/* Quantize one block x: (n) to y: (n) and return its scale. */
static float quantize_block(const float *x, size_t n, int8_t *y)
{
    float inverse, scale = lld_q8_scale(lld_max_magnitude(x, n), &inverse);
    if (inverse == 0.0f)
        memset(y, 0, n);
    else
        for (size_t i = 0; i < n; i++) y[i] = lld_q8_round(x[i] * inverse);
    return scale;
}

static void quantize_q8(const float *x, size_t n, lld_acts *acts, size_t row)
{
    assert(n <= acts->n_cols && n % LLD_QK == 0);
    const size_t first = row * (acts->n_cols / LLD_QK); /* of the row's blocks */
    for (size_t b = 0; b < n / LLD_QK; b++) {
        int8_t *y = acts->y + row * acts->y_stride + b * LLD_QK;
        float d = quantize_block(x + b * LLD_QK, LLD_QK, y);
        int32_t sum = 0;
        for (int i = 0; i < LLD_QK; i++) sum += y[i];
        acts->d[first + b] = d;
        acts->sum[first + b] = sum;
        acts->s[first + b] = d * (float)sum;
    }
}

static void quantize_q8k(const float *x, size_t n, lld_acts *acts, size_t row)
{
    assert(n <= acts->n_cols && n % LLD_QK_K == 0);
    const size_t first = row * (acts->n_cols / LLD_QK_K); /* of the row's blocks */
    for (size_t b = 0; b < n / LLD_QK_K; b++) {
        int8_t *y = acts->y + row * acts->y_stride + b * LLD_QK_K;
        int16_t *sum16 = acts->sum16 + (first + b) * (LLD_QK_K / 16);
        acts->d[first + b] = quantize_block(x + b * LLD_QK_K, LLD_QK_K, y);
        for (int j = 0; j < LLD_QK_K / 16; j++) {
            int sum = 0; /* |sum| <= 16 * 127 */
            for (int i = 16 * j; i < 16 * j + 16; i++) sum += y[i];
            sum16[j] = (int16_t)sum;
        }
    }
}

static void rmsnorm(float *out, const float *x, const float *w, size_t n, float eps)
{
    float lane[8] = {0};
    for (size_t k = 0; k < n; k++) lane[k % 8] = __builtin_fmaf(x[k], x[k], lane[k % 8]);
    const float r = 1.0f / sqrtf(lld_reduce8(lane) / (float)n + eps);
    for (size_t k = 0; k < n; k++) out[k] = (x[k] * r) * w[k];
}

static void silu_mul(float *gate, const float *up, size_t n)
{
    for (size_t k = 0; k < n; k++) gate[k] = gate[k] / (1.0f + lld_expf(-gate[k])) * up[k];
}

static void gelu_mul(float *gate, const float *up, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        const float g = gate[k], t = __builtin_fmaf(g * g, 0.07135481f, 1.5957691f);
        gate[k] = g / (1.0f + lld_expf(-(g * t))) * up[k];
    }
}

static void gelu_erf_mul(float *gate, const float *up, size_t n)
{
    for (size_t k = 0; k < n; k++) gate[k] = lld_gelu_erf(gate[k]) * up[k];
}

static void swiglu_clamped_mul(float *gate, const float *up, size_t n)
{
    for (size_t k = 0; k < n; k++) gate[k] = lld_swiglu_clamped(gate[k], up[k]);
}

static void sigmoid_mul(float *x, const float *gate, size_t n)
{
    for (size_t k = 0; k < n; k++) x[k] = x[k] / (1.0f + lld_expf(-gate[k]));
}

static void exp_below(float *x, size_t n, float most)
{
    for (size_t k = 0; k < n; k++) x[k] = lld_expf(x[k] - most);
}

static void softcap(float *x, size_t n, float limit)
{
    const float inverse = 2.0f / limit;
    for (size_t k = 0; k < n; k++) {
        const float e = lld_expf(x[k] * inverse);
        x[k] = x[k] != x[k] ? x[k] : limit * ((e - 1.0f) / (e + 1.0f));
    }
}

static void add(float *x, const float *y, size_t n)
{
    for (size_t k = 0; k < n; k++) x[k] = x[k] + y[k];
}

static void rotate(float *a, float *b, const float cos_sin[2])
{
    const float x = *a, y = *b, c = cos_sin[0], s = cos_sin[1];
    *a = __builtin_fmaf(x, c, -(y * s));
    *b = __builtin_fmaf(x, s, y * c);
}

static void rope_norm(float *x, const float *cos_sin, size_t n_rot)
{
    for (size_t i = 0; i < n_rot / 2; i++) rotate(&x[2 * i], &x[2 * i + 1], &cos_sin[2 * i]);
}

static void rope_neox(float *x, const float *cos_sin, size_t n_rot)
{
    for (size_t i = 0; i < n_rot / 2; i++) rotate(&x[i], &x[i + n_rot / 2], &cos_sin[2 * i]);
}

void lld_kernels_init_generic(lld_kernels *table)
{
    table->name = "generic";
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
    lld_kernels_init_generic_matmul(table);
    lld_kernels_init_generic_attention(table);
    lld_kernels_init_generic_kv_q4(table);
    lld_kernels_init_generic_state(table);
}
