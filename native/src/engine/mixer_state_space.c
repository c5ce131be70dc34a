/* mixer_state_space.c - Mamba-2 (arXiv 2405.21060), the mixer of a layer: four phases, alone or beside
 * attention. The state of a layer: the inputs of its convolution (convolution.h), then a matrix
 * (ssm_state, ssm_head_dim) for each head. Rows of a sequence go through it one after the other. */
#include "engine/layer.h"

#include <string.h>

#include "base/elementary.h"

enum { MAX_HEAD_DIM = 512 }; /* config_states.c refuses more */

/* A row of the input product: z (inner), then x (inner), B and C (groups, state) each, then dt (heads).
 * The second phase convolves x, B and C in place, the third replaces x by what the scan makes. */
typedef struct parts {
    float *z, *x, *b, *c, *dt;
} parts;

static parts parts_of(const lld_forward *f, size_t row)
{
    const lld_config *c = &f->model->config;
    const size_t maps = (size_t)c->ssm_groups * c->ssm_state;
    parts p = {.z = f->scratch.projected + row * lld_ssm_projected(c)};
    p.x = p.z + lld_ssm_inner(c);
    p.b = p.x + lld_ssm_inner(c);
    p.c = p.b + maps;
    p.dt = p.c + maps;
    return p;
}

static void in_phase(lld_forward *f, unsigned thread, const lld_layer *l)
{
    const lld_product products[] = {{.matrix = &l->state_space.in, .out = f->scratch.projected}};
    const lld_source s = {.make_row = lld_normed_row,
                          .norm = &l->mixer_norm,
                          .n_rows = f->batch.n_rows,
                          .n_cols = f->model->config.dim,
                          .kinds = LLD_ACT_BIT(l->state_space.in.act),
                          .store = f->scratch.work,
                          .layer = l,
                          .name = LLD_IMPORTANCE_QKV};
    lld_products_run(f, thread, products, 1, lld_input_make(f, thread, &s));
    lld_pool_barrier(f->pool);
}

/* The matrix of one head in a slot. */
static float *matrix_at(const lld_forward *f, uint32_t slot, const lld_layer *l, uint32_t head)
{
    const lld_config *c = &f->model->config;
    return lld_state_at(f->states, slot, l) + (size_t)(c->conv_width - 1) * lld_ssm_channels(c) +
           (size_t)head * c->ssm_state * c->ssm_head_dim;
}

/* One row of one head: S = exp(dt * a) * S + B (dt * x), x = C S + d * x. */
static void step_row(lld_forward *f, const lld_layer *l, uint32_t head, size_t row, float *state)
{
    const lld_config *c = &f->model->config;
    const lld_state_space_weights *w = &l->state_space;
    const parts p = parts_of(f, row);
    const uint32_t n = c->ssm_head_dim, group = head / (c->ssm_heads / c->ssm_groups);
    float v[MAX_HEAD_DIM], out[MAX_HEAD_DIM], *x = p.x + (size_t)head * n;
    const double dt = lld_softplus((double)p.dt[head] + (double)w->dt_bias[head]);
    for (uint32_t i = 0; i < n; i++) v[i] = (float)dt * x[i];
    const lld_state_step step = {.state = state,
                                 .q = p.c + (size_t)group * c->ssm_state,
                                 .k = p.b + (size_t)group * c->ssm_state,
                                 .v = v,
                                 .out = out,
                                 .decay = (float)lld_exp(dt * (double)w->a[head]),
                                 .n_rows = c->ssm_state,
                                 .n_cols = n};
    f->kernels->scan_step(&step);
    for (uint32_t i = 0; i < n; i++) x[i] = out[i] + w->d[head] * x[i];
}

static void scan_phase(lld_forward *f, unsigned thread, const lld_layer *l)
{
    const lld_config *c = &f->model->config;
    const size_t bytes = (size_t)c->ssm_state * c->ssm_head_dim * sizeof(float),
                 n_units = f->batch.n_chains * c->ssm_heads;
    for (size_t unit; (unit = lld_pool_next(f->pool, thread, n_units)) < n_units;) {
        const lld_batch_chain *chain = &f->batch.chains[unit / c->ssm_heads];
        const uint32_t head = (uint32_t)(unit % c->ssm_heads);
        for (uint32_t i = chain->first_run; i < chain->first_run + chain->n_runs; i++) {
            const lld_batch_run *run = &f->batch.runs[i];
            float *state = matrix_at(f, run->state_out, l, head);
            if (run->position == 0)
                memset(state, 0, bytes);
            else if (run->state_in != run->state_out)
                memcpy(state, matrix_at(f, run->state_in, l, head), bytes);
            for (size_t row = run->first_row; row < run->first_row + run->n_rows; row++)
                step_row(f, l, head, row, state);
        }
    }
    lld_pool_barrier(f->pool);
}

/* An lld_make_row_fn: silu(z) times what the scan made, each group normed where there is a norm. */
static void make_gated_row(lld_forward *f, size_t row, const lld_source *s, float *values)
{
    const lld_config *c = &f->model->config;
    const lld_state_space_weights *w = &s->layer->state_space;
    const parts p = parts_of(f, row);
    const size_t n = s->n_cols / c->ssm_groups;
    memcpy(values, p.z, s->n_cols * sizeof *values);
    f->kernels->silu_mul(values, p.x, s->n_cols);
    for (size_t g = 0; w->norm != NULL && g < s->n_cols; g += n)
        f->kernels->rmsnorm(values + g, values + g, w->norm + g, n, c->norm_epsilon);
}

static void mix(lld_forward *f, unsigned thread, const lld_layer *l)
{
    const lld_config *c = &f->model->config;
    in_phase(f, thread, l);
    lld_convolve_rows(f, thread, l,
                      &(lld_convolved){.rows = parts_of(f, 0).x,
                                       .stride = lld_ssm_projected(c),
                                       .n_channels = lld_ssm_channels(c),
                                       .weights = l->state_space.conv,
                                       .bias = l->state_space.conv_bias});
    scan_phase(f, thread, l);
}

static void output(lld_forward *f, unsigned thread, const lld_layer *l)
{
    lld_mixer_output(
        f, thread, l,
        &(lld_mixer_result){.matrix = &l->state_space.out, .make_row = make_gated_row});
}

void lld_mixer_state_space(lld_forward *f, unsigned thread, const lld_layer *l)
{
    mix(f, thread, l);
    output(f, thread, l);
}

/* Falcon-H1. Both read the residual stream before either adds to it. */
void lld_mixer_attention_and_state_space(lld_forward *f, unsigned thread, const lld_layer *l)
{
    lld_attention_mix(f, thread, l);
    mix(f, thread, l);
    lld_attention_output(f, thread, l);
    lld_pool_barrier(f->pool);
    output(f, thread, l);
}
