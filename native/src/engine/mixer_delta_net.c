/* mixer_delta_net.c - Gated DeltaNet (arXiv 2412.06464) as Qwen3.5 has it, the mixer of a layer: four
 * phases. The state of a layer: the inputs of its convolution (convolution.h), then a matrix
 * (delta_dim, delta_dim) for each head of v. Rows of a sequence go through it one after the other. */
#include "engine/layer.h"

#include <math.h>
#include <string.h>

#include "base/elementary.h"

enum { MAX_DIM = 256 }; /* of a head: config.c refuses more */

/* What the first phase makes of a batch; the second convolves qkv in place. */
typedef struct projections {
    float *qkv;          /* (n_batch, channels) */
    float *z;            /* (n_batch, delta_v_heads * delta_dim) */
    float *beta, *alpha; /* (n_batch, delta_v_heads) */
} projections;

static projections projections_of(const lld_forward *f)
{
    const lld_config *c = &f->model->config;
    const size_t rows = f->batch.n_batch;
    projections p = {.qkv = f->scratch.projected};
    p.z = p.qkv + rows * lld_delta_channels(c);
    p.beta = p.z + rows * lld_mixed_cols(c);
    p.alpha = p.beta + rows * c->delta_v_heads;
    return p;
}

static void in_phase(lld_forward *f, unsigned thread, const lld_layer *l)
{
    const lld_delta_weights *w = &l->delta;
    const projections p = projections_of(f);
    const lld_product products[] = {{.matrix = &w->qkv, .out = p.qkv},
                                    {.matrix = &w->gate, .out = p.z},
                                    {.matrix = &w->beta, .out = p.beta},
                                    {.matrix = &w->alpha, .out = p.alpha}};
    const lld_source s = {.make_row = lld_normed_row,
                          .norm = &l->mixer_norm,
                          .n_rows = f->batch.n_rows,
                          .n_cols = f->model->config.dim,
                          .kinds = LLD_ACT_BIT(w->qkv.act) | LLD_ACT_BIT(w->gate.act) |
                                   LLD_ACT_BIT(w->beta.act) | LLD_ACT_BIT(w->alpha.act),
                          .store = f->scratch.work,
                          .layer = l,
                          .name = LLD_IMPORTANCE_QKV};
    lld_products_run(f, thread, products, 4, lld_input_make(f, thread, &s));
    lld_pool_barrier(f->pool);
}

/* The matrix of one head in a slot. */
static float *matrix_at(const lld_forward *f, uint32_t slot, const lld_layer *l, uint32_t head)
{
    const lld_config *c = &f->model->config;
    return lld_state_at(f->states, slot, l) + (size_t)(c->conv_width - 1) * lld_delta_channels(c) +
           (size_t)head * c->delta_dim * c->delta_dim;
}

/* One row of one head: the step of the rule, then the gated norm, into attended. */
static void step_row(lld_forward *f, const lld_layer *l, uint32_t head, size_t row, float *state)
{
    const lld_config *c = &f->model->config;
    const lld_delta_weights *w = &l->delta;
    const projections p = projections_of(f);
    const uint32_t n = c->delta_dim, k_head = head % c->delta_k_heads;
    const float epsilon = c->norm_epsilon / (float)n;
    float q[MAX_DIM], k[MAX_DIM], scale_q[MAX_DIM], scale_k[MAX_DIM];
    const float *u = p.qkv + row * lld_delta_channels(c),
                *v = u + (size_t)(2 * c->delta_k_heads + head) * n;
    float *z = p.z + row * lld_mixed_cols(c) + (size_t)head * n,
          *out = f->scratch.attended + row * lld_mixed_cols(c) + (size_t)head * n;
    for (uint32_t i = 0; i < n; i++) { /* x / sqrt(sum x^2 + epsilon); queries also / sqrt(n) */
        scale_k[i] = 1.0f / sqrtf((float)n);
        scale_q[i] = 1.0f / (float)n;
    }
    f->kernels->rmsnorm(q, u + (size_t)k_head * n, scale_q, n, epsilon);
    f->kernels->rmsnorm(k, u + (size_t)(c->delta_k_heads + k_head) * n, scale_k, n, epsilon);
    const double beta = p.beta[row * c->delta_v_heads + head],
                 alpha = p.alpha[row * c->delta_v_heads + head],
                 g = w->a[head] * lld_softplus(alpha + w->dt_bias[head]);
    const lld_state_step step = {.state = state,
                                 .q = q,
                                 .k = k,
                                 .v = v,
                                 .out = out,
                                 .decay = (float)lld_exp(g),
                                 .beta = (float)(1.0 / (1.0 + lld_exp(-beta))),
                                 .n_rows = n,
                                 .n_cols = n};
    f->kernels->delta_step(&step);
    f->kernels->rmsnorm(out, out, w->norm, n, c->norm_epsilon);
    f->kernels->silu_mul(z, out, n);
    memcpy(out, z, n * sizeof *out);
}

static void delta_phase(lld_forward *f, unsigned thread, const lld_layer *l)
{
    const lld_config *c = &f->model->config;
    const size_t bytes = (size_t)c->delta_dim * c->delta_dim * sizeof(float),
                 n_units = f->batch.n_chains * c->delta_v_heads;
    for (size_t unit; (unit = lld_pool_next(f->pool, thread, n_units)) < n_units;) {
        const lld_batch_chain *chain = &f->batch.chains[unit / c->delta_v_heads];
        const uint32_t head = (uint32_t)(unit % c->delta_v_heads);
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

void lld_mixer_delta_net(lld_forward *f, unsigned thread, const lld_layer *l)
{
    const size_t n_channels = lld_delta_channels(&f->model->config);
    in_phase(f, thread, l);
    lld_convolve_rows(f, thread, l,
                      &(lld_convolved){.rows = projections_of(f).qkv,
                                       .stride = n_channels,
                                       .n_channels = n_channels,
                                       .weights = l->delta.conv});
    delta_phase(f, thread, l);
    lld_mixer_output(f, thread, l,
                     &(lld_mixer_result){.matrix = &l->delta.out, .make_row = lld_mixed_row});
}
