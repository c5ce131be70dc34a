/* test_engine.c - the whole engine on a tiny model: the same bits alone and in company, in any
 * chunking, with any number of threads, after sharing, cancelling and failing; and the checks of a
 * batch. */
#include <math.h>
#include <pthread.h>
#include <unistd.h>

#include "llamad_engine.h"
#include "tiny_model.h"

enum { N_TOKENS = 300, N_KEPT = 8 };

static char model_path[64];

static lld_model *open_model(bool quantized)
{
    lld_model *model = NULL;
    snprintf(model_path, sizeof model_path, "/tmp/lld-test-engine-%ld.gguf", (long)getpid());
    tiny_model_write(model_path, quantized);
    int status = lld_model_open(model_path, &model);
    CHECK(status == LLD_OK, "%s", lld_error_message());
    unlink(model_path);
    if (status != LLD_OK) exit(1);
    return model;
}

static lld_engine *create(lld_model *model, uint32_t n_threads, uint32_t n_kv_tokens,
                          lld_kv_type kv_type)
{
    lld_engine_params p = {.n_threads = n_threads,
                           .n_ctx = 512,
                           .n_sequences = 5,
                           .n_kv_tokens = n_kv_tokens,
                           .n_batch = 320,
                           .n_logits = N_KEPT,
                           .kv_type = kv_type,
                           .cpu = NULL};
    lld_engine *engine = NULL;
    int status = lld_engine_create(model, &p, &engine);
    CHECK(status == LLD_OK, "%s", lld_error_message());
    if (status != LLD_OK) exit(1);
    return engine;
}

static int32_t token_at(uint32_t sequence, uint32_t position)
{
    return (int32_t)((position * 7 + sequence * 13 + position * position % 11) % TINY_VOCAB);
}

/* Feed positions [from, to) of a sequence in pieces; keep the last row's logits of the last piece.
 */
static int feed(lld_engine *e, uint32_t slot, uint32_t text, uint32_t from, uint32_t to,
                uint32_t piece)
{
    int32_t tokens[512];
    uint32_t slots[512], positions[512];
    uint8_t wants[512];
    for (uint32_t at = from; at < to; at += piece) {
        uint32_t n = to - at < piece ? to - at : piece;
        for (uint32_t i = 0; i < n; i++) {
            tokens[i] = token_at(text, at + i);
            slots[i] = slot;
            positions[i] = at + i;
            wants[i] = i + 1 == n;
        }
        int status = lld_engine_forward(e, tokens, slots, positions, wants, n);
        if (status != LLD_OK) return status;
    }
    return LLD_OK;
}

static void reference(lld_model *model, lld_kv_type kv, uint32_t text, float out[TINY_VOCAB])
{
    lld_engine *e = create(model, 1, 0, kv);
    CHECK(feed(e, 0, text, 0, N_TOKENS, N_TOKENS) == LLD_OK, "%s", lld_error_message());
    memcpy(out, lld_engine_logits(e, 0), TINY_VOCAB * sizeof *out);
    for (int i = 0; i < TINY_VOCAB; i++) CHECK(isfinite(out[i]), "logit %d", i);
    lld_engine_destroy(e);
}

static void chunking_and_threads_change_no_bit(lld_model *model, lld_kv_type kv)
{
    float expected[TINY_VOCAB];
    reference(model, kv, 0, expected);
    const uint32_t threads[] = {1, 2, 4}, pieces[] = {1, 7, 64, N_TOKENS};
    for (int t = 0; t < 3; t++)
        for (int p = 0; p < 4; p++) {
            if (threads[t] != 2 && pieces[p] == 1) continue;
            lld_engine *e = create(model, threads[t], 0, kv);
            CHECK(feed(e, 2, 0, 0, N_TOKENS, pieces[p]) == LLD_OK, "%s", lld_error_message());
            CHECK(memcmp(lld_engine_logits(e, 0), expected, sizeof expected) == 0,
                  "threads %u piece %u kv %d", threads[t], pieces[p], (int)kv);
            lld_engine_destroy(e);
        }
}

/* Five sequences of other texts and lengths decode together; each gives what it gives alone. */
static void company_changes_no_bit(lld_model *model, lld_kv_type kv)
{
    lld_engine *e = create(model, 2, 0, kv);
    int32_t tokens[5];
    uint32_t slots[5], positions[5];
    uint8_t wants[5] = {1, 1, 1, 1, 1};
    for (uint32_t s = 0; s < 5; s++)
        CHECK(feed(e, s, s, 0, N_TOKENS - 1 - s, 50) == LLD_OK, "%s", lld_error_message());
    for (uint32_t s = 0; s < 5; s++) {
        slots[s] = s;
        positions[s] = N_TOKENS - 1 - s;
        tokens[s] = token_at(s, positions[s]);
    }
    CHECK(lld_engine_forward(e, tokens, slots, positions, wants, 5) == LLD_OK, "%s",
          lld_error_message());
    float together[5][TINY_VOCAB];
    for (uint32_t s = 0; s < 5; s++)
        memcpy(together[s], lld_engine_logits(e, s), sizeof together[s]);
    CHECK(lld_engine_logits(e, 5) == NULL, "a sixth row was kept");
    lld_engine_destroy(e);
    for (uint32_t s = 0; s < 5; s++) {
        lld_engine *alone = create(model, 1, 0, kv);
        CHECK(feed(alone, 0, s, 0, N_TOKENS - s, N_TOKENS) == LLD_OK, "%s", lld_error_message());
        CHECK(memcmp(lld_engine_logits(alone, 0), together[s], sizeof together[s]) == 0,
              "sequence %u kv %d", s, (int)kv);
        lld_engine_destroy(alone);
    }
}

static uint32_t blocks_free(const lld_engine *e)
{
    lld_engine_info info;
    lld_engine_get_info(e, &info);
    return info.kv_blocks_free;
}

/* A shared prefix that ends inside a block: both continuations are right, and every block comes
 * back. */
static void a_shared_prefix_equals_a_recomputed_one(lld_model *model, lld_kv_type kv)
{
    float expected[TINY_VOCAB];
    reference(model, kv, 0, expected);
    lld_engine *e = create(model, 2, 0, kv);
    uint32_t all = blocks_free(e);
    CHECK(feed(e, 0, 0, 0, 200, 200) == LLD_OK, "%s", lld_error_message());
    CHECK(lld_sequence_share(e, 1, 0, 150) == LLD_OK, "%s", lld_error_message());
    CHECK(all - blocks_free(e) == 7, "sharing took %u blocks", all - blocks_free(e));
    CHECK(feed(e, 1, 3, 150, 190, 40) == LLD_OK, "another continuation: %s", lld_error_message());
    CHECK(feed(e, 0, 0, 200, N_TOKENS, 100) == LLD_OK, "%s", lld_error_message());
    CHECK(memcmp(lld_engine_logits(e, 0), expected, sizeof expected) == 0,
          "the owner's bits changed, kv %d", (int)kv);
    CHECK(lld_sequence_truncate(e, 1, 150) == LLD_OK, "%s", lld_error_message());
    CHECK(feed(e, 1, 0, 150, N_TOKENS, 50) == LLD_OK, "%s", lld_error_message());
    CHECK(memcmp(lld_engine_logits(e, 0), expected, sizeof expected) == 0,
          "the sharer's bits differ, kv %d", (int)kv);
    CHECK(lld_sequence_share(e, 1, 0, 10) == LLD_ERR_INVALID, "shared into a sequence in use");
    CHECK(lld_sequence_truncate(e, 0, 0) == LLD_OK && lld_sequence_truncate(e, 1, 0) == LLD_OK,
          "%s", lld_error_message());
    CHECK(blocks_free(e) == all, "%u of %u blocks came back", blocks_free(e), all);
    lld_engine_destroy(e);
}

static void a_cancelled_step_changes_nothing(lld_model *model)
{
    float expected[TINY_VOCAB];
    reference(model, LLD_KV_F16, 0, expected);
    lld_engine *e = create(model, 2, 0, LLD_KV_F16);
    CHECK(feed(e, 0, 0, 0, 100, 100) == LLD_OK, "%s", lld_error_message());
    uint32_t free_before = blocks_free(e);
    lld_engine_cancel(e);
    CHECK(feed(e, 0, 0, 100, N_TOKENS, 200) == LLD_ERR_CANCELLED, "not cancelled");
    CHECK(lld_sequence_length(e, 0) == 100 && blocks_free(e) == free_before,
          "the cancelled step left something");
    lld_engine_cancel_clear(e);
    CHECK(feed(e, 0, 0, 100, N_TOKENS, 200) == LLD_OK, "%s", lld_error_message());
    CHECK(memcmp(lld_engine_logits(e, 0), expected, sizeof expected) == 0,
          "bits differ after a cancelled step");
    lld_engine_destroy(e);
}

static void *cancel_soon(void *engine)
{
    lld_engine_cancel(engine);
    return NULL;
}

/* Another thread raises the flag while steps run: the step ends in one of two clean ways. */
static void cancel_from_another_thread_is_seen(lld_model *model)
{
    lld_engine *e = create(model, 2, 0, LLD_KV_F16);
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, cancel_soon, e) == 0, "thread");
        int status = feed(e, 0, 0, 0, 64, 64);
        CHECK(status == LLD_OK || status == LLD_ERR_CANCELLED, "%s", lld_error_message());
        pthread_join(thread, NULL);
        CHECK(feed(e, 1, 0, 0, 1, 1) == LLD_ERR_CANCELLED, "the flag was lost");
        lld_engine_cancel_clear(e);
        lld_sequence_truncate(e, 0, 0);
    }
    lld_engine_destroy(e);
}

static void a_full_cache_is_an_error_that_changes_nothing(lld_model *model)
{
    lld_engine *e = create(model, 1, 128, LLD_KV_Q8_0);
    CHECK(feed(e, 0, 0, 0, 100, 100) == LLD_OK, "%s", lld_error_message());
    CHECK(feed(e, 1, 0, 0, 1, 1) == LLD_ERR_KV_FULL, "the cache of 4 blocks took a fifth");
    CHECK(lld_sequence_length(e, 1) == 0 && blocks_free(e) == 0, "something was taken");
    CHECK(feed(e, 0, 0, 100, 128, 28) == LLD_OK, "%s", lld_error_message());
    CHECK(feed(e, 0, 0, 128, 129, 1) == LLD_ERR_KV_FULL, "a fifth block");
    lld_sequence_truncate(e, 0, 96);
    CHECK(feed(e, 1, 0, 0, 1, 1) == LLD_OK, "%s", lld_error_message());
    lld_engine_destroy(e);
}

static int one_row(lld_engine *e, int32_t token, uint32_t sequence, uint32_t position)
{
    uint8_t wants = 1;
    return lld_engine_forward(e, &token, &sequence, &position, &wants, 1);
}

static void a_bad_batch_is_refused(lld_model *model)
{
    lld_engine *e = create(model, 1, 0, LLD_KV_F16);
    CHECK(one_row(e, -1, 0, 0) == LLD_ERR_INVALID, "token -1");
    CHECK(one_row(e, TINY_VOCAB, 0, 0) == LLD_ERR_INVALID, "token beyond the vocabulary");
    CHECK(one_row(e, 1, 5, 0) == LLD_ERR_INVALID, "sequence beyond the slots");
    CHECK(one_row(e, 1, 0, 1) == LLD_ERR_INVALID, "position ahead of the sequence");
    CHECK(one_row(e, 1, 0, 512) == LLD_ERR_INVALID, "position beyond the context");
    int32_t tokens[12] = {1, 2, 3};
    uint32_t split[3] = {0, 1, 0}, same[12] = {0}, gap[3] = {0, 1, 3},
             line[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
    uint32_t starts[3] = {0, 0, 1};
    uint8_t wants[12] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    CHECK(lld_engine_forward(e, tokens, split, starts, wants, 3) == LLD_ERR_INVALID,
          "rows of a sequence apart");
    CHECK(lld_engine_forward(e, tokens, same, gap, wants, 3) == LLD_ERR_INVALID,
          "a gap in the positions");
    CHECK(lld_engine_forward(e, tokens, same, line, wants, 12) == LLD_ERR_INVALID,
          "more logits than n_logits");
    CHECK(lld_engine_forward(e, tokens, same, line, wants, 0) == LLD_ERR_INVALID, "an empty batch");
    CHECK(lld_engine_forward(e, tokens, same, line, wants, 321) == LLD_ERR_INVALID,
          "more rows than n_batch");
    CHECK(lld_engine_logits(e, 0) == NULL, "a refused batch left logits");
    CHECK(one_row(e, 1, 0, 0) == LLD_OK, "%s", lld_error_message());
    lld_engine_destroy(e);

    lld_engine_params bad = {
        .n_threads = 0, .n_ctx = 1, .n_sequences = 1, .n_batch = 1, .n_logits = 1};
    CHECK(lld_engine_create(model, &bad, &e) == LLD_ERR_INVALID, "no threads");
    bad.n_threads = 1;
    bad.n_logits = 2;
    CHECK(lld_engine_create(model, &bad, &e) == LLD_ERR_INVALID, "more logits than rows");
    bad.n_logits = 1;
    bad.cpu = "z80";
    CHECK(lld_engine_create(model, &bad, &e) == LLD_ERR_INVALID, "unknown kernel set");
}

int main(void)
{
    for (int quantized = 0; quantized <= 1; quantized++) {
        lld_model *model = open_model(quantized);
        for (lld_kv_type kv = LLD_KV_F16; kv <= LLD_KV_Q8_0; kv++) {
            chunking_and_threads_change_no_bit(model, kv);
            company_changes_no_bit(model, kv);
            a_shared_prefix_equals_a_recomputed_one(model, kv);
        }
        a_cancelled_step_changes_nothing(model);
        cancel_from_another_thread_is_seen(model);
        a_full_cache_is_an_error_that_changes_nothing(model);
        a_bad_batch_is_refused(model);
        lld_model_close(model);
    }
    return check_result();
}
