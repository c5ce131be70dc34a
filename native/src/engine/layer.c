/* layer.c - see layer.h. */
#include "engine/layer.h"

#include <string.h>

void lld_normed_row(lld_forward *f, size_t row, const float *weight, float *values)
{
    const lld_config *c = &f->model->config;
    f->kernels->rmsnorm(values, f->scratch.x + row * c->dim, weight, c->dim, c->norm_epsilon);
}

static void make_attended_row(lld_forward *f, size_t row, const float *weight, float *values)
{
    const lld_config *c = &f->model->config;
    size_t n = (size_t)c->n_heads * c->head_dim;
    (void)weight;
    if (lld_attention_is_split(&f->attention))
        lld_attention_merge(&f->attention, (uint32_t)row, f->batch.positions[row], values);
    else
        memcpy(values, f->scratch.attended + row * n, n * sizeof *values);
}

static void qkv_phase(lld_forward *f, unsigned thread, const lld_layer *l)
{
    const lld_product products[] = {{.matrix = &l->wq, .bias = l->bq, .out = f->scratch.q},
                                    {.matrix = &l->wk, .bias = l->bk, .out = f->scratch.k},
                                    {.matrix = &l->wv, .bias = l->bv, .out = f->scratch.v}};
    const lld_source s = {.make_row = lld_normed_row,
                          .weight = l->attn_norm,
                          .n_rows = f->batch.n_rows,
                          .n_cols = f->model->config.dim,
                          .kinds = LLD_ACT_BIT(l->wq.act) | LLD_ACT_BIT(l->wk.act) |
                                   LLD_ACT_BIT(l->wv.act),
                          .fine = l->wv.fine,
                          .store = f->scratch.work,
                          .layer = l,
                          .name = LLD_IMPORTANCE_QKV};
    lld_products_run(f, thread, products, 3, lld_input_make(f, thread, &s));
    lld_pool_barrier(f->pool);
}

/* Normalize (where the architecture does) and rotate the n heads at x: (n, head_dim). */
static void rotate_heads(const lld_forward *f, float *x, uint32_t n, const float *norm,
                         const float *cos_sin)
{
    const lld_config *c = &f->model->config;
    for (uint32_t h = 0; h < n; h++) {
        float *head = x + (size_t)h * c->head_dim;
        if (norm != NULL) f->kernels->rmsnorm(head, head, norm, c->head_dim, c->norm_epsilon);
        if (c->architecture->rope == LLD_ROPE_NORM)
            f->kernels->rope_norm(head, cos_sin, c->n_rot);
        else
            f->kernels->rope_neox(head, cos_sin, c->n_rot);
    }
}

static void rope_store_phase(lld_forward *f, unsigned thread, const lld_layer *l, uint32_t layer)
{
    const lld_config *c = &f->model->config;
    size_t hd = c->head_dim;
    for (size_t row; (row = lld_pool_next(f->pool, thread, f->batch.n_rows)) < f->batch.n_rows;) {
        const float *cos_sin = f->scratch.cos_sin + row * c->n_rot;
        float *k = f->scratch.k + row * c->n_kv_heads * hd,
              *v = f->scratch.v + row * c->n_kv_heads * hd;
        rotate_heads(f, f->scratch.q + row * c->n_heads * hd, c->n_heads, l->q_norm, cos_sin);
        rotate_heads(f, k, c->n_kv_heads, l->k_norm, cos_sin);
        uint32_t position = f->batch.positions[row], slot = position % LLD_KV_BLOCK;
        uint32_t block = f->batch.runs[f->batch.row_run[row]].blocks[position / LLD_KV_BLOCK];
        for (uint32_t h = 0; h < c->n_kv_heads; h++) {
            lld_kv_head head = lld_kv_head_at(f->cache, block, layer, h);
            if (f->cache->type == LLD_KV_F16)
                f->kernels->kv_store_f16(head.k, head.v, slot, k + h * hd, v + h * hd, hd);
            else
                f->kernels->kv_store_q8(head.k, head.kd, head.v, head.vd, slot, k + h * hd,
                                        v + h * hd, hd);
        }
    }
    lld_pool_barrier(f->pool);
}

static void attention_phase(lld_forward *f, unsigned thread, uint32_t layer)
{
    size_t n_units = lld_attention_units(&f->attention);
    for (size_t unit; (unit = lld_pool_next(f->pool, thread, n_units)) < n_units;)
        lld_attention_run(&f->attention, unit, f->batch.runs, layer, f->scratch.q,
                          f->scratch.attended, &f->scratch.threads[thread].attention);
    lld_pool_barrier(f->pool);
}

static void attention_output_phase(lld_forward *f, unsigned thread, const lld_layer *l)
{
    const lld_config *c = &f->model->config;
    const lld_product products[] = {
        {.matrix = &l->wo, .bias = l->bo, .out = f->scratch.work, .residual = f->scratch.x}};
    const lld_source s = {.make_row = make_attended_row,
                          .n_rows = f->batch.n_rows,
                          .n_cols = (size_t)c->n_heads * c->head_dim,
                          .kinds = LLD_ACT_BIT(l->wo.act),
                          .store = f->scratch.q,
                          .layer = l,
                          .name = LLD_IMPORTANCE_ATTN_OUTPUT};
    lld_products_run(f, thread, products, 1, lld_input_make(f, thread, &s));
    lld_pool_barrier(f->pool);
}

/* Rows [first, first + n) of gate and up, for a tile of the batch: silu(gate) * up, quantized for
 * down. */
static void hidden_unit(lld_forward *f, unsigned thread, const lld_layer *l, const lld_input *input,
                        size_t first, size_t n, size_t first_col)
{
    lld_thread_scratch *t = &f->scratch.threads[thread];
    size_t n_cols = lld_min_size(LLD_TILE_COLS, f->batch.n_rows - first_col);
    lld_tile tile = {.first_row = first,
                     .n_rows = n,
                     .first_col = first_col,
                     .n_cols = n_cols,
                     .out = t->gate,
                     .out_stride = n};
    lld_multiply_tile(f, thread, &l->w_gate, input, &tile);
    tile.out = t->up;
    lld_multiply_tile(f, thread, &l->w_up, input, &tile);
    for (size_t c = 0; c < n_cols; c++) {
        size_t row = first_col + c;
        float *gate = t->gate + c * n, *up = t->up + c * n;
        if (l->b_gate != NULL) f->kernels->add(gate, l->b_gate + first, n);
        if (l->b_up != NULL) f->kernels->add(up, l->b_up + first, n);
        f->kernels->silu_mul(gate, up, n);
        lld_importance_add(f->importance, thread, (uint32_t)(l - f->model->layers),
                           LLD_IMPORTANCE_DOWN, first, gate, n);
        const lld_row_part part = {.row = row,
                                   .first_col = first,
                                   .n = n,
                                   .values = gate,
                                   .fine = f->batch.positions[row] == 0};
        if (l->w_down.act == LLD_ACT_F32)
            memcpy(f->scratch.hidden + row * l->w_down.n_cols + first, gate, n * sizeof *gate);
        else
            lld_input_quantize(f, thread, l->w_down.act, &f->scratch.hidden_input, &part);
    }
}

static void gate_up_phase(lld_forward *f, unsigned thread, const lld_layer *l)
{
    const lld_config *c = &f->model->config;
    size_t n_chunks = lld_divide_up(c->hidden_dim, f->scratch.hidden_chunk),
           n_tiles = lld_divide_up(f->batch.n_rows, LLD_TILE_COLS);
    const lld_source s = {.make_row = lld_normed_row,
                          .weight = l->ffn_norm,
                          .n_rows = f->batch.n_rows,
                          .n_cols = c->dim,
                          .kinds = LLD_ACT_BIT(l->w_gate.act) | LLD_ACT_BIT(l->w_up.act),
                          .store = f->scratch.work,
                          .layer = l,
                          .name = LLD_IMPORTANCE_GATE_UP};
    const lld_input *input = lld_input_make(f, thread, &s);
    for (size_t unit;
         (unit = lld_pool_next(f->pool, thread, n_chunks * n_tiles)) < n_chunks * n_tiles;) {
        size_t first = unit / n_tiles * f->scratch.hidden_chunk;
        hidden_unit(f, thread, l, input, first,
                    lld_min_size(f->scratch.hidden_chunk, c->hidden_dim - first),
                    unit % n_tiles * LLD_TILE_COLS);
    }
    lld_pool_barrier(f->pool);
}

static void down_phase(lld_forward *f, unsigned thread, const lld_layer *l)
{
    const lld_product products[] = {{.matrix = &l->w_down,
                                     .bias = l->b_down,
                                     .out = f->scratch.work,
                                     .residual = f->scratch.x}};
    lld_input *input = &f->scratch.threads[thread].input;
    *input = f->scratch.hidden_input;
    lld_input_shape(input, f->batch.n_rows, l->w_down.n_cols, f->scratch.hidden);
    lld_products_run(f, thread, products, 1, input);
}

void lld_layer_run(lld_forward *f, unsigned thread, const lld_layer *l, uint32_t layer)
{
    qkv_phase(f, thread, l);
    rope_store_phase(f, thread, l, layer);
    attention_phase(f, thread, layer);
    attention_output_phase(f, thread, l);
    gate_up_phase(f, thread, l);
    down_phase(f, thread, l);
}
