/* vector.c - the AVX2 kernels on vectors: activation quantization, norm, activation function,
 * rotation; and the entry that joins the set. Lane i of a vector is element i: the arithmetic of
 * each element is the chain of kernels.h, unchanged. Matmuls and attention: matmul.c,
 * attention.c. */
#ifdef __x86_64__

#include <assert.h>
#include <math.h>

#include "kernels/avx2/avx2.h"
#include "kernels/avx2/simd.h"
#include "base/vecmath.h"

/* ---- quantization ------------------------------------------------------------------------ */

/* max|x| over n = 32 or 256 elements as float bits, which order like unsigned integers. */
LLD_AVX2_INLINE uint32_t max_magnitude(const float *x, size_t n)
{
    const __m256i magnitude = _mm256_set1_epi32(0x7FFFFFFF);
    __m256i max = _mm256_setzero_si256();
    for (size_t i = 0; i < n; i += 8)
        max = _mm256_max_epu32(max, _mm256_and_si256(lld_load256(x + i), magnitude));
    __m128i half = _mm_max_epu32(_mm256_castsi256_si128(max), _mm256_extracti128_si256(max, 1));
    half = _mm_max_epu32(half, _mm_unpackhi_epi64(half, half));
    half = _mm_max_epu32(half, _mm_srli_epi64(half, 32));
    return (uint32_t)_mm_cvtsi128_si32(half);
}

/* 32 elements times `inverse`, rounded to nearest even (lld_q8_round). */
LLD_AVX2_INLINE __m256i round_to_int8(const float *x, float inverse)
{
    const __m256 factor = _mm256_set1_ps(inverse);
    __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), factor));
    __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8), factor));
    __m256i c = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 16), factor));
    __m256i d = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 24), factor));
    __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

LLD_AVX2_INLINE __m256i pair_sums(__m256i y)
{
    return _mm256_maddubs_epi16(_mm256_set1_epi8(1), y);
}

LLD_AVX2_INLINE int32_t sum_bytes(__m256i y)
{
    __m256i sums = _mm256_madd_epi16(pair_sums(y), _mm256_set1_epi16(1));
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    half = _mm_add_epi32(half, _mm_unpackhi_epi64(half, half));
    half = _mm_add_epi32(half, _mm_srli_epi64(half, 32));
    return _mm_cvtsi128_si32(half);
}

LLD_AVX2 static void quantize_q8(const float *x, size_t n, lld_acts *acts, size_t row)
{
    const size_t first_block = row * (acts->n_cols / LLD_QK);
    assert(n % LLD_QK == 0);
    for (size_t b = 0; b < n / LLD_QK; b++, x += LLD_QK) {
        float inverse, d = lld_q8_scale(max_magnitude(x, LLD_QK), &inverse);
        __m256i y = inverse == 0.0f ? _mm256_setzero_si256() : round_to_int8(x, inverse);
        const int32_t sum = sum_bytes(y);
        _mm256_storeu_si256((__m256i *)(acts->y + row * acts->y_stride + b * LLD_QK), y);
        acts->d[first_block + b] = d;
        acts->sum[first_block + b] = sum;
        acts->s[first_block + b] = d * (float)sum;
    }
}

/* The sums of sixteen elements each of 256 y. Three levels of pairwise additions leave sums of the
 * low halves (even sixteens) in the low half of the vector, of the high halves (odd) in the high
 * one. */
LLD_AVX2_INLINE void store_sums16(int16_t *sum16, const __m256i y[8])
{
    __m256i s[4];
    for (int i = 0; i < 4; i++)
        s[i] = _mm256_hadd_epi16(pair_sums(y[2 * i]), pair_sums(y[2 * i + 1]));
    __m256i all = _mm256_hadd_epi16(_mm256_hadd_epi16(s[0], s[1]), _mm256_hadd_epi16(s[2], s[3]));
    __m128i even = _mm256_castsi256_si128(all), odd = _mm256_extracti128_si256(all, 1);
    _mm_storeu_si128((__m128i *)sum16, _mm_unpacklo_epi16(even, odd));
    _mm_storeu_si128((__m128i *)(sum16 + 8), _mm_unpackhi_epi16(even, odd));
}

LLD_AVX2 static void quantize_q8k(const float *x, size_t n, lld_acts *acts, size_t row)
{
    const size_t first_block = row * (acts->n_cols / LLD_QK_K);
    assert(n % LLD_QK_K == 0);
    for (size_t b = 0; b < n / LLD_QK_K; b++, x += LLD_QK_K) {
        int8_t *bytes = acts->y + row * acts->y_stride + b * LLD_QK_K;
        float inverse, d = lld_q8_scale(max_magnitude(x, LLD_QK_K), &inverse);
        __m256i y[8];
        for (int i = 0; i < 8; i++) {
            y[i] = inverse == 0.0f ? _mm256_setzero_si256() : round_to_int8(x + 32 * i, inverse);
            _mm256_storeu_si256((__m256i *)(bytes + 32 * i), y[i]);
        }
        acts->d[first_block + b] = d;
        store_sums16(acts->sum16 + (first_block + b) * (LLD_QK_K / 16), y);
    }
}

/* ---- elementwise ------------------------------------------------------------------------- */

LLD_AVX2 static void rmsnorm(float *out, const float *x, const float *w, size_t n, float eps)
{
    __m256 squares = _mm256_setzero_ps();
    for (size_t k = 0; k < n; k += 8) { /* a missing lane adds 0 * 0 to a sum that is never -0 */
        __m256 v = lld_load_lanes(x + k, n - k);
        squares = _mm256_fmadd_ps(v, v, squares);
    }
    const __m256 r = _mm256_set1_ps(1.0f / sqrtf(lld_reduce_lanes(squares) / (float)n + eps));
    for (size_t k = 0; k < n; k += 8) {
        __m256 v = _mm256_mul_ps(lld_load_lanes(x + k, n - k), r);
        lld_store_lanes(out + k, _mm256_mul_ps(v, lld_load_lanes(w + k, n - k)), n - k);
    }
}

LLD_AVX2 static void silu_mul(float *gate, const float *up, size_t n)
{
    const __m256 one = _mm256_set1_ps(1.0f), sign = _mm256_set1_ps(-0.0f);
    for (size_t k = 0; k < n; k += 8) {
        __m256 g = lld_load_lanes(gate + k, n - k);
        __m256 e = lld_expf_lanes(_mm256_xor_ps(g, sign));
        __m256 silu = _mm256_div_ps(g, _mm256_add_ps(one, e));
        lld_store_lanes(gate + k, _mm256_mul_ps(silu, lld_load_lanes(up + k, n - k)), n - k);
    }
}

LLD_AVX2 static void gelu_mul(float *gate, const float *up, size_t n)
{
    const __m256 one = _mm256_set1_ps(1.0f), sign = _mm256_set1_ps(-0.0f);
    const __m256 cube = _mm256_set1_ps(0.07135481f), linear = _mm256_set1_ps(1.5957691f);
    for (size_t k = 0; k < n; k += 8) {
        __m256 g = lld_load_lanes(gate + k, n - k);
        __m256 t = _mm256_fmadd_ps(_mm256_mul_ps(g, g), cube, linear);
        __m256 e = lld_expf_lanes(_mm256_xor_ps(_mm256_mul_ps(g, t), sign));
        __m256 gelu = _mm256_div_ps(g, _mm256_add_ps(one, e));
        lld_store_lanes(gate + k, _mm256_mul_ps(gelu, lld_load_lanes(up + k, n - k)), n - k);
    }
}

LLD_AVX2 static void gelu_erf_mul(float *gate, const float *up, size_t n)
{
    const __m256 one = _mm256_set1_ps(1.0f), sign = _mm256_set1_ps(-0.0f);
    const float terms[] = {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f};
    for (size_t k = 0; k < n; k += 8) {
        __m256 g = lld_load_lanes(gate + k, n - k);
        __m256 x = _mm256_mul_ps(_mm256_andnot_ps(sign, g), _mm256_set1_ps(0.70710678f));
        __m256 t = _mm256_mul_ps(_mm256_set1_ps(0.3275911f), x);
        t = _mm256_div_ps(one, _mm256_add_ps(one, t));
        __m256 p = _mm256_set1_ps(1.061405429f);
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
            p = _mm256_add_ps(_mm256_mul_ps(p, t), _mm256_set1_ps(terms[i]));
        __m256 half = _mm256_mul_ps(_mm256_set1_ps(0.5f), _mm256_mul_ps(p, t));
        __m256 e = lld_expf_lanes(_mm256_xor_ps(_mm256_mul_ps(x, x), sign));
        __m256 tail = _mm256_mul_ps(half, e);
        __m256 below = _mm256_cmp_ps(g, _mm256_setzero_ps(), _CMP_LT_OQ);
        __m256 share = _mm256_blendv_ps(_mm256_sub_ps(one, tail), tail, below);
        lld_store_lanes(
            gate + k, _mm256_mul_ps(_mm256_mul_ps(g, share), lld_load_lanes(up + k, n - k)), n - k);
    }
}

LLD_AVX2 static void swiglu_clamped_mul(float *gate, const float *up, size_t n)
{
    const __m256 one = _mm256_set1_ps(1.0f), limit = _mm256_set1_ps(7.0f);
    for (size_t k = 0; k < n; k += 8) { /* of a NaN, min and max return the second operand */
        __m256 g = _mm256_min_ps(limit, lld_load_lanes(gate + k, n - k));
        __m256 u = _mm256_min_ps(limit, lld_load_lanes(up + k, n - k));
        u = _mm256_max_ps(_mm256_set1_ps(-7.0f), u);
        __m256 e = lld_expf_lanes(_mm256_mul_ps(_mm256_set1_ps(-1.702f), g));
        __m256 silu = _mm256_div_ps(g, _mm256_add_ps(one, e));
        lld_store_lanes(gate + k, _mm256_mul_ps(silu, _mm256_add_ps(u, one)), n - k);
    }
}

LLD_AVX2 static void sigmoid_mul(float *x, const float *gate, size_t n)
{
    const __m256 one = _mm256_set1_ps(1.0f), sign = _mm256_set1_ps(-0.0f);
    for (size_t k = 0; k < n; k += 8) {
        __m256 e = lld_expf_lanes(_mm256_xor_ps(lld_load_lanes(gate + k, n - k), sign));
        __m256 divisor = _mm256_add_ps(one, e);
        lld_store_lanes(x + k, _mm256_div_ps(lld_load_lanes(x + k, n - k), divisor), n - k);
    }
}

LLD_AVX2 static void exp_below(float *x, size_t n, float most)
{
    for (size_t k = 0; k < n; k += 8) {
        __m256 below = _mm256_sub_ps(lld_load_lanes(x + k, n - k), _mm256_set1_ps(most));
        lld_store_lanes(x + k, lld_expf_lanes(below), n - k);
    }
}

LLD_AVX2 static void softcap(float *x, size_t n, float limit)
{
    const __m256 one = _mm256_set1_ps(1.0f), inverse = _mm256_set1_ps(2.0f / limit);
    for (size_t k = 0; k < n; k += 8) {
        __m256 v = lld_load_lanes(x + k, n - k);
        __m256 e = lld_expf_lanes(_mm256_mul_ps(v, inverse));
        __m256 tanh = _mm256_div_ps(_mm256_sub_ps(e, one), _mm256_add_ps(e, one));
        __m256 capped = _mm256_mul_ps(_mm256_set1_ps(limit), tanh);
        lld_store_lanes(x + k, _mm256_blendv_ps(capped, v, _mm256_cmp_ps(v, v, _CMP_UNORD_Q)),
                        n - k);
    }
}

LLD_AVX2 static void add(float *x, const float *y, size_t n)
{
    for (size_t k = 0; k < n; k += 8)
        lld_store_lanes(x + k,
                        _mm256_add_ps(lld_load_lanes(x + k, n - k), lld_load_lanes(y + k, n - k)),
                        n - k);
}

/* ---- rotation ---------------------------------------------------------------------------- */

LLD_AVX2_INLINE void rotate_pair(float *a, float *b, const float cos_sin[2])
{
    const float x = *a, y = *b;
    *a = __builtin_fmaf(x, cos_sin[0], -(y * cos_sin[1]));
    *b = __builtin_fmaf(x, cos_sin[1], y * cos_sin[0]);
}

/* Four pairs a vector: (a, b) -> fma(a, (cos, sin), (-b*sin, b*cos)). */
LLD_AVX2 static void rope_norm(float *x, const float *cos_sin, size_t n_rot)
{
    const __m256 minus_even = _mm256_setr_ps(-0.0f, 0.0f, -0.0f, 0.0f, -0.0f, 0.0f, -0.0f, 0.0f);
    size_t i = 0;
    for (; i + 8 <= n_rot; i += 8) {
        __m256 ab = _mm256_loadu_ps(x + i), cs = _mm256_loadu_ps(cos_sin + i);
        __m256 product = _mm256_mul_ps(_mm256_movehdup_ps(ab), _mm256_permute_ps(cs, 0xb1));
        product = _mm256_xor_ps(product, minus_even);
        _mm256_storeu_ps(x + i, _mm256_fmadd_ps(_mm256_moveldup_ps(ab), cs, product));
    }
    for (; i + 2 <= n_rot; i += 2) rotate_pair(&x[i], &x[i + 1], cos_sin + i);
}

LLD_AVX2 static void rope_neox(float *x, const float *cos_sin, size_t n_rot)
{
    const size_t half = n_rot / 2;
    const __m256i pairs_in_order = _mm256_setr_epi32(0, 1, 4, 5, 2, 3, 6, 7);
    size_t i = 0;
    for (; i + 8 <= half; i += 8) {
        __m256 low = _mm256_loadu_ps(cos_sin + 2 * i), high = _mm256_loadu_ps(cos_sin + 2 * i + 8);
        __m256 c = _mm256_permutevar8x32_ps(_mm256_shuffle_ps(low, high, 0x88), pairs_in_order);
        __m256 s = _mm256_permutevar8x32_ps(_mm256_shuffle_ps(low, high, 0xdd), pairs_in_order);
        __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + half + i);
        _mm256_storeu_ps(x + i, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
        _mm256_storeu_ps(x + half + i, _mm256_fmadd_ps(a, s, _mm256_mul_ps(b, c)));
    }
    for (; i < half; i++) rotate_pair(&x[i], &x[half + i], cos_sin + 2 * i);
}

void lld_kernels_init_avx2(lld_kernels *table)
{
    table->name = "avx2";
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
    lld_kernels_init_avx2_matmul(table);
    lld_kernels_init_avx2_attention(table);
    lld_kernels_init_avx2_kv_q4(table);
    lld_kernels_init_avx2_state(table);
}

#else
typedef int lld_kernels_avx2_not_on_this_architecture; /* a translation unit may not be empty */
#endif
