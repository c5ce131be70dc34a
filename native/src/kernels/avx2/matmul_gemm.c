/* matmul_gemm.c - weights times several activation rows with AVX2, for every block format.
 * Eight weight rows are unpacked once into a panel in scratch, transposed so that one vector holds
 * four consecutive elements of eight rows; then four activation rows (columns) at a time run over
 * it: each panel vector is loaded once and multiplied with four broadcast activation words. Lane =
 * weight row in every accumulator, so the float chain of an output does not depend on its
 * neighbours.
 *
 * Why this order: per panel vector five loads feed four vpmaddubsw and four vpaddw; the 16-bit sums
 * of a sub-block fit (matmul_formats.h), so widening and scaling cost one vpmaddwd a sub-block
 * and not one a product. 8x4 keeps its sums, the panel vector and a temporary in 16 registers; 8x3,
 * 8x5 and 8x6 were no faster. Signed 8-bit quants would need a vpsignb and a vpmaddwd a product.
 * Instead the panel holds q + 128 cut into nibbles, 16*high + low - 128: two vpmaddubsw and two
 * vpaddw, 4-bit sums that fit.
 *
 * Owns no format and no arithmetic rules: matmul_formats.h, kernels.h. */
#ifdef __x86_64__

#include <assert.h>

#include "kernels/avx2/matmul.h"

enum {
    COLUMNS = 4,       /* of one tile; its arrays have this size */
    FEW_COLUMNS = 2,   /* of a tile where no more are left: half the work */
    SPLIT_OFFSET = 128 /* of signed quants as unsigned bytes */
};

/* Formats whose panels hold every four elements as two vectors: high nibbles, low nibbles. */
LLD_AVX2_INLINE bool is_split(unsigned fit) { return fit == LLD_FIT_SIGNED; }

/* Panels that share one pass over the columns: 16 rows, or as many as scratch holds. */
LLD_AVX2_INLINE size_t panels_of_pass(unsigned fit) { return is_split(fit) ? 1 : 2; }

/* n vectors of signed quants to 2n vectors of nibbles, in place. */
LLD_AVX2_INLINE void split_quants(__m256i *q, size_t n)
{
    const __m256i nibble = _mm256_set1_epi8(15), offset = _mm256_set1_epi8((char)SPLIT_OFFSET);
    for (size_t i = n; i-- > 0;) {
        __m256i biased = _mm256_xor_si256(q[i], offset);
        q[2 * i] = _mm256_and_si256(_mm256_srli_epi16(biased, 4), nibble);
        q[2 * i + 1] = _mm256_and_si256(biased, nibble);
    }
}

/* ---- the integer cell -------------------------------------------------------------------- */

/* isum[c] += multiplier * (sum of `count` panel vectors times the activation words
 * y[c][0..4*count)), where at most `fit` products are added in 16 bits. multiplier: int16 pairs, by
 * row. */
LLD_AVX2_INLINE void multiply_tile(__m256i isum[COLUMNS], size_t n_cols, unsigned fit,
                                   unsigned count, const __m256i *q, const int8_t *const y[COLUMNS],
                                   size_t at, __m256i multiplier)
{
#pragma GCC unroll 8
    for (unsigned first = 0; first < count; first += fit) {
        __m256i pairs[COLUMNS];
#pragma GCC unroll 8
        for (unsigned i = 0; i < fit; i++) {
            const __m256i weights = q[first + i];
#pragma GCC unroll 8
            for (size_t c = 0; c < n_cols; c++) {
                __m256i products =
                    _mm256_maddubs_epi16(weights, lld_broadcast32(y[c] + at + 4 * (first + i)));
                pairs[c] = i == 0 ? products : _mm256_add_epi16(pairs[c], products);
                LLD_AVX2_PIN(pairs[c]);
            }
        }
#pragma GCC unroll 8
        for (size_t c = 0; c < n_cols; c++) {
            isum[c] = _mm256_add_epi32(isum[c], _mm256_madd_epi16(pairs[c], multiplier));
            LLD_AVX2_PIN(isum[c]);
        }
    }
}

/* The same for 8 split vectors of elements (16 in the panel). */
LLD_AVX2_INLINE void multiply_split_tile(__m256i isum[COLUMNS], size_t n_cols, const __m256i *q,
                                         const int8_t *const y[COLUMNS], size_t at,
                                         __m256i multiplier)
{
    const __m256i multiplier16 = _mm256_slli_epi16(multiplier, 4);
    __m256i high[COLUMNS], low[COLUMNS];
#pragma GCC unroll 8
    for (unsigned i = 0; i < LLD_FIT_4_BITS; i++) {
#pragma GCC unroll 8
        for (size_t c = 0; c < n_cols; c++) {
            __m256i acts = lld_broadcast32(y[c] + at + 4 * i);
            __m256i products = _mm256_maddubs_epi16(q[2 * i], acts);
            high[c] = i == 0 ? products : _mm256_add_epi16(high[c], products);
            LLD_AVX2_PIN(high[c]);
            products = _mm256_maddubs_epi16(q[2 * i + 1], acts);
            low[c] = i == 0 ? products : _mm256_add_epi16(low[c], products);
            LLD_AVX2_PIN(low[c]);
        }
    }
#pragma GCC unroll 8
    for (size_t c = 0; c < n_cols; c++) {
        __m256i sum = _mm256_add_epi32(_mm256_madd_epi16(high[c], multiplier16),
                                       _mm256_madd_epi16(low[c], multiplier));
        isum[c] = _mm256_add_epi32(isum[c], sum);
        LLD_AVX2_PIN(isum[c]);
    }
}

/* Where a tile's columns lie. Beyond the last activation row it is repeated; nobody stores those.
 */
typedef struct columns {
    const int8_t *y[COLUMNS];
    size_t row[COLUMNS];
    size_t first, count; /* count: those to store */
} columns;

LLD_AVX2_INLINE columns take_columns(const lld_acts *x, size_t first)
{
    columns cols = {.first = first,
                    .count = x->n_rows - first < COLUMNS ? x->n_rows - first : COLUMNS};
    for (size_t c = 0; c < COLUMNS; c++) {
        cols.row[c] = first + (c < cols.count ? c : cols.count - 1);
        cols.y[c] = x->y + cols.row[c] * x->y_stride;
    }
    return cols;
}

LLD_AVX2_INLINE void store_tile(float *out, size_t out_stride, size_t n_cols, const columns *cols,
                                const __m256 acc[COLUMNS], size_t n_rows)
{
#pragma GCC unroll 8
    for (size_t c = 0; c < n_cols; c++) /* unrolled, so that acc stays in registers */
        if (c < cols->count) lld_store_lanes(out + (cols->first + c) * out_stride, acc[c], n_rows);
}

/* While a pass's first columns are multiplied, the weights of the next pass are fetched: with few
 * columns the kernel is bound by memory, and the pack alone would not keep it busy. next: 0
 * after them. */
LLD_AVX2_INLINE void prefetch_weights(uintptr_t next, size_t at, size_t bytes)
{
    if (next != 0)
        for (size_t line = 0; line < LLD_AVX2_ROWS * bytes; line += 64)
            _mm_prefetch((const char *)(next + LLD_AVX2_ROWS * at + line), _MM_HINT_T1);
}

/* ---- blocks of 32 ------------------------------------------------------------------------ */

typedef struct panel32 { /* one block of eight rows */
    __m256 d, m;
    __m256i q[]; /* (8), or split (16) */
} panel32;

LLD_AVX2_INLINE size_t panel32_bytes(const lld_format32 *f)
{
    return sizeof(panel32) + (is_split(f->fit) ? 16 : 8) * sizeof(__m256i);
}

LLD_AVX2_INLINE void pack32(const lld_format32 *f, uint8_t *panels,
                            const uint8_t *const rows[LLD_AVX2_ROWS], size_t n_blocks)
{
    for (size_t b = 0; b < n_blocks; b++, panels += panel32_bytes(f)) {
        panel32 *panel = (panel32 *)panels;
        const size_t at = b * f->bytes;
        if (f->unpack8 != NULL) {
            f->unpack8(panel->q, rows, at);
        } else {
            for (int r = 0; r < LLD_AVX2_ROWS; r++) panel->q[r] = f->unpack(rows[r] + at);
            lld_transpose8x8(panel->q);
        }
        if (is_split(f->fit)) split_quants(panel->q, 8);
        panel->d = lld_gather_scales(f, rows, at);
        if (f->has_m) panel->m = lld_gather_f16(rows, at + 2);
    }
}

LLD_AVX2_INLINE void tile32(const lld_format32 *f, __m256 acc[COLUMNS], size_t n_cols,
                            const uint8_t *panels, const lld_acts *x, const columns *cols,
                            uintptr_t next)
{
    const size_t n_blocks = x->n_cols / LLD_QK;
    const int offset = is_split(f->fit) ? SPLIT_OFFSET : f->offset;
    const __m256i ones = _mm256_set1_epi16(1);
    const __m256i minus_offset = _mm256_set1_epi32(-offset & 0xffff); /* low half of the pair */
    const float *d[COLUMNS], *s[COLUMNS];
    const int32_t *sum[COLUMNS];
    for (size_t c = 0; c < n_cols; c++) {
        d[c] = x->d + cols->row[c] * n_blocks;
        s[c] = x->s + cols->row[c] * n_blocks;
        sum[c] = x->sum + cols->row[c] * n_blocks;
        acc[c] = _mm256_setzero_ps();
    }
    for (size_t b = 0; b < n_blocks; b++, panels += panel32_bytes(f)) {
        const panel32 *panel = (const panel32 *)panels;
        __m256i isum[COLUMNS];
        prefetch_weights(next, b * f->bytes, f->bytes);
#pragma GCC unroll 8
        for (size_t c = 0; c < n_cols; c++) isum[c] = _mm256_setzero_si256();
        if (is_split(f->fit))
            multiply_split_tile(isum, n_cols, panel->q, cols->y, b * LLD_QK, ones);
        else
            multiply_tile(isum, n_cols, f->fit, 8, panel->q, cols->y, b * LLD_QK, ones);
#pragma GCC unroll 8
        for (size_t c = 0; c < n_cols; c++) {
            if (offset != 0) { /* |sum| <= 32 * 127: its low 16 bits hold it */
                __m256i block_sum = lld_broadcast32(sum[c] + b);
                isum[c] = _mm256_add_epi32(isum[c], _mm256_madd_epi16(block_sum, minus_offset));
            }
            __m256 scale = _mm256_mul_ps(panel->d, _mm256_set1_ps(d[c][b]));
            acc[c] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(isum[c]), acc[c]);
            if (f->has_m) acc[c] = _mm256_fmadd_ps(panel->m, _mm256_set1_ps(s[c][b]), acc[c]);
        }
    }
}

/* ---- blocks of 256 ----------------------------------------------------------------------- */

typedef struct panel256 { /* one block of eight rows */
    __m256i scale[16];    /* int16 pairs (s, s): 8 scales of 32 elements or 16 of 16 */
    __m256i side[8];      /* int16 pairs for the sums of sixteens 2i and 2i+1 */
    __m256 d, dmin;
    __m256i q[]; /* (64), or split (128) */
} panel256;

LLD_AVX2_INLINE size_t panel256_bytes(const lld_format256 *f)
{
    return sizeof(panel256) + (is_split(f->fit) ? 128 : 64) * sizeof(__m256i);
}

/* pairs[i] lane r = (scale of sixteen 2i, scale of sixteen 2i+1) of row r -> one multiplier a
 * scale. */
LLD_AVX2_INLINE void spread_scales(const lld_format256 *f, __m256i scale[16],
                                   const __m256i pairs[8])
{
    for (int i = 0; i < 8; i++) {
        if (f->sub == 32) {
            scale[i] = pairs[i];
            continue;
        }
        __m256i low = _mm256_and_si256(pairs[i], _mm256_set1_epi32(0xffff));
        __m256i high = _mm256_srli_epi32(pairs[i], 16);
        scale[2 * i] = _mm256_or_si256(low, _mm256_slli_epi32(low, 16));
        scale[2 * i + 1] = _mm256_or_si256(high, _mm256_slli_epi32(high, 16));
    }
}

/* What the panel's quants are above the format's, besides its own offset. */
LLD_AVX2_INLINE int gemm_offset(const lld_format256 *f)
{
    return is_split(f->fit) ? SPLIT_OFFSET : f->magnitudes != NULL ? f->bias : 0;
}

/* Scales and side values of a block of eight rows. */
LLD_AVX2_INLINE void pack_scales(const lld_format256 *f, panel256 *panel,
                                 const uint8_t *const rows[LLD_AVX2_ROWS], size_t at)
{
    __m256i scale[LLD_AVX2_ROWS], side[LLD_AVX2_ROWS];
    for (int r = 0; r < LLD_AVX2_ROWS; r++) {
        f->scales(rows[r] + at, &scale[r], &side[r]);
        if (gemm_offset(f) != 0)
            side[r] = _mm256_mullo_epi16(scale[r], _mm256_set1_epi16((short)-gemm_offset(f)));
    }
    lld_transpose8x8(scale);
    lld_transpose8x8(side);
    spread_scales(f, panel->scale, scale);
    memcpy(panel->side, side, sizeof side);
    panel->d = lld_gather_d(f, rows, at);
    if (f->side == LLD_SIDE_MIN) panel->dmin = lld_gather_f16(rows, at + f->dmin_at);
}

/* Elements 32j..32j+31 of a row's block; grid: what is known of the whole block, where that is used. */
LLD_AVX2_INLINE __m256i unpack_row(const lld_format256 *f, const uint8_t *block, unsigned j,
                                   const lld_grid_block *grid)
{
    if (f->magnitudes == NULL) return f->unpack(block, j);
    const __m256i signs = lld_spread_signs(grid->signs + 4 * j);
    return _mm256_add_epi8(_mm256_sign_epi8(f->magnitudes(block, grid, j), signs),
                           _mm256_set1_epi8((char)f->bias));
}

LLD_AVX2_INLINE void pack256(const lld_format256 *f, uint8_t *panels,
                             const uint8_t *const rows[LLD_AVX2_ROWS], size_t n_blocks)
{
    for (size_t b = 0; b < n_blocks; b++, panels += panel256_bytes(f)) {
        panel256 *panel = (panel256 *)panels;
        const size_t at = b * f->bytes;
        lld_grid_block grids[LLD_AVX2_ROWS];
        for (int r = 0; r < LLD_AVX2_ROWS && f->magnitudes != NULL; r++)
            f->prepare(rows[r] + at, &grids[r]);
        pack_scales(f, panel, rows, at);
#pragma GCC unroll 8
        for (unsigned j = 0; j < 8; j++) {
            __m256i *q = panel->q + (is_split(f->fit) ? 16 : 8) * j;
            if (f->unpack8 != NULL) {
                if (j % 2 == 0) f->unpack8(q, rows, at, j / 2);
                continue;
            }
            for (int r = 0; r < LLD_AVX2_ROWS; r++)
                q[r] = unpack_row(f, rows[r] + at, j, &grids[r]);
            lld_transpose8x8(q);
            if (is_split(f->fit)) split_quants(q, 8);
        }
    }
}

/* isum += side values times the sums of 16 activations. */
LLD_AVX2_INLINE void multiply_sides(__m256i isum[COLUMNS], size_t n_cols, const __m256i side[8],
                                    const int16_t *const sum16[COLUMNS], size_t at)
{
#pragma GCC unroll 8
    for (size_t i = 0; i < 8; i++)
#pragma GCC unroll 8
        for (size_t c = 0; c < n_cols; c++) {
            __m256i sums = lld_broadcast32(sum16[c] + at + 2 * i);
            isum[c] = _mm256_add_epi32(isum[c], _mm256_madd_epi16(side[i], sums));
        }
}

/* The scaled integer sums of one block of 256. */
LLD_AVX2_INLINE void sum_tile256(const lld_format256 *f, __m256i isum[COLUMNS], size_t n_cols,
                                 const panel256 *panel, const int8_t *const y[COLUMNS], size_t at)
{
    const unsigned count = f->sub / 4; /* panel vectors of one scale */
    for (unsigned j = 0; j < LLD_QK_K / f->sub; j++)
        if (is_split(f->fit))
            multiply_split_tile(isum, n_cols, panel->q + 2 * count * j, y, at + f->sub * j,
                                panel->scale[j]);
        else
            multiply_tile(isum, n_cols, f->fit, count, panel->q + count * j, y, at + f->sub * j,
                          panel->scale[j]);
}

LLD_AVX2_INLINE void tile256(const lld_format256 *f, __m256 acc[COLUMNS], size_t n_cols,
                             const uint8_t *panels, const lld_acts *x, const columns *cols,
                             uintptr_t next)
{
    const size_t n_blocks = x->n_cols / LLD_QK_K;
    const float *d[COLUMNS];
    const int16_t *sum16[COLUMNS];
    for (size_t c = 0; c < n_cols; c++) {
        d[c] = x->d + cols->row[c] * n_blocks;
        sum16[c] = x->sum16 + cols->row[c] * n_blocks * (LLD_QK_K / 16);
        acc[c] = _mm256_setzero_ps();
    }
    for (size_t b = 0; b < n_blocks; b++, panels += panel256_bytes(f)) {
        const panel256 *panel = (const panel256 *)panels;
        __m256i isum[COLUMNS], msum[COLUMNS];
        prefetch_weights(next, b * f->bytes, f->bytes);
        for (size_t c = 0; c < n_cols; c++) isum[c] = msum[c] = _mm256_setzero_si256();
        if (f->side == LLD_SIDE_OFFSET || gemm_offset(f) != 0)
            multiply_sides(isum, n_cols, panel->side, sum16, b * (LLD_QK_K / 16));
        sum_tile256(f, isum, n_cols, panel, cols->y, b * LLD_QK_K);
        if (f->side == LLD_SIDE_MIN)
            multiply_sides(msum, n_cols, panel->side, sum16, b * (LLD_QK_K / 16));
#pragma GCC unroll 8
        for (size_t c = 0; c < n_cols; c++) {
            const __m256 dx = _mm256_set1_ps(d[c][b]);
            acc[c] =
                _mm256_fmadd_ps(_mm256_mul_ps(panel->d, dx), _mm256_cvtepi32_ps(isum[c]), acc[c]);
            if (f->side == LLD_SIDE_MIN)
                acc[c] = _mm256_fnmadd_ps(_mm256_mul_ps(panel->dmin, dx),
                                          _mm256_cvtepi32_ps(msum[c]), acc[c]);
        }
    }
}

/* ---- the walk over rows and columns --------------------------------------------------------- */

/* A format of either size; the other pointer is NULL. Known after inlining. */
typedef struct format {
    const lld_format32 *of32;
    const lld_format256 *of256;
} format;

typedef struct operands {
    lld_matmul m;
    size_t n_blocks, panel_bytes, pass_rows;
} operands;

LLD_AVX2_INLINE void pack_rows(format f, const operands *o, size_t row, size_t end)
{
    uint8_t *panels = o->m.scratch;
    for (size_t r = row; r < end; r += LLD_AVX2_ROWS, panels += o->panel_bytes) {
        const uint8_t *rows[LLD_AVX2_ROWS];
        lld_row_pointers(rows, o->m.w, o->m.row_bytes, r, o->m.n_rows);
        if (f.of32 != NULL)
            pack32(f.of32, panels, rows, o->n_blocks);
        else
            pack256(f.of256, panels, rows, o->n_blocks);
    }
}

/* Rows [row, end) from their panels times n_cols columns (a constant after inlining). */
LLD_AVX2_INLINE void multiply_rows(format f, const operands *o, size_t row, size_t end,
                                   size_t n_cols, const columns *cols)
{
    const uint8_t *panels = o->m.scratch;
    for (size_t r = row; r < end; r += LLD_AVX2_ROWS, panels += o->panel_bytes) {
        const size_t ahead = (r + o->pass_rows) * o->m.row_bytes;
        const uintptr_t next = cols->first == 0 ? (uintptr_t)o->m.w + ahead : 0;
        __m256 acc[COLUMNS];
        if (f.of32 != NULL)
            tile32(f.of32, acc, n_cols, panels, o->m.x, cols, next);
        else
            tile256(f.of256, acc, n_cols, panels, o->m.x, cols, next);
        store_tile(o->m.out + r, o->m.out_stride, n_cols, cols, acc, o->m.n_rows - r);
    }
}

LLD_AVX2_INLINE void gemm(format f, operands o)
{
    const size_t block = f.of32 != NULL ? LLD_QK : LLD_QK_K;
    const unsigned fit = f.of32 != NULL ? f.of32->fit : f.of256->fit;
    o.n_blocks = o.m.x->n_cols / block;
    o.panel_bytes = o.n_blocks * (f.of32 != NULL ? panel32_bytes(f.of32) : panel256_bytes(f.of256));
    o.pass_rows = panels_of_pass(fit) * LLD_AVX2_ROWS;
    assert(o.m.x->n_cols % block == 0);
    assert(panels_of_pass(fit) * o.panel_bytes <= lld_kernels_scratch_bytes(o.m.x->n_cols));
    for (size_t row = 0; row < o.m.n_rows; row += o.pass_rows) {
        const size_t end = o.m.n_rows - row < o.pass_rows ? o.m.n_rows : row + o.pass_rows;
        pack_rows(f, &o, row, end);
        columns cols;
        for (size_t c = 0; c < o.m.x->n_rows; c += cols.count) {
            cols = take_columns(o.m.x, c);
            if (cols.count > FEW_COLUMNS)
                multiply_rows(f, &o, row, end, COLUMNS, &cols);
            else
                multiply_rows(f, &o, row, end, FEW_COLUMNS, &cols);
        }
    }
}

#define GEMM(name, function, block, two, ...)                                                      \
    LLD_AVX2 void lld_gemm_avx2_##function(const lld_matmul *m)                                    \
    {                                                                                              \
        gemm((format){.of##block = &lld_avx2_##function}, (operands){.m = *m});                    \
    }
LLD_AVX2_FORMATS(GEMM)

#else
typedef int lld_gemm_avx2_not_on_this_architecture; /* a translation unit may not be empty */
#endif
