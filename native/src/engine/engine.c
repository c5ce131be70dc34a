/* engine.c - the public engine: threads, scratch, KV cache and states over one model. What a step may hold
 * is checked in batch.c. */
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/cpu.h"
#include "base/status.h"
#include "engine/adapter.h"
#include "engine/forward.h"
#include "engine/layer.h"
#include "engine/rank.h"

struct lld_engine {
    lld_pool *pool;
    lld_kv_cache cache;
    lld_states states;
    lld_forward forward;
    void *scratch, *adapter_scratch; /* the second NULL: no room for adapters */
    size_t scratch_bytes, adapter_scratch_bytes;
    size_t n_kept; /* rows of logits that the last forward left */
    size_t n_rows; /* rows of it */
    atomic_int cancel;
    atomic_ullong progress;
};

enum { MAX_CTX = 1 << 20, MAX_BLOCKS = 1 << 23, MAX_BATCH = 4096, MAX_STATES = 1 << 16 };

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
    if (status == LLD_OK) status = check_range("n_blocks", p->n_blocks, 0, MAX_BLOCKS);
    if (status == LLD_OK) status = check_range("n_local_blocks", p->n_local_blocks, 0, MAX_BLOCKS);
    if (status == LLD_OK) status = check_range("n_batch", p->n_batch, 1, MAX_BATCH);
    if (status == LLD_OK) status = check_range("n_logits", p->n_logits, 1, p->n_batch);
    if (status == LLD_OK) status = check_range("kv_type", p->kv_type, LLD_KV_F16, LLD_KV_Q4_0);
    if (status == LLD_OK) status = check_range("n_states", p->n_states, 0, MAX_STATES);
    return status;
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* Set everything in an engine that takes no memory: sizes and limits. */
static int plan(lld_engine *e, const lld_model *model, const lld_engine_params *p)
{
    uint32_t cpu_flags;
    int status = check_params(p);
    if (status == LLD_OK) status = lld_cpu_select(p->cpu, &cpu_flags);
    if (status == LLD_OK && model->positions.data != NULL)
        status = check_range("n_ctx", p->n_ctx, 1, model->positions.n_rows);
    if (status != LLD_OK) return status;
    uint32_t n_blocks = p->n_blocks != 0 ? p->n_blocks : lld_kv_blocks_for(p->n_ctx);
    status = lld_kv_cache_plan(&e->cache, &model->config, (lld_kv_type)p->kv_type, n_blocks,
                               p->n_local_blocks != 0 ? p->n_local_blocks : n_blocks);
    if (status == LLD_OK) status = lld_states_plan(&e->states, model, p->n_states);
    if (status != LLD_OK) return status;
    e->forward =
        (lld_forward){.model = model,
                      .kernels = lld_kernels_get(cpu_flags),
                      .cache = &e->cache,
                      .states = &e->states,
                      .n_threads = p->n_threads,
                      .cancel = &e->cancel,
                      .progress = &e->progress,
                      .batch = {.n_batch = p->n_batch,
                                .n_logits = p->n_logits,
                                .n_ctx = p->n_ctx,
                                .vocab_size = model->vocab_size,
                                .n_blocks = n_blocks,
                                .n_local_blocks = e->cache.pools[true].n_blocks,
                                .window = e->cache.window,
                                .n_states = e->states.n_slots,
                                .whole_runs = model->config.architecture->facts.is_encoder}};
    lld_arena arena = {0};
    lld_forward_alloc(&arena, &e->forward);
    e->scratch_bytes = arena.used;
    return LLD_OK;
}

int lld_engine_bytes(const lld_model *model, const lld_engine_params *params, lld_engine_sizes *out)
{
    lld_engine e = {0};
    int status = plan(&e, model, params);
    if (status != LLD_OK) return status;
    *out = (lld_engine_sizes){.n_blocks = e.cache.pools[false].n_blocks,
                              .n_local_blocks = e.cache.pools[true].n_blocks,
                              .kv_block_tokens = LLD_KV_BLOCK,
                              .kv_window = e.cache.window,
                              .kv_block_bytes = e.cache.pools[false].block_bytes,
                              .kv_local_block_bytes = e.cache.pools[true].block_bytes,
                              .kv_bytes = lld_kv_cache_bytes(&e.cache),
                              .scratch_bytes = e.scratch_bytes,
                              .n_states = e.states.n_slots,
                              .state_bytes = e.states.slot_floats * sizeof(float)};
    return LLD_OK;
}

/* Every page is touched here, so that no forward is the first to need memory. */
static int take_memory(size_t bytes, void **out)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return lld_fail(LLD_ERR_MEMORY, "engine: no memory for %zu bytes of scratch", bytes);
    *out = memset(memory, 0, bytes);
    return LLD_OK;
}

static int create_scratch(lld_engine *e)
{
    const int status = take_memory(e->scratch_bytes, &e->scratch);
    if (status != LLD_OK) return status;
    lld_arena arena = {.base = e->scratch};
    lld_forward_alloc(&arena, &e->forward);
    lld_forward_prepare(&e->forward);
    return LLD_OK;
}

int lld_engine_adapter_bytes(const lld_model *model, const lld_engine_params *params,
                             uint32_t max_rank, uint64_t *bytes)
{
    lld_engine e = {0};
    lld_arena arena = {0};
    int status = plan(&e, model, params);
    if (status == LLD_OK) status = check_range("max_rank", max_rank, 0, LLD_ADAPTER_RANK_MAX);
    if (status == LLD_OK && max_rank > 0) lld_adapter_scratch_alloc(&arena, &e.forward, max_rank);
    *bytes = arena.used;
    return status;
}

static void release_adapter_scratch(lld_engine *e)
{
    if (e->adapter_scratch != NULL) munmap(e->adapter_scratch, e->adapter_scratch_bytes);
    e->adapter_scratch = NULL;
    e->forward.scratch.max_rank = 0;
    if (!e->forward.scratch.takes_hidden) e->forward.scratch.hidden = NULL;
}

int lld_engine_reserve_adapters(lld_engine *engine, uint32_t max_rank)
{
    lld_forward *f = &engine->forward;
    int status = check_range("max_rank", max_rank, 0, LLD_ADAPTER_RANK_MAX);
    if (status != LLD_OK || max_rank == f->scratch.max_rank) return status;
    release_adapter_scratch(engine);
    if (max_rank == 0) return LLD_OK;
    lld_arena counted = {0};
    lld_adapter_scratch_alloc(&counted, f, max_rank);
    f->scratch.max_rank = 0;
    status = take_memory(counted.used, &engine->adapter_scratch);
    if (status != LLD_OK) return status;
    engine->adapter_scratch_bytes = counted.used;
    lld_arena arena = {.base = engine->adapter_scratch};
    lld_adapter_scratch_alloc(&arena, f, max_rank);
    return LLD_OK;
}

int lld_engine_create(lld_model *model, const lld_engine_params *params, lld_engine **out)
{
    lld_engine *e = calloc(1, sizeof *e);
    if (e == NULL) return lld_fail(LLD_ERR_MEMORY, "no memory for the engine");
    int status = plan(e, model, params);
    if (status == LLD_OK) status = lld_kv_cache_create(&e->cache);
    if (status == LLD_OK) status = lld_states_create(&e->states);
    if (status == LLD_OK) status = lld_pool_create(params->n_threads, &e->pool);
    e->forward.pool = e->pool;
    if (status == LLD_OK) status = create_scratch(e);
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
    lld_states_destroy(&engine->states);
    release_adapter_scratch(engine);
    if (engine->scratch != NULL) munmap(engine->scratch, engine->scratch_bytes);
    free(engine);
}

void lld_engine_get_info(const lld_engine *engine, lld_engine_info *out)
{
    const lld_kv_pool *pools = engine->cache.pools;
    *out = (lld_engine_info){.kv_bytes = lld_kv_cache_bytes(&engine->cache),
                             .scratch_bytes = engine->scratch_bytes,
                             .kv_block_bytes = pools[false].block_bytes,
                             .kv_local_block_bytes = pools[true].block_bytes,
                             .kv_block_tokens = LLD_KV_BLOCK,
                             .kv_blocks_total = pools[false].n_blocks,
                             .kv_local_blocks_total = pools[true].n_blocks,
                             .kv_window = engine->cache.window,
                             .n_states = engine->states.n_slots,
                             .n_threads = engine->forward.n_threads,
                             .long_rope = lld_forward_has_long_rope(&engine->forward),
                             .kernel_set = engine->forward.kernels->name};
}

/* ---- a step ---------------------------------------------------------------------------------- */

int lld_engine_forward(lld_engine *engine, const lld_run *runs, size_t n_runs)
{
    lld_forward *f = &engine->forward;
    engine->n_kept = engine->n_rows = 0;
    f->batch.guesses = false;
    int status = lld_adapter_check_runs(f->model, f->scratch.max_rank, runs, n_runs);
    if (status == LLD_OK) status = lld_batch_compose(&f->batch, runs, n_runs);
    if (status == LLD_OK) status = lld_forward_run(f);
    if (status == LLD_OK) status = lld_file_name_fault(f->model->file, LLD_OK);
    if (status != LLD_OK) return status;
    engine->n_kept = f->batch.n_kept;
    engine->n_rows = f->batch.n_rows;
    return LLD_OK;
}

/* Whether run i is one that a guess can take, behind row `row` of what was kept. */
static int check_guess(const lld_engine *e, size_t i, const lld_run *r, uint32_t row)
{
    if (r->n_tokens != 1 || r->n_out != 1 || r->position == 0)
        return lld_fail(LLD_ERR_INVALID,
                        "run %zu: %" PRIu32 " tokens at position %" PRIu32 ", logits of %" PRIu32
                        ": a guess takes one with its logits, not the first",
                        i, r->n_tokens, r->position, r->n_out);
    if (row >= e->n_kept)
        return lld_fail(LLD_ERR_INVALID, "run %zu: behind row %" PRIu32 ", %zu rows were kept", i,
                        row, e->n_kept);
    return LLD_OK;
}

int lld_engine_guess(lld_engine *engine, const lld_run *runs, const uint32_t *rows, size_t n_runs)
{
    lld_forward *f = &engine->forward;
    int status = LLD_OK;
    if (f->model->config.n_guess_layers == 0)
        status = lld_fail(LLD_ERR_INVALID, "the model was opened without a layer that guesses");
    for (size_t i = 0; i < n_runs && status == LLD_OK; i++)
        status = check_guess(engine, i, &runs[i], rows[i]);
    if (status != LLD_OK) return status;
    engine->n_kept = engine->n_rows = 0;
    f->batch.guesses = true;
    status = lld_batch_compose(&f->batch, runs, n_runs);
    if (status != LLD_OK) return status;
    f->guess_rows = rows;
    lld_guess_run(f);
    status = lld_file_name_fault(f->model->file, LLD_OK);
    if (status == LLD_OK) engine->n_kept = f->batch.n_kept;
    return status;
}

int lld_engine_add_rows(lld_engine *engine, size_t first_row, size_t n_rows, double *sums,
                        size_t n_sums)
{
    const lld_forward *f = &engine->forward;
    const size_t dim = f->model->config.dim;
    const lld_source source = {.norm = &f->model->output_norm};
    if (n_rows > engine->n_rows || first_row > engine->n_rows - n_rows)
        return lld_fail(LLD_ERR_INVALID, "rows %zu to %zu, the last forward has %zu", first_row,
                        first_row + n_rows, engine->n_rows);
    int status = check_range("n_sums", n_sums, dim, dim);
    for (size_t row = first_row; row < first_row + n_rows && status == LLD_OK; row++) {
        float *values = f->scratch.threads[0].row;
        lld_normed_row(&engine->forward, row, &source, values);
        for (size_t i = 0; i < dim; i++) sums[i] += values[i];
    }
    return status;
}

int lld_engine_rank(lld_engine *engine, const double *row, size_t n_row, double *scores,
                    size_t n_scores)
{
    const lld_forward *f = &engine->forward;
    const lld_rank_weights *w = &f->model->rank;
    if (w->output.data == NULL) return lld_fail(LLD_ERR_INVALID, "the model does not rank texts");
    int status = check_range("n_row", n_row, f->model->config.dim, f->model->config.dim);
    if (status == LLD_OK)
        status = check_range("n_scores", n_scores, w->output.n_rows, w->output.n_rows);
    if (status != LLD_OK) return status;
    lld_rank_row(w, row, f->scratch.threads[0].row, f->scratch.rank_hidden, scores);
    return lld_file_name_fault(f->model->file, LLD_OK);
}

const float *lld_engine_logits(const lld_engine *engine, size_t k)
{
    const lld_forward *f = &engine->forward;
    return k < engine->n_kept ? f->scratch.logits + k * f->model->vocab_size : NULL;
}

void lld_engine_cancel(lld_engine *engine)
{
    atomic_store(&engine->cancel, 1);
    lld_residency_wake(engine->forward.model);
}

void lld_engine_cancel_clear(lld_engine *engine) { atomic_store(&engine->cancel, 0); }

uint64_t lld_engine_progress(const lld_engine *engine) { return atomic_load(&engine->progress); }

int lld_engine_collect(lld_engine *engine, lld_importance *importance)
{
    if (importance != NULL && !lld_importance_fits(importance, engine->forward.model))
        return lld_fail(LLD_ERR_INVALID, "the importance was created for another model");
    if (importance != NULL && lld_importance_threads(importance) < engine->forward.n_threads)
        return lld_fail(LLD_ERR_INVALID,
                        "the importance has room for %" PRIu32 " threads, the engine has %" PRIu32,
                        lld_importance_threads(importance), engine->forward.n_threads);
    engine->forward.importance = importance;
    return LLD_OK;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

/* The block as memory of n_bytes, which must be its size; NULL for an empty one. */
static int find_block(const lld_engine *engine, bool local, uint32_t block, size_t n_bytes,
                      uint8_t **out)
{
    const lld_kv_pool *pool = &engine->cache.pools[local];
    if (block >= pool->n_blocks)
        return lld_fail(LLD_ERR_INVALID, "block is %" PRIu32 ", must be below %" PRIu32, block,
                        pool->n_blocks);
    int status = check_range("n_bytes", n_bytes, pool->block_bytes, pool->block_bytes);
    if (status == LLD_OK) *out = pool->memory == NULL ? NULL : lld_kv_block(pool, block);
    return status;
}

int lld_block_read(const lld_engine *engine, bool local, uint32_t block, void *dst, size_t n_bytes)
{
    uint8_t *src = NULL;
    int status = find_block(engine, local, block, n_bytes, &src);
    if (src != NULL) memcpy(dst, src, n_bytes);
    return status;
}

int lld_block_write(lld_engine *engine, bool local, uint32_t block, const void *src, size_t n_bytes)
{
    uint8_t *dst = NULL;
    int status = find_block(engine, local, block, n_bytes, &dst);
    if (dst != NULL) memcpy(dst, src, n_bytes);
    return status;
}

/* The state in a slot, or NULL and a status. */
static int find_state(const lld_engine *engine, uint32_t slot, size_t n_bytes, float **out)
{
    const lld_forward *f = &engine->forward;
    const size_t state_bytes = f->model->state_floats * sizeof(float);
    if (slot >= f->states->n_slots)
        return lld_fail(LLD_ERR_INVALID, "state is %" PRIu32 ", must be below %" PRIu32, slot,
                        f->states->n_slots);
    if (n_bytes != state_bytes)
        return lld_fail(LLD_ERR_INVALID, "n_bytes is %zu, a state has %zu", n_bytes, state_bytes);
    *out = f->states->memory + slot * f->states->slot_floats;
    return LLD_OK;
}

int lld_state_read(const lld_engine *engine, uint32_t slot, void *dst, size_t n_bytes)
{
    float *src = NULL;
    const int status = find_state(engine, slot, n_bytes, &src);
    if (src != NULL) memcpy(dst, src, n_bytes);
    return status;
}

int lld_state_write(lld_engine *engine, uint32_t slot, const void *src, size_t n_bytes)
{
    float *dst = NULL;
    const int status = find_state(engine, slot, n_bytes, &dst);
    if (dst != NULL) memcpy(dst, src, n_bytes);
    return status;
}
