/* engine.c - the public engine: threads, scratch and KV cache over one model, and the checks of a
 * batch. */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/cpu.h"
#include "engine/forward.h"
#include "base/status.h"

struct lld_engine {
    lld_model *model;
    const lld_kernels *kernels;
    lld_pool *pool;
    lld_kv_cache cache;
    lld_forward forward;
    void *scratch;
    size_t scratch_bytes;
    size_t n_kept; /* rows of logits that the last forward left */
    atomic_int cancel;
};

enum { MAX_CTX = 1 << 20, MAX_SEQUENCES = 256, MAX_BATCH = 4096 };

static int check_range(const char *name, uint64_t value, uint64_t low, uint64_t high)
{
    if (value >= low && value <= high) return LLD_OK;
    return lld_fail(LLD_ERR_INVALID, "%s is %" PRIu64 ", must be %" PRIu64 " to %" PRIu64, name,
                    value, low, high);
}

static int check_params(const lld_engine_params *p)
{
    int status = check_range("n_threads", p->n_threads, 1, LLD_MAX_THREADS);
    if (status == LLD_OK) status = check_range("n_ctx", p->n_ctx, 1, MAX_CTX);
    if (status == LLD_OK) status = check_range("n_sequences", p->n_sequences, 1, MAX_SEQUENCES);
    if (status == LLD_OK) status = check_range("n_batch", p->n_batch, 1, MAX_BATCH);
    if (status == LLD_OK) status = check_range("n_logits", p->n_logits, 1, p->n_batch);
    if (status == LLD_OK) status = check_range("kv_type", p->kv_type, LLD_KV_F16, LLD_KV_Q8_0);
    if (status == LLD_OK)
        status = check_range("n_kv_tokens", p->n_kv_tokens, 0, (uint64_t)MAX_CTX * MAX_SEQUENCES);
    return status;
}

static int create_scratch(lld_engine *e)
{
    lld_arena arena = {0};
    lld_forward_take(&arena, &e->forward);
    e->scratch_bytes = arena.used;
    void *memory =
        mmap(NULL, e->scratch_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return lld_fail(LLD_ERR_MEMORY, "engine: no memory for %zu bytes of scratch",
                        e->scratch_bytes);
    e->scratch = memory;
    arena = (lld_arena){.base = memory};
    lld_forward_take(&arena, &e->forward);
    lld_forward_prepare(&e->forward);
    return LLD_OK;
}

static int build(lld_engine *e, const lld_engine_params *p)
{
    uint32_t cpu_flags;
    int status = lld_cpu_select(p->cpu, &cpu_flags);
    if (status != LLD_OK) return status;
    e->kernels = lld_kernels_get(cpu_flags);
    uint64_t kv_tokens = p->n_kv_tokens != 0 ? p->n_kv_tokens : (uint64_t)p->n_ctx * p->n_sequences;
    status = lld_kv_cache_create(&e->model->config, (lld_kv_type)p->kv_type, (uint32_t)kv_tokens,
                                 p->n_ctx, p->n_sequences, &e->cache);
    if (status != LLD_OK) return status;
    status = lld_pool_create(p->n_threads, &e->pool);
    if (status != LLD_OK) return status;
    e->forward = (lld_forward){.model = e->model,
                               .kernels = e->kernels,
                               .pool = e->pool,
                               .cache = &e->cache,
                               .n_threads = p->n_threads,
                               .batch = {.n_batch = p->n_batch,
                                         .n_logits = p->n_logits,
                                         .n_ctx = p->n_ctx,
                                         .vocab_size = e->model->vocab_size},
                               .cancel = &e->cancel};
    return create_scratch(e);
}

int lld_engine_create(lld_model *model, const lld_engine_params *params, lld_engine **out)
{
    int status = check_params(params);
    if (status != LLD_OK) return status;
    lld_engine *e = calloc(1, sizeof *e);
    if (e == NULL) return lld_fail(LLD_ERR_MEMORY, "no memory for the engine");
    e->model = model;
    status = build(e, params);
    if (status != LLD_OK) {
        lld_engine_destroy(e);
        return status;
    }
    *out = e;
    return LLD_OK;
}

void lld_engine_destroy(lld_engine *engine)
{
    if (engine == NULL) return;
    lld_pool_destroy(engine->pool);
    lld_kv_cache_destroy(&engine->cache);
    if (engine->scratch != NULL) munmap(engine->scratch, engine->scratch_bytes);
    free(engine);
}

void lld_engine_get_info(const lld_engine *engine, lld_engine_info *out)
{
    *out = (lld_engine_info){.kv_bytes = engine->cache.n_blocks * engine->cache.block_bytes,
                             .scratch_bytes = engine->scratch_bytes,
                             .kv_block_tokens = LLD_KV_BLOCK,
                             .kv_blocks_total = engine->cache.n_blocks,
                             .kv_blocks_free = engine->cache.n_free,
                             .n_threads = engine->forward.n_threads,
                             .kernel_set = engine->kernels->name};
}

/* ---- a step ---------------------------------------------------------------------------------- */

/* Give back what the runs reserved beyond their sequences' lengths. */
static void release_reserved(lld_engine *e)
{
    for (size_t r = 0; r < e->forward.batch.n_runs; r++) {
        uint32_t sequence = e->forward.batch.runs[r].sequence;
        lld_kv_truncate(&e->cache, sequence, e->cache.sequences[sequence].length);
    }
}

static int reserve_runs(lld_engine *e)
{
    int status = LLD_OK;
    for (size_t r = 0; r < e->forward.batch.n_runs && status == LLD_OK; r++)
        status = lld_kv_reserve(&e->cache, e->forward.batch.runs[r].sequence,
                                e->forward.batch.runs[r].n_rows);
    return status;
}

int lld_engine_forward(lld_engine *engine, const int32_t *tokens, const uint32_t *sequences,
                       const uint32_t *positions, const uint8_t *wants_logits, size_t n_rows)
{
    lld_forward *f = &engine->forward;
    engine->n_kept = 0;
    int status = check_range("n_rows", n_rows, 1, f->batch.n_batch);
    if (status == LLD_OK)
        status = lld_batch_compose(&f->batch, &engine->cache, tokens, sequences, positions,
                                   wants_logits, n_rows);
    if (status != LLD_OK) return status;
    status = reserve_runs(engine);
    if (status == LLD_OK) status = lld_forward_run(f);
    if (status == LLD_OK) status = lld_file_name_fault(engine->model->file, LLD_OK);
    if (status != LLD_OK) {
        release_reserved(engine);
        return status;
    }
    for (size_t r = 0; r < f->batch.n_runs; r++)
        lld_kv_commit(&engine->cache, f->batch.runs[r].sequence, f->batch.runs[r].n_rows);
    engine->n_kept = f->batch.n_kept;
    return LLD_OK;
}

const float *lld_engine_logits(const lld_engine *engine, size_t k)
{
    return k < engine->n_kept ? engine->forward.scratch.logits + k * engine->model->vocab_size
                              : NULL;
}

void lld_engine_cancel(lld_engine *engine) { atomic_store(&engine->cancel, 1); }

void lld_engine_cancel_clear(lld_engine *engine) { atomic_store(&engine->cancel, 0); }

int lld_engine_collect(lld_engine *engine, lld_importance *importance)
{
    if (importance != NULL && !lld_importance_fits(importance, engine->model))
        return lld_fail(LLD_ERR_INVALID, "the importance was created for another model");
    if (importance != NULL && lld_importance_threads(importance) < engine->forward.n_threads)
        return lld_fail(LLD_ERR_INVALID,
                        "the importance has room for %" PRIu32 " threads, the engine has %" PRIu32,
                        lld_importance_threads(importance), engine->forward.n_threads);
    engine->forward.importance = importance;
    return LLD_OK;
}

/* ---- sequences ------------------------------------------------------------------------------- */

static int check_sequence(const lld_engine *e, const char *name, uint32_t sequence,
                          uint32_t n_tokens)
{
    int status = check_range(name, sequence, 0, e->cache.n_sequences - 1);
    if (status == LLD_OK)
        status = check_range("n_tokens", n_tokens, 0, e->cache.sequences[sequence].length);
    return status;
}

int lld_sequence_truncate(lld_engine *engine, uint32_t sequence, uint32_t n_tokens)
{
    int status = check_sequence(engine, "sequence", sequence, n_tokens);
    if (status == LLD_OK) lld_kv_truncate(&engine->cache, sequence, n_tokens);
    return status;
}

int lld_sequence_share(lld_engine *engine, uint32_t dst, uint32_t src, uint32_t n_tokens)
{
    int status = check_sequence(engine, "src", src, n_tokens);
    if (status == LLD_OK) status = check_sequence(engine, "dst", dst, 0);
    if (status != LLD_OK) return status;
    if (dst == src || engine->cache.sequences[dst].length != 0)
        return lld_fail(LLD_ERR_INVALID, "dst %" PRIu32 " must be another, empty sequence", dst);
    lld_kv_share(&engine->cache, dst, src, n_tokens);
    return LLD_OK;
}

uint32_t lld_sequence_length(const lld_engine *engine, uint32_t sequence)
{
    return sequence < engine->cache.n_sequences ? engine->cache.sequences[sequence].length : 0;
}
