/* forward.h - one pass of a batch of (token, sequence, position) rows through the model.
 *
 * Four things stay apart: the immutable model, its kernels, the KV cache, and the scratch here, all
 * of it taken at create. A layer is six phases with one barrier each:
 *   1. norm, quantize, QKV          4. Wo, residual
 *   2. RoPE, store in the cache     5. norm, gate and up, SiLU, quantize
 *   3. attention                    6. down, residual
 * A batch of one row needs no further barrier: every thread normalizes and quantizes the row for
 * itself.
 *
 * Activations are int8 with a scale for each block. Where that rounding is felt most they get a
 * second level: what the first one lost, quantized again, multiplied and added. That is for the
 * inputs of attn_v and of the output matrix, and for the row at position 0 everywhere: the first
 * token is what others attend to when they have nothing to attend to (arXiv 2309.17453), and its
 * activations are the largest. Standard deviation of the logits' error on SmolLM2-135M Q4_1,
 * against exact activations: 0.25 with one level, 0.16 so, 0.003 with two everywhere, which would be
 * twice the work.
 */
#ifndef LLD_FORWARD_H
#define LLD_FORWARD_H

#include <stdatomic.h>

#include "attention.h"
#include "importance.h"
#include "model.h"
#include "threads.h"

/* The rows that the products of a phase multiply, in every form they need. */
typedef struct lld_input {
    lld_acts forms[LLD_ACT_COUNT]; /* (n_rows, n_cols) */
    lld_acts fine[LLD_ACT_COUNT];  /* the second level of the rows that have one */
    bool pair;                     /* one row: fine lies directly behind forms */
} lld_input;

/* What one thread alone writes. */
typedef struct lld_thread_scratch {
    void *matmul;                  /* lld_kernels_scratch_bytes of the longest row */
    float *row;                    /* (max_cols) a normalized row, when each thread makes its own */
    lld_acts forms[LLD_ACT_COUNT]; /* (2, max_cols) of that row: its two levels */
    lld_input input;               /* of this phase */
    float *rest;                   /* (max_cols) what the first level lost */
    float *correction;             /* (tile_cols, chunk of rows) the second level's product */
    float *gate, *up;              /* (tile_cols, hidden_chunk) */
    lld_attention_scratch attention;
} lld_thread_scratch;

typedef struct lld_forward {
    const lld_model *model;
    const lld_kernels *kernels;
    lld_pool *pool;
    lld_kv_cache *cache;
    uint32_t n_batch, n_logits, n_threads;
    uint32_t max_cols;     /* longest matrix row */
    uint32_t hidden_chunk; /* rows of gate and up that one unit makes */
    atomic_int *cancel;
    lld_importance *importance; /* collects the inputs of products; NULL: nothing does */

    /* scratch; the first dimension is the batch's row */
    float *x;            /* (n_batch, dim) residual stream */
    float *q;            /* (n_batch, n_heads * head_dim) */
    float *k, *v;        /* (n_batch, n_kv_heads * head_dim) */
    float *attended;     /* (n_batch, n_heads * head_dim) */
    float *work;         /* (n_batch, dim) a matrix product, or normalized rows */
    float *hidden;       /* (n_batch, hidden_dim), only where a down matrix takes float32 */
    float *cos_sin;      /* (n_batch, n_rot) */
    float *logits;       /* (n_logits, vocab_size) */
    double *frequencies; /* (n_rot / 2) radians a token */
    float rope_magnitude;
    lld_input input;             /* (n_batch, max(dim, n_heads * head_dim)) */
    lld_input hidden_input;      /* (n_batch, hidden_dim) */
    lld_thread_scratch *threads; /* (n_threads) */
    lld_attention attention;

    /* this batch */
    size_t n_rows, n_runs, n_kept;
    const int32_t *tokens; /* (n_rows) */
    const uint32_t *positions;
    uint32_t *kept;     /* (n_kept) rows whose logits are kept */
    uint32_t *row_slot; /* (n_rows) sequence of each row */
    lld_run *runs;      /* (n_runs) */
    int stop;           /* cancelled: written by thread 0 before a layer's last barrier */
} lld_forward;

/* Lay the scratch out in the arena (see acts.h: called once to count, once to place). model,
 * kernels, cache, n_batch, n_logits and n_threads are set before. */
void lld_forward_take(lld_arena *arena, lld_forward *forward, uint32_t n_ctx);
/* Fill what does not depend on the batch. */
void lld_forward_prepare(lld_forward *forward);
/* Run the batch. LLD_OK, or LLD_ERR_CANCELLED when the flag was seen. */
int lld_forward_run(lld_forward *forward);

#endif
