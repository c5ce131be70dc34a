/* matmul_panel.c - dotprod (armv8.2) matmuls for many columns. Eight rows are unpacked once
 * into a panel of int8 in scratch (L1 or L2), then multiplied with four columns at a time.
 *
 * Panel: (K/4, 8, 4) int8, so that one 16-byte load holds four elements of four rows and SDOT by
 * element multiplies them with four elements of one column: the int32 results have lane = row.
 * The 16 accumulators (integer and float, 8 rows x 4 columns) and the operands fit the
 * registers. Behind it in scratch lie the float scales, and the integer scales of superblocks. */
#include "kernels/dotprod/matmul.h"

#if defined(__aarch64__)

enum { PANEL_ROWS = 8, PANEL_COLUMNS = 4 };

typedef struct panel {
    int8_t *q;         /* (K/4, 8, 4) */
    float *d, *m;      /* (K/32, 8) or (K/256, 8); m: the additive scale, or dmin */
    int16_t *scale;    /* superblocks: (K/16, 8) or (K/32, 8) */
    int16_t (*min)[4]; /* superblocks: (2 row groups, K/256 * 16, 4) */
    size_t n_rows;     /* rows to store, 1..8 */
} panel;

static panel panel_in(void *scratch, size_t k)
{
    panel p = {.q = scratch};
    p.d = (float *)(void *)(p.q + PANEL_ROWS * k);
    p.m = p.d + PANEL_ROWS * (k / LLD_QK);
    p.scale = (int16_t *)(void *)(p.m + PANEL_ROWS * (k / LLD_QK));
    p.min = (int16_t(*)[4])(void *)(p.scale + PANEL_ROWS * (k / 16));
    return p;
}

/* The mins of superblock b of a row group. */
LLD_INLINE int16_t (*panel_mins(const panel *p, size_t group, size_t b, size_t k))[4]
{
    return p->min + (group * (k / LLD_QK_K) + b) * 16;
}

/* 16 elements of four rows to the panel: q at the first element's row, four rows of every eight. */
LLD_INLINE void pack_16(int8_t *q, const int8x16_t rows[4][2], int i)
{
    int32x4_t r[4];
    for (int n = 0; n < 4; n++) r[n] = vreinterpretq_s32_s8(rows[n][i]);
    int64x2_t even0 = vreinterpretq_s64_s32(vtrn1q_s32(r[0], r[1]));
    int64x2_t even1 = vreinterpretq_s64_s32(vtrn1q_s32(r[2], r[3]));
    int64x2_t odd0 = vreinterpretq_s64_s32(vtrn2q_s32(r[0], r[1]));
    int64x2_t odd1 = vreinterpretq_s64_s32(vtrn2q_s32(r[2], r[3]));
    vst1q_s8(q, vreinterpretq_s8_s64(vtrn1q_s64(even0, even1)));
    vst1q_s8(q + 32, vreinterpretq_s8_s64(vtrn1q_s64(odd0, odd1)));
    vst1q_s8(q + 64, vreinterpretq_s8_s64(vtrn2q_s64(even0, even1)));
    vst1q_s8(q + 96, vreinterpretq_s8_s64(vtrn2q_s64(odd0, odd1)));
}

/* One row group to rows first .. first+3 of the panel, 32-element blocks. */
LLD_INLINE void pack_blocks(const lld_neon_format32 *f, const panel *p, size_t first,
                            const lld_row_group *w, size_t k)
{
    size_t step = f->bytes;
    for (size_t b = 0; b < k / LLD_QK; b++) {
        int8x16_t q[4][2];
        for (int r = 0; r < 4; r++) lld_unpack_block(f, w->row[r] + b * step, q[r]);
        for (int i = 0; i < 2; i++)
            pack_16(p->q + (b * LLD_QK + 16 * i) * PANEL_ROWS + 4 * first, q, i);
        vst1q_f32(p->d + b * PANEL_ROWS + first, lld_row_scales(f, w, b * step));
        if (f->has_min)
            vst1q_f32(p->m + b * PANEL_ROWS + first,
                      lld_row_halves(w, b * step + offsetof(lld_block_q4_1, m)));
    }
}

/* The same for superblocks. */
LLD_INLINE void pack_k(const lld_neon_format256 *f, const panel *p, size_t first,
                       const lld_row_group *group, size_t k)
{
    lld_row_group w = *group;
    int n_sub = f->sub_16 ? 16 : 8;
    for (size_t b = 0; b < k / LLD_QK_K; b++) {
        int8_t *q = p->q + b * LLD_QK_K * PANEL_ROWS + 4 * first;
        lld_k_scales scales;
        f->scales(&w, &scales);
        for (int j = 0; j < n_sub; j++)
            vst1_s16(p->scale + (b * n_sub + j) * PANEL_ROWS + first, vld1_s16(scales.scale[j]));
        if (f->has_min) memcpy(panel_mins(p, first / 4, b, k), scales.min, sizeof scales.min);
        vst1q_f32(p->d + b * PANEL_ROWS + first, lld_k_row_d(f, &w));
        if (f->has_min) vst1q_f32(p->m + b * PANEL_ROWS + first, lld_row_halves(&w, f->d_at + 2));
        for (int half = 0; half < 2; half++)
#pragma GCC unroll 4
            for (int g = 0; g < 4; g++) {
                int8x16_t weights[4][2];
                for (int r = 0; r < 4; r++) lld_unpack_k(f, w.row[r], half, g, weights[r]);
                for (int i = 0; i < 2; i++)
                    pack_16(q + (128 * half + 32 * g + 16 * i) * PANEL_ROWS, weights, i);
            }
        for (int r = 0; r < 4; r++) w.row[r] += f->bytes;
    }
}

/* Accumulators of a panel cell: [column][rows 0-3, rows 4-7]. */
typedef struct tile_i32 {
    int32x4_t v[PANEL_COLUMNS][2];
} tile_i32;

typedef struct tile_f32 {
    float32x4_t v[PANEL_COLUMNS][2];
} tile_f32;

#define DOT_LANE(lane)                                                                             \
    do {                                                                                           \
        lld_keep_loads_below();                                                                    \
        int8x16_t low = vld1q_s8(q + 32 * lane), high = vld1q_s8(q + 32 * lane + 16);              \
        for (int c = 0; c < PANEL_COLUMNS; c++) {                                                  \
            sum->v[c][0] = vdotq_laneq_s32(sum->v[c][0], low, part[c], lane);                      \
            sum->v[c][1] = vdotq_laneq_s32(sum->v[c][1], high, part[c], lane);                     \
        }                                                                                          \
    } while (0)

/* sum += 16 elements of eight rows times those of four columns, from y[c] + k on. */
LLD_DOTPROD LLD_INLINE void dot_16(tile_i32 *sum, const int8_t *q,
                                   const int8_t *const y[PANEL_COLUMNS], size_t k)
{
    int8x16_t part[PANEL_COLUMNS];
#pragma GCC unroll 4
    for (int c = 0; c < PANEL_COLUMNS; c++) part[c] = vld1q_s8(y[c] + k);
    DOT_LANE(0);
    DOT_LANE(1);
    DOT_LANE(2);
    DOT_LANE(3);
}

/* One cell: eight rows, up to four columns from `col` on. The last column is repeated, not
 * stored. */
typedef struct panel_cell {
    const panel *p;
    const lld_acts *x;
    size_t column[PANEL_COLUMNS];
    const int8_t *y[PANEL_COLUMNS];
} panel_cell;

LLD_INLINE tile_f32 zero_tile(void)
{
    tile_f32 tile;
#pragma GCC unroll 4
    for (int c = 0; c < PANEL_COLUMNS; c++) tile.v[c][0] = tile.v[c][1] = vdupq_n_f32(0.0f);
    return tile;
}

LLD_DOTPROD LLD_INLINE tile_f32 dot_blocks(const lld_neon_format32 *f, panel_cell cell)
{
    const panel p = *cell.p;
    const lld_acts *x = cell.x;
    const float *d_y = x->d, *s_y = x->s;
    const int32_t *sum_y = x->sum;
    tile_f32 acc = zero_tile();
    size_t n_blocks = x->n_cols / LLD_QK;
    for (size_t b = 0; b < n_blocks; b++) {
        tile_i32 sum;
#pragma GCC unroll 4
        for (int c = 0; c < PANEL_COLUMNS; c++) {
            int32_t offset = f->offset;
            int32_t start = offset ? offset * sum_y[cell.column[c] * n_blocks + b] : 0;
            sum.v[c][0] = sum.v[c][1] = vdupq_n_s32(start);
        }
#pragma GCC unroll 2
        for (int i = 0; i < LLD_QK; i += 16)
            dot_16(&sum, p.q + (b * LLD_QK + i) * PANEL_ROWS, cell.y, b * LLD_QK + i);
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            float32x4_t d = vld1q_f32(p.d + b * PANEL_ROWS + 4 * h);
            float32x4_t m = f->has_min ? vld1q_f32(p.m + b * PANEL_ROWS + 4 * h) : d;
#pragma GCC unroll 4
            for (int c = 0; c < PANEL_COLUMNS; c++) {
                size_t i = cell.column[c] * n_blocks + b;
                float32x4_t scale = vmulq_n_f32(d, d_y[i]);
                acc.v[c][h] = vfmaq_f32(acc.v[c][h], scale, vcvtq_f32_s32(sum.v[c][h]));
                if (f->has_min) acc.v[c][h] = vfmaq_n_f32(acc.v[c][h], m, s_y[i]);
            }
        }
    }
    return acc;
}

/* total += scale * products of sub-block j (counted from the row's start), eight rows x four
 * columns. */
LLD_DOTPROD LLD_INLINE void dot_sub_block(const lld_neon_format256 *f, const panel *p,
                                          const panel_cell *cell, size_t j, tile_i32 *total)
{
    size_t size = f->sub_16 ? 16 : 32;
    int16x8_t scale = vld1q_s16(p->scale + j * PANEL_ROWS);
    int32x4_t low = vmovl_s16(vget_low_s16(scale)), high = vmovl_high_s16(scale);
    tile_i32 sum;
#pragma GCC unroll 4
    for (int c = 0; c < PANEL_COLUMNS; c++) {
        const int16_t *sums = cell->x->sum16 + cell->column[c] * (cell->x->n_cols / 16) + 2 * j;
        int32_t start = f->offset ? f->offset * (sums[0] + sums[1]) : 0;
        sum.v[c][0] = sum.v[c][1] = vdupq_n_s32(start);
    }
#pragma GCC unroll 2
    for (size_t i = 0; i < size; i += 16)
        dot_16(&sum, p->q + (j * size + i) * PANEL_ROWS, cell->y, j * size + i);
#pragma GCC unroll 4
    for (int c = 0; c < PANEL_COLUMNS; c++) {
        total->v[c][0] = vmlaq_s32(total->v[c][0], sum.v[c][0], low);
        total->v[c][1] = vmlaq_s32(total->v[c][1], sum.v[c][1], high);
    }
}

LLD_DOTPROD LLD_INLINE tile_f32 dot_k(const lld_neon_format256 *f, panel_cell cell)
{
    const panel p = *cell.p;
    const lld_acts *x = cell.x;
    tile_f32 acc = zero_tile();
    size_t n_blocks = x->n_cols / LLD_QK_K, n_sub = f->sub_16 ? 16 : 8;
    for (size_t b = 0; b < n_blocks; b++) {
        tile_i32 total;
#pragma GCC unroll 4
        for (int c = 0; c < PANEL_COLUMNS; c++) total.v[c][0] = total.v[c][1] = vdupq_n_s32(0);
        for (size_t j = b * n_sub; j < (b + 1) * n_sub; j++) dot_sub_block(f, &p, &cell, j, &total);
#pragma GCC unroll 2
        for (int h = 0; h < 2; h++) {
            float32x4_t d = vld1q_f32(p.d + b * PANEL_ROWS + 4 * h);
            float32x4_t dmin = f->has_min ? vld1q_f32(p.m + b * PANEL_ROWS + 4 * h) : d;
#pragma GCC unroll 4
            for (int c = 0; c < PANEL_COLUMNS; c++) {
                size_t i = cell.column[c] * n_blocks + b;
                float32x4_t scale = vmulq_n_f32(d, x->d[i]);
                acc.v[c][h] = vfmaq_f32(acc.v[c][h], scale, vcvtq_f32_s32(total.v[c][h]));
                if (!f->has_min) continue;
                int32x4_t mins =
                    lld_k_dot_sums(f, panel_mins(&p, h, b, x->n_cols), x->sum16 + i * 16);
                scale = vmulq_n_f32(dmin, x->d[i]);
                acc.v[c][h] = vfmsq_f32(acc.v[c][h], scale, vcvtq_f32_s32(mins));
            }
        }
    }
    return acc;
}

typedef struct panel_format {
    void (*pack)(const panel *p, size_t first, const lld_row_group *w, size_t k);
    tile_f32 (*dot)(panel_cell cell);
} panel_format;

#define PACK_32  pack_blocks
#define PACK_256 pack_k
#define DOT_32   dot_blocks
#define DOT_256  dot_k
#define PANEL(name, function, block, ...)                                                          \
    static void pack_##function(const panel *p, size_t first, const lld_row_group *w, size_t k)    \
    {                                                                                              \
        PACK_##block(&lld_neon_##function, p, first, w, k);                                        \
    }                                                                                              \
    LLD_DOTPROD static tile_f32 dot_##function(panel_cell cell)                                    \
    {                                                                                              \
        return DOT_##block(&lld_neon_##function, cell);                                            \
    }
LLD_NEON_FORMATS(PANEL)

static const panel_format formats[LLD_TYPE_COUNT] = {
#define ENTRY(name, function, block, ...) [LLD_##name] = {pack_##function, dot_##function},
    LLD_NEON_FORMATS(ENTRY)};

static void multiply_columns(const panel_format *format, const panel *p, const lld_acts *x,
                             size_t col, float *out, size_t out_stride)
{
    size_t n = x->n_rows - col < PANEL_COLUMNS ? x->n_rows - col : PANEL_COLUMNS;
    panel_cell cell = {.p = p, .x = x};
    for (size_t c = 0; c < PANEL_COLUMNS; c++) {
        cell.column[c] = lld_cell_column(col, n, c);
        cell.y[c] = x->y + cell.column[c] * x->y_stride;
    }
    tile_f32 sums = format->dot(cell);
    for (size_t c = 0; c < n; c++) {
        float *at = out + (col + c) * out_stride;
        lld_store_rows(at, sums.v[c][0], p->n_rows < 4 ? p->n_rows : 4);
        if (p->n_rows > 4) lld_store_rows(at + 4, sums.v[c][1], p->n_rows - 4);
    }
}

void lld_dotprod_panels(uint32_t type, const lld_matmul *m)
{
    const panel_format *format = &formats[type];
    const lld_acts *x = m->x;
    panel p = panel_in(m->scratch, x->n_cols);
    for (size_t row = 0; row < m->n_rows; row += PANEL_ROWS) {
        p.n_rows = m->n_rows - row < PANEL_ROWS ? m->n_rows - row : PANEL_ROWS;
        for (size_t first = 0; first < PANEL_ROWS; first += 4) {
            size_t at = row + first < m->n_rows ? row + first : m->n_rows - 1;
            lld_row_group group = lld_row_group_at(m->w, m->row_bytes, at, m->n_rows);
            format->pack(&p, first, &group, x->n_cols);
        }
        for (size_t col = 0; col < x->n_rows; col += PANEL_COLUMNS)
            multiply_columns(format, &p, x, col, m->out + row, m->out_stride);
    }
}

#endif
