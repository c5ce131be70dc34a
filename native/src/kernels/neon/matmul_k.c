/* matmul_k.c - NEON (armv8.0) matmuls of the formats with 256-element blocks: Q2_K Q3_K Q4_K
 * Q5_K Q6_K IQ4_XS IQ2 IQ3. Owns the integer sum over a superblock and the float chain over superblocks.
 *
 * As in matmul_blocks.c four rows are reduced together by pairwise adds in 16 bits, which
 * leaves two lanes a row; these are multiplied by the rows' sub-block scales on the way to 32
 * bits, so there is one float step per 256. Bounds, with |y| <= 127: lanes of four products of 4
 * or 5 bits, or of two of 6 bits, hold at most 8128, after two pairwise adds 32512 < 32768. Of
 * 7-bit weights a lane of four products holds 4*62*127 = 31496, or one of two, after a pairwise add,
 * 4*43*127 = 21844; they go on in 32 bits. Mins and offsets enter through the activations' block sums. */
#include "kernels/neon/formats.h"

#if defined(__aarch64__)

/* Sums of four rows, two lanes a row. */
LLD_INLINE int16x8_t reduce_rows(const int16x8_t sum[4])
{
    return vpaddq_s16(vpaddq_s16(sum[0], sum[1]), vpaddq_s16(sum[2], sum[3]));
}

/* Integer sums of four rows and one column, two lanes a row: rows 0 and 1, rows 2 and 3. */
typedef struct row_sums {
    int32x4_t low, high;
} row_sums;

LLD_INLINE row_sums add_scaled(row_sums acc, int16x8_t sums, const int16_t scale[4])
{
    int16x4_t rows = vld1_s16(scale);
    int16x8_t twice = vzip1q_s16(vcombine_s16(rows, rows), vcombine_s16(rows, rows));
    acc.low = vmlal_s16(acc.low, vget_low_s16(sums), vget_low_s16(twice));
    acc.high = vmlal_high_s16(acc.high, sums, twice);
    return acc;
}

/* The same of sums of 32 bits: of rows 0 and 1, of rows 2 and 3. */
LLD_INLINE row_sums add_scaled_32(row_sums acc, int32x4_t low, int32x4_t high,
                                  const int16_t scale[4])
{
    int16x4_t rows = vld1_s16(scale);
    acc.low = vmlaq_s32(acc.low, low, vmovl_s16(vzip1_s16(rows, rows)));
    acc.high = vmlaq_s32(acc.high, high, vmovl_s16(vzip2_s16(rows, rows)));
    return acc;
}

/* acc + scale * (32 products), one sub-block. */
LLD_INLINE row_sums dot_32(row_sums acc, int8x16_t w[4][2], const int8_t *y, const int16_t scale[4])
{
    int8x16_t y0 = vld1q_s8(y), y1 = vld1q_s8(y + 16);
    int16x8_t sum[4];
    for (int r = 0; r < 4; r++) {
        sum[r] = vmull_s8(vget_low_s8(w[r][0]), vget_low_s8(y0));
        sum[r] = vmlal_high_s8(sum[r], w[r][0], y0);
        sum[r] = vmlal_s8(sum[r], vget_low_s8(w[r][1]), vget_low_s8(y1));
        sum[r] = vmlal_high_s8(sum[r], w[r][1], y1);
    }
    return add_scaled(acc, reduce_rows(sum), scale);
}

/* The same for two sub-blocks of 16. */
LLD_INLINE row_sums dot_16(row_sums acc, int8x16_t w[4][2], const int8_t *y, int16_t (*scale)[4])
{
    for (int i = 0; i < 2; i++) {
        int8x16_t part = vld1q_s8(y + 16 * i);
        int16x8_t sum[4];
        for (int r = 0; r < 4; r++)
            sum[r] =
                vmlal_high_s8(vmull_s8(vget_low_s8(w[r][i]), vget_low_s8(part)), w[r][i], part);
        acc = add_scaled(acc, reduce_rows(sum), scale[i]);
    }
    return acc;
}

/* The same for one sub-block of 8-bit weights. */
LLD_INLINE row_sums dot_wide(row_sums acc, int8x16_t w[4][2], const int8_t *y,
                             const int16_t scale[4])
{
    int32x4_t sum[4];
    for (int r = 0; r < 4; r++) {
        sum[r] = vdupq_n_s32(0);
        for (int i = 0; i < 2; i++) {
            int8x16_t part = vld1q_s8(y + 16 * i);
            int16x8_t pair = vmull_s8(vget_low_s8(w[r][i]), vget_low_s8(part));
            sum[r] = vpadalq_s16(sum[r], vmlal_high_s8(pair, w[r][i], part));
        }
    }
    return add_scaled_32(acc, vpaddq_s32(sum[0], sum[1]), vpaddq_s32(sum[2], sum[3]), scale);
}

/* The same for one sub-block of 7-bit weights. */
LLD_INLINE row_sums dot_middle_32(row_sums acc, int8x16_t w[4][2], const int8_t *y,
                                  const int16_t scale[4])
{
    int8x16_t y0 = vld1q_s8(y), y1 = vld1q_s8(y + 16);
    int32x4_t sum[4];
    for (int r = 0; r < 4; r++) {
        int16x8_t four = vmull_s8(vget_low_s8(w[r][0]), vget_low_s8(y0));
        four = vmlal_high_s8(four, w[r][0], y0);
        four = vmlal_s8(four, vget_low_s8(w[r][1]), vget_low_s8(y1));
        sum[r] = vpaddlq_s16(vmlal_high_s8(four, w[r][1], y1));
    }
    return add_scaled_32(acc, vpaddq_s32(sum[0], sum[1]), vpaddq_s32(sum[2], sum[3]), scale);
}

/* The same for two sub-blocks of 16. */
LLD_INLINE row_sums dot_middle_16(row_sums acc, int8x16_t w[4][2], const int8_t *y,
                                  int16_t (*scale)[4])
{
    for (int i = 0; i < 2; i++) {
        int8x16_t part = vld1q_s8(y + 16 * i);
        int16x8_t sum[4];
        for (int r = 0; r < 4; r++)
            sum[r] =
                vmlal_high_s8(vmull_s8(vget_low_s8(w[r][i]), vget_low_s8(part)), w[r][i], part);
        acc = add_scaled_32(acc, vpaddlq_s16(vpaddq_s16(sum[0], sum[1])),
                            vpaddlq_s16(vpaddq_s16(sum[2], sum[3])), scale[i]);
    }
    return acc;
}

/* A bound on the compiler's reordering: these sums are complete before anything after is loaded.
 * Two columns in flight keep the pipes busy; with more it runs out of registers and spills. */
LLD_INLINE void finish_columns(row_sums *a, row_sums *b)
{
    __asm__ volatile("" : "+w"(a->low), "+w"(a->high), "+w"(b->low), "+w"(b->high) : : "memory");
}

/* The integer sums of one superblock: sum[c] = scaled products of w (at the superblock) and
 * y[c]. */
LLD_INLINE void superblock_sums(const lld_neon_format256 *f, int width, const lld_row_group *w,
                                lld_k_scales *k, const int8_t *const y[4], row_sums sum[4])
{
#pragma GCC unroll 4
    for (int c = 0; c < width; c++) sum[c].low = sum[c].high = vdupq_n_s32(0);
    for (int half = 0; half < 2; half++) {
#pragma GCC unroll 4
        for (int g = 0; g < 4; g++) {
            int8x16_t q[4][2];
            int j = 4 * half + g;
#pragma GCC unroll 4
            for (int r = 0; r < 4; r++) {
                lld_unpack_k(f, w->row[r], half, g, q[r]);
                if (f->grid) lld_keep_loads_below();
            }
            if (width == 1 && g % 2 == 0) lld_prefetch_rows(w, 32 * j);
#pragma GCC unroll 4
            for (int c = 0; c < width; c++) {
                if (f->wide)
                    sum[c] = dot_wide(sum[c], q, y[c] + 32 * j, k->scale[j]);
                else if (f->middle && f->sub_16)
                    sum[c] = dot_middle_16(sum[c], q, y[c] + 32 * j, k->scale + 2 * j);
                else if (f->middle)
                    sum[c] = dot_middle_32(sum[c], q, y[c] + 32 * j, k->scale[j]);
                else if (f->sub_16)
                    sum[c] = dot_16(sum[c], q, y[c] + 32 * j, k->scale + 2 * j);
                else
                    sum[c] = dot_32(sum[c], q, y[c] + 32 * j, k->scale[j]);
                if (c % 2) finish_columns(&sum[c - 1], &sum[c]);
            }
        }
    }
}

LLD_INLINE void k_cell(const lld_neon_format256 *f, int width, float *out, size_t out_stride,
                       const lld_row_group *group, const lld_acts *x, size_t col, size_t n_cols)
{
    size_t n_blocks = x->n_cols / LLD_QK_K, step = f->bytes;
    lld_row_group w = *group;
    size_t column[4];
    const int8_t *y[4];
    float32x4_t acc[4];
#pragma GCC unroll 4
    for (int c = 0; c < width; c++) {
        column[c] = lld_cell_column(col, n_cols, c);
        y[c] = x->y + column[c] * x->y_stride;
        acc[c] = vdupq_n_f32(0.0f);
    }
    for (size_t b = 0; b < n_blocks; b++) {
        lld_k_scales k;
        row_sums sum[4];
        f->scales(&w, &k);
        superblock_sums(f, width, &w, &k, y, sum);
#pragma GCC unroll 4
        for (int c = 0; c < width; c++) {
            int32x4_t rows = vpaddq_s32(sum[c].low, sum[c].high);
            acc[c] = lld_k_float_step(f, acc[c], rows, &w, &k, x, column[c] * n_blocks + b);
            y[c] += LLD_QK_K;
        }
        for (int r = 0; r < 4; r++) w.row[r] += step;
    }
#pragma GCC unroll 4
    for (int c = 0; c < width; c++)
        if ((size_t)c < n_cols) lld_store_rows(out + (col + c) * out_stride, acc[c], w.n);
}

#define K_32(name, function) /* matmul_blocks.c */
#define K_256(name, function)                                                                      \
    LLD_NEON_CELL(function##_one, k_cell, &lld_neon_##function, 1)                                 \
    LLD_NEON_CELL(function##_two, k_cell, &lld_neon_##function, 2)                                 \
    LLD_NEON_CELL(function##_four, k_cell, &lld_neon_##function, 4)                                \
    LLD_NEON_MATMUL(function, function##_one, function##_two, function##_four)
#define DEFINE(name, function, block, ...) K_##block(name, function)
LLD_NEON_FORMATS(DEFINE)

void lld_neon_init_k(lld_kernels *table)
{
#define SET_32(name, function)
#define SET_256(name, function)         table->matmul[LLD_##name] = function##_matmul;
#define SET(name, function, block, ...) SET_##block(name, function)
    LLD_NEON_FORMATS(SET)
}

#endif
