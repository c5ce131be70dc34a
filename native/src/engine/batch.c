/* batch.c - see batch.h. */
#include "engine/batch.h"

#include <inttypes.h>

#include "base/status.h"

void lld_batch_alloc(lld_arena *arena, lld_batch *b)
{
    size_t rows = b->n_batch;
    b->tokens = lld_arena_alloc(arena, rows, sizeof *b->tokens);
    b->positions = lld_arena_alloc(arena, rows, sizeof *b->positions);
    b->row_run = lld_arena_alloc(arena, rows, sizeof *b->row_run);
    b->runs = lld_arena_alloc(arena, rows, sizeof *b->runs);
    b->chains = lld_arena_alloc(arena, rows, sizeof *b->chains);
    b->slots = lld_arena_alloc(arena, b->n_states, sizeof *b->slots);
    b->kept = lld_arena_alloc(arena, b->n_logits, sizeof *b->kept);
    b->marks = lld_arena_alloc(arena, b->n_blocks, sizeof *b->marks);
    b->local_marks = lld_arena_alloc(arena, b->n_local_blocks, sizeof *b->local_marks);
}

static int check_counts(const lld_batch *b, size_t i, const lld_run *r)
{
    if (r->tokens == NULL || r->blocks == NULL)
        return lld_fail(LLD_ERR_INVALID, "run %zu: no tokens or no blocks", i);
    if (r->n_tokens < 1 || r->n_tokens > b->n_batch - b->n_rows)
        return lld_fail(LLD_ERR_INVALID,
                        "run %zu: %" PRIu32 " tokens behind %zu, a step takes 1 to %" PRIu32, i,
                        r->n_tokens, b->n_rows, b->n_batch);
    if (r->position >= b->n_ctx || r->n_tokens > b->n_ctx - r->position)
        return lld_fail(LLD_ERR_INVALID,
                        "run %zu: %" PRIu32 " tokens at position %" PRIu32
                        ", context holds %" PRIu32,
                        i, r->n_tokens, r->position, b->n_ctx);
    if (r->n_blocks < lld_kv_blocks_for((uint64_t)r->position + r->n_tokens))
        return lld_fail(LLD_ERR_INVALID,
                        "run %zu: %" PRIu32 " blocks of %d tokens, position %" PRIu32
                        " is beyond them",
                        i, r->n_blocks, LLD_KV_BLOCK, r->position + r->n_tokens - 1);
    if (b->whole_runs && (r->position > 0 || r->n_out > 0))
        return lld_fail(LLD_ERR_INVALID,
                        "run %zu: begins at position %" PRIu32 " and keeps %" PRIu32
                        " logits: an encoder's begins at 0 and keeps none",
                        i, r->position, r->n_out);
    if (r->n_out > r->n_tokens)
        return lld_fail(LLD_ERR_INVALID,
                        "run %zu: logits of %" PRIu32 " tokens are wanted, it has %" PRIu32, i,
                        r->n_out, r->n_tokens);
    if (r->n_out > b->n_logits - b->n_kept)
        return lld_fail(LLD_ERR_INVALID,
                        "run %zu: %" PRIu32 " rows of logits behind %zu, a step keeps %" PRIu32, i,
                        r->n_out, b->n_kept, b->n_logits);
    return LLD_OK;
}

/* Without ids of their own, local blocks have those of the blocks. */
static const uint32_t *local_blocks(const lld_run *r)
{
    return r->local_blocks == NULL ? r->blocks : r->local_blocks;
}

/* Whether run i goes on where the one before it ends, so that both are runs of one sequence. */
static bool continues(const lld_batch *b, size_t i, const lld_run *r)
{
    if (i == 0) return false;
    const lld_batch_run *last = &b->runs[i - 1];
    return r->blocks == last->blocks && local_blocks(r) == last->local_blocks &&
           r->position == last->position + last->n_rows;
}

/* Blocks of one pool that a run uses: ids[first] and on. */
typedef struct block_use {
    const char *name;
    const uint32_t *ids;
    uint32_t first;
    uint64_t *marks;
    uint32_t n; /* that there are */
} block_use;

/* Mark the blocks of a run; a block that is written must be named once in a step. */
static int mark_pool(lld_batch *b, size_t i, const lld_run *r, const block_use *use)
{
    const uint32_t first_written = r->position / LLD_KV_BLOCK;
    const uint32_t n_blocks = lld_kv_blocks_for((uint64_t)r->position + r->n_tokens);
    const uint32_t n_marked = continues(b, i, r) ? lld_kv_blocks_for(r->position) : 0;
    const uint64_t reads = 2 * b->step, writes = reads + 1;
    for (uint32_t k = n_marked > use->first ? n_marked : use->first; k < n_blocks; k++) {
        const uint32_t id = use->ids[k];
        if (id >= use->n)
            return lld_fail(LLD_ERR_INVALID,
                            "run %zu: %s %" PRIu32 " is %" PRIu32 ", must be below %" PRIu32, i,
                            use->name, k, id, use->n);
        if (use->marks[id] >= reads && (k >= first_written || use->marks[id] == writes))
            return lld_fail(LLD_ERR_INVALID,
                            "run %zu: %s %" PRIu32 " is written and named twice in one step", i,
                            use->name, id);
        use->marks[id] = k >= first_written ? writes : reads;
    }
    return LLD_OK;
}

static int mark_blocks(lld_batch *b, size_t i, const lld_run *r)
{
    const block_use blocks = {"block", r->blocks, 0, b->marks, b->n_blocks};
    int status = mark_pool(b, i, r, &blocks);
    if (status != LLD_OK || b->window == 0) return status;
    const uint32_t seen = lld_kv_window_start(r->position, b->window); /* by the first row */
    const block_use local = {"local block", local_blocks(r), seen / LLD_KV_BLOCK, b->local_marks,
                             b->n_local_blocks};
    return mark_pool(b, i, r, &local);
}

/* Name a slot in the chain that is composed; one that is written belongs to one chain in a step. */
static int use_slot(lld_batch *b, size_t i, const char *name, uint32_t id, bool writes)
{
    const uint32_t chain = (uint32_t)b->n_chains - 1;
    if (id >= b->n_states)
        return lld_fail(LLD_ERR_INVALID, "run %zu: %s is %" PRIu32 ", must be below %" PRIu32, i,
                        name, id, b->n_states);
    lld_slot_use *slot = &b->slots[id];
    if (slot->step != b->step) *slot = (lld_slot_use){.step = b->step, .chain = chain};
    if (slot->chain != chain && (writes || slot->written))
        return lld_fail(LLD_ERR_INVALID,
                        "run %zu: state %" PRIu32 " is written and named twice in one step", i, id);
    slot->written = slot->written || writes;
    return LLD_OK;
}

/* Add a run to the chain of the one that it continues, or begin one; check the states it names. */
static int add_states(lld_batch *b, size_t i, const lld_run *r)
{
    const bool goes_on = continues(b, i, r);
    if (goes_on)
        b->chains[b->n_chains - 1].n_runs++;
    else
        b->chains[b->n_chains++] = (lld_batch_chain){.first_run = (uint32_t)i, .n_runs = 1};
    if (b->n_states == 0 || b->guesses) return LLD_OK;
    if (goes_on && r->state_in != b->runs[i - 1].state_out)
        return lld_fail(LLD_ERR_INVALID,
                        "run %zu: begins with state %" PRIu32
                        ", the run it continues leaves %" PRIu32,
                        i, r->state_in, b->runs[i - 1].state_out);
    int status = LLD_OK;
    if (r->position > 0) status = use_slot(b, i, "state_in", r->state_in, false);
    if (status == LLD_OK) status = use_slot(b, i, "state_out", r->state_out, true);
    return status;
}

static int add_rows(lld_batch *b, size_t i, const lld_run *r)
{
    for (uint32_t k = 0; k < r->n_tokens; k++) {
        if (r->tokens[k] < 0 || (uint32_t)r->tokens[k] >= b->vocab_size)
            return lld_fail(LLD_ERR_INVALID,
                            "run %zu: token %" PRIu32 " is %" PRId32 ", must be 0 to %" PRIu32, i,
                            k, r->tokens[k], b->vocab_size - 1);
        size_t row = b->n_rows++;
        b->tokens[row] = r->tokens[k];
        b->positions[row] = r->position + k;
        b->row_run[row] = (uint32_t)i;
        if (r->n_tokens - k <= r->n_out) b->kept[b->n_kept++] = (uint32_t)row;
    }
    return LLD_OK;
}

int lld_batch_compose(lld_batch *b, const lld_run *runs, size_t n_runs)
{
    b->n_rows = b->n_runs = b->n_chains = b->n_kept = 0;
    b->is_adapted = false;
    b->step++;
    if (n_runs == 0) return lld_fail(LLD_ERR_INVALID, "a step of no runs");
    for (size_t i = 0; i < n_runs; i++) {
        const lld_run *r = &runs[i];
        uint32_t first_row = (uint32_t)b->n_rows;
        int status = check_counts(b, i, r);
        if (status == LLD_OK) status = mark_blocks(b, i, r);
        if (status == LLD_OK) status = add_states(b, i, r);
        if (status == LLD_OK) status = add_rows(b, i, r);
        if (status != LLD_OK) return status;
        b->runs[b->n_runs++] = (lld_batch_run){.first_row = first_row,
                                               .n_rows = r->n_tokens,
                                               .position = r->position,
                                               .blocks = r->blocks,
                                               .local_blocks = local_blocks(r),
                                               .state_in = r->state_in,
                                               .state_out = r->state_out,
                                               .continues = continues(b, i, r),
                                               .adapter = b->guesses ? NULL : r->adapter,
                                               .adapter_scale = r->adapter_scale};
        b->is_adapted = b->is_adapted || b->runs[i].adapter != NULL;
    }
    return LLD_OK;
}
