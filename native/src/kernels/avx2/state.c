/* state.c - the AVX2 kernels on the state of a layer without attention. A lane is a column, so each sum
 * is one chain over the rows. Thirty-two columns at a time: their sums stay in registers, enough of them
 * to hide an fma's latency, and the tile's rows stay in L1 between the two passes of delta_step. */
#ifdef __x86_64__

#include <assert.h>
#include <stdbool.h>

#include "kernels/avx2/avx2.h"
#include "kernels/avx2/simd.h"

enum { WIDE = 4 }; /* vectors of a tile; narrow ones have one */

/* Columns [j, j + 8 * n). */
LLD_AVX2_INLINE void step_columns(const lld_state_step *s, size_t j, int n, bool corrects)
{
    const __m256 decay = _mm256_set1_ps(s->decay);
    __m256 e[WIDE], out[WIDE];
    for (int c = 0; c < n; c++) {
        e[c] = _mm256_loadu_ps(s->v + j + 8 * c);
        out[c] = _mm256_setzero_ps();
    }
    if (corrects) {
        __m256 sum[WIDE];
        for (int c = 0; c < n; c++) sum[c] = _mm256_setzero_ps();
        for (size_t i = 0; i < s->n_rows; i++) {
            const __m256 k = _mm256_broadcast_ss(s->k + i);
            const float *row = s->state + i * s->n_cols + j;
            for (int c = 0; c < n; c++)
                sum[c] =
                    _mm256_fmadd_ps(_mm256_mul_ps(_mm256_loadu_ps(row + 8 * c), decay), k, sum[c]);
        }
        for (int c = 0; c < n; c++)
            e[c] = _mm256_mul_ps(_mm256_sub_ps(e[c], sum[c]), _mm256_set1_ps(s->beta));
    }
    for (size_t i = 0; i < s->n_rows; i++) {
        const __m256 k = _mm256_broadcast_ss(s->k + i), q = _mm256_broadcast_ss(s->q + i);
        float *row = s->state + i * s->n_cols + j;
        for (int c = 0; c < n; c++) {
            const __m256 x = _mm256_mul_ps(_mm256_loadu_ps(row + 8 * c), decay),
                         y = _mm256_fmadd_ps(k, e[c], x);
            _mm256_storeu_ps(row + 8 * c, y);
            out[c] = _mm256_fmadd_ps(y, q, out[c]);
        }
    }
    for (int c = 0; c < n; c++) _mm256_storeu_ps(s->out + j + 8 * c, out[c]);
}

LLD_AVX2_INLINE void step_state(const lld_state_step s, bool corrects)
{
    size_t j = 0;
    assert(s.n_cols % 8 == 0);
    for (; j + 8 * WIDE <= s.n_cols; j += 8 * WIDE) step_columns(&s, j, WIDE, corrects);
    for (; j < s.n_cols; j += 8) step_columns(&s, j, 1, corrects);
}

LLD_AVX2 static void delta_step(const lld_state_step *s) { step_state(*s, true); }
LLD_AVX2 static void scan_step(const lld_state_step *s) { step_state(*s, false); }

void lld_kernels_init_avx2_state(lld_kernels *table)
{
    table->delta_step = delta_step;
    table->scan_step = scan_step;
}

#else
typedef int
    lld_kernels_avx2_state_not_on_this_architecture; /* a translation unit may not be empty */
#endif
