/* forward.c - see forward.h. Every function that takes `thread` runs on all threads at once. */
#include "product.h"

#include <string.h>

#include "rope.h"
#include "status.h"

/* ---- memory ---------------------------------------------------------------------------------- */

static lld_act_kinds kinds_of(const lld_model *m, lld_act_kinds *down)
{
    lld_act_kinds kinds = LLD_ACT_BIT(m->output.act);
    *down = 0;
    for (uint32_t i = 0; i < m->config.n_layers; i++) {
        const lld_layer *l = &m->layers[i];
        kinds |= LLD_ACT_BIT(l->wq.act) | LLD_ACT_BIT(l->wk.act) | LLD_ACT_BIT(l->wv.act) |
                 LLD_ACT_BIT(l->wo.act);
        kinds |= LLD_ACT_BIT(l->w_gate.act) | LLD_ACT_BIT(l->w_up.act);
        *down |= LLD_ACT_BIT(l->w_down.act);
    }
    return kinds;
}

static void take_thread(lld_arena *arena, const lld_forward *f, lld_act_kinds kinds,
                        lld_thread_scratch *t)
{
    size_t tile = lld_max_size(2, lld_min_size(LLD_TILE_COLS, f->n_batch));
    t->matmul = lld_arena_take(arena, lld_kernels_scratch_bytes(f->max_cols), 1);
    t->row = lld_arena_take(arena, f->max_cols, sizeof *t->row);
    lld_acts_take(arena, kinds, 2, f->max_cols, t->forms);
    t->rest = lld_arena_take(arena, f->max_cols, sizeof *t->rest);
    t->correction = lld_arena_take(arena, tile * LLD_CHUNK_ROWS_MAX, sizeof *t->correction);
    t->gate = lld_arena_take(arena, tile * f->hidden_chunk, sizeof *t->gate);
    t->up = lld_arena_take(arena, tile * f->hidden_chunk, sizeof *t->up);
    lld_attention_scratch_take(arena, &f->attention, &t->attention);
}

void lld_forward_take(lld_arena *arena, lld_forward *f, uint32_t n_ctx)
{
    const lld_config *c = &f->model->config;
    size_t rows = f->n_batch, n_q = (size_t)c->n_heads * c->head_dim,
           n_kv = (size_t)c->n_kv_heads * c->head_dim;
    lld_act_kinds down, kinds = kinds_of(f->model, &down);
    size_t input_cols = lld_max_size(c->dim, n_q);

    f->max_cols = (uint32_t)lld_max_size(input_cols, c->hidden_dim);
    f->hidden_chunk = (down & LLD_ACT_BIT(LLD_ACT_Q8K)) != 0 ? LLD_QK_K : 2 * LLD_QK;
    f->attention.kernels = f->kernels;
    f->attention.cache = f->cache;
    f->attention.n_heads = c->n_heads;
    f->attention.n_kv_heads = c->n_kv_heads;
    f->attention.head_dim = c->head_dim;

    f->x = lld_arena_take(arena, rows * c->dim, sizeof(float));
    f->q = lld_arena_take(arena, rows * n_q, sizeof(float));
    f->k = lld_arena_take(arena, rows * n_kv, sizeof(float));
    f->v = lld_arena_take(arena, rows * n_kv, sizeof(float));
    f->attended = lld_arena_take(arena, rows * n_q, sizeof(float));
    f->work = lld_arena_take(arena, rows * c->dim, sizeof(float));
    f->hidden = NULL;
    if ((down & LLD_ACT_BIT(LLD_ACT_F32)) != 0)
        f->hidden = lld_arena_take(arena, rows * c->hidden_dim, sizeof(float));
    f->cos_sin = lld_arena_take(arena, rows * c->n_rot, sizeof(float));
    f->logits = lld_arena_take(arena, (size_t)f->n_logits * f->model->vocab_size, sizeof(float));
    f->frequencies = lld_arena_take(arena, c->n_rot / 2, sizeof(double));
    f->kept = lld_arena_take(arena, f->n_logits, sizeof *f->kept);
    f->row_slot = lld_arena_take(arena, rows, sizeof *f->row_slot);
    f->runs = lld_arena_take(arena, rows, sizeof *f->runs);
    lld_acts_take(arena, kinds, rows, input_cols, f->input.forms);
    lld_acts_take(arena, kinds, rows, input_cols, f->input.fine);
    lld_acts_take(arena, down, rows, c->hidden_dim, f->hidden_input.forms);
    lld_acts_take(arena, down, rows, c->hidden_dim, f->hidden_input.fine);
    lld_attention_take(arena, &f->attention, f->n_batch, n_ctx);
    f->threads = lld_arena_take(arena, f->n_threads, sizeof *f->threads);
    for (uint32_t i = 0; i < f->n_threads; i++) {
        lld_thread_scratch counted;
        take_thread(arena, f, kinds, f->threads == NULL ? &counted : &f->threads[i]);
    }
}

void lld_forward_prepare(lld_forward *f)
{
    f->rope_magnitude =
        lld_rope_frequencies(&f->model->config, f->model->rope_factors, f->frequencies);
}

/* ---- rows of products' inputs ---------------------------------------------------------------- */

static void make_normed_row(lld_forward *f, size_t row, const float *weight, float *values)
{
    const lld_config *c = &f->model->config;
    f->kernels->rmsnorm(values, f->x + row * c->dim, weight, c->dim, c->norm_epsilon);
}

static void make_kept_row(lld_forward *f, size_t row, const float *weight, float *values)
{
    make_normed_row(f, f->kept[row], weight, values);
}

static void make_attended_row(lld_forward *f, size_t row, const float *weight, float *values)
{
    const lld_config *c = &f->model->config;
    size_t n = (size_t)c->n_heads * c->head_dim;
    (void)weight;
    if (lld_attention_is_split(&f->attention))
        lld_attention_merge(&f->attention, (uint32_t)row, f->positions[row], values);
    else
        memcpy(values, f->attended + row * n, n * sizeof *values);
}

/* ---- the phases ------------------------------------------------------------------------------ */

static void embed_phase(lld_forward *f, unsigned thread)
{
    const lld_config *c = &f->model->config;
    const lld_matrix *e = &f->model->embedding;
    for (size_t row; (row = lld_pool_next(f->pool, thread, f->n_rows)) < f->n_rows;) {
        lld_dequantize_row(e->type, e->data + (size_t)f->tokens[row] * e->row_bytes,
                           f->x + row * c->dim, c->dim);
        lld_rope_table(f->frequencies, c->n_rot, f->rope_magnitude, f->positions[row],
                       f->cos_sin + row * c->n_rot);
    }
    lld_pool_barrier(f->pool);
}

static void qkv_phase(lld_forward *f, unsigned thread, const lld_layer *l)
{
    const lld_product products[] = {{.matrix = &l->wq, .bias = l->bq, .out = f->q},
                                    {.matrix = &l->wk, .bias = l->bk, .out = f->k},
                                    {.matrix = &l->wv, .bias = l->bv, .out = f->v}};
    const lld_source s = {.make_row = make_normed_row,
                          .weight = l->attn_norm,
                          .n_rows = f->n_rows,
                          .n_cols = f->model->config.dim,
                          .kinds = LLD_ACT_BIT(l->wq.act) | LLD_ACT_BIT(l->wk.act) |
                                   LLD_ACT_BIT(l->wv.act),
                          .fine = l->wv.fine,
                          .store = f->work,
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
    for (size_t row; (row = lld_pool_next(f->pool, thread, f->n_rows)) < f->n_rows;) {
        const float *cos_sin = f->cos_sin + row * c->n_rot;
        float *k = f->k + row * c->n_kv_heads * hd, *v = f->v + row * c->n_kv_heads * hd;
        rotate_heads(f, f->q + row * c->n_heads * hd, c->n_heads, l->q_norm, cos_sin);
        rotate_heads(f, k, c->n_kv_heads, l->k_norm, cos_sin);
        uint32_t position = f->positions[row], slot = position % LLD_KV_BLOCK;
        uint32_t block = f->cache->sequences[f->row_slot[row]].blocks[position / LLD_KV_BLOCK];
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
        lld_attention_run(&f->attention, unit, f->runs, layer, f->q, f->attended,
                          &f->threads[thread].attention);
    lld_pool_barrier(f->pool);
}

static void attention_output_phase(lld_forward *f, unsigned thread, const lld_layer *l)
{
    const lld_config *c = &f->model->config;
    const lld_product products[] = {
        {.matrix = &l->wo, .bias = l->bo, .out = f->work, .residual = f->x}};
    const lld_source s = {.make_row = make_attended_row,
                          .n_rows = f->n_rows,
                          .n_cols = (size_t)c->n_heads * c->head_dim,
                          .kinds = LLD_ACT_BIT(l->wo.act),
                          .store = f->q,
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
    lld_thread_scratch *t = &f->threads[thread];
    size_t n_cols = lld_min_size(LLD_TILE_COLS, f->n_rows - first_col);
    lld_multiply_tile(f, thread, &l->w_gate, first, n, input, first_col, n_cols, t->gate, n);
    lld_multiply_tile(f, thread, &l->w_up, first, n, input, first_col, n_cols, t->up, n);
    for (size_t c = 0; c < n_cols; c++) {
        size_t row = first_col + c;
        float *gate = t->gate + c * n;
        f->kernels->silu_mul(gate, t->up + c * n, n);
        lld_importance_add(f->importance, thread, (uint32_t)(l - f->model->layers),
                           LLD_IMPORTANCE_DOWN, first, gate, n);
        if (l->w_down.act == LLD_ACT_F32)
            memcpy(f->hidden + row * l->w_down.n_cols + first, gate, n * sizeof *gate);
        else
            lld_input_quantize(f, thread, l->w_down.act, &f->hidden_input, row, first, gate, n,
                               f->positions[row] == 0);
    }
}

static void gate_up_phase(lld_forward *f, unsigned thread, const lld_layer *l)
{
    const lld_config *c = &f->model->config;
    size_t n_chunks = lld_divide_up(c->hidden_dim, f->hidden_chunk),
           n_tiles = lld_divide_up(f->n_rows, LLD_TILE_COLS);
    const lld_source s = {.make_row = make_normed_row,
                          .weight = l->ffn_norm,
                          .n_rows = f->n_rows,
                          .n_cols = c->dim,
                          .kinds = LLD_ACT_BIT(l->w_gate.act) | LLD_ACT_BIT(l->w_up.act),
                          .store = f->work,
                          .layer = l,
                          .name = LLD_IMPORTANCE_GATE_UP};
    const lld_input *input = lld_input_make(f, thread, &s);
    for (size_t unit;
         (unit = lld_pool_next(f->pool, thread, n_chunks * n_tiles)) < n_chunks * n_tiles;) {
        size_t first = unit / n_tiles * f->hidden_chunk;
        hidden_unit(f, thread, l, input, first,
                    lld_min_size(f->hidden_chunk, c->hidden_dim - first),
                    unit % n_tiles * LLD_TILE_COLS);
    }
    lld_pool_barrier(f->pool);
}

static void down_phase(lld_forward *f, unsigned thread, const lld_layer *l)
{
    const lld_product products[] = {{.matrix = &l->w_down, .out = f->work, .residual = f->x}};
    lld_input *input = &f->threads[thread].input;
    *input = f->hidden_input;
    lld_input_shape(input, f->n_rows, l->w_down.n_cols, f->hidden);
    lld_products_run(f, thread, products, 1, input);
    if (thread == 0) f->stop = atomic_load_explicit(f->cancel, memory_order_relaxed);
    lld_pool_barrier(f->pool);
}

static void logits_phase(lld_forward *f, unsigned thread)
{
    const lld_model *m = f->model;
    const lld_product products[] = {{.matrix = &m->output, .out = f->logits}};
    const lld_source s = {.make_row = make_kept_row,
                          .weight = m->output_norm,
                          .n_rows = f->n_kept,
                          .n_cols = m->config.dim,
                          .kinds = LLD_ACT_BIT(m->output.act),
                          .fine = m->output.fine,
                          .store = f->work,
                          .layer = m->layers,
                          .name = LLD_IMPORTANCE_OUTPUT};
    lld_products_run(f, thread, products, 1, lld_input_make(f, thread, &s));
}

static void forward_thread(void *argument, unsigned thread)
{
    lld_forward *f = argument;
    embed_phase(f, thread);
    for (uint32_t i = 0; i < f->model->config.n_layers && f->stop == 0; i++) {
        const lld_layer *l = &f->model->layers[i];
        qkv_phase(f, thread, l);
        rope_store_phase(f, thread, l, i);
        attention_phase(f, thread, i);
        attention_output_phase(f, thread, l);
        gate_up_phase(f, thread, l);
        down_phase(f, thread, l);
    }
    if (f->stop == 0 && f->n_kept > 0) logits_phase(f, thread);
}

int lld_forward_run(lld_forward *f)
{
    lld_attention_plan(&f->attention, f->runs, f->n_runs, f->n_rows);
    f->stop = atomic_load_explicit(f->cancel, memory_order_relaxed);
    lld_pool_run(f->pool, forward_thread, f);
    return f->stop != 0 ? lld_fail(LLD_ERR_CANCELLED, "the step was cancelled") : LLD_OK;
}
