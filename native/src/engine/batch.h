/* batch.h - the rows of one step, and the checks that they are ones the engine can run. */
#ifndef LLD_BATCH_H
#define LLD_BATCH_H

#include "engine/kv_cache.h"

/* Consecutive rows of a batch that belong to one sequence. */
typedef struct lld_batch_run {
    uint32_t sequence, first_row, n_rows;
    uint32_t position; /* of the first row */
} lld_batch_run;

typedef struct lld_batch {
    uint32_t n_batch, n_logits, n_ctx, vocab_size; /* limits, set at create */
    size_t n_rows, n_runs, n_kept;
    const int32_t *tokens; /* (n_rows) */
    const uint32_t *positions;
    uint32_t *kept;      /* (n_kept) rows whose logits are kept */
    uint32_t *row_slot;  /* (n_rows) sequence of each row */
    lld_batch_run *runs; /* (n_runs) */
} lld_batch;

/* Compose a batch from the arguments of lld_engine_forward. */
int lld_batch_compose(lld_batch *batch, const lld_kv_cache *cache, const int32_t *tokens,
                      const uint32_t *sequences, const uint32_t *positions,
                      const uint8_t *wants_logits, size_t n_rows);

#endif
