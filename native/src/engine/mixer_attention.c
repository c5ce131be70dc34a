/* mixer_attention.c - attention over the KV cache, the mixer of a layer: four phases. The arithmetic of
 * a query against its keys is attention.c's. */
#include "engine/layer.h"

#include <string.h>

#include "base/elementary.h"
#include "model/rope.h"

static lld_attention_layer attention_layer(const lld_forward *f, const lld_layer *l)
{
    return (lld_attention_layer){.index = lld_layer_index(f, l),
                                 .n_kv_heads = l->sizes.n_kv_heads,
                                 .head_dim = l->sizes.head_dim,
                                 .window = l->window,
                                 .first = lld_is_guess_layer(f, l),
                                 .sinks = l->attention.sinks};
}

/* What is kept in four bits is kept rotated (arXiv 2404.00456, section 4, stage 2): no element of a head
 * stands out then, and a query that is rotated too meets the same product. x: (n, head_dim). */
static void rotate_for_q4(const lld_forward *f, float *x, size_t n, size_t head_dim)
{
    for (size_t h = 0; f->cache->type == LLD_KV_Q4_0 && h < n; h++)
        f->kernels->hadamard(x + h * head_dim, head_dim);
}

static void make_attended_row(lld_forward *f, size_t row, const lld_source *s, float *values)
{
    const lld_attention_layer layer = attention_layer(f, s->layer);
    if (lld_attention_is_split(&f->attention))
        lld_attention_merge(&f->attention, &layer, (uint32_t)row, f->batch.positions[row], values);
    else
        memcpy(values, f->scratch.attended + row * s->n_cols, s->n_cols * sizeof *values);
    const size_t hd = s->layer->sizes.head_dim;
    rotate_for_q4(f, values, s->n_cols / hd, hd); /* back: the transform is its own inverse */
}

/* What attention found, times the sigmoid of the gates that lie behind each head's query. */
static void make_gated_row(lld_forward *f, size_t row, const lld_source *s, float *values)
{
    const size_t hd = s->layer->sizes.head_dim;
    const float *gate = f->scratch.projected + row * 2 * s->n_cols;
    make_attended_row(f, row, s, values);
    for (size_t i = 0; i < s->n_cols; i += hd)
        f->kernels->sigmoid_mul(values + i, gate + 2 * i + hd, hd);
}

/* Queries out of rows in which each head has a gate behind its query. */
static void take_queries(const lld_forward *f, float *q, size_t row, size_t head_dim)
{
    const uint32_t n_heads = f->model->config.n_heads;
    const float *both = f->scratch.projected + row * 2 * n_heads * head_dim;
    for (size_t h = 0; h < n_heads; h++)
        memcpy(q + h * head_dim, both + h * 2 * head_dim, head_dim * sizeof *q);
}

/* without_q: keys and values only. */
static void qkv_phase(lld_forward *f, unsigned thread, const lld_layer *l, bool without_q)
{
    const lld_attention_weights *w = &l->attention;
    const bool gated = f->model->config.architecture->facts.gates_attention;
    float *const queries = gated ? f->scratch.projected : f->scratch.q;
    const lld_product products[] = {{.matrix = &w->wq, .bias = w->bq, .out = queries},
                                    {.matrix = &w->wk, .bias = w->bk, .out = f->scratch.k},
                                    {.matrix = &w->wv, .bias = w->bv, .out = f->scratch.v}};
    const lld_source s = {.make_row = lld_normed_row,
                          .norm = &l->mixer_norm,
                          .n_rows = f->batch.n_rows,
                          .n_cols = f->model->config.dim,
                          .kinds = LLD_ACT_BIT(w->wq.act) | LLD_ACT_BIT(w->wk.act) |
                                   LLD_ACT_BIT(w->wv.act),
                          .fine = w->wk.fine || w->wv.fine,
                          .store = f->scratch.work,
                          .layer = l,
                          .name = LLD_IMPORTANCE_QKV};
    const size_t n_products = w->wk.data == NULL ? 1 : w->wv.data == NULL ? 2 : 3;
    lld_products_run(f, thread, products + without_q, n_products - without_q,
                     lld_input_make(f, thread, &s));
    lld_pool_barrier(f->pool);
}

/* Heads of one row: (n, head_dim). */
typedef struct head_row {
    float *x;
    uint32_t n, head_dim, n_rot;
    const float *norm; /* as in lld_attention_weights */
} head_row;

/* Normalize heads where the architecture does. */
static void norm_heads(const lld_forward *f, const head_row *heads)
{
    const lld_config *c = &f->model->config;
    const lld_qk_norm kind = c->architecture->qk_norm;
    const size_t hd = heads->head_dim;
    if (kind == LLD_QK_NORM_ROW)
        f->kernels->rmsnorm(heads->x, heads->x, heads->norm, heads->n * hd, c->norm_epsilon);
    for (uint32_t h = 0; kind == LLD_QK_NORM_HEAD && h < heads->n; h++) {
        float *head = heads->x + h * hd;
        f->kernels->rmsnorm(head, head, heads->norm, hd, c->norm_epsilon);
    }
}

/* Normalize and rotate heads, in the architecture's order. cos_sin NULL: no rotation. */
static void rotate_heads(const lld_forward *f, const head_row *heads, const float *cos_sin)
{
    const lld_config *c = &f->model->config;
    const bool norm_last = c->architecture->facts.rotates_before_norm;
    if (!norm_last) norm_heads(f, heads);
    for (uint32_t h = 0; cos_sin != NULL && h < heads->n; h++) {
        float *head = heads->x + (size_t)h * heads->head_dim;
        if (c->architecture->rope == LLD_ROPE_NORM)
            f->kernels->rope_norm(head, cos_sin, heads->n_rot);
        else
            f->kernels->rope_neox(head, cos_sin, heads->n_rot);
    }
    if (norm_last) norm_heads(f, heads);
}

/* Ministral 3: queries far behind what the model was trained on meet their keys more sharply. */
static void scale_late_query(const lld_forward *f, float *q, size_t n, uint32_t position)
{
    const lld_config *c = &f->model->config;
    const uint32_t contexts = position / c->scaling_original_ctx; /* whole ones before it */
    if (c->late_query_scale == 0.0f || contexts == 0) return;
    const float scale = (float)(1.0 + c->late_query_scale * lld_log(1.0 + contexts));
    for (size_t i = 0; i < n; i++) q[i] *= scale;
}

/* Gemma 4: every value head is normalized, without weights. */
static void norm_values(const lld_forward *f, float *v, const lld_layer_sizes *s)
{
    for (uint32_t h = 0; h < s->n_kv_heads; h++) {
        float *head = v + (size_t)h * s->head_dim;
        f->kernels->rmsnorm(head, head, f->scratch.ones, s->head_dim,
                            f->model->config.norm_epsilon);
    }
}

static void rope_store_phase(lld_forward *f, unsigned thread, const lld_layer *l, bool without_q)
{
    const lld_attention_weights *w = &l->attention;
    const lld_config *c = &f->model->config;
    const lld_layer_sizes *s = &l->sizes;
    const size_t hd = s->head_dim;
    for (size_t row; (row = lld_pool_next(f->pool, thread, f->batch.n_rows)) < f->batch.n_rows;) {
        const size_t stride = lld_rope_stride(c);
        const float *tables = f->scratch.cos_sin + row * lld_rope_tables(c) * stride,
                    *cos_sin = l->rope < 0 ? NULL : tables + (size_t)l->rope * stride;
        float *q = f->scratch.q + row * c->n_heads * hd,
              *k = f->scratch.k + row * s->n_kv_heads * hd,
              *v = f->scratch.v + row * s->n_kv_heads * hd;
        if (!without_q) {
            if (c->architecture->facts.gates_attention) take_queries(f, q, row, hd);
            rotate_heads(f, &(head_row){q, c->n_heads, s->head_dim, s->n_rot, w->q_norm}, cos_sin);
            scale_late_query(f, q, c->n_heads * hd, f->batch.positions[row]);
            rotate_for_q4(f, q, c->n_heads, hd);
        }
        if (w->wk.data == NULL) continue; /* another layer's keys and values are read */
        if (w->wv.data == NULL) memcpy(v, k, s->n_kv_heads * hd * sizeof *v);
        if (c->architecture->facts.norms_values) norm_values(f, v, s);
        rotate_heads(f, &(head_row){k, s->n_kv_heads, s->head_dim, s->n_rot, w->k_norm}, cos_sin);
        rotate_for_q4(f, k, s->n_kv_heads, hd);
        rotate_for_q4(f, v, s->n_kv_heads, hd);
        uint32_t position = f->batch.positions[row], slot = position % LLD_KV_BLOCK;
        const uint32_t layer = lld_layer_index(f, l);
        const lld_batch_run *run = &f->batch.runs[f->batch.row_run[row]];
        uint32_t block = lld_run_blocks(run, f->cache, layer)[position / LLD_KV_BLOCK];
        for (uint32_t h = 0; h < s->n_kv_heads; h++) {
            lld_kv_head head = lld_kv_head_at(f->cache, block, layer, h);
            if (f->cache->type == LLD_KV_F16)
                f->kernels->kv_store_f16(head.k, head.v, slot, k + h * hd, v + h * hd, hd);
            else if (f->cache->type == LLD_KV_Q8_0)
                f->kernels->kv_store_q8(head.k, head.kd, head.v, head.vd, slot, k + h * hd,
                                        v + h * hd, hd);
            else
                f->kernels->kv_store_q4(head.k, head.kd, head.v, head.vd, slot, k + h * hd,
                                        v + h * hd, hd);
        }
    }
    lld_pool_barrier(f->pool);
}

static void attention_phase(lld_forward *f, unsigned thread, const lld_layer *l)
{
    const lld_attention_layer layer = attention_layer(f, l);
    size_t n_units = lld_attention_units(&f->attention, &layer);
    for (size_t unit; (unit = lld_pool_next(f->pool, thread, n_units)) < n_units;)
        lld_attention_run(&f->attention, unit, f->batch.runs, &layer, f->scratch.q,
                          f->scratch.attended, &f->scratch.threads[thread].attention);
    lld_pool_barrier(f->pool);
}

void lld_attention_mix(lld_forward *f, unsigned thread, const lld_layer *l)
{
    qkv_phase(f, thread, l, false);
    rope_store_phase(f, thread, l, false);
    attention_phase(f, thread, l);
}

void lld_attention_store(lld_forward *f, unsigned thread, const lld_layer *l)
{
    qkv_phase(f, thread, l, true);
    rope_store_phase(f, thread, l, true);
}

void lld_attention_output(lld_forward *f, unsigned thread, const lld_layer *l)
{
    const bool gated = f->model->config.architecture->facts.gates_attention;
    lld_mixer_output(f, thread, l,
                     &(lld_mixer_result){.matrix = &l->attention.wo,
                                         .bias = l->attention.bo,
                                         .make_row = gated ? make_gated_row : make_attended_row});
}

void lld_mixer_attention(lld_forward *f, unsigned thread, const lld_layer *l)
{
    lld_attention_mix(f, thread, l);
    lld_attention_output(f, thread, l);
}
