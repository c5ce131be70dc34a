/* attention.h - attention of a batch over the KV cache, in tiles that threads take.
 *
 * Flash style (arXiv 2205.14135): keys are read in chunks of 256 tokens; each chunk gives a maximum
 * m, a sum l and a weighted value o, and chunks are merged in position order. Whether one thread
 * walks all chunks of a row or several threads take one each, the arithmetic is the same, bit for
 * bit.
 */
#ifndef LLD_ATTENTION_H
#define LLD_ATTENTION_H

#include "engine/acts.h"
#include "engine/batch.h"
#include "engine/kv_cache.h"

enum {
    LLD_ATTENTION_CHUNK = 256,   /* tokens; a multiple of LLD_KV_BLOCK */
    LLD_ATTENTION_SPLIT_ROWS = 4 /* batches up to this size are split by chunk, for decode */
};

/* One unit of work for one kv head: some rows of a run against chunks [chunk_begin, chunk_end). */
typedef struct lld_attention_tile {
    uint32_t run, first_row, n_rows, position;
    uint32_t end; /* behind it no row sees a token */
    uint32_t chunk_begin, chunk_end;
    bool split; /* the result of its one chunk goes to the partials */
} lld_attention_tile;

/* Scratch of one thread; n_q = queries of a tile, at most max_queries. */
typedef struct lld_attention_scratch {
    float *q;         /* (n_q, head_dim), scaled */
    float *scores;    /* (n_q, LLD_ATTENTION_CHUNK) */
    float *o;         /* (n_q, head_dim) of this chunk */
    int8_t *unpacked; /* (head_dim * 32) of q4_0: the keys or values of a block, as q8_0 has them */
    float *m, *l;     /* (n_q) of this chunk */
    float *total_o;   /* (n_q, head_dim) merged */
    float *total_m, *total_l;
} lld_attention_scratch;

typedef struct lld_attention {
    const lld_kernels *kernels;
    const lld_kv_cache *cache;
    uint32_t n_heads, head_dim; /* head_dim: the largest of all layers */
    uint32_t group;             /* the most query heads that share a kv head */
    uint32_t tile_rows, max_chunks, max_tiles;
    float q_scale;             /* of queries, before they meet keys */
    float softcap;             /* of scores; 0: none */
    bool sees_all;             /* a row sees all of its run, and not only what is before it */
    lld_attention_tile *tiles; /* (max_tiles) of this batch */
    uint32_t n_tiles;
    float *partials; /* (SPLIT_ROWS, n_heads, max_chunks, head_dim + 2): m, l, o */
} lld_attention;

void lld_attention_alloc(lld_arena *arena, lld_attention *attention, uint32_t n_batch,
                         uint32_t n_ctx);
void lld_attention_scratch_alloc(lld_arena *arena, const lld_attention *attention,
                                 lld_attention_scratch *scratch);

/* Cut a batch of runs into tiles. */
void lld_attention_plan(lld_attention *attention, const lld_batch_run *runs, size_t n_runs,
                        size_t n_rows);
/* What attention needs to know of a layer. */
typedef struct lld_attention_layer {
    uint32_t index; /* in the cache */
    uint32_t n_kv_heads, head_dim;
    uint32_t window;    /* tokens that its rows see, themselves included; 0: all */
    uint32_t first;     /* the first position that its rows see */
    const float *sinks; /* (n_heads) or NULL, as in lld_attention_weights */
} lld_attention_layer;

static inline size_t lld_attention_units(const lld_attention *a, const lld_attention_layer *layer)
{
    return (size_t)a->n_tiles * layer->n_kv_heads;
}

/* Do one unit. q: (n_rows, n_heads * head_dim), turned by RoPE and, of q4_0, by kernels.h's hadamard, as out is then too; out: the same shape, not written by split
 * tiles. */
void lld_attention_run(const lld_attention *attention, size_t unit, const lld_batch_run *runs,
                       const lld_attention_layer *layer, const float *q, float *out,
                       lld_attention_scratch *scratch);

/* Rows of a split batch: merge their partials into out: (n_heads * head_dim). No-op for other
 * batches. */
bool lld_attention_is_split(const lld_attention *attention);
void lld_attention_merge(const lld_attention *attention, const lld_attention_layer *layer,
                         uint32_t row, uint32_t position, float *out);

#endif
