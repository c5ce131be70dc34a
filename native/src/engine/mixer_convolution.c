/* mixer_convolution.c - LFM2's short convolution, the mixer of a layer: three phases. Its state is that of
 * the convolution over b * x, see convolution.h. */
#include "engine/layer.h"

#include "engine/convolution.h"

static void in_phase(lld_forward *f, unsigned thread, const lld_layer *l)
{
    const lld_product products[] = {{.matrix = &l->convolution.in, .out = f->scratch.projected}};
    const lld_source s = {.make_row = lld_normed_row,
                          .norm = &l->mixer_norm,
                          .n_rows = f->batch.n_rows,
                          .n_cols = f->model->config.dim,
                          .kinds = LLD_ACT_BIT(l->convolution.in.act),
                          .store = f->scratch.work,
                          .layer = l,
                          .name = LLD_IMPORTANCE_QKV};
    lld_products_run(f, thread, products, 1, lld_input_make(f, thread, &s));
    lld_pool_barrier(f->pool);
}

/* Channels [first, ...) of the rows of one run. */
static void convolve_run(lld_forward *f, const lld_batch_run *run, lld_convolution *conv,
                         size_t first)
{
    const size_t dim = f->model->config.dim;
    float bx[LLD_CONV_CHANNELS];
    for (size_t row = run->first_row; row < run->first_row + run->n_rows; row++) {
        const float *b = f->scratch.projected + row * 3 * dim + first, *c = b + dim, *x = c + dim;
        float *out = f->scratch.attended + row * dim + first;
        for (uint32_t i = 0; i < conv->n; i++) bx[i] = b[i] * x[i];
        lld_convolution_row(conv, bx, out);
        for (uint32_t i = 0; i < conv->n; i++) out[i] *= c[i];
    }
}

static void convolve_phase(lld_forward *f, unsigned thread, const lld_layer *l)
{
    const lld_config *c = &f->model->config;
    const size_t n_parts = lld_divide_up(c->dim, LLD_CONV_CHANNELS),
                 n_units = f->batch.n_chains * n_parts;
    for (size_t unit; (unit = lld_pool_next(f->pool, thread, n_units)) < n_units;) {
        const lld_batch_chain *chain = &f->batch.chains[unit / n_parts];
        const size_t first = unit % n_parts * LLD_CONV_CHANNELS;
        lld_convolution conv;
        lld_convolution_begin(&conv, l->convolution.conv, c->conv_width, first,
                              lld_min_size(LLD_CONV_CHANNELS, c->dim - first));
        for (uint32_t i = chain->first_run; i < chain->first_run + chain->n_runs; i++) {
            const lld_batch_run *run = &f->batch.runs[i];
            if (i == chain->first_run)
                lld_convolution_load(
                    &conv, run->position == 0 ? NULL : lld_state_at(f->states, run->state_in, l),
                    first, c->dim);
            convolve_run(f, run, &conv, first);
            lld_convolution_store(&conv, lld_state_at(f->states, run->state_out, l), first, c->dim);
        }
    }
    lld_pool_barrier(f->pool);
}

void lld_mixer_convolution(lld_forward *f, unsigned thread, const lld_layer *l)
{
    in_phase(f, thread, l);
    convolve_phase(f, thread, l);
    lld_mixer_output(f, thread, l,
                     &(lld_mixer_result){.matrix = &l->convolution.out, .make_row = lld_mixed_row});
}
