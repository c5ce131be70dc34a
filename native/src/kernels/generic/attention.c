/* attention.c - the reference kernels over one KV block: store, scores, softmax, values.
 * Block layouts and chains as in kernels.h. Does not walk blocks, mask or combine chunks:
 * attention.c does. */
#include <assert.h>

#include "kernels/generic/generic.h"
#include "base/vecmath.h"

static const float F16_MAX = 65504.0f;

static uint16_t store_f16(float x)
{
    float low = x < -F16_MAX ? -F16_MAX : x; /* a NaN passes both */
    return lld_f32_to_f16(low > F16_MAX ? F16_MAX : low);
}

static void kv_store_f16(uint16_t *k_block, uint16_t *v_block, size_t slot, const float *k,
                         const float *v, size_t head_dim)
{
    assert(slot < LLD_KV_BLOCK);
    for (size_t d = 0; d < head_dim; d++) {
        k_block[d * LLD_KV_BLOCK + slot] = store_f16(k[d]);
        v_block[slot * head_dim + d] = store_f16(v[d]);
    }
}

/* Quantize x: (n), n <= 32, to y[i * y_step]; returns the scale. */
static float store_group(const float *x, size_t n, int8_t *y, size_t y_step)
{
    float inverse, scale = lld_q8_scale(lld_max_magnitude(x, n), &inverse);
    for (size_t i = 0; i < n; i++)
        y[i * y_step] = inverse == 0.0f ? 0 : lld_q8_round(x[i] * inverse);
    return scale;
}

static void kv_store_q8(int8_t *k_block, uint16_t *kd, int8_t *v_block, uint16_t *vd, size_t slot,
                        const float *k, const float *v, size_t head_dim)
{
    assert(slot < LLD_KV_BLOCK);
    const size_t n_groups = (head_dim + LLD_QK - 1) / LLD_QK;
    for (size_t g = 0; g < n_groups; g++) {
        size_t first = g * LLD_QK, n = head_dim - first < LLD_QK ? head_dim - first : LLD_QK;
        kd[g * LLD_KV_BLOCK + slot] = lld_f32_to_f16(
            store_group(k + first, n, k_block + first * LLD_KV_BLOCK + slot, LLD_KV_BLOCK));
        vd[slot * n_groups + g] =
            lld_f32_to_f16(store_group(v + first, n, v_block + slot * head_dim + first, 1));
    }
}

static void attn_scores_f16(const lld_attn_scores *s)
{
    const uint16_t *k_block = s->k;
    for (size_t i = 0; i < s->n_q; i++)
        for (size_t j = 0; j < LLD_KV_BLOCK; j++) s->scores[i * s->score_stride + j] = 0.0f;
    for (size_t d = 0; d < s->head_dim; d++) {
        float k[LLD_KV_BLOCK];
        for (size_t j = 0; j < LLD_KV_BLOCK; j++)
            k[j] = lld_f16_to_f32(k_block[d * LLD_KV_BLOCK + j]);
        for (size_t i = 0; i < s->n_q; i++) {
            float *acc = s->scores + i * s->score_stride;
            for (size_t j = 0; j < LLD_KV_BLOCK; j++)
                acc[j] = __builtin_fmaf(s->q[i * s->q_stride + d], k[j], acc[j]);
        }
    }
}

static void attn_scores_q8(const lld_attn_scores *s)
{
    const int8_t *k_block = s->k;
    for (size_t i = 0; i < s->n_q; i++) {
        float *acc = s->scores + i * s->score_stride;
        for (size_t j = 0; j < LLD_KV_BLOCK; j++) acc[j] = 0.0f;
        for (size_t first = 0; first < s->head_dim; first += LLD_QK) {
            size_t end = s->head_dim - first < LLD_QK ? s->head_dim : first + LLD_QK;
            const uint16_t *scales = s->kd + first / LLD_QK * LLD_KV_BLOCK;
            float t[LLD_KV_BLOCK] = {0};
            for (size_t d = first; d < end; d++) {
                const int8_t *k = k_block + d * LLD_KV_BLOCK;
                for (size_t j = 0; j < LLD_KV_BLOCK; j++)
                    t[j] = __builtin_fmaf(s->q[i * s->q_stride + d], (float)k[j], t[j]);
            }
            for (size_t j = 0; j < LLD_KV_BLOCK; j++)
                acc[j] = __builtin_fmaf(t[j], lld_f16_to_f32(scales[j]), acc[j]);
        }
    }
}

static float attn_softmax(float *scores, size_t n, float *sum)
{
    assert(n >= 1);
    float max = scores[0], lane[8] = {0};
    for (size_t j = 1; j < n; j++) max = scores[j] > max ? scores[j] : max;
    const size_t padded = (n + 31) / 32 * 32;
    for (size_t j = 0; j < padded; j++) {
        scores[j] = j < n ? lld_expf(scores[j] - max) : 0.0f;
        lane[j % 8] += scores[j];
    }
    *sum = lld_reduce8(lane);
    return max;
}

static void attn_values_f16(const lld_attn_values *a)
{
    const uint16_t *v_block = a->v;
    for (size_t j = 0; j < a->n_tokens; j++)
        for (size_t d = 0; d < a->head_dim; d++) {
            float v = lld_f16_to_f32(v_block[j * a->head_dim + d]);
            for (size_t i = 0; i < a->n_q; i++) {
                float *out = &a->acc[i * a->acc_stride + d];
                *out = __builtin_fmaf(a->p[i * a->p_stride + j], v, *out);
            }
        }
}

static void attn_values_q8(const lld_attn_values *a)
{
    const int8_t *v_block = a->v;
    const size_t n_groups = (a->head_dim + LLD_QK - 1) / LLD_QK;
    for (size_t i = 0; i < a->n_q; i++)
        for (size_t j = 0; j < a->n_tokens; j++)
            for (size_t d = 0; d < a->head_dim; d++) {
                float scale = lld_f16_to_f32(a->vd[j * n_groups + d / LLD_QK]);
                float factor = a->p[i * a->p_stride + j] * scale,
                      v = (float)v_block[j * a->head_dim + d];
                a->acc[i * a->acc_stride + d] =
                    __builtin_fmaf(factor, v, a->acc[i * a->acc_stride + d]);
            }
}

void lld_kernels_init_generic_attention(lld_kernels *table)
{
    table->kv_store_f16 = kv_store_f16;
    table->kv_store_q8 = kv_store_q8;
    table->attn_scores_f16 = attn_scores_f16;
    table->attn_scores_q8 = attn_scores_q8;
    table->attn_softmax = attn_softmax;
    table->attn_values_f16 = attn_values_f16;
    table->attn_values_q8 = attn_values_q8;
}
