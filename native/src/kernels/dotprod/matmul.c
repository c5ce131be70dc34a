/* matmul.c - dotprod (armv8.2) matmuls of all quantized formats, for one to three
 * columns: four rows share each load of activations, straight from the GGUF layout. An SDOT adds
 * four products a lane to 32 bits, so there is nothing to overflow; rows are reduced together,
 * lane = row. More columns: matmul_panel.c. */
#include "kernels/dotprod/matmul.h"

#if defined(__aarch64__)

LLD_DOTPROD LLD_INLINE int32x4_t dot_32(const int8x16_t w[4][2], const int8_t *y)
{
    int8x16_t y0 = vld1q_s8(y), y1 = vld1q_s8(y + 16);
    int32x4_t sum[4];
    for (int r = 0; r < 4; r++)
        sum[r] = vdotq_s32(vdotq_s32(vdupq_n_s32(0), w[r][0], y0), w[r][1], y1);
    return vpaddq_s32(vpaddq_s32(sum[0], sum[1]), vpaddq_s32(sum[2], sum[3]));
}

LLD_DOTPROD LLD_INLINE int32x4_t dot_16(const int8x16_t w[4][2], int i, const int8_t *y)
{
    int8x16_t part = vld1q_s8(y);
    int32x4_t sum[4];
    for (int r = 0; r < 4; r++) sum[r] = vdotq_s32(vdupq_n_s32(0), w[r][i], part);
    return vpaddq_s32(vpaddq_s32(sum[0], sum[1]), vpaddq_s32(sum[2], sum[3]));
}

LLD_DOTPROD LLD_INLINE void blocks_cell(const lld_neon_format32 *f, int width, float *out,
                                        size_t out_stride, const lld_row_group *group,
                                        const lld_acts *x, size_t col, size_t n_cols)
{
    size_t n_blocks = x->n_cols / LLD_QK, step = f->bytes;
    lld_row_group w = *group;
    float32x4_t acc[2] = {vdupq_n_f32(0.0f), vdupq_n_f32(0.0f)};
    for (size_t b = 0; b < n_blocks; b++) {
        int8x16_t q[4][2];
        for (int r = 0; r < 4; r++) lld_unpack_block(f, w.row[r] + b * step, q[r]);
        if (b % 2 == 0) lld_prefetch_rows(&w, b * step);
        float32x4_t scale = lld_row_scales(f, &w, b * step);
        float32x4_t min = scale;
        if (f->has_min) min = lld_row_halves(&w, b * step + offsetof(lld_block_q4_1, m));
        for (int c = 0; c < width; c++) {
            size_t column = lld_cell_column(col, n_cols, c), i = column * n_blocks + b;
            int32x4_t sum = dot_32(q, x->y + column * x->y_stride + b * LLD_QK);
            if (f->offset) sum = vaddq_s32(sum, vdupq_n_s32(f->offset * x->sum[i]));
            acc[c] = vfmaq_f32(acc[c], vmulq_n_f32(scale, x->d[i]), vcvtq_f32_s32(sum));
            if (f->has_min) acc[c] = vfmaq_n_f32(acc[c], min, x->s[i]);
        }
    }
    for (int c = 0; c < width; c++)
        if ((size_t)c < n_cols) lld_store_rows(out + (col + c) * out_stride, acc[c], w.n);
}

/* The integer sums of one superblock: sum[c] = scaled products of w (at the superblock) and
 * y[c]. */
LLD_DOTPROD LLD_INLINE void superblock_sums(const lld_neon_format256 *f, int width,
                                            const lld_row_group *w, const lld_k_scales *k,
                                            const int8_t *const y[2], int32x4_t sum[2])
{
    for (int c = 0; c < width; c++) sum[c] = vdupq_n_s32(0);
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
            if (g % 2 == 0) lld_prefetch_rows(w, 32 * j);
            for (int c = 0; c < width; c++) {
                const int8_t *at = y[c] + 32 * j;
                if (!f->sub_16) {
                    sum[c] = vmlaq_s32(sum[c], dot_32(q, at), vmovl_s16(vld1_s16(k->scale[j])));
                    continue;
                }
                for (int i = 0; i < 2; i++) {
                    int32x4_t scale = vmovl_s16(vld1_s16(k->scale[2 * j + i]));
                    sum[c] = vmlaq_s32(sum[c], dot_16(q, i, at + 16 * i), scale);
                }
            }
        }
    }
}

LLD_DOTPROD LLD_INLINE void k_cell(const lld_neon_format256 *f, int width, float *out,
                                   size_t out_stride, const lld_row_group *group, const lld_acts *x,
                                   size_t col, size_t n_cols)
{
    size_t n_blocks = x->n_cols / LLD_QK_K, step = f->bytes;
    lld_row_group w = *group;
    const int8_t *y[2];
    float32x4_t acc[2] = {vdupq_n_f32(0.0f), vdupq_n_f32(0.0f)};
    for (int c = 0; c < width; c++) y[c] = x->y + lld_cell_column(col, n_cols, c) * x->y_stride;
    for (size_t b = 0; b < n_blocks; b++) {
        lld_k_scales k;
        int32x4_t sum[2];
        f->scales(&w, &k);
        superblock_sums(f, width, &w, &k, y, sum);
        for (int c = 0; c < width; c++) {
            size_t i = lld_cell_column(col, n_cols, c) * n_blocks + b;
            acc[c] = lld_k_float_step(f, acc[c], sum[c], &w, &k, x, i);
            y[c] += LLD_QK_K;
        }
        for (int r = 0; r < 4; r++) w.row[r] += step;
    }
    for (int c = 0; c < width; c++)
        if ((size_t)c < n_cols) lld_store_rows(out + (col + c) * out_stride, acc[c], w.n);
}

#define CELL_32  blocks_cell
#define CELL_256 k_cell
#define MATMUL(name, function, block, ...)                                                         \
    LLD_DOTPROD LLD_NEON_CELL(function##_one, CELL_##block, &lld_neon_##function, 1) LLD_DOTPROD   \
    LLD_NEON_CELL(function##_two, CELL_##block, &lld_neon_##function,                              \
                  2) static void function##_matmul(const lld_matmul *m)                            \
    {                                                                                              \
        static const lld_cells cells = {function##_one, function##_two, NULL};                     \
        if (m->x->n_rows >= LLD_PANEL_MIN_COLUMNS)                                                 \
            lld_dotprod_panels(LLD_##name, m);                                                     \
        else                                                                                       \
            lld_neon_matmul(&cells, m);                                                            \
    }
LLD_NEON_FORMATS(MATMUL)

void lld_dotprod_init_matmul(lld_kernels *table)
{
#define SET(name, function, block, ...) table->matmul[LLD_##name] = function##_matmul;
    LLD_NEON_FORMATS(SET)
}

#endif
