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

/* One tile: its first output, weight row and activation row; n_rows x n_columns outputs (constants
 * after inlining). */
typedef struct tile {
    float *out;
    const uint8_t *w;
    const float *x;
    size_t n_rows, n_columns;
} tile;

LLD_AVX2_INLINE void multiply_tile(lld_matmul m, tile t, size_t size, bool bf16)
{
    const size_t n = m.x->n_cols;
    __m256 acc[2 * TILE_ROWS * TILE_COLUMNS];
    size_t k = 0;
#pragma GCC unroll 16
    for (size_t i = 0; i < t.n_rows * t.n_columns; i++) acc[i] = _mm256_setzero_ps();
    for (; k + 8 <= n; k += 8) {
        __m256 acts[TILE_COLUMNS];
#pragma GCC unroll 4
        for (size_t c = 0; c < t.n_columns; c++) acts[c] = _mm256_loadu_ps(t.x + c * n + k);
#pragma GCC unroll 8
        for (size_t r = 0; r < t.n_rows; r++) {
            __m256 weights = load_weights(t.w + r * m.row_bytes + k * size, size, bf16);
#pragma GCC unroll 4
            for (size_t c = 0; c < t.n_columns; c++)
                acc[r * t.n_columns + c] =
                    _mm256_fmadd_ps(weights, acts[c], acc[r * t.n_columns + c]);
        }
    }
    if (k < n)
#pragma GCC unroll 8
        for (size_t r = 0; r < t.n_rows; r++)
#pragma GCC unroll 4
            for (size_t c = 0; c < t.n_columns; c++)
                acc[r * t.n_columns + c] =
                    multiply_tail(acc[r * t.n_columns + c], t.w + r * m.row_bytes + k * size,
                                  t.x + c * n + k, n - k, size, bf16);
#pragma GCC unroll 4
    for (size_t c = 0; c < t.n_columns; c++) {
        float *out = t.out + c * m.out_stride;
        if (t.n_rows % 4 != 0) {
            *out = lld_reduce_lanes(acc[c]); /* a single row */
            continue;
        }
#pragma GCC unroll 2
        for (size_t r = 0; r < t.n_rows; r += 4) {
            const __m256 rows[4] = {acc[r * t.n_columns + c], acc[(r + 1) * t.n_columns + c],
                                    acc[(r + 2) * t.n_columns + c], acc[(r + 3) * t.n_columns + c]};
            _mm_storeu_ps(out + r, lld_reduce_lanes_of_four(rows));
        }
    }
}

/* Columns [first, first + n_columns) with full tiles of rows, then single rows. */
LLD_AVX2_INLINE void multiply_columns(lld_matmul m, size_t first, size_t n_columns, size_t size,
                                      bool bf16)
{
    const size_t tile_rows = n_columns == 1 ? 2 * TILE_ROWS : TILE_ROWS;
    tile t = {.out = m.out + first * m.out_stride,
              .w = m.w,
              .x = m.x->f32 + first * m.x->n_cols,
              .n_columns = n_columns};
    size_t r = 0;
    for (; r + tile_rows <= m.n_rows; r += tile_rows) {
        t.n_rows = tile_rows;
        multiply_tile(m, t, size, bf16);
        t.out += tile_rows;
        t.w += tile_rows * m.row_bytes;
    }
    for (; r < m.n_rows; r++) {
        t.n_rows = 1;
        multiply_tile(m, t, size, bf16);
        t.out++;
        t.w += m.row_bytes;
    }
}

/* Sixteen rows at a time, so that they stay in cache while the columns pass. */
LLD_AVX2_INLINE void matmul_float(lld_matmul m, size_t size, bool bf16)
{
    enum { ROWS = 16 };
    assert(m.row_bytes >= m.x->n_cols * size);
    for (size_t left = m.n_rows; left > 0; left -= m.n_rows) {
        size_t c = 0;
        m.n_rows = left < ROWS ? left : ROWS;
        for (; c + TILE_COLUMNS <= m.x->n_rows; c += TILE_COLUMNS)
            multiply_columns(m, c, TILE_COLUMNS, size, bf16);
        for (; c < m.x->n_rows; c++) multiply_columns(m, c, 1, size, bf16);
        m.out += m.n_rows;
        m.w += m.n_rows * m.row_bytes;
    }
}

LLD_AVX2 void lld_matmul_avx2_f32(const lld_matmul *m) { matmul_float(*m, sizeof(float), false); }

LLD_AVX2 void lld_matmul_avx2_f16(const lld_matmul *m)
{
    matmul_float(*m, sizeof(uint16_t), false);
}

LLD_AVX2 void lld_matmul_avx2_bf16(const lld_matmul *m)
{
    matmul_float(*m, sizeof(uint16_t), true);
}

#else
typedef int
    lld_matmul_avx2_float_not_on_this_architecture; /* a translation unit may not be empty */
#endif
