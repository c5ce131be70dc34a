/* feed_gated_and_experts.c - a dense feed-forward beside a mixture of experts, which read the same row by
 * norms of their own (Gemma 4 26B-A4B; transformers, modeling_gemma4.py): three phases behind theirs. */
#include "engine/layer.h"

void lld_feed_gated_and_experts(lld_forward *f, unsigned thread, const lld_layer *l)
{
    const size_t dim = f->model->config.dim, n_rows = f->batch.n_rows;
    lld_feed_gated(f, thread, l); /* to mixed */
    lld_pool_barrier(f->pool);
    lld_feed_experts(f, thread, l); /* to work */
    lld_pool_barrier(f->pool);
    for (size_t row; (row = lld_pool_next(f->pool, thread, n_rows)) < n_rows;) {
        float *gated = f->scratch.mixed + row * dim, *work = f->scratch.work + row * dim;
        lld_norm_row(f, &l->mixture.gated_post_norm, gated, gated);
        lld_norm_row(f, &l->mixture.post_norm, work, work);
        f->kernels->add(work, gated, dim);
    }
}
