/* llamad_engine.h - the public interface of the engine: files, models, steps.
 *
 * Owns, with llamad_sampling.h, which it includes: every name a program outside native/src may use. The part between "cffi: begin" and
 * "cffi: end" is cut out by native/ffi_build.py and is the cdef of the Python bindings, so it holds
 * plain C declarations only.
 *
 * Rules: functions that can fail return an lld_status and leave one line in lld_error_message() of
 * the calling thread. Nothing here prints, exits or aborts. A handle may be used by one thread at a
 * time, except where a function says otherwise. All memory is taken in the create functions.
 */
#ifndef LLAMAD_ENGINE_H
#define LLAMAD_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

/* cffi: begin */

/* ---- status ---------------------------------------------------------------------------------- */

typedef enum lld_status {
    LLD_OK = 0,
    LLD_ERR_IO = 1,          /* the file could not be opened, read or mapped */
    LLD_ERR_CORRUPT = 2,     /* the file breaks its own format */
    LLD_ERR_UNSUPPORTED = 3, /* a valid file that this engine does not implement */
    LLD_ERR_INVALID = 4,     /* an argument is outside its range */
    LLD_ERR_MEMORY = 5,      /* memory could not be allocated or locked */
    LLD_ERR_CANCELLED = 6,   /* lld_engine_cancel was called */
    LLD_ERR_FAULT = 7,       /* the mapped file lost pages (cut, I/O error): the model is dead */
    LLD_ERR_NUMERIC = 8      /* logits are NaN or infinite: broken weights */
} lld_status;

/* One line for the last failure on this thread: names the thing, the fault and the limit. Never
 * NULL. */
const char *lld_error_message(void);

const char *lld_version(void);

/* ---- CPU and kernels ------------------------------------------------------------------------- */

/* The kernel set that `cpu` selects on this machine: "generic", "avx2", "neon" or "dotprod".
 * cpu: comma-separated names of the sets that may be used, or NULL for $LLAMAD_CPU, or else all.
 * NULL with a message when a name is unknown. The string is static. */
const char *lld_cpu_kernel_set(const char *cpu);

/* ---- GGUF file ------------------------------------------------------------------------------- */

typedef struct lld_file lld_file; /* an open, mapped and parsed GGUF file */

/* GGUF specification, "gguf_metadata_value_type". */
typedef enum lld_gguf_type {
    LLD_GGUF_UINT8 = 0,
    LLD_GGUF_INT8 = 1,
    LLD_GGUF_UINT16 = 2,
    LLD_GGUF_INT16 = 3,
    LLD_GGUF_UINT32 = 4,
    LLD_GGUF_INT32 = 5,
    LLD_GGUF_FLOAT32 = 6,
    LLD_GGUF_BOOL = 7,
    LLD_GGUF_STRING = 8,
    LLD_GGUF_ARRAY = 9,
    LLD_GGUF_UINT64 = 10,
    LLD_GGUF_INT64 = 11,
    LLD_GGUF_FLOAT64 = 12
} lld_gguf_type;

typedef struct lld_kv {    /* one metadata entry; the pointers point into the mapped file */
    const char *key;       /* UTF-8, not terminated */
    size_t key_length;     /* bytes */
    uint32_t type;         /* lld_gguf_type */
    uint32_t element_type; /* of an array; else equal to type */
    uint64_t count;        /* elements of an array; else 1 */
    const uint8_t *data;   /* little-endian values; a string is its bytes; an array of strings is
                              (uint64 length, bytes) repeated, each inside the file */
    size_t data_bytes;
} lld_kv;

typedef struct lld_tensor { /* one tensor; checked to lie inside the file */
    const char *name;       /* UTF-8, not terminated */
    size_t name_length;
    uint32_t type;        /* GGML type id */
    uint32_t n_dims;      /* 1..4 */
    uint64_t dims[4];     /* dims[0] = row length (the fastest dimension); unused ones are 1 */
    uint64_t file_offset; /* bytes from the start of the file */
    uint64_t bytes;
    const uint8_t *data;
} lld_tensor;

int lld_file_open(const char *path, lld_file **out);
void lld_file_close(lld_file *file);
uint32_t lld_file_version(const lld_file *file);
uint64_t lld_file_bytes(const lld_file *file);
size_t lld_file_n_kv(const lld_file *file);
size_t lld_file_n_tensors(const lld_file *file);
int lld_file_kv(const lld_file *file, size_t index, lld_kv *out);
int lld_file_tensor(const lld_file *file, size_t index, lld_tensor *out);

/* "Q4_0" and so on for a GGML type id; NULL when this engine does not know it. */
const char *lld_type_name(uint32_t type);

/* Weights of one block; 0 for a type that is not supported. */
size_t lld_type_block(uint32_t type);

/* Dequantize one row of n elements. n must be a multiple of the type's block, and src_bytes the
 * size of such a row. src is aligned to 2 bytes. dst: (n) float32. */
int lld_dequantize(uint32_t type, const void *src, size_t src_bytes, size_t n, float *dst);

/* Quantize n_rows rows of n_cols weights to `type`, in dst: n_rows rows of lld_type_row_bytes. src:
 * (n_rows, n_cols) float32. importance: (n_cols) weights >= 0 of the squared errors of each column,
 * or NULL; formats without a search (F32 F16 BF16 Q8_0) ignore it. dst is aligned to 2 bytes. The
 * bytes are the same for every n_threads (1..64) and machine. LLD_ERR_NUMERIC names the row and
 * column of the first weight that is NaN, infinite or beyond the type's range; dst is then
 * undefined. */
int lld_quantize(uint32_t type, const float *src, size_t n_rows, size_t n_cols,
                 const float *importance, void *dst, uint32_t n_threads);

/* The same from rows of any supported type, as they lie in a GGUF file. */
int lld_requantize(uint32_t src_type, const void *src, uint32_t type, size_t n_rows, size_t n_cols,
                   const float *importance, void *dst, uint32_t n_threads);

/* Bytes of a row of n_cols weights; 0 for a type that is not supported or n_cols that is no
 * multiple of its block. */
size_t lld_type_bytes(uint32_t type, size_t n_cols);

/* ---- model ----------------------------------------------------------------------------------- */

typedef struct lld_model lld_model; /* a mapped model: immutable hyperparameters and weights */

typedef struct lld_model_info {
    char architecture[32];
    uint32_t n_layers, dim, hidden_dim, n_heads, n_kv_heads, head_dim, vocab_size, n_ctx_train;
    uint64_t file_bytes;     /* size of the file */
    uint64_t weight_bytes;   /* bytes of all tensors used by forward */
    uint64_t streamed_bytes; /* bytes of weights read for one decoded token */
    uint64_t kv_bytes_per_token_f16, kv_bytes_per_token_q8_0, kv_bytes_per_token_q4_0;
    uint64_t state_bytes; /* of one sequence, in layers that have a state; 0: every layer attends */
    uint32_t n_guess_layers; /* 1: lld_engine_guess has a layer to guess with */
    uint32_t is_encoder;     /* 1: no logits; every token sees its whole text, which is one run */
    uint32_t n_rank_scores;  /* of a model that ranks texts, see lld_engine_rank; 0: it does not */
    uint32_t n_experts,
        n_experts_used; /* of a layer, and of those for a token; 0: there are none */
} lld_model_info;

/* guesses: use the file's layer that guesses tokens, if it has one, for lld_engine_guess. It takes its
 * weights, which stay in memory, its part of each KV block, and dim floats of each state. */
int lld_model_open(const char *path, bool guesses, lld_model **out);
void lld_model_close(lld_model *model); /* after every engine that uses it is destroyed */
const lld_file *lld_model_file(const lld_model *model);
void lld_model_get_info(const lld_model *model, lld_model_info *out);

/* Copy the weights into anonymous memory with transparent huge pages, in place of the mapped file:
 * the memory is no longer reclaimable, but reads faster (1.1x to 1.35x on x86-64). Before any
 * engine runs. *stop as for lld_model_set_residency. */
int lld_model_use_huge_pages(lld_model *model, const volatile int32_t *stop);

/* Bytes per second at which n_threads read from memory what stays there of the file, over at least
 * 0.25 s; 0 when that is less than a MiB. While no residency is set. */
int lld_model_read_bandwidth(const lld_model *model, uint32_t n_threads, double *bytes_per_second);

/* ---- residency: what of a model stays in memory ------------------------------------------------ */

typedef enum lld_role {
    LLD_ROLE_VECTOR = 0,    /* norms, biases, all of a layer that guesses: always resident */
    LLD_ROLE_ATTENTION = 1, /* matrices of a mixer */
    LLD_ROLE_FEED = 2,      /* matrices of a feed-forward */
    LLD_ROLE_EXPERT = 3,    /* matrices that only some rows use */
    LLD_ROLE_OUTPUT = 4,    /* the output matrix, also where it is the embedding's */
    LLD_ROLE_EMBEDDING = 5  /* a row for each token of a step, never the whole */
} lld_role;

/* Consecutive bytes of the model file that stay in memory, or are streamed, together: a vector, or
 * consecutive rows of a matrix, of at most 2 MiB (or of the fewest rows that are read at once). */
typedef struct lld_extent {
    uint64_t file_offset, bytes;
    int32_t layer;   /* -1: of no layer */
    int32_t expert;  /* of LLD_ROLE_EXPERT: which of its layer's; else -1 */
    uint32_t role;   /* lld_role */
    uint32_t n_rows; /* of its matrix; 1 for a vector */
} lld_extent;

/* Extents of the model, in the order in which a step uses them; vectors first. */
size_t lld_model_n_extents(const lld_model *model);
int lld_model_extent(const lld_model *model, size_t index, lld_extent *out);

/* What stays in memory. An extent that is not resident is streamed: read from the disk in every
 * step, once, ahead of its use, into a ring. Of the embedding the rows in use are read instead. An expert
 * of which an extent is not resident is read when a step chooses it, into one of expert_slots, where it
 * stays until a step needs the slot for another; those that are used most stay longest. */
typedef struct lld_residency {
    const uint8_t *resident; /* (n_extents) 1 or 0; 1 for vectors */
    size_t n_extents;        /* lld_model_n_extents */
    uint64_t ring_bytes; /* if any streams: three times the longest of them and 8 KiB, or more */
    uint64_t lock_bytes; /* most bytes to mlock: the ring first, slots, then as the file has them */
    uint32_t expert_slots; /* if any expert is read so: as many as a layer has of those, or more */
} lld_residency;

/* Make a residency true: give back what is resident no more, read the rest from the disk in large
 * pieces and lock it. Before the first call everything is mapped, as after one with everything
 * resident, but not read. Takes effect between two steps: it waits for the step that runs, and any
 * thread may call it, one at a time. What is given back leaves memory at once. *stop (may be NULL) is
 * polled: nonzero ends the work early with LLD_ERR_CANCELLED; the residency is then in effect, but
 * not all that is resident was read or locked.
 * Locking fewer bytes than there are is not an error (RLIMIT_MEMLOCK, no memory): lld_error_message() then
 * holds the reason, else an empty line. */
int lld_model_set_residency(lld_model *model, const lld_residency *residency,
                            const volatile int32_t *stop);

/* What is in effect, and what was read since the model was opened. */
typedef struct lld_residency_info {
    uint64_t resident_bytes;  /* of the extents that stay, and of experts that slots hold */
    uint64_t streamed_bytes;  /* of those that every step reads; not those of the embedding */
    uint64_t locked_bytes;    /* whole pages, the ring not included */
    uint64_t populated_bytes; /* of the resident, in the last call; pages that were there, too */
    uint64_t ring_bytes;
    uint64_t read_bytes; /* for steps, experts included: whole pages from the disk */
    uint64_t passes;     /* steps to their end that could read weights */
    double read_seconds; /* of the reads: read_bytes / read_seconds is the disk's speed */
    double wait_seconds; /* of those, in which a step could not go on */
    uint64_t expert_uses, expert_hits; /* experts that steps chose, and found in a slot */
    uint64_t expert_read_bytes;        /* of read_bytes */
    uint64_t expert_guesses,
        expert_guesses_right; /* of what the next layer chooses, not in memory */
    uint32_t expert_slots;
    uint32_t direct; /* 1: past the page cache (O_DIRECT); 0: where the file system refuses that */
} lld_residency_info;

/* Any thread. */
void lld_model_get_residency(const lld_model *model, lld_residency_info *out);

/* ---- engine ---------------------------------------------------------------------------------- */

typedef struct lld_engine lld_engine; /* threads, scratch and KV cache over one model */

typedef enum lld_kv_type { LLD_KV_F16 = 0, LLD_KV_Q8_0 = 1, LLD_KV_Q4_0 = 2 } lld_kv_type;

typedef struct lld_engine_params {
    uint32_t n_threads; /* 1..64, the calling thread included */
    uint32_t n_ctx;     /* most tokens in one sequence, 1..2^20 */
    uint32_t n_blocks;  /* of the KV cache, ids 0..n_blocks-1, up to 2^23; 0 = those of n_ctx */
    uint32_t n_local_blocks; /* likewise, for layers with a window if any; 0 = n_blocks */
    uint32_t n_batch;        /* most rows in one forward, 1..4096 */
    uint32_t n_logits;       /* most rows of logits kept from one forward, 1..n_batch */
    uint32_t kv_type;        /* lld_kv_type */
    uint32_t n_states; /* slots, ids 0..n_states-1, up to 2^16, if layers have a state; 0 = one */
    const char *cpu;   /* as for lld_cpu_kernel_set */
} lld_engine_params;

/* What lld_engine_create allocates for a model and params, to the byte. Beside it a thread's stack
 * has a few pages in use. */
typedef struct lld_engine_sizes {
    uint32_t n_blocks, n_local_blocks, kv_block_tokens;
    uint32_t kv_window; /* tokens that such a layer sees, its own included; 0: there is none */
    uint64_t kv_block_bytes, kv_local_block_bytes;
    uint64_t kv_bytes;      /* of all blocks; a block takes memory when it is first used */
    uint64_t scratch_bytes; /* logits included; all of it takes memory at create */
    uint32_t n_states;
    uint64_t state_bytes; /* of a slot, which takes memory when it is first used */
} lld_engine_sizes;

/* Fails as lld_engine_create would for these params. */
int lld_engine_bytes(const lld_model *model, const lld_engine_params *params,
                     lld_engine_sizes *out);

typedef struct lld_engine_info {
    uint64_t kv_bytes, scratch_bytes; /* allocated */
    uint64_t kv_block_bytes, kv_local_block_bytes;
    uint32_t kv_block_tokens, kv_blocks_total, kv_local_blocks_total, kv_window, n_states;
    uint32_t n_threads;
    uint32_t long_rope; /* 1: LongRoPE with the factors for long contexts, as n_ctx asked for */
    const char *kernel_set;
} lld_engine_info;

int lld_engine_create(lld_model *model, const lld_engine_params *params, lld_engine **out);
void lld_engine_destroy(lld_engine *engine);
void lld_engine_get_info(const lld_engine *engine, lld_engine_info *out);

/* ---- adapters -------------------------------------------------------------------------------- */

/* What a file of low-rank adapters (GGUF, general.type "adapter", adapter.type "lora") adds to the
 * matrices of a model: W x becomes W x + scale * alpha / rank * B (A x). It is read whole. */
typedef struct lld_adapter lld_adapter;

typedef struct lld_adapter_info {
    uint64_t bytes;    /* of memory; what the file has as Q8_0 is kept as F32 */
    uint32_t n_pairs;  /* tensors of the model that it changes */
    uint32_t max_rank; /* 1..256 */
    float alpha;       /* 0: the file has none, and alpha / rank is 1 */
} lld_adapter_info;

/* Refused, naming tensor or key: another architecture or shape than the model's, a tensor that the model
 * has not or that adapters do not reach (embeddings, experts, norms), half of a pair, a type other than F32,
 * F16, BF16 and Q8_0, a number that is not finite, and what is no low-rank adapter. Any thread. */
int lld_adapter_open(const lld_model *model, const char *path, lld_adapter **out);
/* While no step names it, before the model is closed. NULL: nothing. */
void lld_adapter_close(lld_adapter *adapter);
void lld_adapter_get_info(const lld_adapter *adapter, lld_adapter_info *out);

/* Room for adapters of at most max_rank (0..256) in the steps of an engine, which create leaves out: its
 * bytes for params, and to take it, in place of what it had. Between forwards. */
int lld_engine_adapter_bytes(const lld_model *model, const lld_engine_params *params,
                             uint32_t max_rank, uint64_t *bytes);
int lld_engine_reserve_adapters(lld_engine *engine, uint32_t max_rank);

/* ---- a step ---------------------------------------------------------------------------------- */

/* Consecutive tokens of one sequence. What a sequence is, which blocks it has and how many tokens of
 * it are in them, the caller knows: the engine keeps blocks, not sequences. */
typedef struct lld_run {
    const int32_t *tokens;  /* (n_tokens) */
    uint32_t n_tokens;      /* >= 1 */
    uint32_t position;      /* of tokens[0]; what lies before it is in the blocks already */
    const uint32_t *blocks; /* (n_blocks) ids in position order, 32 tokens each */
    uint32_t n_blocks; /* >= ceil((position + n_tokens) / 32); those beyond are not looked at */
    uint32_t n_out; /* the logits of the last n_out tokens are kept; 0..n_tokens; 0 of an encoder,
                          whose runs begin at position 0 */
    /* Slots of states, where the model has layers with one: that before tokens[0], which is not looked
     * at when position is 0, and that behind the last token. The same: it changes in place. */
    uint32_t state_in, state_out;
    /* (n_blocks) ids of local blocks likewise; those before the window of tokens[0] are not looked
     * at. NULL: the same ids as blocks. */
    const uint32_t *local_blocks;
    /* Of this model, for all tokens, or NULL; not looked at by lld_engine_guess. The engine has room for
     * its rank. adapter_scale: finite; a factor of what the adapter adds. */
    const lld_adapter *adapter;
    float adapter_scale;
} lld_run;

/* Run the tokens of all runs through the model, in one step of at most n_batch tokens. A run writes
 * the blocks of its tokens' positions and reads those before. A block that a run writes no other
 * run of the step may name, except one that continues it: the same pointers to blocks, directly
 * behind it in the array, its position where the other ends (so that logits and states inside a prompt
 * can be kept). Of a model with states it also begins with the state that the other ends with. A slot
 * that a run writes only those that continue it may name, too. The kept logits are rows 0, 1, ... of
 * lld_engine_logits(), in the order of the runs, until the next forward.
 *
 * A step that is refused (LLD_ERR_INVALID) changes no block. One that fails or is cancelled has
 * changed no position before those of its runs: with the same tokens it can be run again. But a state
 * that it would have written is then undefined. */
int lld_engine_forward(lld_engine *engine, const lld_run *runs, size_t n_runs);

/* Guess the token behind each run with the layer that the model was opened with for that. A run is one
 * token, with n_out 1, at a position above 0; rows: (n_runs) for each the kept row of the last forward or
 * guess that the token was drawn from. Kept are then the logits of the guesses, in the order of the runs,
 * which go on in the same way. It writes the layer's part of the blocks at the tokens' positions, which no
 * sequence may have computed yet; states are not looked at. No answer depends on it: a forward of the
 * same tokens writes there what belongs there. It cannot be cancelled. */
int lld_engine_guess(lld_engine *engine, const lld_run *runs, const uint32_t *rows, size_t n_runs);

/* Kept row k of the last forward or guess: (vocab_size) float32, or NULL beyond the kept rows. */
const float *lld_engine_logits(const lld_engine *engine, size_t k);

/* Add rows first_row .. first_row + n_rows - 1 of the last forward to sums: (dim) double; rows count
 * all tokens of its runs, in their order. A row is what the last layer left, behind the model's last
 * norm: what an embedding is pooled from. Between forwards. */
int lld_engine_add_rows(lld_engine *engine, size_t first_row, size_t n_rows, double *sums,
                        size_t n_sums);

/* What a model that ranks texts says of one: out = output(tanh(dense(row))), without the inner part where
 * the file has none. row: (n_row) of dim numbers, as lld_engine_add_rows made them of one token's row.
 * scores: (n_scores) of n_rank_scores. LLD_ERR_INVALID for other lengths. */
int lld_engine_rank(lld_engine *engine, const double *row, size_t n_row, double *scores,
                    size_t n_scores);

/* The cancel flag, read between layers. Any thread may set it. lld_engine_forward fails with
 * LLD_ERR_CANCELLED while it is set; the caller clears it, before it composes a step. */
void lld_engine_cancel(lld_engine *engine);
void lld_engine_cancel_clear(lld_engine *engine);

/* Layers that forwards have finished since create, chunks of the output matrix (of one thread) and
 * extents that streamed. Any thread: while a forward runs and this does not move, it hangs. */
uint64_t lld_engine_progress(const lld_engine *engine);

/* Read or write the bytes of a block, or of a local one, all of them, in the engine's own layout: they
 * fit the same model, kv_type and version only. Between forwards. */
int lld_block_read(const lld_engine *engine, bool local, uint32_t block, void *dst, size_t n_bytes);
int lld_block_write(lld_engine *engine, bool local, uint32_t block, const void *src,
                    size_t n_bytes);
/* Read or write the state in a slot, of n_bytes = state_bytes of the model's info; as blocks are. */
int lld_state_read(const lld_engine *engine, uint32_t slot, void *dst, size_t n_bytes);
int lld_state_write(lld_engine *engine, uint32_t slot, const void *src, size_t n_bytes);

/* ---- importance ------------------------------------------------------------------------------ */

typedef struct lld_importance lld_importance; /* sums over the inputs of every matrix of a model */

/* What is multiplied: matrices that share an input share its sums. Each expert of a mixture has sums of
 * its own, over the rows that chose it. */
typedef enum lld_importance_input {
    LLD_IMPORTANCE_QKV = 0,             /* what a mixer reads, attn_q, ssm_in, ...: (dim) */
    LLD_IMPORTANCE_ATTN_OUTPUT = 1,     /* attn_output, ssm_out, ...: (its n_cols) */
    LLD_IMPORTANCE_GATE_UP = 2,         /* ffn_gate, ffn_up, or of a shared expert: (dim) */
    LLD_IMPORTANCE_DOWN = 3,            /* ffn_down, or of a shared expert: (its hidden_dim) */
    LLD_IMPORTANCE_EXPERTS_GATE_UP = 4, /* ffn_gate_exps, ffn_up_exps: (dim) */
    LLD_IMPORTANCE_EXPERTS_DOWN = 5,    /* ffn_down_exps: (an expert's hidden_dim) */
    LLD_IMPORTANCE_OUTPUT = 6,          /* the output matrix: (dim); of kept rows only, layer 0 */
    LLD_IMPORTANCE_INPUTS = 7
} lld_importance_input;

/* n_threads: at least those of the engines that collect. */
int lld_importance_create(const lld_model *model, uint32_t n_threads, lld_importance **out);
/* After the engine that collects into it is destroyed, or collects no more. */
void lld_importance_destroy(lld_importance *importance);

/* From the next forward on, add every row to `importance`, which no other engine collects into; NULL
 * ends it. A forward that is cancelled has added the rows of the layers before. */
int lld_engine_collect(lld_engine *engine, lld_importance *importance);

/* Matrices of a layer that have sums of their own of an input: its experts, or 1; 0 for an input that does
 * not exist. */
uint32_t lld_importance_matrices(const lld_importance *importance, uint32_t layer,
                                 lld_importance_input input);

/* Columns of an input in its layer; 0 for one that does not exist. */
size_t lld_importance_cols(const lld_importance *importance, uint32_t layer,
                           lld_importance_input input);

/* Sums so far, while no forward runs: sums: (n_cols) sums of squares over *n_rows rows. matrix: which of
 * lld_importance_matrices. */
int lld_importance_read(const lld_importance *importance, uint32_t layer,
                        lld_importance_input input, uint32_t matrix, double *sums, size_t n_cols,
                        uint64_t *n_rows);

/* cffi: end */

#include "llamad_sampling.h"

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
