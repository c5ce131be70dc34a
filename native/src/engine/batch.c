/* batch.c - see batch.h. */
#include "engine/batch.h"

#include <inttypes.h>

#include "base/status.h"

static int check_row(const lld_batch *b, const lld_kv_cache *c, size_t i, int32_t token,
                     uint32_t sequence, uint32_t position)
{
    if (token < 0 || (uint32_t)token >= b->vocab_size)
        return lld_fail(LLD_ERR_INVALID, "row %zu: token %" PRId32 ", must be 0 to %" PRIu32, i,
                        token, b->vocab_size - 1);
    if (sequence >= c->n_sequences)
        return lld_fail(LLD_ERR_INVALID, "row %zu: sequence %" PRIu32 ", must be below %" PRIu32, i,
                        sequence, c->n_sequences);
    if (position >= b->n_ctx)
        return lld_fail(LLD_ERR_INVALID, "row %zu: position %" PRIu32 ", context holds %" PRIu32, i,
                        position, b->n_ctx);
    return LLD_OK;
}

/* Begin a run of consecutive rows at row i; its sequence must not have had one in this batch. */
static int begin_run(lld_batch *b, const lld_kv_cache *c, size_t i, uint32_t sequence,
                     uint32_t position)
{
    for (size_t r = 0; r < b->n_runs; r++)
        if (b->runs[r].sequence == sequence)
            return lld_fail(LLD_ERR_INVALID,
                            "row %zu: the rows of sequence %" PRIu32 " are not consecutive", i,
                            sequence);
    if (position != c->sequences[sequence].length)
        return lld_fail(LLD_ERR_INVALID,
                        "row %zu: position %" PRIu32 ", sequence %" PRIu32 " has %" PRIu32
                        " tokens",
                        i, position, sequence, c->sequences[sequence].length);
    b->runs[b->n_runs++] =
        (lld_batch_run){.sequence = sequence, .first_row = (uint32_t)i, .position = position};
    return LLD_OK;
}

int lld_batch_compose(lld_batch *b, const lld_kv_cache *c, const int32_t *tokens,
                      const uint32_t *sequences, const uint32_t *positions,
                      const uint8_t *wants_logits, size_t n_rows)
{
    b->n_rows = n_rows;
    b->tokens = tokens;
    b->positions = positions;
    b->n_runs = b->n_kept = 0;
    for (size_t i = 0; i < n_rows; i++) {
        int status = check_row(b, c, i, tokens[i], sequences[i], positions[i]);
        if (status == LLD_OK && (i == 0 || sequences[i] != sequences[i - 1]))
            status = begin_run(b, c, i, sequences[i], positions[i]);
        else if (status == LLD_OK && positions[i] != positions[i - 1] + 1)
            status =
                lld_fail(LLD_ERR_INVALID, "row %zu: position %" PRIu32 " does not follow %" PRIu32,
                         i, positions[i], positions[i - 1]);
        if (status != LLD_OK) return status;
        b->runs[b->n_runs - 1].n_rows++;
        b->row_slot[i] = sequences[i];
        if (wants_logits[i] == 0) continue;
        if (b->n_kept == b->n_logits)
            return lld_fail(LLD_ERR_INVALID, "row %zu: more than %" PRIu32 " rows want logits", i,
                            b->n_logits);
        b->kept[b->n_kept++] = (uint32_t)i;
    }
    return LLD_OK;
}
