/* forward.h - one pass of a batch of rows through the model.
 *
 * Four things stay apart: the immutable model, its kernels, KV cache and states, and the scratch here, all
 * of it taken at create. A layer is six phases with one barrier each:
 *   1. norm, quantize, QKV          4. Wo, residual
 *   2. RoPE, store in the cache     5. norm, gate and up, activation, quantize
 *   3. attention                    6. down, residual
 * Where the halves of a layer are parallel, 4 adds nothing yet and 6 adds both.
 * Layers without attention have other first phases, see their mixer's file.
 * A norm behind the mixer or the feed-forward, in families that have one, is a phase more.
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

#include "base/threads.h"
#include "engine/batch.h"
#include "engine/importance.h"
#include "engine/scratch.h"
#include "engine/states.h"
#include "model/residency.h"

typedef struct lld_forward {
    const lld_model *model;
    const lld_kernels *kernels;
    lld_pool *pool;
    lld_kv_cache *cache;
    const lld_states *states;
    uint32_t n_threads;
    atomic_int *cancel;
    atomic_ullong *progress; /* layers, chunks of the output matrix and streamed extents finished */
    lld_reading reading;     /* of what is not in memory in this pass */
    lld_importance *importance; /* collects the inputs of products; NULL: nothing does */
    lld_attention attention;
    lld_scratch scratch;
    lld_batch batch;
    const uint32_t
        *guess_rows;     /* (n_rows) of a guess: the row of scratch.left that each begins with */
    const float *main_x; /* (n_rows, dim) while the layer that guesses runs behind a forward */
    int stop;            /* cancelled: written by thread 0 before a layer's last barrier */
} lld_forward;

/* Lay the scratch out in the arena (see acts.h: called once to count, once to place). model,
 * kernels, cache, n_threads and the limits of the batch are set before. */
void lld_forward_alloc(lld_arena *arena, lld_forward *forward);
/* Whether RoPE is that of contexts longer than the model was trained with. The engine's context decides
 * it, once, so that a token's keys are the same whatever follows it. */
bool lld_forward_has_long_rope(const lld_forward *forward);
/* Fill what does not depend on the batch. */
void lld_forward_prepare(lld_forward *forward);
/* Run the batch. LLD_OK, LLD_ERR_CANCELLED when the flag was seen, or LLD_ERR_FAULT when weights could
 * not be read. */
int lld_forward_run(lld_forward *forward);

/* Run the batch, of one row each, through the layer that guesses (guess.c); guess_rows is set. */
void lld_guess_run(lld_forward *forward);
/* Behind a forward: store the layer's keys and values of its rows, and what guesses and later runs begin
 * with. */
void lld_guess_store(lld_forward *forward);

/* The parts of a forward that a guess has, too; they take `thread`. The tables of RoPE for a row; logits of
 * the kept rows of x. */
void lld_rope_row(lld_forward *forward, size_t row);
void lld_logits_run(lld_forward *forward, unsigned thread, const lld_matrix *output,
                    const lld_norm *norm);

#endif
