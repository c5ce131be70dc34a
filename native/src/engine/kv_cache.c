/* kv_cache.c - see kv_cache.h. */
#include "engine/kv_cache.h"

#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#include "base/status.h"

static size_t align64(size_t n) { return (n + 63) & ~(size_t)63; }

/* Lay layer `index` out behind the earlier ones, or where the one lies whose keys it reads. */
static void plan_layer(lld_kv_cache *c, const lld_config *config, uint32_t index)
{
    const lld_layer_sizes *sizes = &config->layers[index];
    const size_t n_groups = (sizes->head_dim + 31) / 32; /* scales of one q8_0 vector */
    const size_t values = (size_t)sizes->head_dim * LLD_KV_BLOCK;
    lld_kv_layer *layer = &c->layers[index];
    if (sizes->kv_layer != index) {
        *layer = c->layers[sizes->kv_layer];
        return;
    }
    layer->offset = c->block_bytes;
    layer->n_values = (uint32_t)values;
    if (c->type == LLD_KV_F16)
        layer->k_bytes = align64(values * sizeof(uint16_t));
    else
        layer->k_bytes = align64(values + n_groups * LLD_KV_BLOCK * sizeof(uint16_t));
    c->block_bytes += 2 * layer->k_bytes * sizes->n_kv_heads;
}

int lld_kv_cache_plan(lld_kv_cache *c, const lld_config *config, lld_kv_type type,
                      uint32_t n_blocks)
{
    size_t bytes;
    *c = (lld_kv_cache){.type = type, .n_blocks = n_blocks};
    for (uint32_t i = 0; i < config->n_layers; i++) plan_layer(c, config, i);
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
    const lld_kv_layer *l = &c->layers[layer];
    uint8_t *k = lld_kv_block(c, block) + l->offset + kv_head * 2 * l->k_bytes;
    uint8_t *v = k + l->k_bytes;
    lld_kv_head head = {.k = k, .v = v};
    if (c->type == LLD_KV_Q8_0) {
        head.kd = (uint16_t *)(void *)(k + l->n_values);
        head.vd = (uint16_t *)(void *)(v + l->n_values);
    }
    return head;
}
