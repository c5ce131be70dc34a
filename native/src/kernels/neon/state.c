/* state.c - the NEON (armv8.0) kernels on the state of a layer without attention. A lane is a column, so
 * each sum is one chain over the rows. Thirty-two columns at a time: eight sums hide an fma's latency on
 * two pipes, and the tile's rows stay in L1 between the two passes of delta_step. */
#include "kernels/kernels.h"

#if defined(__aarch64__)

#include <arm_neon.h>
#include <assert.h>
#include <stdbool.h>

#include "base/vecmath.h"
#include "kernels/neon/matmul.h"

enum { WIDE = 8, NARROW = 2 }; /* vectors of a tile */

/* Columns [j, j + 4 * n). */
LLD_INLINE void step_columns(const lld_state_step *s, size_t j, int n, bool corrects)
{
    float32x4_t e[WIDE], out[WIDE];
    for (int c = 0; c < n; c++) {
        e[c] = vld1q_f32(s->v + j + 4 * c);
        out[c] = vdupq_n_f32(0.0f);
    }
    if (corrects) {
        float32x4_t sum[WIDE];
        for (int c = 0; c < n; c++) sum[c] = vdupq_n_f32(0.0f);
        for (size_t i = 0; i < s->n_rows; i++) {
            const float *row = s->state + i * s->n_cols + j;
            const float32x4_t k = vdupq_n_f32(s->k[i]);
            for (int c = 0; c < n; c++)
                sum[c] = vfmaq_f32(sum[c], vmulq_n_f32(vld1q_f32(row + 4 * c), s->decay), k);
        }
        for (int c = 0; c < n; c++) e[c] = vmulq_n_f32(vsubq_f32(e[c], sum[c]), s->beta);
    }
    for (size_t i = 0; i < s->n_rows; i++) {
        float *row = s->state + i * s->n_cols + j;
        const float32x4_t k = vdupq_n_f32(s->k[i]), q = vdupq_n_f32(s->q[i]);
        for (int c = 0; c < n; c++) {
            const float32x4_t x = vmulq_n_f32(vld1q_f32(row + 4 * c), s->decay),
                              y = vfmaq_f32(x, k, e[c]);
            vst1q_f32(row + 4 * c, y);
            out[c] = vfmaq_f32(out[c], y, q);
        }
    }
    for (int c = 0; c < n; c++) vst1q_f32(s->out + j + 4 * c, out[c]);
}

LLD_INLINE void step_state(const lld_state_step s, bool corrects)
{
    size_t j = 0;
    assert(s.n_cols % 8 == 0);
    for (; j + 4 * WIDE <= s.n_cols; j += 4 * WIDE) step_columns(&s, j, WIDE, corrects);
    for (; j < s.n_cols; j += 4 * NARROW) step_columns(&s, j, NARROW, corrects);
}

static void delta_step(const lld_state_step *s) { step_state(*s, true); }
static void scan_step(const lld_state_step *s) { step_state(*s, false); }

void lld_neon_init_state(lld_kernels *table)
{
    table->delta_step = delta_step;
    table->scan_step = scan_step;
}

#endif
