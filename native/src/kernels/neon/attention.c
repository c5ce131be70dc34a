/* attention.c - NEON (armv8.0) kernels over one KV block: store, scores, softmax, values.
 * Block layouts and chains as in kernels.h. A lane is a token in scores and a dimension in values;
 * one, two or four queries share each conversion of keys and values to float32. */
#include "kernels/neon/matmul.h"
#include "kernels/neon/simd.h"

#if defined(__aarch64__)

enum { LANES = 16 }; /* tokens or dimensions of one step: four vectors a query */

LLD_INLINE void load_f16(const uint16_t *src, float32x4_t out[4])
{
    for (int i = 0; i < 2; i++) {
        float16x8_t half = vreinterpretq_f16_u16(vld1q_u16(src + 8 * i));
        out[2 * i] = vcvt_f32_f16(vget_low_f16(half));
        out[2 * i + 1] = vcvt_high_f32_f16(half);
    }
}

LLD_INLINE void load_q8(const int8_t *src, float32x4_t out[4])
{
    int8x16_t bytes = vld1q_s8(src);
    int16x8_t half[2] = {vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes)};
    for (int i = 0; i < 2; i++) {
        out[2 * i] = vcvtq_f32_s32(vmovl_s16(vget_low_s16(half[i])));
        out[2 * i + 1] = vcvtq_f32_s32(vmovl_high_s16(half[i]));
    }
}

LLD_INLINE uint16_t to_f16(float x)
{
    return vget_lane_u16(vreinterpret_u16_f16(vcvt_f16_f32(vdupq_n_f32(x))), 0);
}

LLD_INLINE float from_f16(uint16_t half)
{
    return vgetq_lane_f32(vcvt_f32_f16(vcreate_f16(half)), 0);
}

/* Four values to f16, clamped to its finite range; a NaN stays one. */
LLD_INLINE uint16x4_t store_f16(float32x4_t x)
{
    float32x4_t top = vdupq_n_f32(65504.0f);
    return vreinterpret_u16_f16(vcvt_f16_f32(vminq_f32(vmaxq_f32(x, vnegq_f32(top)), top)));
}

static void kv_store_f16(uint16_t *k_block, uint16_t *v_block, size_t slot, const float *k,
                         const float *v, size_t head_dim)
{
    uint16_t *key = k_block + slot, *value = v_block + slot * head_dim;
    size_t d = 0;
    for (; d + 4 <= head_dim; d += 4) {
        uint16x4_t half = store_f16(vld1q_f32(k + d));
        vst1_lane_u16(key + d * LLD_KV_BLOCK, half, 0);
        vst1_lane_u16(key + (d + 1) * LLD_KV_BLOCK, half, 1);
        vst1_lane_u16(key + (d + 2) * LLD_KV_BLOCK, half, 2);
        vst1_lane_u16(key + (d + 3) * LLD_KV_BLOCK, half, 3);
        vst1_u16(value + d, store_f16(vld1q_f32(v + d)));
    }
    for (; d < head_dim; d++) {
        vst1_lane_u16(key + d * LLD_KV_BLOCK, store_f16(vdupq_n_f32(k[d])), 0);
        vst1_lane_u16(value + d, store_f16(vdupq_n_f32(v[d])), 0);
    }
}

/* Quantize one group x: (n), n <= 32, to y: (32), zeros from n on; returns the f16 scale. */
LLD_INLINE uint16_t quantize_group(const float *x, size_t n, int8_t y[LLD_QK])
{
    float padded[LLD_QK] = {0};
    memcpy(padded, x, n * sizeof *x);
    return to_f16(lld_neon_quantize(padded, LLD_QK, y));
}

static void kv_store_q8(int8_t *k_block, uint16_t *kd, int8_t *v_block, uint16_t *vd, size_t slot,
                        const float *k, const float *v, size_t head_dim)
{
    size_t n_groups = (head_dim + LLD_QK - 1) / LLD_QK;
    for (size_t g = 0; g < n_groups; g++) {
        size_t first = g * LLD_QK, n = head_dim - first < LLD_QK ? head_dim - first : LLD_QK;
        int8_t y[LLD_QK];
        kd[g * LLD_KV_BLOCK + slot] = quantize_group(k + first, n, y);
        for (size_t d = 0; d < n; d++) k_block[(first + d) * LLD_KV_BLOCK + slot] = y[d];
        vd[slot * n_groups + g] = quantize_group(v + first, n, y);
        memcpy(v_block + slot * head_dim + first, y, n);
    }
}

/* acc[i][.] = fma(q[i][d], keys[d][.], acc[i][.]) over dims [0, n) of 16 tokens.
 * k: the block's column of these tokens, LLD_KV_BLOCK elements a dim, f16 or int8. */
LLD_INLINE void score_dims(bool q8, int n_q, float32x4_t acc[4][4], const float *q, size_t q_stride,
                           const void *k, size_t n)
{
    for (size_t d = 0; d < n; d++) {
        float32x4_t key[4];
        if (q8)
            load_q8((const int8_t *)k + d * LLD_KV_BLOCK, key);
        else
            load_f16((const uint16_t *)k + d * LLD_KV_BLOCK, key);
        for (int i = 0; i < n_q; i++) {
            float32x4_t factor = vld1q_dup_f32(q + i * q_stride + d);
            for (int t = 0; t < 4; t++) acc[i][t] = vfmaq_f32(acc[i][t], factor, key[t]);
        }
    }
}

LLD_INLINE void scores_f16_cell(int n_q, float *scores, size_t score_stride, const float *q,
                                size_t q_stride, const uint16_t *k, size_t head_dim)
{
    float32x4_t acc[4][4];
    for (int i = 0; i < n_q; i++)
        for (int t = 0; t < 4; t++) acc[i][t] = vdupq_n_f32(0.0f);
    score_dims(false, n_q, acc, q, q_stride, k, head_dim);
    for (int i = 0; i < n_q; i++)
        for (int t = 0; t < 4; t++) vst1q_f32(scores + i * score_stride + 4 * t, acc[i][t]);
}

LLD_INLINE void scores_q8_cell(int n_q, float *scores, size_t score_stride, const float *q,
                               size_t q_stride, const int8_t *k, const uint16_t *kd,
                               size_t head_dim)
{
    for (int i = 0; i < n_q; i++)
        for (int t = 0; t < 4; t++) vst1q_f32(scores + i * score_stride + 4 * t, vdupq_n_f32(0.0f));
    for (size_t first = 0; first < head_dim; first += LLD_QK) {
        size_t n = head_dim - first < LLD_QK ? head_dim - first : LLD_QK;
        float32x4_t acc[4][4], scale[4];
        for (int i = 0; i < n_q; i++)
            for (int t = 0; t < 4; t++) acc[i][t] = vdupq_n_f32(0.0f);
        score_dims(true, n_q, acc, q + first, q_stride, k + first * LLD_KV_BLOCK, n);
        load_f16(kd + first / LLD_QK * LLD_KV_BLOCK, scale);
        for (int i = 0; i < n_q; i++)
            for (int t = 0; t < 4; t++) {
                float *at = scores + i * score_stride + 4 * t;
                vst1q_f32(at, vfmaq_f32(vld1q_f32(at), acc[i][t], scale[t]));
            }
    }
}

static void attn_scores_f16(const lld_attn_scores *s)
{
    const size_t stride = s->score_stride, q_stride = s->q_stride, n_q = s->n_q;
    for (size_t j = 0; j < LLD_KV_BLOCK; j += LANES) {
        const uint16_t *k = (const uint16_t *)s->k + j;
        float *scores = s->scores + j;
        size_t i = 0;
        for (; i + 4 <= n_q; i += 4)
            scores_f16_cell(4, scores + i * stride, stride, s->q + i * q_stride, q_stride, k,
                            s->head_dim);
        for (; i + 2 <= n_q; i += 2)
            scores_f16_cell(2, scores + i * stride, stride, s->q + i * q_stride, q_stride, k,
                            s->head_dim);
        if (i < n_q)
            scores_f16_cell(1, scores + i * stride, stride, s->q + i * q_stride, q_stride, k,
                            s->head_dim);
    }
}

static void attn_scores_q8(const lld_attn_scores *s)
{
    const size_t stride = s->score_stride, q_stride = s->q_stride, n_q = s->n_q;
    for (size_t j = 0; j < LLD_KV_BLOCK; j += LANES) {
        const int8_t *k = (const int8_t *)s->k + j;
        float *scores = s->scores + j;
        size_t i = 0;
        for (; i + 4 <= n_q; i += 4)
            scores_q8_cell(4, scores + i * stride, stride, s->q + i * q_stride, q_stride, k,
                           s->kd + j, s->head_dim);
        for (; i + 2 <= n_q; i += 2)
            scores_q8_cell(2, scores + i * stride, stride, s->q + i * q_stride, q_stride, k,
                           s->kd + j, s->head_dim);
        if (i < n_q)
            scores_q8_cell(1, scores + i * stride, stride, s->q + i * q_stride, q_stride, k,
                           s->kd + j, s->head_dim);
    }
}

static float max_score(const float *scores, size_t n)
{
    float max = scores[0];
    size_t j = 0;
    if (n >= 4) {
        float32x4_t best = vld1q_f32(scores);
        for (j = 4; j + 4 <= n; j += 4) best = vmaxq_f32(best, vld1q_f32(scores + j));
        max = vmaxvq_f32(best);
    }
    for (; j < n; j++) max = scores[j] > max ? scores[j] : max;
    return max;
}

static float attn_softmax(float *scores, size_t n, float *sum)
{
    float max = max_score(scores, n), lanes[8];
    float32x4_t low = vdupq_n_f32(0.0f), high = low, offset = vdupq_n_f32(max);
    size_t j = 0;
    for (; j + 8 <= n; j += 8) {
        float32x4_t p0 = lld_neon_expf(vsubq_f32(vld1q_f32(scores + j), offset));
        float32x4_t p1 = lld_neon_expf(vsubq_f32(vld1q_f32(scores + j + 4), offset));
        vst1q_f32(scores + j, p0);
        vst1q_f32(scores + j + 4, p1);
        low = vaddq_f32(low, p0);
        high = vaddq_f32(high, p1);
    }
    vst1q_f32(lanes, low);
    vst1q_f32(lanes + 4, high);
    for (; j < n; j++) {
        scores[j] = lld_expf(scores[j] - max);
        lanes[j % 8] += scores[j];
    }
    for (; j % LLD_KV_BLOCK; j++) scores[j] = 0.0f;
    *sum = lld_reduce8(lanes);
    return max;
}

/* 16 dimensions, from d on, of n_q outputs, from `first` on, over all tokens. */
LLD_INLINE void values_cell(bool q8, int n_q, lld_attn_values a, size_t first, size_t d)
{
    const size_t n_groups = (a.head_dim + LLD_QK - 1) / LLD_QK;
    const uint8_t *v = (const uint8_t *)a.v + d * (q8 ? sizeof(int8_t) : sizeof(uint16_t));
    const uint16_t *vd = q8 ? a.vd + d / LLD_QK : NULL;
    const float *p = a.p + first * a.p_stride;
    float *acc = a.acc + first * a.acc_stride + d;
    float32x4_t sum[4][4];
    for (int i = 0; i < n_q; i++)
        for (int t = 0; t < 4; t++) sum[i][t] = vld1q_f32(acc + i * a.acc_stride + 4 * t);
    for (size_t j = 0; j < a.n_tokens; j++) {
        float32x4_t value[4];
        float scale = q8 ? from_f16(vd[j * n_groups]) : 1.0f;
        if (q8)
            load_q8((const int8_t *)v + j * a.head_dim, value);
        else
            load_f16((const uint16_t *)(const void *)v + j * a.head_dim, value);
        for (int i = 0; i < n_q; i++) {
            float factor = q8 ? p[i * a.p_stride + j] * scale : p[i * a.p_stride + j];
            for (int t = 0; t < 4; t++) sum[i][t] = vfmaq_n_f32(sum[i][t], value[t], factor);
        }
    }
    for (int i = 0; i < n_q; i++)
        for (int t = 0; t < 4; t++) vst1q_f32(acc + i * a.acc_stride + 4 * t, sum[i][t]);
}

/* The dimensions in steps of 16; returns how many are done. */
LLD_INLINE size_t values_cells(bool q8, lld_attn_values a)
{
    size_t d = 0;
    for (; d + LANES <= a.head_dim; d += LANES) {
        size_t i = 0;
        for (; i + 4 <= a.n_q; i += 4) values_cell(q8, 4, a, i, d);
        for (; i + 2 <= a.n_q; i += 2) values_cell(q8, 2, a, i, d);
        if (i < a.n_q) values_cell(q8, 1, a, i, d);
    }
    return d;
}

static void attn_values_f16(const lld_attn_values *a)
{
    const uint16_t *v = a->v;
    const size_t done = values_cells(false, *a);
    for (size_t i = 0; i < a->n_q; i++)
        for (size_t d = done; d < a->head_dim; d++) {
            float *at = a->acc + i * a->acc_stride + d;
            for (size_t j = 0; j < a->n_tokens; j++)
                *at = __builtin_fmaf(a->p[i * a->p_stride + j], from_f16(v[j * a->head_dim + d]),
                                     *at);
        }
}

static void attn_values_q8(const lld_attn_values *a)
{
    const int8_t *v = a->v;
    const size_t n_groups = (a->head_dim + LLD_QK - 1) / LLD_QK, done = values_cells(true, *a);
    for (size_t i = 0; i < a->n_q; i++)
        for (size_t d = done; d < a->head_dim; d++) {
            float *at = a->acc + i * a->acc_stride + d;
            for (size_t j = 0; j < a->n_tokens; j++) {
                float factor =
                    a->p[i * a->p_stride + j] * from_f16(a->vd[j * n_groups + d / LLD_QK]);
                *at = __builtin_fmaf(factor, (float)v[j * a->head_dim + d], *at);
            }
        }
}

void lld_neon_init_attn(lld_kernels *table)
{
    table->kv_store_f16 = kv_store_f16;
    table->kv_store_q8 = kv_store_q8;
    table->attn_scores_f16 = attn_scores_f16;
    table->attn_scores_q8 = attn_scores_q8;
    table->attn_softmax = attn_softmax;
    table->attn_values_f16 = attn_values_f16;
    table->attn_values_q8 = attn_values_q8;
}

#endif
