/* state.c - the reference kernels on the state of a layer without attention, in plain C. */
#include "kernels/generic/generic.h"

#include <assert.h>
#include <stdbool.h>
#include <string.h>

#include "base/vecmath.h"

LLD_INLINE void step_state(const lld_state_step *s, bool corrects)
{
    enum { TILE = 8 };
    assert(s->n_cols % TILE == 0);
    for (size_t j = 0; j < s->n_cols; j += TILE) {
        float *state = s->state + j, e[TILE], out[TILE] = {0};
        memcpy(e, s->v + j, sizeof e);
        if (corrects) {
            float sum[TILE] = {0};
            for (size_t i = 0; i < s->n_rows; i++)
                for (size_t l = 0; l < TILE; l++)
                    sum[l] = __builtin_fmaf(state[i * s->n_cols + l] * s->decay, s->k[i], sum[l]);
            for (size_t l = 0; l < TILE; l++) e[l] = (e[l] - sum[l]) * s->beta;
        }
        for (size_t i = 0; i < s->n_rows; i++)
            for (size_t l = 0; l < TILE; l++) {
                float *x = &state[i * s->n_cols + l];
                *x = __builtin_fmaf(s->k[i], e[l], *x * s->decay);
                out[l] = __builtin_fmaf(*x, s->q[i], out[l]);
            }
        memcpy(s->out + j, out, sizeof out);
    }
}

static void delta_step(const lld_state_step *s) { step_state(s, true); }
static void scan_step(const lld_state_step *s) { step_state(s, false); }

void lld_kernels_init_generic_state(lld_kernels *table)
{
    table->delta_step = delta_step;
    table->scan_step = scan_step;
}
