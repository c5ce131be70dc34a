/* matmul_gemv.c - weights times one or two activation rows with AVX2, for every block format.
 * Eight weight rows advance together, straight from the GGUF layout: each gives a vector of integer
 * partial sums, a tree of additions turns the eight vectors into one with a row in each lane, and
 * that vector takes the float steps of kernels.h. For two activation rows the weights are unpacked
 * once; a panel, as for more, would not pay. Owns no arithmetic rules and no format: kernels.h,
 * matmul_formats.h. */
#ifdef __x86_64__

#include <assert.h>

#include "kernels/avx2/matmul.h"

/* Decode reads every weight once, and eight short streams defeat the hardware prefetcher. So while
 * a group of eight rows is multiplied, as many bytes of the next groups, which follow in memory,
 * are fetched as one stream: one group ahead, more where that would be too near. Twice as fast from
 * DRAM. A stream that is far ahead would push itself out of the first-level cache before it is
 * used, and goes to the second: 12.4 -> 20 GB/s for rows of 11008 in Q4_0. At the end of the rows the
 * stream goes on where the caller says that it will read next. */
enum { PREFETCH_BYTES = 6144, PREFETCH_FAR_BYTES = 12288 };

typedef struct {
    uintptr_t start; /* an address behind the tensor has no effect */
    bool far;
} fetch_ahead;

LLD_AVX2_INLINE fetch_ahead fetch_ahead_of(const lld_matmul *m, size_t first)
{
    const size_t group = LLD_AVX2_ROWS * m->row_bytes, end = m->n_rows * m->row_bytes;
    const size_t ahead = (PREFETCH_BYTES + group - 1) / group * group;
    const size_t at = first * m->row_bytes + ahead;
    const bool is_behind = at >= end && m->next != NULL;
    return (fetch_ahead){.start =
                             is_behind ? (uintptr_t)m->next + (at - end) : (uintptr_t)m->w + at,
                         .far = ahead > PREFETCH_FAR_BYTES};
}

/* Fetch `bytes` at byte `at` of the stream. */
LLD_AVX2_INLINE void prefetch(fetch_ahead ahead, size_t at, size_t bytes)
{
    for (size_t line = 0; line < bytes; line += 64) {
        if (ahead.far)
            _mm_prefetch((const char *)(ahead.start + at + line), _MM_HINT_T1);
        else
            _mm_prefetch((const char *)(ahead.start + at + line), _MM_HINT_T0);
    }
}

/* The 16-bit pair sums of quants and activations. A single result never overflows
 * (matmul_formats.h). */
LLD_AVX2_INLINE __m256i multiply_pairs(unsigned fit, __m256i q, __m256i y)
{
    if (fit == LLD_FIT_SIGNED)
        return _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(y, q));
    return _mm256_maddubs_epi16(q, y);
}

/* The offset, a power of two, times the sum of a block's activations in each lane. */
LLD_AVX2_INLINE __m256i offset_times_sum(int offset, const int32_t *sum)
{
    assert(__builtin_popcount((unsigned)offset) == 1);
    return _mm256_slli_epi32(lld_broadcast32(sum), __builtin_ctz((unsigned)offset));
}

/* Four-bit blocks of 32, whose 16 bytes hold elements 0..15 in the low nibbles and 16..31 in the high
 * ones. Rows r and r + 4 share a vector, so a group is four vectors, and the tree stays in 16 bits:
 * a lane is two results of vpmaddubsw (2 * 3810), then 15240, then 30480 <= 32767. About half the
 * instructions of gemv32 for the same block. n_cols: 1 or 2, a constant where this is inlined. */
LLD_AVX2_INLINE void gemv_nibbles(const lld_format32 *f, const size_t n_cols, const lld_matmul m)
{
    const lld_acts *x = m.x;
    const size_t qs = f->bytes - 16;
    const size_t n_blocks = x->n_cols / LLD_QK;
    const __m256i ones = _mm256_set1_epi16(1), mask = _mm256_set1_epi8(15);
    assert(x->n_rows == n_cols && x->n_cols % LLD_QK == 0 && m.row_bytes >= n_blocks * f->bytes);
    for (size_t first = 0; first < m.n_rows; first += LLD_AVX2_ROWS) {
        const uint8_t *rows[LLD_AVX2_ROWS];
        const fetch_ahead ahead = fetch_ahead_of(&m, first);
        __m256 acc[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
        lld_row_pointers(rows, m.w, m.row_bytes, first, m.n_rows);
        for (size_t b = 0; b < n_blocks; b++) {
            const size_t at = b * f->bytes;
            __m256i low_y[2], high_y[2], eights[2][2];
            prefetch(ahead, LLD_AVX2_ROWS * at, LLD_AVX2_ROWS * f->bytes);
#pragma GCC unroll 2
            for (size_t c = 0; c < n_cols; c++) {
                const int8_t *y = x->y + c * x->y_stride + b * LLD_QK;
                low_y[c] = _mm256_broadcastsi128_si256(lld_load128(y));
                high_y[c] = _mm256_broadcastsi128_si256(lld_load128(y + 16));
            }
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++) { /* two vectors, so that all stays in registers */
                __m256i pairs[2][2];
#pragma GCC unroll 2
                for (int i = 0; i < 2; i++) {
                    const int r = 2 * half + i;
                    __m256i bytes = lld_load2x128(rows[r] + at + qs, rows[r + 4] + at + qs);
                    __m256i low = _mm256_and_si256(bytes, mask);
                    __m256i high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask);
#pragma GCC unroll 2
                    for (size_t c = 0; c < n_cols; c++)
                        pairs[c][i] = _mm256_add_epi16(_mm256_maddubs_epi16(low, low_y[c]),
                                                       _mm256_maddubs_epi16(high, high_y[c]));
                }
#pragma GCC unroll 2
                for (size_t c = 0; c < n_cols; c++)
                    eights[c][half] = _mm256_hadd_epi16(pairs[c][0], pairs[c][1]);
            }
            const __m256 d = lld_gather_f16(rows, at);
            const __m256 min = f->has_m ? lld_gather_f16(rows, at + 2) : _mm256_setzero_ps();
#pragma GCC unroll 2
            for (size_t c = 0; c < n_cols; c++) {
                const size_t block = c * n_blocks + b;
                __m256i fours = _mm256_hadd_epi16(eights[c][0], eights[c][1]);
                __m256i isum = _mm256_madd_epi16(fours, ones);
                if (f->offset != 0)
                    isum = _mm256_sub_epi32(isum, offset_times_sum(f->offset, &x->sum[block]));
                __m256 scale = _mm256_mul_ps(d, _mm256_set1_ps(x->d[block]));
                acc[c] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(isum), acc[c]);
                if (f->has_m) acc[c] = _mm256_fmadd_ps(min, _mm256_set1_ps(x->s[block]), acc[c]);
            }
        }
        for (size_t c = 0; c < n_cols; c++)
            lld_store_lanes(m.out + c * m.out_stride + first, acc[c], m.n_rows - first);
    }
}

/* n_cols: 1 or 2, a constant where this is inlined. */
LLD_AVX2_INLINE void gemv32(const lld_format32 *f, const size_t n_cols, const lld_matmul m)
{
    const lld_acts *x = m.x;
    if (f->nibbles) {
        gemv_nibbles(f, n_cols, m);
        return;
    }
    const size_t n_blocks = x->n_cols / LLD_QK;
    const __m256i ones = _mm256_set1_epi16(1);
    assert(x->n_rows == n_cols && x->n_cols % LLD_QK == 0 && m.row_bytes >= n_blocks * f->bytes);
    for (size_t first = 0; first < m.n_rows; first += LLD_AVX2_ROWS) {
        const uint8_t *rows[LLD_AVX2_ROWS];
        const fetch_ahead ahead = fetch_ahead_of(&m, first);
        __m256 acc[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
        lld_row_pointers(rows, m.w, m.row_bytes, first, m.n_rows);
        for (size_t b = 0; b < n_blocks; b++) {
            const size_t at = b * f->bytes;
            __m256i q[LLD_AVX2_ROWS];
            prefetch(ahead, LLD_AVX2_ROWS * at, LLD_AVX2_ROWS * f->bytes);
#pragma GCC unroll 8
            for (int r = 0; r < LLD_AVX2_ROWS && n_cols > 1; r++) q[r] = f->unpack(rows[r] + at);
#pragma GCC unroll 2
            for (size_t c = 0; c < n_cols; c++) {
                const size_t block = c * n_blocks + b;
                const __m256i y = lld_load256(x->y + c * x->y_stride + b * LLD_QK);
                __m256i sums[LLD_AVX2_ROWS];
#pragma GCC unroll 8
                for (int r = 0; r < LLD_AVX2_ROWS; r++)
                    sums[r] = _mm256_madd_epi16(
                        multiply_pairs(f->fit, n_cols > 1 ? q[r] : f->unpack(rows[r] + at), y),
                        ones);
                __m256i isum = lld_sum_each8(sums);
                if (f->offset != 0)
                    isum = _mm256_sub_epi32(isum, _mm256_set1_epi32(f->offset * x->sum[block]));
                __m256 scale =
                    _mm256_mul_ps(lld_gather_scales(f, rows, at), _mm256_set1_ps(x->d[block]));
                acc[c] = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(isum), acc[c]);
                if (f->has_m)
                    acc[c] = _mm256_fmadd_ps(lld_gather_f16(rows, at + 2),
                                             _mm256_set1_ps(x->s[block]), acc[c]);
            }
        }
        for (size_t c = 0; c < n_cols; c++)
            lld_store_lanes(m.out + c * m.out_stride + first, acc[c], m.n_rows - first);
    }
}

/* One row's block of 256 times y[c]: (256), as eight partial sums of isum[c], c < n_cols. The scale
 * of a 16-bit pair sum depends on its half of the vector: even sixteens lie in the low half, odd
 * ones in the high half. */
LLD_AVX2_INLINE void dot256(const lld_format256 *f, const size_t n_cols, const uint8_t *block,
                            __m256i scale, const int8_t *const y[2], __m256i isum[2])
{
    const __m256i evens_first =
        _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0, 1, 4, 5, 8, 9, 12,
                         13, 2, 3, 6, 7, 10, 11, 14, 15);
    __m256i by_half = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(scale, evens_first), 0xd8);
    lld_grid_block grid;
    if (f->magnitudes != NULL) f->prepare(block, &grid);
    isum[0] = isum[1] = _mm256_setzero_si256();
#pragma GCC unroll 8
    for (unsigned j = 0; j < 8; j++) {
        const __m256i q =
            f->magnitudes != NULL ? f->magnitudes(block, &grid, j) : f->unpack(block, j);
        __m256i scale_j =
            _mm256_shuffle_epi8(by_half, _mm256_set1_epi16((short)(0x0100 + 0x0202 * j)));
#pragma GCC unroll 2
        for (size_t c = 0; c < n_cols; c++) {
            __m256i acts = lld_load256(y[c] + 32 * j);
            if (f->magnitudes != NULL)
                acts = _mm256_sign_epi8(acts, lld_spread_signs(grid.signs + 4 * j));
            __m256i pairs = multiply_pairs(f->fit, q, acts);
            isum[c] = _mm256_add_epi32(isum[c], _mm256_madd_epi16(pairs, scale_j));
        }
    }
}

LLD_AVX2_INLINE void gemv256(const lld_format256 *f, const size_t n_cols, const lld_matmul m)
{
    const lld_acts *x = m.x;
    const size_t n_blocks = x->n_cols / LLD_QK_K;
    assert(x->n_rows == n_cols && x->n_cols % LLD_QK_K == 0 && m.row_bytes >= n_blocks * f->bytes);
    for (size_t first = 0; first < m.n_rows; first += LLD_AVX2_ROWS) {
        const uint8_t *rows[LLD_AVX2_ROWS];
        const fetch_ahead ahead = fetch_ahead_of(&m, first);
        __m256 acc[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
        lld_row_pointers(rows, m.w, m.row_bytes, first, m.n_rows);
        for (size_t b = 0; b < n_blocks; b++) {
            const size_t at = b * f->bytes;
            __m256i isums[2][LLD_AVX2_ROWS], msums[2][LLD_AVX2_ROWS];
            for (size_t r = 0; r < LLD_AVX2_ROWS; r++) {
                __m256i scale, side;
                prefetch(ahead, LLD_AVX2_ROWS * at + r * f->bytes, f->bytes);
                f->scales(rows[r] + at, &scale, &side);
                const int8_t *const y[2] = {x->y + b * LLD_QK_K,
                                            x->y + (n_cols - 1) * x->y_stride + b * LLD_QK_K};
                __m256i isum[2];
                dot256(f, n_cols, rows[r] + at, scale, y, isum);
#pragma GCC unroll 2
                for (size_t c = 0; c < n_cols; c++) {
                    const size_t block = c * n_blocks + b;
                    const __m256i sum16 = lld_load256(x->sum16 + block * (LLD_QK_K / 16));
                    msums[c][r] = _mm256_madd_epi16(side, sum16);
                    isums[c][r] = f->side == LLD_SIDE_OFFSET
                                      ? _mm256_add_epi32(isum[c], msums[c][r])
                                      : isum[c];
                }
            }
            const __m256 d = lld_gather_d(f, rows, at);
            const __m256 dmin = f->side == LLD_SIDE_MIN ? lld_gather_f16(rows, at + f->dmin_at)
                                                        : _mm256_setzero_ps();
#pragma GCC unroll 2
            for (size_t c = 0; c < n_cols; c++) {
                const __m256 dx = _mm256_set1_ps(x->d[c * n_blocks + b]);
                __m256 isum = _mm256_cvtepi32_ps(lld_sum_each8(isums[c]));
                acc[c] = _mm256_fmadd_ps(_mm256_mul_ps(d, dx), isum, acc[c]);
                if (f->side == LLD_SIDE_MIN) {
                    __m256 msum = _mm256_cvtepi32_ps(lld_sum_each8(msums[c]));
                    acc[c] = _mm256_fnmadd_ps(_mm256_mul_ps(dmin, dx), msum, acc[c]);
                }
            }
        }
        for (size_t c = 0; c < n_cols; c++)
            lld_store_lanes(m.out + c * m.out_stride + first, acc[c], m.n_rows - first);
    }
}

#define GEMV(name, function, block, two, ...)                                                      \
    LLD_AVX2 void lld_gemv_avx2_##function(const lld_matmul *m)                                    \
    {                                                                                              \
        gemv##block(&lld_avx2_##function, 1, *m);                                                  \
    }                                                                                              \
    TWO_BY_##two(function, block)
#define TWO_BY_GEMM(function, block)
#define TWO_BY_GEMV(function, block)                                                               \
    LLD_AVX2 void lld_gemv2_avx2_##function(const lld_matmul *m)                                   \
    {                                                                                              \
        gemv##block(&lld_avx2_##function, 2, *m);                                                  \
    }
LLD_AVX2_FORMATS(GEMV)

#else
typedef int lld_gemv_avx2_not_on_this_architecture; /* a translation unit may not be empty */
#endif
