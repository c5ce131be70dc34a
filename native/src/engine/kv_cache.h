/* kv_cache.h - keys and values, in blocks of 32 tokens.
 *
 * A block holds the 32 tokens of every layer and kv head, so one table a sequence serves all
 * layers: block -> layer -> kv head -> K then V, in the layouts of kernels.h. Layers differ in size. Owns layout and
 * memory; which block belongs to which sequence is the caller's business. Memory is taken at create
 * and touched when used. Not thread-safe: the engine calls it between phases.
 */
#ifndef LLD_KV_CACHE_H
#define LLD_KV_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"
#include "model/config.h"

/* Where a layer lies in a block. One that reads another's keys and values lies where that one does;
 * one without attention takes no bytes. */
typedef struct lld_kv_layer {
    size_t offset;     /* of its first kv head in the block; a multiple of 64 */
    size_t k_bytes;    /* of the keys, or values, of one kv head; a multiple of 64 */
    uint32_t n_values; /* of those: head_dim * 32, before the scales of q8_0 */
} lld_kv_layer;

typedef struct lld_kv_cache {
    lld_kv_type type;
    lld_kv_layer layers[LLD_MAX_LAYERS];
    size_t block_bytes;
    uint32_t n_blocks;
    uint8_t *memory; /* (n_blocks, block_bytes) */
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

/* Set the sizes; takes no memory. */
int lld_kv_cache_plan(lld_kv_cache *cache, const lld_config *config, lld_kv_type type,
                      uint32_t n_blocks);
/* Take the memory of a planned cache. */
int lld_kv_cache_create(lld_kv_cache *cache);
void lld_kv_cache_destroy(lld_kv_cache *cache);

/* The bytes of a block: (block_bytes). */
static inline uint8_t *lld_kv_block(const lld_kv_cache *cache, uint32_t block)
{
    return cache->memory + block * cache->block_bytes;
}

lld_kv_head lld_kv_head_at(const lld_kv_cache *cache, uint32_t block, uint32_t layer,
                           uint32_t kv_head);

#endif
