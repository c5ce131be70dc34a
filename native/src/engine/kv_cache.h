/* kv_cache.h - keys and values of all sequences, in reference-counted blocks of 32 tokens.
 *
 * A block holds the 32 tokens of every layer and kv head, so one table a sequence serves all
 * layers: block -> layer -> kv head -> K then V, in the layouts of kernels.h. Sequences that share
 * a prefix share its blocks; a shared block that must grow is copied first. Memory is taken at
 * create and touched when used. Not thread-safe: the engine calls it between phases.
 */
#ifndef LLD_KV_CACHE_H
#define LLD_KV_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include "model/config.h"
#include "kernels/kernels.h"

typedef struct lld_sequence {
    uint32_t length;   /* tokens */
    uint32_t n_blocks; /* >= ceil(length / LLD_KV_BLOCK); more only inside a forward */
    uint32_t *blocks;  /* (max_blocks) block ids in position order */
} lld_sequence;

typedef struct lld_kv_cache {
    lld_kv_type type;
    uint32_t n_kv_heads, head_dim;
    size_t n_groups;         /* ceil(head_dim / 32): scales of one q8_0 vector */
    size_t k_bytes, v_bytes; /* of one kv head in a block; multiples of 64 */
    size_t head_bytes, layer_bytes, block_bytes;
    uint8_t *memory;                       /* (n_blocks, block_bytes) */
    uint32_t n_blocks, n_free, max_blocks; /* max_blocks: of one sequence */
    uint32_t *free_ids;                    /* (n_free) a stack */
    uint32_t *references;                  /* (n_blocks) */
    uint32_t n_sequences;
    lld_sequence *sequences; /* (n_sequences) */
} lld_kv_cache;

/* One kv head of one layer in a block. f16: kd and vd are NULL. */
typedef struct lld_kv_head {
    void *k, *v;
    uint16_t *kd, *vd;
} lld_kv_head;

int lld_kv_cache_create(const lld_config *config, lld_kv_type type, uint32_t n_tokens,
                        uint32_t n_ctx, uint32_t n_sequences, lld_kv_cache *cache);
void lld_kv_cache_destroy(lld_kv_cache *cache);

/* Make room for n_new tokens behind the sequence's length. LLD_ERR_KV_FULL leaves it unchanged. */
int lld_kv_reserve(lld_kv_cache *cache, uint32_t sequence, uint32_t n_new);
/* The reserved tokens are written: they count. */
void lld_kv_commit(lld_kv_cache *cache, uint32_t sequence, uint32_t n_new);
/* Keep the first n_tokens (<= length); blocks beyond them, reserved ones too, go back. */
void lld_kv_truncate(lld_kv_cache *cache, uint32_t sequence, uint32_t n_tokens);
/* dst (empty) begins with the first n_tokens of src. */
void lld_kv_share(lld_kv_cache *cache, uint32_t dst, uint32_t src, uint32_t n_tokens);

lld_kv_head lld_kv_head_at(const lld_kv_cache *cache, uint32_t block, uint32_t layer,
                           uint32_t kv_head);

#endif
