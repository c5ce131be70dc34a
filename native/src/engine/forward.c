/* forward.c - see forward.h: embedding, the loop over the layers, the output. */
#include "engine/forward.h"

#include "base/status.h"
#include "engine/layer.h"
#include "model/rope.h"

/* What the embedding of an encoder has beside tokens: types, positions, a norm. */
static void finish_embedding(lld_forward *f, unsigned thread, float *x, uint32_t position)
{
    const lld_model *m = f->model;
    float *row = f->scratch.threads[thread].row;
    if (m->types.data != NULL) {
        lld_dequantize_row(m->types.type, m->types.data, row, m->config.dim);
        f->kernels->add(x, row, m->config.dim);
    }
    if (m->positions.data != NULL) {
        const uint8_t *data = m->positions.data + (size_t)position * m->positions.row_bytes;
        lld_dequantize_row(m->positions.type, data, row, m->config.dim);
        f->kernels->add(x, row, m->config.dim);
    }
    if (m->embedding_norm.weight != NULL) lld_norm_row(f, &m->embedding_norm, x, x);
}

void lld_rope_row(lld_forward *f, size_t row)
{
    const lld_config *c = &f->model->config;
    const uint32_t n_tables = lld_rope_tables(c), stride = lld_rope_stride(c);
    for (uint32_t i = 0; i < n_tables; i++)
        lld_rope_table(f->scratch.frequencies + i * stride / 2, i == 0 ? c->n_rot : c->local_n_rot,
                       i == 0 ? f->scratch.rope_magnitude : 1.0f, f->batch.positions[row],
                       f->scratch.cos_sin + (row * n_tables + i) * stride);
}

static void embed_phase(lld_forward *f, unsigned thread)
{
    const lld_config *c = &f->model->config;
    const lld_matrix *e = &f->model->embedding;
    for (size_t row; (row = lld_pool_next(f->pool, thread, f->batch.n_rows)) < f->batch.n_rows;) {
        lld_dequantize_row(e->type, e->data + (size_t)f->batch.tokens[row] * e->row_bytes,
                           f->scratch.x + row * c->dim, c->dim);
        float *x = f->scratch.x + row * c->dim;
        for (uint32_t i = 0; c->embedding_scale != 1.0f && i < c->dim; i++)
            x[i] *= c->embedding_scale;
        if (c->architecture->facts.is_encoder)
            finish_embedding(f, thread, x, f->batch.positions[row]);
        lld_rope_row(f, row);
    }
    lld_pool_barrier(f->pool);
}

static void make_kept_row(lld_forward *f, size_t row, const lld_source *s, float *values)
{
    lld_normed_row(f, f->batch.kept[row], s, values);
}

/* A phase of its own, in families that bound their logits. */
static void softcap_phase(lld_forward *f, unsigned thread)
{
    enum { CHUNK = 4096 };
    const size_t n = f->batch.n_kept * f->model->vocab_size, n_chunks = lld_divide_up(n, CHUNK);
    lld_pool_barrier(f->pool);
    for (size_t i; (i = lld_pool_next(f->pool, thread, n_chunks)) < n_chunks;)
        f->kernels->softcap(f->scratch.logits + i * CHUNK, lld_min_size(CHUNK, n - i * CHUNK),
                            f->model->config.logits_softcap);
}

void lld_logits_run(lld_forward *f, unsigned thread, const lld_matrix *output, const lld_norm *norm)
{
    const lld_model *m = f->model;
    const lld_product products[] = {{.matrix = output,
                                     .bias = m->output_bias,
                                     .scale = m->config.logits_scale,
                                     .out = f->scratch.logits,
                                     .counted = true}};
    const lld_source s = {.make_row = make_kept_row,
                          .norm = norm,
                          .n_rows = f->batch.n_kept,
                          .n_cols = m->config.dim,
                          .batch_rows = f->batch.kept,
                          .kinds = LLD_ACT_BIT(output->act),
                          .fine = output->fine,
                          .store = f->scratch.work,
                          .layer = m->layers,
                          .name = LLD_IMPORTANCE_OUTPUT};
    lld_products_run(f, thread, products, 1, lld_input_make(f, thread, &s));
    if (m->config.logits_softcap > 0.0f) softcap_phase(f, thread);
}

static void forward_thread(void *argument, unsigned thread)
{
    lld_forward *f = argument;
    embed_phase(f, thread);
    lld_layer_inputs_make(f, thread);
    for (uint32_t i = 0; i < f->model->config.n_layers && f->stop == 0; i++) {
        lld_layer_run(f, thread, &f->model->layers[i]);
        if (thread == 0) {
            f->stop = atomic_load_explicit(f->cancel, memory_order_relaxed) ||
                      lld_reading_is_stopped(&f->reading);
            atomic_fetch_add_explicit(f->progress, 1, memory_order_relaxed);
        }
        lld_pool_barrier(f->pool);
    }
    const lld_model *m = f->model;
    if (f->stop == 0 && f->batch.n_kept > 0) lld_logits_run(f, thread, &m->output, &m->output_norm);
}

int lld_forward_run(lld_forward *f)
{
    lld_layer_inputs_ahead(f);
    lld_attention_plan(&f->attention, f->batch.runs, f->batch.n_runs, f->batch.n_rows);
    f->stop = atomic_load_explicit(f->cancel, memory_order_relaxed);
    const lld_stream_pass pass = {
        .n_rows = f->batch.n_rows, .n_kept = f->batch.n_kept, .cancel = f->cancel};
    f->reading = lld_residency_begin(f->model, &pass);
    lld_pool_run(f->pool, forward_thread, f);
    int status = lld_residency_end(f->model, &f->reading, f->stop == 0);
    if (status != LLD_OK) return status;
    if (f->stop != 0) return lld_fail(LLD_ERR_CANCELLED, "the step was cancelled");
    if (f->model->config.n_guess_layers > 0) lld_guess_store(f);
    return LLD_OK;
}
