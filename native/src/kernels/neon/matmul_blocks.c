/* matmul_blocks.c - NEON (armv8.0) matmuls of the formats with 32-element blocks: Q4_0 Q4_1
 * Q5_0 Q5_1 Q8_0 IQ4_NL MXFP4. Owns the integer dot product inside a block and the float chain over
 * blocks.
 *
 * Four rows share each load of activations. A row's 32 products are summed in 16 bits (SMULL,
 * SMLAL: one pipe on the A72, two products a lane and instruction), and the four rows are
 * reduced together by pairwise adds on the other pipe, so that the int32 sums, the scales and
 * the outputs all have lane = row. Bounds, with |y| <= 127: a lane of four products of 4 or 5
 * bits holds at most 4*16*127 = 8128, after two pairwise adds 32512 < 32768; a lane of two 8-bit
 * products 2*128*127. */
#include "kernels/neon/formats.h"

#if defined(__aarch64__)

LLD_INLINE int16x8_t dot_narrow(const int8x16_t w[2], int8x16_t y0, int8x16_t y1)
{
    int16x8_t sum = vmull_s8(vget_low_s8(w[0]), vget_low_s8(y0));
    sum = vmlal_high_s8(sum, w[0], y0);
    sum = vmlal_s8(sum, vget_low_s8(w[1]), vget_low_s8(y1));
    return vmlal_high_s8(sum, w[1], y1);
}

LLD_INLINE int32x4_t dot_wide(const int8x16_t w[2], int8x16_t y0, int8x16_t y1)
{
    int16x8_t first = vmull_s8(vget_low_s8(w[0]), vget_low_s8(y0));
    int16x8_t second = vmull_s8(vget_low_s8(w[1]), vget_low_s8(y1));
    first = vmlal_high_s8(first, w[0], y0);
    second = vmlal_high_s8(second, w[1], y1);
    return vpadalq_s16(vpaddlq_s16(first), second);
}

/* Sum of the 32 products of each of four rows, plus `start`. */
LLD_INLINE int32x4_t dot_rows(const lld_neon_format32 *f, int8x16_t w[4][2], const int8_t *y,
                              int32_t start)
{
    int8x16_t y0 = vld1q_s8(y), y1 = vld1q_s8(y + 16);
    if (f->wide) {
        int32x4_t low = vpaddq_s32(dot_wide(w[0], y0, y1), dot_wide(w[1], y0, y1));
        int32x4_t high = vpaddq_s32(dot_wide(w[2], y0, y1), dot_wide(w[3], y0, y1));
        return vpaddq_s32(low, high);
    }
    int16x8_t low = vpaddq_s16(dot_narrow(w[0], y0, y1), dot_narrow(w[1], y0, y1));
    int16x8_t high = vpaddq_s16(dot_narrow(w[2], y0, y1), dot_narrow(w[3], y0, y1));
    return vpadalq_s16(vdupq_n_s32(start), vpaddq_s16(low, high));
}

/* One column's activations. */
typedef struct column {
    const int8_t *y;
    const float *d, *s;
    const int32_t *sum;
} column;

LLD_INLINE column column_at(const lld_acts *x, size_t c)
{
    size_t first = c * (x->n_cols / LLD_QK);
    return (column){x->y + c * x->y_stride, x->d + first, x->s + first, x->sum + first};
}

/* Block b of four rows and `width` columns. */
LLD_INLINE void block_step(const lld_neon_format32 *f, int width, const lld_row_group *w,
                           const column x[4], size_t b, float32x4_t acc[4])
{
    size_t at = b * f->bytes;
    int8x16_t q[4][2];
    for (int r = 0; r < 4; r++) lld_unpack_block(f, w->row[r] + at, q[r]);
    float32x4_t scale = lld_row_scales(f, w, at), min = scale;
    if (f->has_min) min = lld_row_halves(w, at + offsetof(lld_block_q4_1, m));
#pragma GCC unroll 4
    for (int c = 0; c < width; c++) {
        if (c == 2) lld_keep_loads_below();
        int32_t start = f->offset ? f->offset * x[c].sum[b] : 0;
        int32x4_t sum = dot_rows(f, q, x[c].y + b * LLD_QK, start);
        acc[c] = vfmaq_f32(acc[c], vmulq_n_f32(scale, x[c].d[b]), vcvtq_f32_s32(sum));
        if (f->has_min) acc[c] = vfmaq_n_f32(acc[c], min, x[c].s[b]);
    }
}

LLD_INLINE void blocks_cell(const lld_neon_format32 *f, int width, float *out, size_t out_stride,
                            const lld_row_group *group, const lld_acts *acts, size_t col,
                            size_t n_cols)
{
    const lld_row_group w = *group;
    size_t n_blocks = acts->n_cols / LLD_QK;
    column x[4];
    float32x4_t acc[4];
#pragma GCC unroll 4
    for (int c = 0; c < width; c++) {
        x[c] = column_at(acts, lld_cell_column(col, n_cols, c));
        acc[c] = vdupq_n_f32(0.0f);
    }
    for (size_t b = 0; b < n_blocks; b += width == 1 ? 2 : 1) {
        if (width == 1) lld_prefetch_rows(&w, b * f->bytes);
        block_step(f, width, &w, x, b, acc);
        if (width == 1 && b + 1 < n_blocks) block_step(f, width, &w, x, b + 1, acc);
    }
#pragma GCC unroll 4
    for (int c = 0; c < width; c++)
        if ((size_t)c < n_cols) lld_store_rows(out + (col + c) * out_stride, acc[c], w.n);
}

#define BLOCKS_32(name, function)                                                                  \
    LLD_NEON_CELL(function##_one, blocks_cell, &lld_neon_##function, 1)                            \
    LLD_NEON_CELL(function##_two, blocks_cell, &lld_neon_##function, 2)                            \
    LLD_NEON_CELL(function##_four, blocks_cell, &lld_neon_##function, 4)                           \
    LLD_NEON_MATMUL(function, function##_one, function##_two, function##_four)
#define BLOCKS_256(name, function)         /* matmul_k.c */
#define DEFINE(name, function, block, ...) BLOCKS_##block(name, function)
LLD_NEON_FORMATS(DEFINE)

void lld_neon_init_blocks(lld_kernels *table)
{
#define SET_32(name, function) table->matmul[LLD_##name] = function##_matmul;
#define SET_256(name, function)
#define SET(name, function, block, ...) SET_##block(name, function)
    LLD_NEON_FORMATS(SET)
}

#endif
