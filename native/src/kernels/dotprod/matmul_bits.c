/* matmul_bits.c - dotprod (armv8.2) matmuls of the formats of one or two bits a weight: Q1_0 and Q2_0.
 * As NEON's, but one SDOT takes 16 of the masks (-1 or 0) or of the q (0..3) of a row, and there is
 * nothing to overflow. */
#include "kernels/neon/bits.h"
#include "kernels/dotprod/matmul.h"

#if defined(__aarch64__)

/* The 32 weights of each of four rows times one column: the exact sum, lane = row. */
LLD_DOTPROD LLD_INLINE int32x4_t dot_rows(int bits, int8x16_t q[4][2], const lld_bits_column *x,
                                          size_t part)
{
    int8x16_t y[2];
    int32x4_t sum[4];
    lld_bits_order(bits, x->y + part * LLD_QK, y);
    for (int r = 0; r < 4; r++)
        sum[r] = vdotq_s32(vdotq_s32(vdupq_n_s32(0), q[r][0], y[0]), q[r][1], y[1]);
    int32x4_t rows = vpaddq_s32(vpaddq_s32(sum[0], sum[1]), vpaddq_s32(sum[2], sum[3]));
    int32x4_t start = vdupq_n_s32(-x->sum[part]);
    return bits == 1 ? vmlsq_s32(start, rows, vdupq_n_s32(2)) : vaddq_s32(start, rows);
}

LLD_DOTPROD LLD_INLINE void bits_cell(int bits, int width, float *out, size_t out_stride,
                                      const lld_row_group *group, const lld_acts *acts, size_t col,
                                      size_t n_cols)
{
    const size_t n_parts = (size_t)(4 / bits), n_blocks = acts->n_cols / (n_parts * LLD_QK);
    const lld_row_group w = *group;
    lld_bits_column x[4];
    float32x4_t acc[4];
#pragma GCC unroll 4
    for (int c = 0; c < width; c++) {
        x[c] = lld_bits_column_at(acts, lld_cell_column(col, n_cols, c));
        acc[c] = vdupq_n_f32(0.0f);
    }
    for (size_t b = 0; b < n_blocks; b++) {
        const size_t at = b * LLD_BITS_BLOCK_BYTES;
        if (width == 1) lld_prefetch_rows(&w, at);
        const float32x4_t scale = lld_row_halves(&w, at);
#pragma GCC unroll 4
        for (size_t p = 0; p < n_parts; p++) {
            const size_t part = b * n_parts + p;
            int8x16_t q[4][2];
            for (int r = 0; r < 4; r++)
                lld_bits_unpack(bits, w.row[r] + at + LLD_BITS_QS + p * (size_t)(4 * bits), q[r]);
#pragma GCC unroll 4
            for (int c = 0; c < width; c++) {
                const int32x4_t sum = dot_rows(bits, q, &x[c], part);
                acc[c] = vfmaq_f32(acc[c], vmulq_n_f32(scale, x[c].d[part]), vcvtq_f32_s32(sum));
            }
            lld_keep_loads_below();
        }
    }
#pragma GCC unroll 4
    for (int c = 0; c < width; c++)
        if ((size_t)c < n_cols) lld_store_rows(out + (col + c) * out_stride, acc[c], w.n);
}

LLD_DOTPROD LLD_NEON_CELL(q1_0_one, bits_cell, 1, 1) LLD_DOTPROD
    LLD_NEON_CELL(q1_0_two, bits_cell, 1, 2) LLD_DOTPROD LLD_NEON_CELL(q1_0_four, bits_cell, 1, 4)
        LLD_NEON_MATMUL(q1_0, q1_0_one, q1_0_two, q1_0_four) LLD_DOTPROD
    LLD_NEON_CELL(q2_0_one, bits_cell, 2, 1) LLD_DOTPROD
    LLD_NEON_CELL(q2_0_two, bits_cell, 2, 2) LLD_DOTPROD LLD_NEON_CELL(q2_0_four, bits_cell, 2, 4)
        LLD_NEON_MATMUL(q2_0, q2_0_one, q2_0_two, q2_0_four)

            void lld_dotprod_init_bits(lld_kernels *table)
{
    table->matmul[LLD_Q1_0] = q1_0_matmul;
    table->matmul[LLD_Q2_0] = q2_0_matmul;
}

#endif
