/* batch.h - the rows of one step, and the checks that they are ones the engine can run.
 * A row is one token at one position; rows of a run lie behind each other. */
#ifndef LLD_BATCH_H
#define LLD_BATCH_H

#include <stdbool.h>

#include "engine/acts.h"
#include "engine/kv_cache.h"
#include "llamad_engine.h"

typedef struct lld_batch_run {
    uint32_t first_row, n_rows;
    uint32_t position;                     /* of the first row */
    const uint32_t *blocks, *local_blocks; /* the caller's, for the time of the step */
    uint32_t state_in, state_out;
    bool continues;             /* the run before it, of the same sequence */
    const lld_adapter *adapter; /* or NULL */
    float adapter_scale;
} lld_batch_run;

/* The ids of a run's blocks in the pool of a layer. */
static inline const uint32_t *lld_run_blocks(const lld_batch_run *run, const lld_kv_cache *cache,
                                             uint32_t layer)
{
    return cache->layers[layer].is_local ? run->local_blocks : run->blocks;
}

/* Runs of one sequence that follow each other: states go through them in order. */
typedef struct lld_batch_chain {
    uint32_t first_run, n_runs;
} lld_batch_chain;

/* How a step uses a slot of states. */
typedef struct lld_slot_use {
    uint64_t step;  /* the last that named it */
    uint32_t chain; /* the first of that step which did */
    bool written;
} lld_slot_use;

typedef struct lld_batch {
    uint32_t n_batch, n_logits, n_ctx, vocab_size, n_blocks, n_local_blocks,
        n_states;    /* limits, set at create */
    uint32_t window; /* of local layers; 0: local blocks are not looked at */
    bool whole_runs; /* of an encoder: a run is a whole text, and keeps no logits */
    bool guesses;    /* runs name no states; set before it is composed */
    bool is_adapted; /* a run has an adapter */
    size_t n_rows, n_runs, n_chains, n_kept;
    int32_t *tokens;         /* (n_rows) */
    uint32_t *positions;     /* (n_rows) */
    uint32_t *row_run;       /* (n_rows) run of each row */
    lld_batch_run *runs;     /* (n_runs) */
    lld_batch_chain *chains; /* (n_chains) */
    lld_slot_use *slots;     /* (n_states) */
    uint32_t *kept;          /* (n_kept) rows whose logits are kept */
    uint64_t *marks; /* (n_blocks) the last step that named a block: 2 * step, + 1 if it writes */
    uint64_t *local_marks; /* (n_local_blocks) likewise */
    uint64_t step;         /* counts compositions */
} lld_batch;

/* Room for the limits, in the arena of the scratch. */
void lld_batch_alloc(lld_arena *arena, lld_batch *batch);

/* Check the runs of a step and compose their rows. LLD_ERR_INVALID names the run and the fault. */
int lld_batch_compose(lld_batch *batch, const lld_run *runs, size_t n_runs);

#endif
