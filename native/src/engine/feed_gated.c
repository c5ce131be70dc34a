/* feed_gated.c - the gated feed-forward of a layer, down(act(gate(x)) * up(x)), or down(act(gate(x)))
 * in families without `up`: two phases. */
#include "engine/layer.h"

#include <string.h>

#include "engine/adapter.h"

static void relu_squared_mul(float *gate, const float *up, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const float g = gate[i] < 0.0f ? 0.0f : gate[i]; /* a NaN stays one */
        gate[i] = g * g * up[i];
    }
}

void lld_activate(const lld_forward *f, float *gate, const float *up, size_t n)
{
    const lld_activation activation = f->model->config.architecture->facts.activation;
    if (activation == LLD_GELU)
        f->kernels->gelu_mul(gate, up, n);
    else if (activation == LLD_GELU_ERF)
        f->kernels->gelu_erf_mul(gate, up, n);
    else if (activation == LLD_RELU_SQUARED)
        relu_squared_mul(gate, up, n);
    else if (activation == LLD_SWIGLU_CLAMPED)
        f->kernels->swiglu_clamped_mul(gate, up, n);
    else
        f->kernels->silu_mul(gate, up, n);
}

void lld_hidden_unit(lld_forward *f, unsigned thread, const lld_hidden *hidden,
                     const lld_input *input, lld_tile *tile, size_t first_row)
{
    const lld_gated_weights *w = hidden->weights;
    const uint32_t *batch_rows = hidden->values->batch_rows;
    lld_thread_scratch *t = &f->scratch.threads[thread];
    const size_t first = tile->first_row, n = tile->n_rows;
    const uint8_t *const after =
        first + n < w->gate.n_rows ? lld_matrix_row(&w->gate, first + n) : hidden->next;
    tile->out_stride = n;
    tile->out = t->gate;
    tile->next = w->up.data == NULL ? after : lld_matrix_row(&w->up, first);
    lld_multiply_tile(f, thread, &w->gate, input, tile);
    if (hidden->may_adapt) lld_adapter_add(f, thread, &w->gate, 0, input, tile);
    tile->out = t->up;
    tile->next = after;
    if (w->up.data != NULL)
        lld_multiply_tile(f, thread, &w->up, input, tile);
    else
        for (size_t i = 0; i < tile->n_cols * n; i++) t->up[i] = 1.0f;
    if (hidden->may_adapt && w->up.data != NULL) lld_adapter_add(f, thread, &w->up, 1, input, tile);
    for (size_t c = 0; c < tile->n_cols; c++) {
        const size_t row = first_row + c;
        float *gate = t->gate + c * n, *up = t->up + c * n;
        if (w->gate_bias != NULL) f->kernels->add(gate, w->gate_bias + first, n);
        if (w->up_bias != NULL) f->kernels->add(up, w->up_bias + first, n);
        lld_activate(f, gate, up, n);
        if (hidden->importance == LLD_IMPORTANCE_EXPERTS_DOWN)
            lld_importance_add_expert(f->importance, hidden->layer, hidden->importance,
                                      hidden->expert, first, gate, n);
        else
            lld_importance_add(f->importance, thread, hidden->layer, hidden->importance, first,
                               gate, n);
        const lld_row_part part = {.row = row,
                                   .first_col = first,
                                   .n = n,
                                   .values = gate,
                                   .fine = lld_is_first_token(f, batch_rows, row)};
        if (w->down.act == LLD_ACT_F32 || (hidden->may_adapt && lld_row_is_adapted(f, row)))
            memcpy(hidden->store + row * w->down.n_cols + first, gate, n * sizeof *gate);
        if (w->down.act != LLD_ACT_F32)
            lld_input_quantize(f, thread, w->down.act, hidden->values, &part);
    }
}

static void gate_up_phase(lld_forward *f, unsigned thread, const lld_layer *l)
{
    const lld_gated_weights *w = &l->gated;
    const size_t hidden_dim = w->gate.n_rows;
    size_t n_chunks = lld_divide_up(hidden_dim, f->scratch.hidden_chunk),
           n_tiles = lld_divide_up(f->batch.n_rows, LLD_TILE_COLS);
    const lld_source s = {.make_row = lld_normed_row,
                          .norm = &l->feed_norm,
                          .n_rows = f->batch.n_rows,
                          .n_cols = f->model->config.dim,
                          .kinds = LLD_ACT_BIT(w->gate.act) | LLD_ACT_BIT(w->up.act),
                          .store = f->scratch.work,
                          .layer = l,
                          .name = LLD_IMPORTANCE_GATE_UP};
    const lld_input *input = lld_input_make(f, thread, &s);
    lld_adapter_project(f, thread, (const lld_matrix *[]){&w->gate, &w->up}, 2, input);
    const lld_hidden hidden = {.weights = w,
                               .values = &f->scratch.threads[thread].hidden,
                               .store = f->scratch.hidden,
                               .may_adapt = true,
                               .importance = LLD_IMPORTANCE_DOWN,
                               .layer = lld_layer_index(f, l)};
    for (size_t unit;
         (unit = lld_product_next(f, thread, n_chunks * n_tiles)) < n_chunks * n_tiles;) {
        const size_t row = unit / n_tiles * f->scratch.hidden_chunk,
                     col = unit % n_tiles * LLD_TILE_COLS;
        lld_tile tile = {.first_row = row,
                         .n_rows = lld_min_size(f->scratch.hidden_chunk, hidden_dim - row),
                         .first_col = col,
                         .n_cols = lld_min_size(LLD_TILE_COLS, f->batch.n_rows - col)};
        lld_hidden_unit(f, thread, &hidden, input, &tile, col);
    }
    lld_pool_barrier(f->pool);
}

static void down_phase(lld_forward *f, unsigned thread, const lld_layer *l)
{
    const lld_gated_weights *w = &l->gated;
    const lld_config *c = &f->model->config;
    const lld_product products[] = {
        {.matrix = &w->down,
         .bias = w->down_bias,
         .addend = c->is_parallel ? f->scratch.mixed : NULL,
         .scale = c->residual_scale,
         .out = l->feed == LLD_FEED_GATED_AND_EXPERTS ? f->scratch.mixed : f->scratch.work,
         .residual = l->feed_post_norm.weight == NULL ? f->scratch.x : NULL}};
    lld_products_run(f, thread, products, 1, &f->scratch.threads[thread].hidden);
}

void lld_feed_gated(lld_forward *f, unsigned thread, const lld_layer *l)
{
    lld_input *hidden = &f->scratch.threads[thread].hidden;
    *hidden = f->scratch.hidden_input;
    lld_input_shape(hidden, f->batch.n_rows, l->gated.down.n_cols, f->scratch.hidden);
    gate_up_phase(f, thread, l);
    down_phase(f, thread, l);
}
