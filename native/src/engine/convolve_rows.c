/* convolve_rows.c - a phase of mixers with a state: silu(convolution + bias) of some of the columns that
 * an input product made, in place. Its state comes first in a layer's, see convolution.h. */
#include "engine/layer.h"

#include "engine/convolution.h"

/* Channels [first, ...) in the rows of one run. */
static void convolve_run(lld_forward *f, const lld_batch_run *run, lld_convolution *conv,
                         const lld_convolved *c, size_t first)
{
    float ones[LLD_CONV_CHANNELS];
    for (uint32_t i = 0; i < conv->n; i++) ones[i] = 1.0f;
    for (size_t row = run->first_row; row < run->first_row + run->n_rows; row++) {
        float *x = c->rows + row * c->stride + first;
        lld_convolution_row(conv, x, x);
        if (c->bias != NULL) f->kernels->add(x, c->bias + first, conv->n);
        f->kernels->silu_mul(x, ones, conv->n);
    }
}

void lld_convolve_rows(lld_forward *f, unsigned thread, const lld_layer *l, const lld_convolved *c)
{
    const size_t n_parts = lld_divide_up(c->n_channels, LLD_CONV_CHANNELS),
                 n_units = f->batch.n_chains * n_parts;
    for (size_t unit; (unit = lld_pool_next(f->pool, thread, n_units)) < n_units;) {
        const lld_batch_chain *chain = &f->batch.chains[unit / n_parts];
        const lld_batch_run *runs = &f->batch.runs[chain->first_run];
        const size_t first = unit % n_parts * LLD_CONV_CHANNELS;
        const float *before =
            runs->position == 0 ? NULL : lld_state_at(f->states, runs->state_in, l);
        lld_convolution conv;
        lld_convolution_begin(&conv, c->weights, f->model->config.conv_width, first,
                              lld_min_size(LLD_CONV_CHANNELS, c->n_channels - first));
        lld_convolution_load(&conv, before, first, c->n_channels);
        for (uint32_t i = 0; i < chain->n_runs; i++) {
            convolve_run(f, &runs[i], &conv, c, first);
            lld_convolution_store(&conv, lld_state_at(f->states, runs[i].state_out, l), first,
                                  c->n_channels);
        }
    }
    lld_pool_barrier(f->pool);
}
