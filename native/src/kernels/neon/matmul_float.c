/* matmul_float.c - NEON matmuls of unquantized weights: F32, F16, BF16. Owns the eight-lane
 * chain: lane k % 8 accumulates element k, as two vectors a row and column, then lld_reduce8. */
#include "kernels/neon/matmul.h"

#if defined(__aarch64__)

LLD_INLINE size_t element_bytes(int type) { return type == LLD_F32 ? 4 : 2; }

/* Elements k .. k+7 of a row. */
LLD_INLINE void load_8(int type, const uint8_t *row, size_t k, float32x4_t w[2])
{
    const uint8_t *at = row + k * element_bytes(type);
    if (type == LLD_F32) {
        w[0] = vreinterpretq_f32_u8(vld1q_u8(at));
        w[1] = vreinterpretq_f32_u8(vld1q_u8(at + 16));
        return;
    }
    uint16x8_t half = vreinterpretq_u16_u8(vld1q_u8(at));
    if (type == LLD_F16) {
        w[0] = vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(half)));
        w[1] = vcvt_high_f32_f16(vreinterpretq_f16_u16(half));
    } else {
        w[0] = vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(half), 16));
        w[1] = vreinterpretq_f32_u32(vshll_high_n_u16(half, 16));
    }
}

LLD_INLINE float load_1(int type, const uint8_t *row, size_t k)
{
    if (type == LLD_F32) {
        float value;
        memcpy(&value, row + k * 4, sizeof value);
        return value;
    }
    uint16_t half;
    memcpy(&half, row + k * 2, sizeof half);
    return type == LLD_F16
               ? vgetq_lane_f32(vcvt_f32_f16(vcreate_f16(half)), 0)
               : vgetq_lane_f32(vreinterpretq_f32_u32(vdupq_n_u32((uint32_t)half << 16)), 0);
}

/* The K % 8 last elements, then the sum of the lanes. */
LLD_INLINE float finish(int type, const float32x4_t acc[2], const uint8_t *row, const float *x,
                        size_t k, size_t n)
{
    float lanes[8];
    vst1q_f32(lanes, acc[0]);
    vst1q_f32(lanes + 4, acc[1]);
    for (; k < n; k++) lanes[k % 8] = __builtin_fmaf(load_1(type, row, k), x[k], lanes[k % 8]);
    return lld_reduce8(lanes);
}

LLD_INLINE void float_cell(int type, int width, float *out, size_t out_stride,
                           const lld_row_group *group, const lld_acts *acts, size_t col,
                           size_t n_cols)
{
    size_t n = acts->n_cols, k = 0;
    lld_row_group w = *group;
    const float *x[2];
    float32x4_t acc[2][4][2];
    for (int c = 0; c < width; c++) {
        x[c] = acts->f32 + lld_cell_column(col, n_cols, c) * n;
        for (int r = 0; r < 4; r++) acc[c][r][0] = acc[c][r][1] = vdupq_n_f32(0.0f);
    }
    for (; k + 8 <= n; k += 8) {
        if (width == 1 && k % 16 == 0) lld_prefetch_rows(&w, k * element_bytes(type));
        for (int r = 0; r < 4; r++) {
            float32x4_t weights[2];
            load_8(type, w.row[r], k, weights);
            for (int c = 0; c < width; c++) {
                acc[c][r][0] = vfmaq_f32(acc[c][r][0], weights[0], vld1q_f32(x[c] + k));
                acc[c][r][1] = vfmaq_f32(acc[c][r][1], weights[1], vld1q_f32(x[c] + k + 4));
            }
        }
    }
    for (size_t c = 0; c < n_cols; c++)
        for (size_t r = 0; r < w.n; r++)
            out[(col + c) * out_stride + r] = finish(type, acc[c][r], w.row[r], x[c], k, n);
}

#define FLOAT_FORMAT(name, type)                                                                   \
    LLD_NEON_CELL(name##_one, float_cell, type, 1)                                                 \
    LLD_NEON_CELL(name##_two, float_cell, type, 2)                                                 \
    LLD_NEON_MATMUL(name, name##_one, name##_two, NULL)

FLOAT_FORMAT(f32, LLD_F32)
FLOAT_FORMAT(f16, LLD_F16)
FLOAT_FORMAT(bf16, LLD_BF16)

void lld_neon_init_floats(lld_kernels *table)
{
    table->matmul[LLD_F32] = f32_matmul;
    table->matmul[LLD_F16] = f16_matmul;
    table->matmul[LLD_BF16] = bf16_matmul;
}

#endif
