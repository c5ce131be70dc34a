/* layer.c - see layer.h. */
#include "engine/layer.h"

typedef void (*half_fn)(lld_forward *f, unsigned thread, const lld_layer *l);

static const half_fn mixers[] = {[LLD_MIXER_ATTENTION] = lld_mixer_attention};
static const half_fn feeds[] = {[LLD_FEED_GATED] = lld_feed_gated};

void lld_normed_row(lld_forward *f, size_t row, const float *weight, float *values)
{
    const lld_config *c = &f->model->config;
    f->kernels->rmsnorm(values, f->scratch.x + row * c->dim, weight, c->dim, c->norm_epsilon);
}

void lld_layer_run(lld_forward *f, unsigned thread, const lld_layer *l)
{
    mixers[l->mixer](f, thread, l);
    lld_pool_barrier(f->pool);
    feeds[l->feed](f, thread, l);
}
