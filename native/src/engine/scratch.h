/* scratch.h - the memory that a forward works in, all of it taken at create, in one arena. */
#ifndef LLD_SCRATCH_H
#define LLD_SCRATCH_H

#include "engine/attention.h"

enum {
    LLD_EXPERT_CHUNK_ROWS = 128, /* rows of the down matrices of all experts that one unit takes */
    LLD_FIRST_TOKENS = 16 /* of an encoder's texts, whose second levels one product multiplies */
};

/* The rows that the products of a phase multiply, in every form they need. */
typedef struct lld_input {
    lld_acts forms[LLD_ACT_COUNT]; /* (n_rows, n_cols) */
    lld_acts fine[LLD_ACT_COUNT];  /* the second level of the rows that have one */
    const uint32_t *batch_rows;    /* (n_rows) row of the batch of each, or NULL: its own number */
    bool pair;                     /* one row: fine lies directly behind forms */
} lld_input;

/* Which rows of a batch go through which experts of a layer. A pair is a row and an expert that was
 * chosen for it; pairs are grouped by expert, and within one in the order of their rows. A row more than
 * n_batch: a single row has a guess behind it (expert_guess.h). */
typedef struct lld_routing {
    float *logits;    /* (n_batch + 1, n_experts) of the router, then their probabilities */
    uint32_t *chosen; /* (n_batch + 1, n_used) experts, by rank */
    float *weights;   /* (n_batch + 1, n_used) */
    uint32_t *pairs;  /* (n_batch, n_used) number of each pair */
    uint32_t *rows;   /* (n_batch * n_used) row of the batch of each pair */
    uint32_t *ends;   /* (n_experts) pairs up to and with those of each expert */
    uint32_t *order;  /* (n_experts) of which n_chosen that have pairs, as they are computed */
    uint32_t n_chosen;
    uint32_t
        *unit_ends; /* (n_chosen + 1) units of gate and up in that order; then the shared one's */
    float *input_store;     /* (n_batch * n_used, dim) of pairs, only where they take float32 */
    float *hidden_store;    /* (n_batch * n_used, hidden_dim of experts), likewise */
    float *shared_weights;  /* (n_batch) of what all rows go through */
    lld_input input;        /* (n_batch * n_used, dim) the rows of the pairs */
    lld_input hidden_input; /* (n_batch * n_used, hidden_dim of experts) */
} lld_routing;

/* What one thread alone writes. */
typedef struct lld_thread_scratch {
    void *matmul;                  /* lld_kernels_scratch_bytes of the longest row */
    float *row;                    /* (max_cols) a normalized row, when each thread makes its own */
    lld_acts forms[LLD_ACT_COUNT]; /* (2, max_cols) of that row: its two levels */
    lld_acts first_tokens[LLD_ACT_COUNT]; /* (n_first_tokens, max_cols) their second levels */
    lld_input input;                      /* of this phase */
    lld_input hidden;                     /* of this layer's down matrix: scratch's, in its shape */
    lld_input pairs;                      /* of this layer's experts: those of its gate and up */
    lld_input pairs_hidden;               /* and of its down: routing's, in their shape */
    float *expert_out;                    /* (n_batch * (n_used + 1), LLD_EXPERT_CHUNK_ROWS) */
    float *rest;                          /* (max_cols) what the first level lost */
    float *correction; /* (tile_cols, chunk of rows) the second level's product */
    float *gate, *up;  /* (tile_cols, hidden_chunk) */
    lld_attention_scratch attention;
} lld_thread_scratch;

/* The first dimension is the batch's row. What differs from layer to layer has room for the largest. */
typedef struct lld_scratch {
    uint32_t max_cols;       /* longest matrix row */
    uint32_t hidden_chunk;   /* rows of gate and up that one unit makes */
    uint32_t n_first_tokens; /* LLD_FIRST_TOKENS; 0 unless the model is an encoder: a batch of
                              * others begins few sequences */
    float *x;                /* (n_batch, dim) residual stream */
    float *q;                /* (n_batch, n_heads * head_dim) of this layer, as below */
    float *k, *v;            /* (n_batch, n_kv_heads * head_dim) */
    float *attended; /* (n_batch, n_heads * head_dim), or what another mixer made: mixed_cols */
    float *
        projected; /* (n_batch, projected_cols) what a mixer without attention begins with, or what a
                          * guess joins: (n_batch, 2 * dim) */
    float *work;   /* (n_batch, dim) a matrix product, or normalized rows */
    float *mixed;  /* (n_batch, dim) of the mixer, only where the halves are parallel */
    float *hidden; /* (n_batch, hidden_dim), only where a down matrix takes float32
                          * (takes_hidden), or adapters have room */
    bool takes_hidden;
    float *low_rank;     /* (LLD_PHASE_PRODUCTS_MAX, n_batch, max_rank) of adapter.h, or NULL */
    uint32_t max_rank;   /* of adapters; 0: rows have none */
    float *cos_sin;      /* (n_batch, n_tables, lld_rope_stride) */
    float *ones;         /* (head_dim) the weights of a norm without weights */
    float *layer_inputs; /* (n_batch, n_layers, layer_input_dim) */
    float *layer_gate;   /* (n_batch, layer_input_dim) of this layer */
    float *logits;       /* (n_logits, vocab_size) */
    float *guess_x;      /* (n_batch, dim) x of the layer that guesses; dim 0 where there is none */
    float *left; /* (n_logits, dim) behind the last norm, of the rows with logits, likewise */
    double *rank_hidden; /* (dim) of lld_rank_row, where the model has such a part */
    double *frequencies; /* (n_tables, lld_rope_stride / 2) radians a token */
    float rope_magnitude;
    lld_input input;             /* (n_batch, max(dim, n_heads * head_dim)) */
    lld_input hidden_input;      /* (n_batch, hidden_dim) */
    lld_routing routing;         /* of this layer, where one has experts */
    lld_thread_scratch *threads; /* (n_threads) */
} lld_scratch;

/* Columns that the output matrix of a mixer without attention reads, and that its input products make;
 * 0 where every layer attends. */
static inline size_t lld_mixed_cols(const lld_config *c)
{
    if (c->architecture->facts.has_delta_net) return (size_t)c->delta_v_heads * c->delta_dim;
    if (c->ssm_heads > 0) return lld_ssm_inner(c);
    return c->conv_width > 0 ? c->dim : 0;
}
/* What a guess joins; 0 where nothing guesses. */
static inline size_t lld_joined_cols(const lld_config *c)
{
    return c->n_guess_layers > 0 ? 2 * (size_t)c->dim : 0;
}
static inline size_t lld_projected_cols(const lld_config *c)
{
    if (c->ssm_heads > 0) return lld_ssm_projected(c);
    if (!c->architecture->facts.has_delta_net) return 3 * lld_mixed_cols(c);
    const size_t delta = lld_delta_channels(c) + lld_mixed_cols(c) + 2 * c->delta_v_heads,
                 gated = 2 * (size_t)c->n_heads * c->head_dim, /* queries and their gates */
        joined = lld_joined_cols(c), most = delta > gated ? delta : gated;
    return joined > most ? joined : most;
}

#endif
