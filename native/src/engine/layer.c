/* layer.c - see layer.h. */
#include "engine/layer.h"

#include <string.h>

#include "base/vecmath.h"

typedef void (*half_fn)(lld_forward *f, unsigned thread, const lld_layer *l);

static const half_fn mixers[] = {[LLD_MIXER_ATTENTION] = lld_mixer_attention,
                                 [LLD_MIXER_CONVOLUTION] = lld_mixer_convolution,
                                 [LLD_MIXER_DELTA_NET] = lld_mixer_delta_net,
                                 [LLD_MIXER_STATE_SPACE] = lld_mixer_state_space,
                                 [LLD_MIXER_ATTENTION_AND_STATE_SPACE] =
                                     lld_mixer_attention_and_state_space};
static const half_fn feeds[] = {[LLD_FEED_GATED] = lld_feed_gated,
                                [LLD_FEED_EXPERTS] = lld_feed_experts,
                                [LLD_FEED_GATED_AND_EXPERTS] = lld_feed_gated_and_experts};

/* out = x - mean(x), (n) each; out may be x. The sum is in eight lanes, as those of kernels.h. */
static void center(float *out, const float *x, size_t n)
{
    float lane[8] = {0};
    for (size_t k = 0; k < n; k++) lane[k % 8] += x[k];
    const float mean = lld_reduce8(lane) / (float)n;
    for (size_t k = 0; k < n; k++) out[k] = x[k] - mean;
}

/* LayerNorm is RMSNorm of what is centered, and a bias. */
void lld_norm_row(const lld_forward *f, const lld_norm *norm, float *out, const float *x)
{
    const lld_config *c = &f->model->config;
    if (c->architecture->facts.norm != LLD_RMS_NORM) {
        center(out, x, c->dim);
        x = out;
    }
    f->kernels->rmsnorm(out, x, norm->weight, c->dim, c->norm_epsilon);
    if (norm->bias != NULL) f->kernels->add(out, norm->bias, c->dim);
}

void lld_normed_row(lld_forward *f, size_t row, const lld_source *s, float *values)
{
    const lld_config *c = &f->model->config;
    const float *x = f->scratch.x + row * c->dim;
    if (s->norm->weight == NULL)
        memcpy(values, x, c->dim * sizeof *x);
    else
        lld_norm_row(f, s->norm, values, x);
}

void lld_mixed_row(lld_forward *f, size_t row, const lld_source *s, float *values)
{
    memcpy(values, f->scratch.attended + row * s->n_cols, s->n_cols * sizeof *values);
}

void lld_mixer_output(lld_forward *f, unsigned thread, const lld_layer *l,
                      const lld_mixer_result *result)
{
    const lld_config *c = &f->model->config;
    const bool is_added = l->mixer_post_norm.weight == NULL && !c->is_parallel;
    const lld_product products[] = {{.matrix = result->matrix,
                                     .bias = result->bias,
                                     .scale = c->residual_scale,
                                     .out = c->is_parallel ? f->scratch.mixed : f->scratch.work,
                                     .residual = is_added ? f->scratch.x : NULL}};
    const lld_source s = {.make_row = result->make_row,
                          .n_rows = f->batch.n_rows,
                          .n_cols = result->matrix->n_cols,
                          .kinds = LLD_ACT_BIT(result->matrix->act),
                          .fine = result->matrix->fine,
                          .store = f->scratch.q,
                          .layer = l,
                          .name = LLD_IMPORTANCE_ATTN_OUTPUT};
    lld_products_run(f, thread, products, 1, lld_input_make(f, thread, &s));
}

/* A phase of its own, in families that have one: norm what the half left in work, add it to x (or norm
 * the sum), and scale x unless `scale` is NULL. */
static void post_norm_phase(lld_forward *f, unsigned thread, const lld_norm *norm,
                            const float *scale)
{
    const lld_config *c = &f->model->config;
    const bool norms_sums = c->architecture->facts.norms_sums;
    if (norm->weight == NULL) return;
    lld_pool_barrier(f->pool);
    for (size_t row; (row = lld_pool_next(f->pool, thread, f->batch.n_rows)) < f->batch.n_rows;) {
        float *half = f->scratch.work + row * c->dim, *x = f->scratch.x + row * c->dim;
        if (!norms_sums) lld_norm_row(f, norm, half, half);
        f->kernels->add(x, half, c->dim);
        if (norms_sums) lld_norm_row(f, norm, x, x);
        for (uint32_t i = 0; scale != NULL && i < c->dim; i++) x[i] *= *scale;
    }
}

void lld_layer_run(lld_forward *f, unsigned thread, const lld_layer *l)
{
    mixers[l->mixer](f, thread, l);
    const bool has_input = l->input.gate.data != NULL;
    post_norm_phase(f, thread, &l->mixer_post_norm, NULL);
    if (l->feed == LLD_FEED_NONE) return;
    lld_pool_barrier(f->pool);
    feeds[l->feed](f, thread, l);
    post_norm_phase(f, thread, &l->feed_post_norm, has_input ? NULL : l->output_scale);
    if (!has_input) return;
    lld_pool_barrier(f->pool);
    lld_layer_input_add(f, thread, l);
    post_norm_phase(f, thread, &l->input.norm, l->output_scale);
}
