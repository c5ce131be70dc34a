/* kv_cache.c - see kv_cache.h. */
#include "engine/kv_cache.h"

#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#include "base/status.h"

static size_t align64(size_t n) { return (n + 63) & ~(size_t)63; }

int lld_kv_cache_plan(lld_kv_cache *c, const lld_config *config, lld_kv_type type,
                      uint32_t n_blocks)
{
    *c = (lld_kv_cache){.type = type,
                        .n_kv_heads = config->n_kv_heads,
                        .head_dim = config->head_dim,
                        .n_blocks = n_blocks};
    size_t values = (size_t)c->head_dim * LLD_KV_BLOCK, bytes;
    c->n_groups = (c->head_dim + 31) / 32;
    if (c->type == LLD_KV_F16)
        c->k_bytes = align64(values * sizeof(uint16_t));
    else
        c->k_bytes = align64(values + c->n_groups * LLD_KV_BLOCK * sizeof(uint16_t));
    c->v_bytes = c->k_bytes;
    c->head_bytes = c->k_bytes + c->v_bytes;
    c->layer_bytes = c->head_bytes * c->n_kv_heads;
    c->block_bytes = c->layer_bytes * config->n_layers;
    if (__builtin_mul_overflow((size_t)n_blocks, c->block_bytes, &bytes))
        return lld_fail(LLD_ERR_MEMORY,
                        "KV cache: %" PRIu32 " blocks are more than can be addressed", n_blocks);
    return LLD_OK;
}

int lld_kv_cache_create(lld_kv_cache *c)
{
    size_t bytes = c->n_blocks * c->block_bytes;
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return lld_fail(LLD_ERR_MEMORY, "KV cache: no memory for %zu bytes (%" PRIu32 " blocks)",
                        bytes, c->n_blocks);
    c->memory = memory;
    return LLD_OK;
}

void lld_kv_cache_destroy(lld_kv_cache *cache)
{
    if (cache->memory != NULL) munmap(cache->memory, cache->n_blocks * cache->block_bytes);
    memset(cache, 0, sizeof *cache);
}

lld_kv_head lld_kv_head_at(const lld_kv_cache *c, uint32_t block, uint32_t layer, uint32_t kv_head)
{
    uint8_t *k = lld_kv_block(c, block) + layer * c->layer_bytes + kv_head * c->head_bytes;
    uint8_t *v = k + c->k_bytes;
    lld_kv_head head = {.k = k, .v = v};
    if (c->type == LLD_KV_Q8_0) {
        size_t values = (size_t)c->head_dim * LLD_KV_BLOCK;
        head.kd = (uint16_t *)(void *)(k + values);
        head.vd = (uint16_t *)(void *)(v + values);
    }
    return head;
}
