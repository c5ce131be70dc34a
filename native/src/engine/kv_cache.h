/* kv_cache.h - keys and values, in blocks of 32 tokens.
 *
 * Two pools: a block has the 32 tokens of every layer that sees all of them, a *local block* those of
 * every layer with a window. So what lies behind the window can be given back, and two tables a
 * sequence serve all layers: block -> layer -> kv head -> K then V, in the layouts of kernels.h.
 * Layers differ in size. Owns layout and memory; which block belongs to which sequence is the
 * caller's business. Memory is taken at create and touched when used. Not thread-safe: the engine
 * calls it between phases.
 */
#ifndef LLD_KV_CACHE_H
#define LLD_KV_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"
#include "model/config.h"

/* Where a layer lies in a block of its pool. One that reads another's keys and values lies where that one does;
 * one without attention takes no bytes. */
typedef struct lld_kv_layer {
    size_t offset;      /* of its first kv head in the block; a multiple of 64 */
    size_t k_bytes;     /* of the keys, or values, of one kv head; a multiple of 64 */
    uint32_t scales_at; /* of q8_0 and q4_0: how many of those bytes lie before the scales */
    bool is_local;      /* in local blocks: nothing reads it that sees more than the window */
} lld_kv_layer;

typedef struct lld_kv_pool {
    size_t block_bytes; /* 0: no layer is in this pool */
    uint32_t n_blocks;
    uint8_t *memory; /* (n_blocks, block_bytes) */
} lld_kv_pool;

typedef struct lld_kv_cache {
    lld_kv_type type;
    lld_kv_layer layers[LLD_MAX_LAYERS];
    lld_kv_pool pools[2]; /* by is_local */
    uint32_t window;      /* tokens that local layers see, their own included; 0: there are none */
} lld_kv_cache;

/* One kv head of one layer in a block. f16: kd and vd are NULL. */
typedef struct lld_kv_head {
    void *k, *v;
    uint16_t *kd, *vd;
} lld_kv_head;

/* Blocks that n_tokens need. */
static inline uint32_t lld_kv_blocks_for(uint64_t n_tokens)
{
    return (uint32_t)((n_tokens + LLD_KV_BLOCK - 1) / LLD_KV_BLOCK);
}

/* The first position that a row sees. window 0: all. */
static inline uint32_t lld_kv_window_start(uint32_t position, uint32_t window)
{
    return window == 0 || position < window ? 0 : position - window + 1;
}

/* Set the sizes; takes no memory. n_local_blocks are not looked at where no layer is local. */
int lld_kv_cache_plan(lld_kv_cache *cache, const lld_config *config, lld_kv_type type,
                      uint32_t n_blocks, uint32_t n_local_blocks);
/* Take the memory of a planned cache. */
int lld_kv_cache_create(lld_kv_cache *cache);
void lld_kv_cache_destroy(lld_kv_cache *cache);

size_t lld_kv_cache_bytes(const lld_kv_cache *cache);

/* The bytes of a block: (block_bytes). */
static inline uint8_t *lld_kv_block(const lld_kv_pool *pool, uint32_t block)
{
    return pool->memory + block * pool->block_bytes;
}

/* block: an id in the layer's pool. */
lld_kv_head lld_kv_head_at(const lld_kv_cache *cache, uint32_t block, uint32_t layer,
                           uint32_t kv_head);

#endif
