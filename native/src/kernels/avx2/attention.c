/* attention.c - the AVX2 kernels over one KV block: store, scores, softmax numerators, values.
 * Scores: lane = token (keys are stored transposed), so a score is one chain over the head's
 * elements. Values: lane = element, one chain over the tokens. Up to three queries share the loads
 * and the widening of a key or value: 3 queries x 4 vectors of sums, 3 broadcasts, 1 operand in 16
 * registers. The two element types differ only in how eight of them become floats, and in their
 * scales. */
#ifdef __x86_64__

#include <assert.h>
#include <stdbool.h>

#include "kernels/avx2/avx2.h"
#include "kernels/avx2/simd.h"
#include "base/vecmath.h"

enum {
    MAX_QUERIES = 3,
    TOKEN_VECTORS = LLD_KV_BLOCK / 8,
    GROUP = 32 /* elements of one q8_0 scale */
};

/* Queries of the next tile: three, or two and two of four, so that no tile of one follows. */
static size_t tile_queries(size_t left) { return left >= 5 || left == 3 ? 3 : left >= 2 ? 2 : 1; }

/* Element `i` and the seven behind it; bytes: 2 for f16, 1 for int8. */
LLD_AVX2_INLINE __m256 load_elements(const void *base, size_t i, size_t bytes)
{
    const uint8_t *p = (const uint8_t *)base + i * bytes;
    if (bytes == sizeof(uint16_t)) return _mm256_cvtph_ps(lld_load128(p));
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}

/* The same of the last `count` < 8 elements of a row, without reading beyond them. */
LLD_AVX2_INLINE __m256 load_part(const void *base, size_t i, size_t bytes, size_t count)
{
    uint8_t part[8 * sizeof(uint16_t)] = {0};
    memcpy(part, (const uint8_t *)base + i * bytes, count * bytes);
    return load_elements(part, 0, bytes);
}

LLD_AVX2_INLINE __m256 broadcast_f16(uint16_t half)
{
    return _mm256_cvtph_ps(_mm_set1_epi16((short)half));
}

/* ---- store ------------------------------------------------------------------------------- */

/* n <= 8 values as f16, clamped to its range; a NaN stays one. */
LLD_AVX2_INLINE __m128i clamp_to_f16(const float *x, size_t n)
{
    __m256 v = _mm256_max_ps(_mm256_set1_ps(-65504.0f), lld_load_lanes(x, n));
    return _mm256_cvtps_ph(_mm256_min_ps(_mm256_set1_ps(65504.0f), v), _MM_FROUND_TO_NEAREST_INT);
}

LLD_AVX2 static void kv_store_f16(uint16_t *k_block, uint16_t *v_block, size_t slot, const float *k,
                                  const float *v, size_t head_dim)
{
    assert(slot < LLD_KV_BLOCK);
    for (size_t d = 0; d < head_dim; d += 8) {
        const size_t n = head_dim - d < 8 ? head_dim - d : 8;
        uint16_t keys[8], values[8];
        _mm_storeu_si128((__m128i *)keys, clamp_to_f16(k + d, n));
        _mm_storeu_si128((__m128i *)values, clamp_to_f16(v + d, n));
        memcpy(v_block + slot * head_dim + d, values, n * sizeof *values);
        for (size_t i = 0; i < n; i++) k_block[(d + i) * LLD_KV_BLOCK + slot] = keys[i];
    }
}

/* Quantize x: (n), n <= 32, to y: (32), zeros behind n; returns the scale. */
LLD_AVX2_INLINE float quantize_group(int8_t y[GROUP], const float *x, size_t n)
{
    float inverse, scale = lld_q8_scale(lld_max_magnitude(x, n), &inverse);
    memset(y, 0, GROUP);
    if (inverse == 0.0f) return scale;
    for (size_t i = 0; i < n; i += 8) {
        __m256 v = _mm256_mul_ps(lld_load_lanes(x + i, n - i), _mm256_set1_ps(inverse));
        __m256i words = _mm256_cvtps_epi32(v);
        __m128i halves =
            _mm_packs_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
        _mm_storel_epi64((__m128i *)(y + i), _mm_packs_epi16(halves, halves));
    }
    return scale;
}

LLD_AVX2 static void kv_store_q8(int8_t *k_block, uint16_t *kd, int8_t *v_block, uint16_t *vd,
                                 size_t slot, const float *k, const float *v, size_t head_dim)
{
    assert(slot < LLD_KV_BLOCK);
    const size_t n_groups = (head_dim + GROUP - 1) / GROUP;
    for (size_t g = 0; g < n_groups; g++) {
        const size_t first = g * GROUP, n = head_dim - first < GROUP ? head_dim - first : GROUP;
        int8_t y[GROUP];
        kd[g * LLD_KV_BLOCK + slot] = lld_f32_to_f16(quantize_group(y, k + first, n));
        for (size_t i = 0; i < n; i++) k_block[(first + i) * LLD_KV_BLOCK + slot] = y[i];
        vd[slot * n_groups + g] = lld_f32_to_f16(quantize_group(y, v + first, n));
        memcpy(v_block + slot * head_dim + first, y, n);
    }
}

/* ---- scores ------------------------------------------------------------------------------ */

/* sums[i][j] = chain of fma(q[i][d], k[d][8j..8j+7]) over d in [first, end), from 0. */
LLD_AVX2_INLINE void score_tile(__m256 sums[MAX_QUERIES][TOKEN_VECTORS], const float *q,
                                size_t q_stride, size_t n_q, const void *k_block, size_t bytes,
                                size_t first, size_t end)
{
#pragma GCC unroll 4
    for (size_t i = 0; i < n_q; i++)
#pragma GCC unroll 4
        for (size_t j = 0; j < TOKEN_VECTORS; j++) sums[i][j] = _mm256_setzero_ps();
    for (size_t d = first; d < end; d++) {
#pragma GCC unroll 4
        for (size_t j = 0; j < TOKEN_VECTORS; j++) {
            const __m256 k = load_elements(k_block, d * LLD_KV_BLOCK + 8 * j, bytes);
#pragma GCC unroll 4
            for (size_t i = 0; i < n_q; i++)
                sums[i][j] = _mm256_fmadd_ps(_mm256_set1_ps(q[i * q_stride + d]), k, sums[i][j]);
        }
    }
}

/* n_q: 1 to 3, a constant after inlining. kd: NULL for f16. */
LLD_AVX2_INLINE void scores_of_tile(lld_attn_scores s, size_t n_q)
{
    const size_t group = s.kd == NULL ? s.head_dim : GROUP,
                 bytes = s.kd == NULL ? sizeof(uint16_t) : 1;
    for (size_t first = 0; first < s.head_dim; first += group) {
        __m256 sums[MAX_QUERIES][TOKEN_VECTORS];
        score_tile(sums, s.q, s.q_stride, n_q, s.k, bytes, first,
                   s.head_dim - first < group ? s.head_dim : first + group);
#pragma GCC unroll 4
        for (size_t j = 0; j < TOKEN_VECTORS; j++) {
            __m256 scale = _mm256_setzero_ps();
            if (s.kd != NULL)
                scale = load_elements(s.kd, first / GROUP * LLD_KV_BLOCK + 8 * j, sizeof *s.kd);
#pragma GCC unroll 4
            for (size_t i = 0; i < n_q; i++) {
                float *out = s.scores + i * s.score_stride + 8 * j;
                if (s.kd != NULL) {
                    __m256 acc = first == 0 ? _mm256_setzero_ps() : _mm256_loadu_ps(out);
                    sums[i][j] = _mm256_fmadd_ps(sums[i][j], scale, acc);
                }
                _mm256_storeu_ps(out, sums[i][j]);
            }
        }
    }
}

LLD_AVX2_INLINE void attn_scores(lld_attn_scores s)
{
    for (size_t n; s.n_q > 0; s.n_q -= n) {
        n = tile_queries(s.n_q);
        if (n == 3)
            scores_of_tile(s, 3);
        else if (n == 2)
            scores_of_tile(s, 2);
        else
            scores_of_tile(s, 1);
        s.scores += n * s.score_stride;
        s.q += n * s.q_stride;
    }
}

LLD_AVX2 static void attn_scores_f16(const lld_attn_scores *s)
{
    lld_attn_scores f16 = *s;
    f16.kd = NULL; /* known to the compiler, as in attn_scores_q8 */
    attn_scores(f16);
}

LLD_AVX2 static void attn_scores_q8(const lld_attn_scores *s)
{
    if (s->kd == NULL) __builtin_unreachable();
    attn_scores(*s);
}

/* ---- softmax ----------------------------------------------------------------------------- */

/* The maximum of scores: (n). */
LLD_AVX2_INLINE float max_score(const float *scores, size_t n)
{
    __m256 max = _mm256_set1_ps(scores[0]);
    size_t j = 0;
    for (; j + 8 <= n; j += 8) max = _mm256_max_ps(_mm256_loadu_ps(scores + j), max);
    float lane[8], result;
    _mm256_storeu_ps(lane, max);
    result = lane[0];
    for (int i = 1; i < 8; i++) result = lane[i] > result ? lane[i] : result;
    for (; j < n; j++) result = scores[j] > result ? scores[j] : result;
    return result;
}

LLD_AVX2 static float attn_softmax(float *scores, size_t n, float *sum)
{
    assert(n >= 1);
    const float max = max_score(scores, n);
    const __m256 top = _mm256_set1_ps(max);
    __m256 sums = _mm256_setzero_ps();
    const size_t padded = (n + LLD_KV_BLOCK - 1) / LLD_KV_BLOCK * LLD_KV_BLOCK;
    for (size_t j = 0; j < padded; j += 8) {
        __m256 p = _mm256_setzero_ps();
        if (j + 8 <= n) {
            p = lld_expf_lanes(_mm256_sub_ps(_mm256_loadu_ps(scores + j), top));
        } else if (j < n) {
            float part[8] = {0};
            _mm256_storeu_ps(part,
                             lld_expf_lanes(_mm256_sub_ps(lld_load_lanes(scores + j, n - j), top)));
            p = lld_load_lanes(part, n - j);
        }
        _mm256_storeu_ps(scores + j, p);
        sums = _mm256_add_ps(sums, p);
    }
    *sum = lld_reduce_lanes(sums);
    return max;
}

/* ---- values ------------------------------------------------------------------------------ */

/* Elements [d, d + 8*n_vectors) of n_q queries; with count < 8, n_vectors is 1 and only `count`
 * exist. A tile lies in one group of 32. */
LLD_AVX2_INLINE void values_of_tile(const lld_attn_values *a, size_t query, size_t n_q, size_t d,
                                    size_t n_vectors, size_t count)
{
    const size_t n_groups = (a->head_dim + GROUP - 1) / GROUP;
    const size_t bytes = a->vd == NULL ? sizeof(uint16_t) : 1;
    __m256 acc[MAX_QUERIES][4];
#pragma GCC unroll 4
    for (size_t i = 0; i < n_q; i++)
#pragma GCC unroll 4
        for (size_t j = 0; j < n_vectors; j++)
            acc[i][j] = lld_load_lanes(a->acc + (query + i) * a->acc_stride + d + 8 * j, count);
    for (size_t t = 0; t < a->n_tokens; t++) {
        __m256 p[MAX_QUERIES];
#pragma GCC unroll 4
        for (size_t i = 0; i < n_q; i++) {
            p[i] = _mm256_set1_ps(a->p[(query + i) * a->p_stride + t]);
            if (a->vd != NULL)
                p[i] = _mm256_mul_ps(p[i], broadcast_f16(a->vd[t * n_groups + d / GROUP]));
        }
#pragma GCC unroll 4
        for (size_t j = 0; j < n_vectors; j++) {
            const size_t at = t * a->head_dim + d + 8 * j;
            __m256 v =
                count < 8 ? load_part(a->v, at, bytes, count) : load_elements(a->v, at, bytes);
#pragma GCC unroll 4
            for (size_t i = 0; i < n_q; i++) acc[i][j] = _mm256_fmadd_ps(p[i], v, acc[i][j]);
        }
    }
#pragma GCC unroll 4
    for (size_t i = 0; i < n_q; i++)
#pragma GCC unroll 4
        for (size_t j = 0; j < n_vectors; j++)
            lld_store_lanes(a->acc + (query + i) * a->acc_stride + d + 8 * j, acc[i][j], count);
}

LLD_AVX2_INLINE void values_of_queries(const lld_attn_values *a, size_t query, size_t n_q)
{
    size_t d = 0;
    for (; d + 32 <= a->head_dim; d += 32) values_of_tile(a, query, n_q, d, 4, 8);
    for (; d + 8 <= a->head_dim; d += 8) values_of_tile(a, query, n_q, d, 1, 8);
    if (d < a->head_dim) values_of_tile(a, query, n_q, d, 1, a->head_dim - d);
}

LLD_AVX2_INLINE void attn_values(const lld_attn_values *a)
{
    for (size_t query = 0, n; query < a->n_q; query += n) {
        n = tile_queries(a->n_q - query);
        if (n == 3)
            values_of_queries(a, query, 3);
        else if (n == 2)
            values_of_queries(a, query, 2);
        else
            values_of_queries(a, query, 1);
    }
}

LLD_AVX2 static void attn_values_f16(const lld_attn_values *v)
{
    lld_attn_values f16 = *v;
    f16.vd = NULL;
    attn_values(&f16);
}

LLD_AVX2 static void attn_values_q8(const lld_attn_values *v)
{
    const lld_attn_values q8 = *v; /* a copy of its own: no store of acc can change it */
    if (q8.vd == NULL) __builtin_unreachable();
    attn_values(&q8);
}

void lld_kernels_init_avx2_attention(lld_kernels *table)
{
    table->kv_store_f16 = kv_store_f16;
    table->kv_store_q8 = kv_store_q8;
    table->attn_scores_f16 = attn_scores_f16;
    table->attn_scores_q8 = attn_scores_q8;
    table->attn_softmax = attn_softmax;
    table->attn_values_f16 = attn_values_f16;
    table->attn_values_q8 = attn_values_q8;
}

#else
typedef int lld_attention_avx2_not_on_this_architecture; /* a translation unit may not be empty */
#endif
