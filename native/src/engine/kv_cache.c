/* kv_cache.c - see kv_cache.h. */
#include "engine/kv_cache.h"

#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#include "base/status.h"

_Static_assert((int)LLD_MAX_HEAD_DIM == (int)LLD_KV_MAX_DIM, "kernels hold every head");

static size_t align64(size_t n) { return (n + 63) & ~(size_t)63; }

/* Lay layer `index` out behind the earlier ones, or where the one lies whose keys it reads. */
static void plan_layer(lld_kv_cache *c, const lld_config *config, uint32_t index)
{
    const lld_layer_sizes *sizes = &config->layers[index];
    const size_t n_groups = (sizes->head_dim + 31) / 32; /* scales of one q8_0 or q4_0 vector */
    const size_t values = (size_t)sizes->head_dim * LLD_KV_BLOCK;
    lld_kv_layer *layer = &c->layers[index];
    if (sizes->kv_layer != index) {
        *layer = c->layers[sizes->kv_layer];
        return;
    }
    layer->offset = c->pools[layer->is_local].block_bytes;
    const size_t scale_bytes = n_groups * LLD_KV_BLOCK * sizeof(uint16_t);
    layer->scales_at = (uint32_t)(c->type == LLD_KV_Q4_0 ? values / 2 : values);
    if (c->type == LLD_KV_F16)
        layer->k_bytes = align64(values * sizeof(uint16_t));
    else
        layer->k_bytes = align64(layer->scales_at + scale_bytes);
    c->pools[layer->is_local].block_bytes += 2 * layer->k_bytes * sizes->n_kv_heads;
}

/* Keys and values are local when every layer that reads them sees the window only. */
static void find_local(lld_kv_cache *c, const lld_config *config)
{
    for (uint32_t i = 0; i < lld_bound_layers(config); i++)
        c->layers[i].is_local = config->window > 0 && config->is_local[i];
    for (uint32_t i = 0; i < lld_bound_layers(config); i++)
        if (!c->layers[i].is_local) c->layers[config->layers[i].kv_layer].is_local = false;
}

int lld_kv_cache_plan(lld_kv_cache *c, const lld_config *config, lld_kv_type type,
                      uint32_t n_blocks, uint32_t n_local_blocks)
{
    *c = (lld_kv_cache){.type = type};
    find_local(c, config);
    for (uint32_t i = 0; i < lld_bound_layers(config); i++) plan_layer(c, config, i);
    const bool has_local = c->pools[true].block_bytes > 0;
    c->pools[false].n_blocks = n_blocks;
    c->pools[true].n_blocks = has_local ? n_local_blocks : 0;
    c->window = has_local ? config->window : 0;
    for (int i = 0; i < 2; i++) {
        size_t bytes;
        const lld_kv_pool *p = &c->pools[i];
        if (__builtin_mul_overflow((size_t)p->n_blocks, p->block_bytes, &bytes))
            return lld_fail(LLD_ERR_MEMORY,
                            "KV cache: %" PRIu32 " blocks are more than can be addressed",
                            p->n_blocks);
    }
    return LLD_OK;
}

size_t lld_kv_cache_bytes(const lld_kv_cache *c)
{
    size_t bytes = 0;
    for (int i = 0; i < 2; i++) bytes += c->pools[i].n_blocks * c->pools[i].block_bytes;
    return bytes;
}

int lld_kv_cache_create(lld_kv_cache *c)
{
    for (int i = 0; i < 2; i++) {
        lld_kv_pool *p = &c->pools[i];
        const size_t bytes = p->n_blocks * p->block_bytes;
        if (bytes == 0) continue;
        void *memory =
            mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED)
            return lld_fail(LLD_ERR_MEMORY,
                            "KV cache: no memory for %zu bytes (%" PRIu32 " blocks)", bytes,
                            p->n_blocks);
        p->memory = memory;
    }
    return LLD_OK;
}

void lld_kv_cache_destroy(lld_kv_cache *c)
{
    for (int i = 0; i < 2; i++)
        if (c->pools[i].memory != NULL)
            munmap(c->pools[i].memory, c->pools[i].n_blocks * c->pools[i].block_bytes);
    memset(c, 0, sizeof *c);
}

lld_kv_head lld_kv_head_at(const lld_kv_cache *c, uint32_t block, uint32_t layer, uint32_t kv_head)
{
    const lld_kv_layer *l = &c->layers[layer];
    uint8_t *k = lld_kv_block(&c->pools[l->is_local], block) + l->offset + kv_head * 2 * l->k_bytes;
    uint8_t *v = k + l->k_bytes;
    lld_kv_head head = {.k = k, .v = v};
    if (c->type != LLD_KV_F16) {
        head.kd = (uint16_t *)(void *)(k + l->scales_at);
        head.vd = (uint16_t *)(void *)(v + l->scales_at);
    }
    return head;
}
