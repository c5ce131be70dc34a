/* attention.c - see attention.h. */
#include "engine/attention.h"

#include <math.h>
#include <string.h>

#include "base/vecmath.h"

enum { TILE_QUERIES = 32, BLOCKS_PER_CHUNK = LLD_ATTENTION_CHUNK / LLD_KV_BLOCK };

static uint32_t max_queries(const lld_attention *a) { return a->tile_rows * a->group; }

void lld_attention_alloc(lld_arena *arena, lld_attention *a, uint32_t n_batch, uint32_t n_ctx)
{
    a->tile_rows = a->group >= TILE_QUERIES ? 1 : TILE_QUERIES / a->group;
    a->max_chunks = (n_ctx + LLD_ATTENTION_CHUNK - 1) / LLD_ATTENTION_CHUNK;
    a->max_tiles = n_batch + LLD_ATTENTION_SPLIT_ROWS * a->max_chunks;
    a->tiles = lld_arena_alloc(arena, a->max_tiles, sizeof *a->tiles);
    a->partials =
        lld_arena_alloc(arena, (size_t)LLD_ATTENTION_SPLIT_ROWS * a->n_heads * a->max_chunks,
                        (a->head_dim + 2) * sizeof(float));
}

void lld_attention_scratch_alloc(lld_arena *arena, const lld_attention *a, lld_attention_scratch *s)
{
    size_t n_q = max_queries(a), values = n_q * a->head_dim;
    s->q = lld_arena_alloc(arena, values, sizeof(float));
    s->scores = lld_arena_alloc(arena, n_q * LLD_ATTENTION_CHUNK, sizeof(float));
    s->o = lld_arena_alloc(arena, values, sizeof(float));
    s->unpacked = lld_arena_alloc(
        arena, a->cache->type == LLD_KV_Q4_0 ? a->head_dim * (size_t)LLD_KV_BLOCK : 0, 1);
    s->m = lld_arena_alloc(arena, n_q, sizeof(float));
    s->l = lld_arena_alloc(arena, n_q, sizeof(float));
    s->total_o = lld_arena_alloc(arena, values, sizeof(float));
    s->total_m = lld_arena_alloc(arena, n_q, sizeof(float));
    s->total_l = lld_arena_alloc(arena, n_q, sizeof(float));
}

static uint32_t chunks_for(uint32_t n_tokens)
{
    return (n_tokens + LLD_ATTENTION_CHUNK - 1) / LLD_ATTENTION_CHUNK;
}

static void plan_run(lld_attention *a, const lld_batch_run *run, uint32_t index, bool split)
{
    uint32_t step = split ? 1 : a->tile_rows;
    for (uint32_t r = 0; r < run->n_rows; r += step) {
        lld_attention_tile tile = {.run = index,
                                   .first_row = run->first_row + r,
                                   .position = run->position + r,
                                   .n_rows = run->n_rows - r < step ? run->n_rows - r : step,
                                   .split = split};
        tile.end = a->sees_all ? run->position + run->n_rows : tile.position + tile.n_rows;
        uint32_t n_chunks = chunks_for(tile.end);
        for (uint32_t c = 0; c < (split ? n_chunks : 1); c++) {
            tile.chunk_begin = c;
            tile.chunk_end = split ? c + 1 : n_chunks;
            a->tiles[a->n_tiles++] = tile;
        }
    }
}

void lld_attention_plan(lld_attention *a, const lld_batch_run *runs, size_t n_runs, size_t n_rows)
{
    a->n_tiles = 0;
    for (size_t i = 0; i < n_runs; i++)
        plan_run(a, &runs[i], (uint32_t)i, n_rows <= LLD_ATTENTION_SPLIT_ROWS);
}

bool lld_attention_is_split(const lld_attention *a) { return a->n_tiles > 0 && a->tiles[0].split; }

/* Fold the next chunk's (m, l, o) into the total, in position order. A chunk of no visible key has
 * l = 0. */
static void merge_chunk(float *total_m, float *total_l, float *total_o, float m, float l,
                        const float *o, uint32_t n)
{
    if (l == 0.0f) return;
    if (*total_l == 0.0f) {
        *total_m = m;
        *total_l = l;
        memcpy(total_o, o, n * sizeof *o);
        return;
    }
    float top = *total_m > m ? *total_m : m;
    float keep = lld_expf(*total_m - top), take = lld_expf(m - top);
    *total_m = top;
    *total_l = *total_l * keep + l * take;
    for (uint32_t d = 0; d < n; d++) total_o[d] = total_o[d] * keep + o[d] * take;
}

/* The end of a head's softmax; zeros of a row that sees no token. sink: the score of no value, or NULL
 * (arXiv 2309.17453; learned ones: OpenAI, gpt_oss/torch/model.py). */
static void write_out(float *out, const float *total_o, float total_m, float total_l,
                      const float *sink, uint32_t n)
{
    if (total_l == 0.0f) {
        memset(out, 0, n * sizeof *out);
        return;
    }
    if (sink != NULL) {
        const float top = total_m > *sink ? total_m : *sink, keep = lld_expf(total_m - top);
        total_l = total_l * keep + lld_expf(*sink - top);
        for (uint32_t d = 0; d < n; d++) out[d] = total_o[d] * keep / total_l;
        return;
    }
    for (uint32_t d = 0; d < n; d++) out[d] = total_o[d] / total_l;
}

static const float *sink_of(const lld_attention_layer *layer, uint32_t head)
{
    return layer->sinks == NULL ? NULL : layer->sinks + head;
}

/* The query heads of one kv head, and where it lies. */
typedef struct head_group {
    uint32_t layer, kv_head, n_heads, head_dim, window, first;
} head_group;

/* The first position that a row sees. */
static uint32_t seen_from(const head_group *g, uint32_t position)
{
    const uint32_t start = lld_kv_window_start(position, g->window);
    return start < g->first ? g->first : start;
}

static void pack_queries(const lld_attention *a, const lld_attention_tile *t, const head_group *g,
                         const float *q, float *packed)
{
    const size_t values = (size_t)g->n_heads * g->head_dim; /* of the group in one row */
    for (uint32_t r = 0; r < t->n_rows; r++) {
        const float *row =
            q + (size_t)(t->first_row + r) * a->n_heads * g->head_dim + g->kv_head * values;
        float *to = packed + r * values;
        for (size_t i = 0; i < values; i++) to[i] = row[i] * a->q_scale;
    }
}

/* The tokens of one chunk that a tile's rows see. Numbers of tokens count from the chunk's first. */
typedef struct chunk_view {
    const uint32_t *blocks; /* of the chunk */
    uint32_t start;         /* position of its first token */
    uint32_t first_block;   /* before it no row sees a token */
    uint32_t n_visible;     /* behind it no row does */
    const head_group *group;
} chunk_view;

/* Scores of every query against the tokens in view become softmax numerators. What a window hides is
 * -infinity before and 0 after, as if it were not there. */
static void chunk_scores(const lld_attention *a, const lld_attention_tile *t, const chunk_view *v,
                         lld_attention_scratch *s)
{
    const lld_kernels *k = a->kernels;
    const head_group *g = v->group;
    const uint32_t n_q = t->n_rows * g->n_heads, from = v->first_block * LLD_KV_BLOCK,
                   n_blocks = (v->n_visible + LLD_KV_BLOCK - 1) / LLD_KV_BLOCK,
                   padded = n_blocks * LLD_KV_BLOCK;
    for (uint32_t b = v->first_block; b < n_blocks; b++) {
        lld_kv_head head = lld_kv_head_at(a->cache, v->blocks[b], g->layer, g->kv_head);
        if (a->cache->type == LLD_KV_Q4_0) {
            k->kv_unpack_q4(s->unpacked, head.k, g->head_dim / 2 * LLD_KV_BLOCK, LLD_KV_BLOCK);
            head.k = s->unpacked;
        }
        const lld_attn_scores scores = {.scores = s->scores + b * LLD_KV_BLOCK,
                                        .score_stride = LLD_ATTENTION_CHUNK,
                                        .q = s->q,
                                        .q_stride = g->head_dim,
                                        .n_q = n_q,
                                        .head_dim = g->head_dim,
                                        .k = head.k,
                                        .kd = head.kd};
        if (a->cache->type == LLD_KV_F16)
            k->attn_scores_f16(&scores);
        else
            k->attn_scores_q8(&scores);
    }
    for (uint32_t i = 0; i < n_q; i++) {
        float *scores = s->scores + (size_t)i * LLD_ATTENTION_CHUNK;
        uint32_t position = t->position + i / g->n_heads;
        uint32_t begin = seen_from(g, position);
        uint32_t end = a->sees_all ? t->end : position + 1, n = end < v->start ? 0 : end - v->start;
        n = n < v->n_visible ? n : v->n_visible;
        begin = begin < v->start ? 0 : begin - v->start;
        s->m[i] = -INFINITY;
        s->l[i] = 0.0f;
        if (n > begin) {
            if (a->softcap > 0.0f) k->softcap(scores + from, n - from, a->softcap);
            for (uint32_t j = from; j < begin; j++) scores[j] = -INFINITY;
            s->m[i] = k->attn_softmax(scores + from, n - from, &s->l[i]);
        } else {
            n = from;
        }
        memset(scores + n, 0, (padded - n) * sizeof *scores);
    }
}

static void chunk_values(const lld_attention *a, const lld_attention_tile *t, const chunk_view *v,
                         lld_attention_scratch *s)
{
    const lld_kernels *k = a->kernels;
    const head_group *g = v->group;
    uint32_t n_q = t->n_rows * g->n_heads;
    memset(s->o, 0, (size_t)n_q * g->head_dim * sizeof *s->o);
    for (uint32_t b = v->first_block; b * LLD_KV_BLOCK < v->n_visible; b++) {
        lld_kv_head head = lld_kv_head_at(a->cache, v->blocks[b], g->layer, g->kv_head);
        uint32_t left = v->n_visible - b * LLD_KV_BLOCK,
                 n = left < LLD_KV_BLOCK ? left : LLD_KV_BLOCK;
        if (a->cache->type == LLD_KV_Q4_0) {
            k->kv_unpack_q4(s->unpacked, head.v, n * (g->head_dim / 2), g->head_dim / 2);
            head.v = s->unpacked;
        }
        const lld_attn_values values = {.acc = s->o,
                                        .acc_stride = g->head_dim,
                                        .p = s->scores + b * LLD_KV_BLOCK,
                                        .p_stride = LLD_ATTENTION_CHUNK,
                                        .n_q = n_q,
                                        .head_dim = g->head_dim,
                                        .n_tokens = n,
                                        .v = head.v,
                                        .vd = head.vd};
        if (a->cache->type == LLD_KV_F16)
            k->attn_values_f16(&values);
        else
            k->attn_values_q8(&values);
    }
}

static float *partial_at(const lld_attention *a, uint32_t row, uint32_t head, uint32_t chunk)
{
    return a->partials +
           (((size_t)row * a->n_heads + head) * a->max_chunks + chunk) * (a->head_dim + 2);
}

void lld_attention_run(const lld_attention *a, size_t unit, const lld_batch_run *runs,
                       const lld_attention_layer *layer, const float *q, float *out,
                       lld_attention_scratch *s)
{
    const lld_attention_tile *t = &a->tiles[unit / layer->n_kv_heads];
    const head_group g = {.layer = layer->index,
                          .kv_head = (uint32_t)(unit % layer->n_kv_heads),
                          .n_heads = a->n_heads / layer->n_kv_heads,
                          .head_dim = layer->head_dim,
                          .window = layer->window,
                          .first = layer->first};
    const uint32_t n_q = t->n_rows * g.n_heads, hd = g.head_dim;
    const uint32_t *blocks = lld_run_blocks(&runs[t->run], a->cache, layer->index);
    uint32_t n_tokens = t->end;
    uint32_t begin = seen_from(&g, t->position); /* what its first row does */

    pack_queries(a, t, &g, q, s->q);
    memset(s->total_l, 0, n_q * sizeof *s->total_l);
    for (uint32_t chunk = t->chunk_begin; chunk < t->chunk_end; chunk++) {
        uint32_t start = chunk * LLD_ATTENTION_CHUNK, left = n_tokens - start;
        chunk_view view = {.blocks = blocks + chunk * BLOCKS_PER_CHUNK,
                           .start = start,
                           .first_block = begin < start ? 0 : (begin - start) / LLD_KV_BLOCK,
                           .n_visible = left < LLD_ATTENTION_CHUNK ? left : LLD_ATTENTION_CHUNK,
                           .group = &g};
        if (begin >= start + view.n_visible) continue; /* no row sees any of it */
        chunk_scores(a, t, &view, s);
        chunk_values(a, t, &view, s);
        for (uint32_t i = 0; i < n_q; i++)
            merge_chunk(&s->total_m[i], &s->total_l[i], s->total_o + (size_t)i * hd, s->m[i],
                        s->l[i], s->o + (size_t)i * hd, hd);
    }
    for (uint32_t i = 0; i < n_q; i++) {
        uint32_t row = t->first_row + i / g.n_heads, head = g.kv_head * g.n_heads + i % g.n_heads;
        const float *total_o = s->total_o + (size_t)i * hd;
        if (!t->split) {
            write_out(out + ((size_t)row * a->n_heads + head) * hd, total_o, s->total_m[i],
                      s->total_l[i], sink_of(layer, head), hd);
            continue;
        }
        float *partial = partial_at(a, row, head, t->chunk_begin);
        partial[0] = s->total_m[i];
        partial[1] = s->total_l[i];
        memcpy(partial + 2, total_o, hd * sizeof *total_o);
    }
}

void lld_attention_merge(const lld_attention *a, const lld_attention_layer *layer, uint32_t row,
                         uint32_t position, float *out)
{
    const uint32_t hd = layer->head_dim;
    for (uint32_t head = 0; head < a->n_heads; head++) {
        float *first = partial_at(a, row, head, 0), *o = out + (size_t)head * hd;
        float m = first[0], l = first[1];
        memcpy(o, first + 2, hd * sizeof *o);
        for (uint32_t chunk = 1; chunk < chunks_for(position + 1); chunk++) {
            const float *p = partial_at(a, row, head, chunk);
            merge_chunk(&m, &l, o, p[0], p[1], p + 2, hd);
        }
        write_out(o, o, m, l, sink_of(layer, head), hd);
    }
}
