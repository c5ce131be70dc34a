/* matmul_bits.c - AVX2 matmuls of the formats of one or two bits a weight: Q1_0 and Q2_0.
 *
 * Nothing is unpacked to one byte a weight in its order. Eight rows lie in the eight 32-bit lanes, a
 * dword of a row's bits in each. A shift and a mask take one plane of it: the q of 4 weights, one
 * from each byte. Activations are put into the order of the planes once a call, so that
 * a plane meets 4 of them with one vpmaddubsw, and a sum never crosses lanes. Bound of a 16-bit lane
 * over 32 weights: 8 * 2 * 3 * 127 = 6096. What q is above the weight's own value (q1: 2q - 1, q2:
 * q - 1) enters by the sum of the block's activations. */
#ifdef __x86_64__

#include <assert.h>

#include "kernels/avx2/matmul.h"
#include "kernels/avx2/simd.h"

enum { COLUMNS = 4, BLOCK_WORDS = 4 };

/* x = d * (factor*q - 1), q of `bits` bits; 16 bytes of them behind an f16 d. */
typedef struct bits_format {
    unsigned bits;
    int factor;
} bits_format;

typedef struct columns {
    const int8_t *y[COLUMNS]; /* in the order of the planes */
    const float *d[COLUMNS];
    const int32_t *sum[COLUMNS];
} columns;

/* Word w, plane i, byte k hold weight w*n + k*n/4 + i, n = 32/bits: put y: (n_cols) in that order. */
LLD_AVX2_INLINE void order_activations(unsigned bits, const int8_t *y, int8_t *to, size_t n_cols)
{
    const __m256i quarters = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    for (size_t i = 0; i < n_cols; i += LLD_QK) {
        __m256i v = lld_load256(y + i);
        if (bits == 1) { /* 4 rows of 8 bytes become 8 of 4 */
            __m128i low = _mm256_castsi256_si128(v), high = _mm256_extracti128_si256(v, 1);
            low = _mm_unpacklo_epi8(low, _mm_srli_si128(low, 8));
            high = _mm_unpacklo_epi8(high, _mm_srli_si128(high, 8));
            v = _mm256_set_m128i(_mm_unpackhi_epi16(low, high), _mm_unpacklo_epi16(low, high));
        } else {
            v = _mm256_shuffle_epi8(v, quarters);
        }
        _mm256_storeu_si256((__m256i *)(to + i), v);
    }
}

/* The planes of the words of 32 weights times n_cols columns: isum[c], lane = row. */
LLD_AVX2_INLINE void multiply_part(const bits_format *f, __m256i isum[COLUMNS], size_t n_cols,
                                   const __m256i *words, const columns *cols, size_t at)
{
    const __m256i mask = _mm256_set1_epi8(f->bits == 1 ? 1 : 3);
    const unsigned n_planes = 8 / f->bits; /* of a word */
    __m256i sum[COLUMNS];
    for (size_t c = 0; c < n_cols; c++) sum[c] = _mm256_setzero_si256();
#pragma GCC unroll 2
    for (unsigned w = 0; w < f->bits; w++)
#pragma GCC unroll 8
        for (unsigned i = 0; i < n_planes; i++) {
            const __m256i q =
                _mm256_and_si256(_mm256_srli_epi32(words[w], (int)(f->bits * i)), mask);
            const size_t plane = w * n_planes + i;
#pragma GCC unroll 4
            for (size_t c = 0; c < n_cols; c++)
                sum[c] = _mm256_add_epi16(
                    sum[c], _mm256_maddubs_epi16(q, lld_broadcast32(cols->y[c] + at + 4 * plane)));
        }
    for (size_t c = 0; c < n_cols; c++)
        isum[c] = _mm256_madd_epi16(sum[c], _mm256_set1_epi16((short)f->factor));
}

/* Eight rows times n_cols columns (a constant after inlining). */
LLD_AVX2_INLINE void tile(const bits_format *f, __m256 acc[COLUMNS], size_t n_cols,
                          const uint8_t *const rows[LLD_AVX2_ROWS], size_t n_blocks,
                          const columns *cols)
{
    const size_t n_parts = BLOCK_WORDS / f->bits; /* of 32 weights in a block */
    for (size_t c = 0; c < n_cols; c++) acc[c] = _mm256_setzero_ps();
    for (size_t b = 0; b < n_blocks; b++) {
        __m256i words[BLOCK_WORDS];
        const size_t at = b * sizeof(lld_block_q1_0);
        const __m256 d = lld_gather_f16(rows, at);
        lld_load_transposed16(words, rows, at + offsetof(lld_block_q1_0, qs));
#pragma GCC unroll 4
        for (size_t p = 0; p < n_parts; p++) {
            const size_t part = b * n_parts + p;
            __m256i isum[COLUMNS];
            multiply_part(f, isum, n_cols, words + p * f->bits, cols, part * LLD_QK);
#pragma GCC unroll 4
            for (size_t c = 0; c < n_cols; c++) {
                isum[c] = _mm256_sub_epi32(isum[c], _mm256_set1_epi32(cols->sum[c][part]));
                acc[c] = _mm256_fmadd_ps(_mm256_mul_ps(d, _mm256_set1_ps(cols->d[c][part])),
                                         _mm256_cvtepi32_ps(isum[c]), acc[c]);
            }
        }
    }
}

/* Columns first.. of the activations, ordered into scratch; the last is repeated up to COLUMNS. */
LLD_AVX2_INLINE columns take_columns(const bits_format *f, const lld_matmul *m, size_t first,
                                     size_t count)
{
    const lld_acts *x = m->x;
    columns cols;
    for (size_t c = 0; c < COLUMNS; c++) {
        const size_t i = c < count ? c : count - 1;
        int8_t *ordered = (int8_t *)m->scratch + i * x->n_cols;
        if (c < count)
            order_activations(f->bits, x->y + (first + i) * x->y_stride, ordered, x->n_cols);
        cols.y[c] = ordered;
        cols.d[c] = x->d + (first + i) * (x->n_cols / LLD_QK);
        cols.sum[c] = x->sum + (first + i) * (x->n_cols / LLD_QK);
    }
    return cols;
}

LLD_AVX2_INLINE void multiply_rows(const bits_format *f, const lld_matmul *m, size_t width,
                                   const columns *cols, size_t first, size_t count)
{
    const size_t n_blocks = m->x->n_cols * f->bits / (8 * 16);
    for (size_t r = 0; r < m->n_rows; r += LLD_AVX2_ROWS) {
        const uint8_t *rows[LLD_AVX2_ROWS];
        __m256 acc[COLUMNS];
        lld_row_pointers(rows, m->w, m->row_bytes, r, m->n_rows);
        tile(f, acc, width, rows, n_blocks, cols);
#pragma GCC unroll 4
        for (size_t c = 0; c < width; c++)
            if (c < count)
                lld_store_lanes(m->out + (first + c) * m->out_stride + r, acc[c], m->n_rows - r);
    }
}

LLD_AVX2_INLINE void matmul(const bits_format *f, const lld_matmul *m)
{
    _Static_assert(sizeof(lld_block_q1_0) == sizeof(lld_block_q2_0), "one layout of blocks");
    assert(m->x->n_cols % (BLOCK_WORDS / f->bits * LLD_QK) == 0);
    assert(COLUMNS * m->x->n_cols <= lld_kernels_scratch_bytes(m->x->n_cols));
    for (size_t c = 0; c < m->x->n_rows; c += COLUMNS) {
        const size_t left = m->x->n_rows - c, count = left < COLUMNS ? left : COLUMNS;
        const columns cols = take_columns(f, m, c, count);
        if (count == 1)
            multiply_rows(f, m, 1, &cols, c, count);
        else if (count == 2)
            multiply_rows(f, m, 2, &cols, c, count);
        else
            multiply_rows(f, m, COLUMNS, &cols, c, count);
    }
}

LLD_AVX2 void lld_matmul_avx2_q1_0(const lld_matmul *m)
{
    matmul(&(const bits_format){.bits = 1, .factor = 2}, m);
}

LLD_AVX2 void lld_matmul_avx2_q2_0(const lld_matmul *m)
{
    matmul(&(const bits_format){.bits = 2, .factor = 1}, m);
}

#else
typedef int lld_matmul_bits_avx2_not_on_this_architecture; /* a translation unit may not be empty */
#endif
