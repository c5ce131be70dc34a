/* layer_input.c - what a token gives each layer beside the residual stream: Gemma 4's per-layer
 * embeddings (transformers, modeling_gemma4.py, project_per_layer_inputs).
 *   input[layer] = (norm(proj(x)[layer] / sqrt(dim)) + table[token][layer] * sqrt(n)) / sqrt(2)
 * of the embedded token x, n values for each layer, made once a step; then, behind the feed-forward,
 *   x = x + norm(proj(act(gate(x)) * input)). */
#include "engine/layer.h"

#include <math.h>
#include <string.h>

#include "model/pages.h"

/* All layers' inputs of one row of the batch: (n_layers, layer_input_dim). */
static float *inputs_of(const lld_forward *f, size_t row)
{
    return f->scratch.layer_inputs + row * f->model->layer_input_table.n_cols;
}

void lld_layer_inputs_ahead(const lld_forward *f)
{
    const lld_matrix *table = &f->model->layer_input_table;
    if (table->data == NULL) return;
    for (size_t row = 0; row < f->batch.n_rows; row++)
        lld_pages_ahead(table->data + f->batch.tokens[row] * table->row_bytes, table->row_bytes);
}

/* Join a row's projection with its row of the table. */
static void join_row(lld_forward *f, unsigned thread, size_t row)
{
    const lld_model *m = f->model;
    const lld_matrix *table = &m->layer_input_table;
    const size_t n = m->config.layer_input_dim;
    const float grow = sqrtf((float)n), shrink = (float)(1.0 / sqrt(2.0));
    float *by_token = f->scratch.threads[thread].row;
    lld_dequantize_row(table->type, table->data + f->batch.tokens[row] * table->row_bytes, by_token,
                       table->n_cols);
    for (uint32_t i = 0; i < m->config.n_layers; i++) {
        float *input = inputs_of(f, row) + i * n;
        f->kernels->rmsnorm(input, input, m->layer_input_norm, n, m->config.norm_epsilon);
        for (size_t k = 0; k < n; k++) input[k] = (input[k] + by_token[i * n + k] * grow) * shrink;
    }
}

void lld_layer_inputs_make(lld_forward *f, unsigned thread)
{
    static const lld_norm none = {0};
    const lld_model *m = f->model;
    if (m->layer_input_table.data == NULL) return;
    const lld_product products[] = {{.matrix = &m->layer_input_proj,
                                     .scale = (float)(1.0 / sqrt((double)m->config.dim)),
                                     .out = f->scratch.layer_inputs}};
    const lld_source s = {.make_row = lld_normed_row,
                          .norm = &none,
                          .n_rows = f->batch.n_rows,
                          .n_cols = m->config.dim,
                          .kinds = LLD_ACT_BIT(m->layer_input_proj.act),
                          .fine = m->layer_input_proj.fine,
                          .store = f->scratch.work,
                          .layer = m->layers,
                          .name = LLD_IMPORTANCE_INPUTS};
    lld_products_run(f, thread, products, 1, lld_input_make(f, thread, &s));
    lld_pool_barrier(f->pool);
    for (size_t row; (row = lld_pool_next(f->pool, thread, f->batch.n_rows)) < f->batch.n_rows;)
        join_row(f, thread, row);
    lld_pool_barrier(f->pool);
}

/* An lld_make_row_fn: act(gate) * input, where `gate` may be `values`. */
static void make_gated_row(lld_forward *f, size_t row, const lld_source *s, float *values)
{
    const float *gate = f->scratch.layer_gate + row * s->n_cols;
    if (values != gate) memcpy(values, gate, s->n_cols * sizeof *values);
    lld_activate(f, values, inputs_of(f, row) + lld_layer_index(f, s->layer) * s->n_cols,
                 s->n_cols);
}

void lld_layer_input_add(lld_forward *f, unsigned thread, const lld_layer *l)
{
    static const lld_norm none = {0};
    const lld_layer_input_weights *w = &l->input;
    const lld_product gate[] = {{.matrix = &w->gate, .out = f->scratch.layer_gate}};
    const lld_product proj[] = {{.matrix = &w->proj, .out = f->scratch.work}};
    const lld_source x = {.make_row = lld_normed_row,
                          .norm = &none,
                          .n_rows = f->batch.n_rows,
                          .n_cols = w->gate.n_cols,
                          .kinds = LLD_ACT_BIT(w->gate.act),
                          .store = f->scratch.work,
                          .layer = l,
                          .name = LLD_IMPORTANCE_INPUTS};
    const lld_source gated = {.make_row = make_gated_row,
                              .n_rows = f->batch.n_rows,
                              .n_cols = w->proj.n_cols,
                              .kinds = LLD_ACT_BIT(w->proj.act),
                              .store = f->scratch.layer_gate,
                              .layer = l,
                              .name = LLD_IMPORTANCE_INPUTS};
    lld_products_run(f, thread, gate, 1, lld_input_make(f, thread, &x));
    lld_pool_barrier(f->pool);
    lld_products_run(f, thread, proj, 1, lld_input_make(f, thread, &gated));
}
