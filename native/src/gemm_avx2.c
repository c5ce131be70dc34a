/* gemm_avx2.c - weights times several activation rows with AVX2, for every block format.
 * Eight weight rows are unpacked once into a panel in scratch, transposed so that one vector holds four
 * consecutive elements of eight rows; then four activation rows (columns) at a time run over it: each
 * panel vector is loaded once and multiplied with four broadcast activation words. Lane = weight row in
 * every accumulator, so the float chain of an output does not depend on its neighbours.
 * Why this order: per panel vector five loads feed four vpmaddubsw and four vpaddw; the 16-bit sums of a
 * sub-block fit (formats_avx2.h), so widening and scaling cost one vpmaddwd a sub-block and not one a
 * product. 8x4 holds its sums, the panel vector and a temporary in 16 registers; 16x3 was slower.
 * Owns no format and no arithmetic rules: formats_avx2.h, kernels.h. */
#ifdef __x86_64__

#include <assert.h>

#include "formats_avx2.h"
#include "matmul_avx2.h"

enum { COLUMNS = 4, PANELS = 2 }; /* of one tile; panels that share a pass over the columns */

/* ---- the integer cell -------------------------------------------------------------------------- */

/* isum[c] += multiplier * (sum of `count` panel vectors times the activation words y[c][0..4*count)),
 * where at most `fit` products are added in 16 bits. multiplier: int16 pairs, by row. */
LLD_AVX2_INLINE void multiply_tile(__m256i isum[COLUMNS], unsigned fit, unsigned count,
                                   const __m256i *q, const int8_t *const y[COLUMNS], size_t at,
                                   __m256i multiplier)
{
#pragma GCC unroll 8
    for (unsigned first = 0; first < count; first += fit) {
        __m256i pairs[COLUMNS];
#pragma GCC unroll 8
        for (unsigned i = 0; i < fit; i++) {
            const __m256i weights = q[first + i];
            const __m256i magnitude = _mm256_abs_epi8(weights); /* dropped where it is not used */
#pragma GCC unroll 8
            for (int c = 0; c < COLUMNS; c++) {
                __m256i acts = lld_broadcast32(y[c] + at + 4 * (first + i));
                __m256i products = fit == LLD_FIT_SIGNED
                                       ? _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(acts, weights))
                                       : _mm256_maddubs_epi16(weights, acts);
                pairs[c] = i == 0 ? products : _mm256_add_epi16(pairs[c], products);
                LLD_AVX2_PIN(pairs[c]);
            }
        }
#pragma GCC unroll 8
        for (int c = 0; c < COLUMNS; c++) {
            isum[c] = _mm256_add_epi32(isum[c], _mm256_madd_epi16(pairs[c], multiplier));
            LLD_AVX2_PIN(isum[c]);
        }
    }
}

/* Where the tile's columns lie. Beyond the last activation row it is repeated; nobody stores those. */
typedef struct columns {
    const int8_t *y[COLUMNS];
    size_t row[COLUMNS];
    size_t first, count; /* count: those to store */
} columns;

LLD_AVX2_INLINE columns take_columns(const lld_acts *x, size_t first)
{
    columns cols = {.first = first, .count = x->n_rows - first < COLUMNS ? x->n_rows - first : COLUMNS};
    for (size_t c = 0; c < COLUMNS; c++) {
        cols.row[c] = first + (c < cols.count ? c : cols.count - 1);
        cols.y[c] = x->y + cols.row[c] * x->y_stride;
    }
    return cols;
}

LLD_AVX2_INLINE void store_tile(float *out, size_t out_stride, const columns *cols,
                                const __m256 acc[COLUMNS], size_t n_rows)
{
#pragma GCC unroll 8
    for (size_t c = 0; c < COLUMNS; c++) /* unrolled, so that acc stays in registers */
        if (c < cols->count)
            lld_store_lanes(out + (cols->first + c) * out_stride, acc[c], n_rows);
}

/* Few columns leave the pack bound by memory: fetch the rows of the next pass, as in gemv_avx2.c. */
LLD_AVX2_INLINE void prefetch_next_rows(const uint8_t *const rows[LLD_AVX2_ROWS], size_t row_bytes,
                                        size_t at, size_t bytes)
{
    for (size_t line = 0; line < LLD_AVX2_ROWS * bytes; line += 64)
        _mm_prefetch((const char *)((uintptr_t)rows[0] + LLD_AVX2_ROWS * (row_bytes + at) + line),
                     _MM_HINT_T0);
}

/* ---- blocks of 32 ------------------------------------------------------------------------------ */

typedef struct panel32 { /* one block of eight rows */
    __m256i q[8];
    __m256 d, m;
} panel32;

LLD_AVX2_INLINE void pack32(const lld_format32 *f, panel32 *panel, const uint8_t *const rows[LLD_AVX2_ROWS],
                            size_t row_bytes, size_t n_blocks)
{
    for (size_t b = 0; b < n_blocks; b++, panel++) {
        const size_t at = b * f->bytes;
        prefetch_next_rows(rows, row_bytes, at, f->bytes);
        if (f->unpack8 != NULL) {
            f->unpack8(panel->q, rows, at);
        } else {
            for (int r = 0; r < LLD_AVX2_ROWS; r++)
                panel->q[r] = f->unpack(rows[r] + at);
            lld_transpose8x8(panel->q);
        }
        panel->d = lld_gather_f16(rows, at);
        if (f->has_m)
            panel->m = lld_gather_f16(rows, at + 2);
    }
}

LLD_AVX2_INLINE void tile32(const lld_format32 *f, __m256 acc[COLUMNS], const panel32 *panel,
                            const lld_acts *x, const columns *cols)
{
    const size_t n_blocks = x->n_cols / LLD_QK;
    const __m256i ones = _mm256_set1_epi16(1);
    const __m256i minus_offset = _mm256_set1_epi32(-f->offset & 0xffff); /* low half of the pair */
    const float *d[COLUMNS], *s[COLUMNS];
    const int32_t *sum[COLUMNS];
    for (int c = 0; c < COLUMNS; c++) {
        d[c] = x->d + cols->row[c] * n_blocks;
        s[c] = x->s + cols->row[c] * n_blocks;
        sum[c] = x->sum + cols->row[c] * n_blocks;
        acc[c] = _mm256_setzero_ps();
    }
    for (size_t b = 0; b < n_blocks; b++, panel++) {
        __m256i isum[COLUMNS];
#pragma GCC unroll 8
        for (int c = 0; c < COLUMNS; c++)
            isum[c] = _mm256_setzero_si256();
        multiply_tile(isum, f->fit, 8, panel->q, cols->y, b * LLD_QK, ones);
#pragma GCC unroll 8
        for (int c = 0; c < COLUMNS; c++) {
            if (f->offset != 0) { /* |sum| <= 32 * 127: its low 16 bits hold it */
                __m256i block_sum = lld_broadcast32(sum[c] + b);
                isum[c] = _mm256_add_epi32(isum[c], _mm256_madd_epi16(block_sum, minus_offset));
            }
            __m256 scale = _mm256_mul_ps(panel->d, _mm256_set1_ps(d[c][b]));
            acc[c] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(isum[c]), acc[c]);
            if (f->has_m)
                acc[c] = _mm256_fmadd_ps(panel->m, _mm256_set1_ps(s[c][b]), acc[c]);
        }
    }
}

LLD_AVX2_INLINE void gemm32(const lld_format32 *f, float *out, size_t out_stride, const uint8_t *w,
                            size_t row_bytes, size_t n_rows, const lld_acts *x, panel32 *panels)
{
    const size_t n_blocks = x->n_cols / LLD_QK;
    assert(x->n_cols % LLD_QK == 0 && row_bytes >= n_blocks * f->bytes);
    assert(PANELS * n_blocks * sizeof *panels <= lld_kernels_scratch_bytes(x->n_cols));
    for (size_t row = 0; row < n_rows; row += PANELS * LLD_AVX2_ROWS) {
        for (size_t p = 0, r = row; p < PANELS && r < n_rows; p++, r += LLD_AVX2_ROWS) {
            const uint8_t *rows[LLD_AVX2_ROWS];
            lld_row_pointers(rows, w, row_bytes, r, n_rows);
            pack32(f, panels + p * n_blocks, rows, row_bytes, n_blocks);
        }
        for (size_t c = 0; c < x->n_rows; c += COLUMNS) {
            const columns cols = take_columns(x, c);
            for (size_t p = 0, r = row; p < PANELS && r < n_rows; p++, r += LLD_AVX2_ROWS) {
                __m256 acc[COLUMNS];
                tile32(f, acc, panels + p * n_blocks, x, &cols);
                store_tile(out + r, out_stride, &cols, acc, n_rows - r);
            }
        }
    }
}

/* ---- blocks of 256 ----------------------------------------------------------------------------- */

typedef struct panel256 { /* one block of eight rows */
    __m256i q[64];
    __m256i scale[16]; /* int16 pairs (s, s): 8 scales of 32 elements or 16 of 16 */
    __m256i side[8];   /* int16 pairs for the sums of sixteens 2i and 2i+1 */
    __m256 d, dmin;
} panel256;

/* pairs[i] lane r = (scale of sixteen 2i, scale of sixteen 2i+1) of row r -> one multiplier a scale. */
LLD_AVX2_INLINE void spread_scales(const lld_format256 *f, __m256i scale[16], const __m256i pairs[8])
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

LLD_AVX2_INLINE void pack256(const lld_format256 *f, panel256 *panel,
                             const uint8_t *const rows[LLD_AVX2_ROWS], size_t row_bytes, size_t n_blocks)
{
    for (size_t b = 0; b < n_blocks; b++, panel++) {
        const size_t at = b * f->bytes;
        __m256i scale[LLD_AVX2_ROWS];
        prefetch_next_rows(rows, row_bytes, at, f->bytes);
        for (int r = 0; r < LLD_AVX2_ROWS; r++)
            f->scales(rows[r] + at, &scale[r], &panel->side[r]);
        lld_transpose8x8(scale);
        lld_transpose8x8(panel->side);
        spread_scales(f, panel->scale, scale);
#pragma GCC unroll 8
        for (unsigned j = 0; j < 8; j++) {
            __m256i *q = panel->q + 8 * j;
            if (f->unpack8 != NULL) {
                if (j % 2 == 0)
                    f->unpack8(q, rows, at, j / 2);
                continue;
            }
            for (int r = 0; r < LLD_AVX2_ROWS; r++)
                q[r] = f->unpack(rows[r] + at, j);
            lld_transpose8x8(q);
        }
        panel->d = lld_gather_f16(rows, at + f->d_at);
        if (f->side == LLD_SIDE_MIN)
            panel->dmin = lld_gather_f16(rows, at + f->dmin_at);
    }
}

/* isum += side values times the sums of 16 activations. */
LLD_AVX2_INLINE void multiply_sides(__m256i isum[COLUMNS], const __m256i side[8],
                                    const int16_t *const sum16[COLUMNS], size_t at)
{
#pragma GCC unroll 8
    for (size_t i = 0; i < 8; i++)
#pragma GCC unroll 8
        for (int c = 0; c < COLUMNS; c++) {
            __m256i sums = lld_broadcast32(sum16[c] + at + 2 * i);
            isum[c] = _mm256_add_epi32(isum[c], _mm256_madd_epi16(side[i], sums));
        }
}

LLD_AVX2_INLINE void tile256(const lld_format256 *f, __m256 acc[COLUMNS], const panel256 *panel,
                             const lld_acts *x, const columns *cols)
{
    const size_t n_blocks = x->n_cols / LLD_QK_K;
    const unsigned count = f->sub / 4; /* panel vectors of one scale */
    const float *d[COLUMNS];
    const int16_t *sum16[COLUMNS];
    for (int c = 0; c < COLUMNS; c++) {
        d[c] = x->d + cols->row[c] * n_blocks;
        sum16[c] = x->sum16 + cols->row[c] * n_blocks * (LLD_QK_K / 16);
        acc[c] = _mm256_setzero_ps();
    }
    for (size_t b = 0; b < n_blocks; b++, panel++) {
        __m256i isum[COLUMNS], msum[COLUMNS];
        for (int c = 0; c < COLUMNS; c++)
            isum[c] = msum[c] = _mm256_setzero_si256();
        if (f->side == LLD_SIDE_OFFSET)
            multiply_sides(isum, panel->side, sum16, b * (LLD_QK_K / 16));
        for (unsigned j = 0; j < LLD_QK_K / f->sub; j++)
            multiply_tile(isum, f->fit, count, panel->q + count * j, cols->y, b * LLD_QK_K + f->sub * j,
                          panel->scale[j]);
        if (f->side == LLD_SIDE_MIN)
            multiply_sides(msum, panel->side, sum16, b * (LLD_QK_K / 16));
#pragma GCC unroll 8
        for (int c = 0; c < COLUMNS; c++) {
            const __m256 dx = _mm256_set1_ps(d[c][b]);
            acc[c] = _mm256_fmadd_ps(_mm256_mul_ps(panel->d, dx), _mm256_cvtepi32_ps(isum[c]), acc[c]);
            if (f->side == LLD_SIDE_MIN)
                acc[c] = _mm256_fnmadd_ps(_mm256_mul_ps(panel->dmin, dx), _mm256_cvtepi32_ps(msum[c]),
                                          acc[c]);
        }
    }
}

LLD_AVX2_INLINE void gemm256(const lld_format256 *f, float *out, size_t out_stride, const uint8_t *w,
                             size_t row_bytes, size_t n_rows, const lld_acts *x, panel256 *panels)
{
    const size_t n_blocks = x->n_cols / LLD_QK_K;
    assert(x->n_cols % LLD_QK_K == 0 && row_bytes >= n_blocks * f->bytes);
    assert(PANELS * n_blocks * sizeof *panels <= lld_kernels_scratch_bytes(x->n_cols));
    for (size_t row = 0; row < n_rows; row += PANELS * LLD_AVX2_ROWS) {
        for (size_t p = 0, r = row; p < PANELS && r < n_rows; p++, r += LLD_AVX2_ROWS) {
            const uint8_t *rows[LLD_AVX2_ROWS];
            lld_row_pointers(rows, w, row_bytes, r, n_rows);
            pack256(f, panels + p * n_blocks, rows, row_bytes, n_blocks);
        }
        for (size_t c = 0; c < x->n_rows; c += COLUMNS) {
            const columns cols = take_columns(x, c);
            for (size_t p = 0, r = row; p < PANELS && r < n_rows; p++, r += LLD_AVX2_ROWS) {
                __m256 acc[COLUMNS];
                tile256(f, acc, panels + p * n_blocks, x, &cols);
                store_tile(out + r, out_stride, &cols, acc, n_rows - r);
            }
        }
    }
}

#define LLD_GEMM(template, format)                                                                    \
    LLD_AVX2 void lld_gemm_avx2_##format(float *out, size_t out_stride, const uint8_t *w,             \
                                         size_t row_bytes, size_t n_rows, const lld_acts *x,          \
                                         void *scratch)                                               \
    {                                                                                                 \
        template(&lld_avx2_##format, out, out_stride, w, row_bytes, n_rows, x, scratch);              \
    }

LLD_GEMM(gemm32, q4_0)
LLD_GEMM(gemm32, q4_1)
LLD_GEMM(gemm32, q5_0)
LLD_GEMM(gemm32, q5_1)
LLD_GEMM(gemm32, q8_0)
LLD_GEMM(gemm32, iq4_nl)
LLD_GEMM(gemm256, q2_k)
LLD_GEMM(gemm256, q3_k)
LLD_GEMM(gemm256, q4_k)
LLD_GEMM(gemm256, q5_k)
LLD_GEMM(gemm256, q6_k)
LLD_GEMM(gemm256, iq4_xs)

#else
typedef int lld_gemm_avx2_not_on_this_architecture; /* a translation unit may not be empty */
#endif
