/* kv_cache.c - see kv_cache.h. */
#include "engine/kv_cache.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/status.h"

static size_t align64(size_t n) { return (n + 63) & ~(size_t)63; }

static uint32_t blocks_for(uint64_t n_tokens)
{
    return (uint32_t)((n_tokens + LLD_KV_BLOCK - 1) / LLD_KV_BLOCK);
}

static void set_layout(lld_kv_cache *c, const lld_config *config)
{
    size_t values = (size_t)c->head_dim * LLD_KV_BLOCK;
    c->n_groups = (c->head_dim + 31) / 32;
    if (c->type == LLD_KV_F16)
        c->k_bytes = align64(values * sizeof(uint16_t));
    else
        c->k_bytes = align64(values + c->n_groups * LLD_KV_BLOCK * sizeof(uint16_t));
    c->v_bytes = c->k_bytes;
    c->head_bytes = c->k_bytes + c->v_bytes;
    c->layer_bytes = c->head_bytes * c->n_kv_heads;
    c->block_bytes = c->layer_bytes * config->n_layers;
}

int lld_kv_cache_create(const lld_config *config, lld_kv_type type, uint32_t n_tokens,
                        uint32_t n_ctx, uint32_t n_sequences, lld_kv_cache *cache)
{
    lld_kv_cache c = {.type = type,
                      .n_kv_heads = config->n_kv_heads,
                      .head_dim = config->head_dim,
                      .n_blocks = blocks_for(n_tokens),
                      .max_blocks = blocks_for(n_ctx),
                      .n_sequences = n_sequences};
    set_layout(&c, config);
    size_t bytes;
    if (__builtin_mul_overflow((size_t)c.n_blocks, c.block_bytes, &bytes))
        return lld_fail(LLD_ERR_MEMORY,
                        "KV cache: %" PRIu32 " tokens are more than can be addressed", n_tokens);
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    c.memory = memory == MAP_FAILED ? NULL : memory;
    c.free_ids = calloc(c.n_blocks, sizeof *c.free_ids);
    c.references = calloc(c.n_blocks, sizeof *c.references);
    c.sequences = calloc(n_sequences, sizeof *c.sequences);
    bool complete =
        c.memory != NULL && c.free_ids != NULL && c.references != NULL && c.sequences != NULL;
    for (uint32_t i = 0; complete && i < n_sequences; i++) {
        c.sequences[i].blocks = calloc(c.max_blocks, sizeof(uint32_t));
        complete = c.sequences[i].blocks != NULL;
    }
    if (!complete) {
        lld_kv_cache_destroy(&c);
        return lld_fail(LLD_ERR_MEMORY, "KV cache: no memory for %zu bytes (%" PRIu32 " tokens)",
                        bytes, n_tokens);
    }
    for (uint32_t i = 0; i < c.n_blocks; i++) c.free_ids[i] = c.n_blocks - 1 - i;
    c.n_free = c.n_blocks;
    *cache = c;
    return LLD_OK;
}

void lld_kv_cache_destroy(lld_kv_cache *cache)
{
    if (cache->memory != NULL) munmap(cache->memory, cache->n_blocks * cache->block_bytes);
    for (uint32_t i = 0; cache->sequences != NULL && i < cache->n_sequences; i++)
        free(cache->sequences[i].blocks);
    free(cache->sequences);
    free(cache->references);
    free(cache->free_ids);
    memset(cache, 0, sizeof *cache);
}

static uint32_t take_block(lld_kv_cache *c)
{
    assert(c->n_free > 0);
    uint32_t id = c->free_ids[--c->n_free];
    c->references[id] = 1;
    return id;
}

static void drop_block(lld_kv_cache *c, uint32_t id)
{
    assert(c->references[id] > 0);
    if (--c->references[id] == 0) c->free_ids[c->n_free++] = id;
}

int lld_kv_reserve(lld_kv_cache *c, uint32_t sequence, uint32_t n_new)
{
    lld_sequence *s = &c->sequences[sequence];
    uint32_t needed = blocks_for((uint64_t)s->length + n_new);
    uint32_t tail = s->length / LLD_KV_BLOCK; /* the block that grows, if it is partly filled */
    bool copy_tail =
        s->length % LLD_KV_BLOCK != 0 && n_new > 0 && c->references[s->blocks[tail]] > 1;
    uint32_t n_taken = needed - s->n_blocks + copy_tail;
    assert(needed <= c->max_blocks && needed >= s->n_blocks);
    if (n_taken > c->n_free)
        return lld_fail(LLD_ERR_KV_FULL,
                        "KV cache is full: %" PRIu32 " blocks of %d tokens needed, %" PRIu32
                        " of %" PRIu32 " are free",
                        n_taken, LLD_KV_BLOCK, c->n_free, c->n_blocks);
    if (copy_tail) {
        uint32_t id = take_block(c), shared = s->blocks[tail];
        memcpy(c->memory + id * c->block_bytes, c->memory + shared * c->block_bytes,
               c->block_bytes);
        drop_block(c, shared);
        s->blocks[tail] = id;
    }
    while (s->n_blocks < needed) s->blocks[s->n_blocks++] = take_block(c);
    return LLD_OK;
}

void lld_kv_commit(lld_kv_cache *c, uint32_t sequence, uint32_t n_new)
{
    lld_sequence *s = &c->sequences[sequence];
    s->length += n_new;
    assert(s->n_blocks == blocks_for(s->length));
}

void lld_kv_truncate(lld_kv_cache *c, uint32_t sequence, uint32_t n_tokens)
{
    lld_sequence *s = &c->sequences[sequence];
    uint32_t kept = blocks_for(n_tokens);
    assert(n_tokens <= s->length);
    while (s->n_blocks > kept) drop_block(c, s->blocks[--s->n_blocks]);
    s->length = n_tokens;
}

void lld_kv_share(lld_kv_cache *c, uint32_t dst, uint32_t src, uint32_t n_tokens)
{
    lld_sequence *d = &c->sequences[dst], *s = &c->sequences[src];
    assert(d->length == 0 && d->n_blocks == 0 && n_tokens <= s->length);
    d->n_blocks = blocks_for(n_tokens);
    d->length = n_tokens;
    for (uint32_t i = 0; i < d->n_blocks; i++) {
        d->blocks[i] = s->blocks[i];
        c->references[d->blocks[i]]++;
    }
}

lld_kv_head lld_kv_head_at(const lld_kv_cache *c, uint32_t block, uint32_t layer, uint32_t kv_head)
{
    uint8_t *k =
        c->memory + block * c->block_bytes + layer * c->layer_bytes + kv_head * c->head_bytes;
    uint8_t *v = k + c->k_bytes;
    lld_kv_head head = {.k = k, .v = v};
    if (c->type == LLD_KV_Q8_0) {
        size_t values = (size_t)c->head_dim * LLD_KV_BLOCK;
        head.kd = (uint16_t *)(void *)(k + values);
        head.vd = (uint16_t *)(void *)(v + values);
    }
    return head;
}
