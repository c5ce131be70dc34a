/* layer.c - see layer.h. */
#include "engine/layer.h"

#include <string.h>

typedef void (*half_fn)(lld_forward *f, unsigned thread, const lld_layer *l);

static const half_fn mixers[] = {[LLD_MIXER_ATTENTION] = lld_mixer_attention};
static const half_fn feeds[] = {[LLD_FEED_GATED] = lld_feed_gated};

void lld_normed_row(lld_forward *f, size_t row, const float *weight, float *values)
{
    const lld_config *c = &f->model->config;
    const float *x = f->scratch.x + row * c->dim;
    if (weight == NULL)
        memcpy(values, x, c->dim * sizeof *x);
    else
        f->kernels->rmsnorm(values, x, weight, c->dim, c->norm_epsilon);
}

/* A phase of its own, in families that have one: norm what the half left in work, add it to x. */
static void post_norm_phase(lld_forward *f, unsigned thread, const float *weight)
{
    const lld_config *c = &f->model->config;
    if (weight == NULL) return;
    lld_pool_barrier(f->pool);
    for (size_t row; (row = lld_pool_next(f->pool, thread, f->batch.n_rows)) < f->batch.n_rows;) {
        float *half = f->scratch.work + row * c->dim;
        f->kernels->rmsnorm(half, half, weight, c->dim, c->norm_epsilon);
        f->kernels->add(f->scratch.x + row * c->dim, half, c->dim);
    }
}

void lld_layer_run(lld_forward *f, unsigned thread, const lld_layer *l)
{
    mixers[l->mixer](f, thread, l);
    post_norm_phase(f, thread, l->mixer_post_norm);
    lld_pool_barrier(f->pool);
    feeds[l->feed](f, thread, l);
    post_norm_phase(f, thread, l->feed_post_norm);
}
