/* matmul_float.c - F32, F16 and BF16 weights times activation rows with AVX2. The eight lanes
 * of kernels.h are one vector: lane k % 8. A tile of rows and columns keeps as many of these chains
 * in registers as hide the latency of the fma. Formats differ only in how eight weights become
 * eight floats. */
#ifdef __x86_64__

#include <assert.h>
#include <stdbool.h>

#include "kernels/avx2/matmul.h"
#include "kernels/avx2/simd.h"

enum { TILE_ROWS = 4, TILE_COLUMNS = 3 }; /* 12 chains, 3 activation vectors, 1 weight vector */

/* Eight weights at p as floats; `size` is their bytes each, 4 or 2, and `bf16` tells the two apart.
 */
LLD_AVX2_INLINE __m256 load_weights(const uint8_t *p, size_t size, bool bf16)
{
    if (size == sizeof(float)) return _mm256_loadu_ps((const float *)p);
    __m128i half = lld_load128(p);
    if (bf16) return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
    return _mm256_cvtph_ps(half);
}

/* The last n % 8 elements, from copies: nothing is read beyond a row, and idle lanes keep their
 * value. */
LLD_AVX2 static __m256 multiply_tail(__m256 acc, const uint8_t *w, const float *x, size_t count,
                                     size_t size, bool bf16)
{
    uint8_t weights[8 * sizeof(float)] = {0};
    float acts[8] = {0}, mask[8] = {0};
    memcpy(weights, w, count * size);
    memcpy(acts, x, count * sizeof *acts);
    memset(mask, 0xff, count * sizeof *mask);
    __m256 sum = _mm256_fmadd_ps(load_weights(weights, size, bf16), _mm256_loadu_ps(acts), acc);
    return _mm256_blendv_ps(acc, sum, _mm256_loadu_ps(mask));
}

/* One tile: n_rows x n_columns outputs (constants after inlining). */
LLD_AVX2_INLINE void multiply_tile(float *out, size_t out_stride, const uint8_t *w,
                                   size_t row_bytes, const float *x, size_t n, size_t n_rows,
                                   size_t n_columns, size_t size, bool bf16)
{
    __m256 acc[2 * TILE_ROWS * TILE_COLUMNS];
    size_t k = 0;
#pragma GCC unroll 16
    for (size_t i = 0; i < n_rows * n_columns; i++) acc[i] = _mm256_setzero_ps();
    for (; k + 8 <= n; k += 8) {
        __m256 acts[TILE_COLUMNS];
#pragma GCC unroll 4
        for (size_t c = 0; c < n_columns; c++) acts[c] = _mm256_loadu_ps(x + c * n + k);
#pragma GCC unroll 8
        for (size_t r = 0; r < n_rows; r++) {
            __m256 weights = load_weights(w + r * row_bytes + k * size, size, bf16);
#pragma GCC unroll 4
            for (size_t c = 0; c < n_columns; c++)
                acc[r * n_columns + c] = _mm256_fmadd_ps(weights, acts[c], acc[r * n_columns + c]);
        }
    }
#pragma GCC unroll 8
    for (size_t r = 0; r < n_rows; r++)
#pragma GCC unroll 4
        for (size_t c = 0; c < n_columns; c++) {
            __m256 lanes = acc[r * n_columns + c];
            if (k < n)
                lanes = multiply_tail(lanes, w + r * row_bytes + k * size, x + c * n + k, n - k,
                                      size, bf16);
            out[c * out_stride + r] = lld_reduce_lanes(lanes);
        }
}

/* Columns [first, n) with full tiles of rows, then single rows. */
LLD_AVX2_INLINE void multiply_columns(float *out, size_t out_stride, const uint8_t *w,
                                      size_t row_bytes, size_t n_rows, const lld_acts *x,
                                      size_t first, size_t n_columns, size_t size, bool bf16)
{
    const size_t tile_rows = n_columns == 1 ? 2 * TILE_ROWS : TILE_ROWS;
    const float *acts = x->f32 + first * x->n_cols;
    size_t r = 0;
    out += first * out_stride;
    for (; r + tile_rows <= n_rows; r += tile_rows)
        multiply_tile(out + r, out_stride, w + r * row_bytes, row_bytes, acts, x->n_cols, tile_rows,
                      n_columns, size, bf16);
    for (; r < n_rows; r++)
        multiply_tile(out + r, out_stride, w + r * row_bytes, row_bytes, acts, x->n_cols, 1,
                      n_columns, size, bf16);
}

/* Sixteen rows at a time, so that they stay in cache while the columns pass. */
LLD_AVX2_INLINE void matmul_float(float *out, size_t out_stride, const uint8_t *w, size_t row_bytes,
                                  size_t n_rows, const lld_acts *x, size_t size, bool bf16)
{
    enum { ROWS = 16 };
    assert(row_bytes >= x->n_cols * size);
    for (size_t r = 0; r < n_rows; r += ROWS) {
        const size_t rows = n_rows - r < ROWS ? n_rows - r : ROWS;
        size_t c = 0;
        for (; c + TILE_COLUMNS <= x->n_rows; c += TILE_COLUMNS)
            multiply_columns(out + r, out_stride, w + r * row_bytes, row_bytes, rows, x, c,
                             TILE_COLUMNS, size, bf16);
        for (; c < x->n_rows; c++)
            multiply_columns(out + r, out_stride, w + r * row_bytes, row_bytes, rows, x, c, 1, size,
                             bf16);
    }
}

LLD_AVX2 void lld_matmul_avx2_f32(float *out, size_t out_stride, const uint8_t *w, size_t row_bytes,
                                  size_t n_rows, const lld_acts *x, void *scratch)
{
    (void)scratch;
    matmul_float(out, out_stride, w, row_bytes, n_rows, x, sizeof(float), false);
}

LLD_AVX2 void lld_matmul_avx2_f16(float *out, size_t out_stride, const uint8_t *w, size_t row_bytes,
                                  size_t n_rows, const lld_acts *x, void *scratch)
{
    (void)scratch;
    matmul_float(out, out_stride, w, row_bytes, n_rows, x, sizeof(uint16_t), false);
}

LLD_AVX2 void lld_matmul_avx2_bf16(float *out, size_t out_stride, const uint8_t *w,
                                   size_t row_bytes, size_t n_rows, const lld_acts *x,
                                   void *scratch)
{
    (void)scratch;
    matmul_float(out, out_stride, w, row_bytes, n_rows, x, sizeof(uint16_t), true);
}

#else
typedef int
    lld_matmul_avx2_float_not_on_this_architecture; /* a translation unit may not be empty */
#endif
