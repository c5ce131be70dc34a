/* test_engine.c - the whole engine on a tiny model: the same bits alone and in company, in any
 * chunking, with any number of threads, after sharing, cancelling and failing; and the checks of a
 * batch. */
#include <math.h>
#include <pthread.h>
#include <unistd.h>

#include "llamad_engine.h"
#include "tiny_model.h"

enum { N_TOKENS = 300, N_KEPT = 8, N_CTX = 512, N_SEQUENCES = 5, BLOCKS_EACH = N_CTX / 32 };

static char model_path[64];

static lld_model *open_model(bool quantized)
{
    lld_model *model = NULL;
    snprintf(model_path, sizeof model_path, "/tmp/lld-test-engine-%ld.gguf", (long)getpid());
    tiny_model_write(model_path, quantized);
    int status = lld_model_open(model_path, false, &model);
    CHECK(status == LLD_OK, "%s", lld_error_message());
    unlink(model_path);
    if (status != LLD_OK) exit(1);
    return model;
}

static lld_engine *create(lld_model *model, uint32_t n_threads, lld_kv_type kv_type)
{
    lld_engine_params p = {.n_threads = n_threads,
                           .n_ctx = N_CTX,
                           .n_blocks = N_SEQUENCES * BLOCKS_EACH,
                           .n_batch = 320,
                           .n_logits = N_KEPT,
                           .kv_type = kv_type};
    lld_engine *engine = NULL;
    lld_engine_sizes sizes;
    lld_engine_info info;
    CHECK(lld_engine_bytes(model, &p, &sizes) == LLD_OK, "%s", lld_error_message());
    int status = lld_engine_create(model, &p, &engine);
    CHECK(status == LLD_OK, "%s", lld_error_message());
    if (status != LLD_OK) exit(1);
    lld_engine_get_info(engine, &info);
    CHECK(info.kv_bytes == sizes.kv_bytes && info.scratch_bytes == sizes.scratch_bytes &&
              sizes.kv_bytes == sizes.n_blocks * sizes.kv_block_bytes &&
              info.kv_blocks_total == p.n_blocks && sizes.n_blocks == p.n_blocks,
          "another size than planned");
    return engine;
}

static int32_t token_at(uint32_t text, uint32_t position)
{
    return (int32_t)((position * 7 + text * 13 + position * position % 11) % TINY_VOCAB);
}

/* Sequence s has the blocks s, s + N_SEQUENCES, and so on: none beside the next. */
static void own_blocks(uint32_t sequence, uint32_t blocks[BLOCKS_EACH])
{
    for (uint32_t i = 0; i < BLOCKS_EACH; i++) blocks[i] = i * N_SEQUENCES + sequence;
}

/* Feed positions [from, to) of a text in pieces; keep the last row's logits of each piece. */
static int feed_blocks(lld_engine *e, const uint32_t *blocks, uint32_t text, uint32_t from,
                       uint32_t to, uint32_t piece)
{
    int32_t tokens[N_CTX];
    for (uint32_t at = from; at < to; at += piece) {
        uint32_t n = to - at < piece ? to - at : piece;
        for (uint32_t i = 0; i < n; i++) tokens[i] = token_at(text, at + i);
        const lld_run run = {.tokens = tokens,
                             .n_tokens = n,
                             .position = at,
                             .blocks = blocks,
                             .n_blocks = BLOCKS_EACH,
                             .n_out = 1};
        int status = lld_engine_forward(e, &run, 1);
        if (status != LLD_OK) return status;
    }
    return LLD_OK;
}

static int feed(lld_engine *e, uint32_t sequence, uint32_t text, uint32_t from, uint32_t to,
                uint32_t piece)
{
    uint32_t blocks[BLOCKS_EACH];
    own_blocks(sequence, blocks);
    return feed_blocks(e, blocks, text, from, to, piece);
}

static void reference(lld_model *model, lld_kv_type kv, uint32_t text, float out[TINY_VOCAB])
{
    lld_engine *e = create(model, 1, kv);
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
            lld_engine *e = create(model, threads[t], kv);
            CHECK(feed(e, 2, 0, 0, N_TOKENS, pieces[p]) == LLD_OK, "%s", lld_error_message());
            CHECK(memcmp(lld_engine_logits(e, 0), expected, sizeof expected) == 0,
                  "threads %u piece %u kv %d", threads[t], pieces[p], (int)kv);
            lld_engine_destroy(e);
        }
}

/* Five sequences of other texts and lengths decode together; each gives what it gives alone. */
static void company_changes_no_bit(lld_model *model, lld_kv_type kv)
{
    lld_engine *e = create(model, 2, kv);
    int32_t tokens[N_SEQUENCES];
    uint32_t blocks[N_SEQUENCES][BLOCKS_EACH];
    lld_run runs[N_SEQUENCES];
    for (uint32_t s = 0; s < N_SEQUENCES; s++) {
        uint32_t last = N_TOKENS - 1 - s;
        CHECK(feed(e, s, s, 0, last, 50) == LLD_OK, "%s", lld_error_message());
        own_blocks(s, blocks[s]);
        tokens[s] = token_at(s, last);
        runs[s] = (lld_run){&tokens[s], 1, last, blocks[s], BLOCKS_EACH, 1, 0, 0, NULL, NULL, 0};
    }
    CHECK(lld_engine_forward(e, runs, N_SEQUENCES) == LLD_OK, "%s", lld_error_message());
    float together[5][TINY_VOCAB];
    for (uint32_t s = 0; s < 5; s++)
        memcpy(together[s], lld_engine_logits(e, s), sizeof together[s]);
    CHECK(lld_engine_logits(e, 5) == NULL, "a sixth row was kept");
    lld_engine_destroy(e);
    for (uint32_t s = 0; s < 5; s++) {
        lld_engine *alone = create(model, 1, kv);
        CHECK(feed(alone, 0, s, 0, N_TOKENS - s, N_TOKENS) == LLD_OK, "%s", lld_error_message());
        CHECK(memcmp(lld_engine_logits(alone, 0), together[s], sizeof together[s]) == 0,
              "sequence %u kv %d", s, (int)kv);
        lld_engine_destroy(alone);
    }
}

static void copy_block(lld_engine *e, uint32_t dst, uint32_t src)
{
    lld_engine_info info;
    lld_engine_get_info(e, &info);
    uint8_t *block = malloc(info.kv_block_bytes);
    if (block == NULL) exit(2);
    CHECK(lld_block_read(e, false, src, block, info.kv_block_bytes) == LLD_OK, "%s",
          lld_error_message());
    CHECK(lld_block_write(e, false, dst, block, info.kv_block_bytes) == LLD_OK, "%s",
          lld_error_message());
    free(block);
}

/* Two texts that share their first blocks; the block in which they part is copied. */
static void a_shared_prefix_equals_a_recomputed_one(lld_model *model, lld_kv_type kv)
{
    float expected[TINY_VOCAB];
    reference(model, kv, 0, expected);
    lld_engine *e = create(model, 2, kv);
    uint32_t owner[BLOCKS_EACH], sharer[BLOCKS_EACH];
    own_blocks(0, owner);
    own_blocks(1, sharer);
    CHECK(feed_blocks(e, owner, 0, 0, 200, 200) == LLD_OK, "%s", lld_error_message());
    memcpy(sharer, owner, 4 * sizeof *owner);
    copy_block(e, sharer[4], owner[4]);
    CHECK(feed_blocks(e, sharer, 3, 150, 190, 40) == LLD_OK, "%s", lld_error_message());
    CHECK(feed_blocks(e, owner, 0, 200, N_TOKENS, 100) == LLD_OK, "%s", lld_error_message());
    CHECK(memcmp(lld_engine_logits(e, 0), expected, sizeof expected) == 0,
          "the owner's bits changed, kv %d", (int)kv);
    CHECK(feed_blocks(e, sharer, 0, 150, N_TOKENS, 50) == LLD_OK, "%s", lld_error_message());
    CHECK(memcmp(lld_engine_logits(e, 0), expected, sizeof expected) == 0,
          "the sharer's bits differ, kv %d", (int)kv);
    lld_engine_destroy(e);
}

/* The blocks of one engine, carried to another as bytes, continue as they would have there. */
static void blocks_read_and_written_are_the_same(lld_model *model, lld_kv_type kv)
{
    float expected[TINY_VOCAB];
    reference(model, kv, 0, expected);
    lld_engine *from = create(model, 1, kv), *to = create(model, 2, kv);
    lld_engine_info info;
    lld_engine_get_info(from, &info);
    size_t bytes = info.kv_block_bytes;
    uint8_t *block = malloc(bytes);
    uint32_t source[BLOCKS_EACH], target[BLOCKS_EACH];
    own_blocks(1, source);
    own_blocks(4, target);
    if (block == NULL) exit(2);
    CHECK(feed_blocks(from, source, 0, 0, 200, 200) == LLD_OK, "%s", lld_error_message());
    for (uint32_t i = 0; i < 7; i++) {
        CHECK(lld_block_read(from, false, source[i], block, bytes) == LLD_OK, "%s",
              lld_error_message());
        CHECK(lld_block_write(to, false, target[i], block, bytes) == LLD_OK, "%s",
              lld_error_message());
    }
    CHECK(feed_blocks(to, target, 0, 200, N_TOKENS, 100) == LLD_OK, "%s", lld_error_message());
    CHECK(memcmp(lld_engine_logits(to, 0), expected, sizeof expected) == 0, "kv %d", (int)kv);
    CHECK(lld_block_read(from, false, info.kv_blocks_total, block, bytes) == LLD_ERR_INVALID,
          "read");
    CHECK(lld_block_read(from, false, 0, block, bytes - 1) == LLD_ERR_INVALID, "read less");
    CHECK(lld_block_write(to, false, info.kv_blocks_total, block, bytes) == LLD_ERR_INVALID,
          "write");
    CHECK(lld_block_write(to, false, 0, block, bytes + 1) == LLD_ERR_INVALID, "write more");
    free(block);
    lld_engine_destroy(from);
    lld_engine_destroy(to);
}

/* Runs of one step that continue each other are as one run; each keeps its last row. */
static void runs_that_continue_each_other_are_one(lld_model *model, lld_kv_type kv)
{
    enum { N = 45, EACH = 15 };
    int32_t tokens[N];
    uint32_t blocks[BLOCKS_EACH];
    lld_run runs[N / EACH];
    float expected[N / EACH][TINY_VOCAB];
    own_blocks(0, blocks);
    lld_engine *e = create(model, 2, kv);
    for (uint32_t i = 0; i < N; i++) tokens[i] = token_at(0, i);
    for (uint32_t i = 0; i < N / EACH; i++) {
        runs[i] = (lld_run){
            tokens + i * EACH, EACH, i * EACH, blocks, BLOCKS_EACH, 1, 0, 0, NULL, NULL, 0};
        CHECK(lld_engine_forward(e, &runs[i], 1) == LLD_OK, "%s", lld_error_message());
        memcpy(expected[i], lld_engine_logits(e, 0), sizeof expected[i]);
    }
    lld_engine_destroy(e);
    e = create(model, 2, kv);
    CHECK(lld_engine_forward(e, runs, N / EACH) == LLD_OK, "%s", lld_error_message());
    for (uint32_t i = 0; i < N / EACH; i++)
        CHECK(memcmp(lld_engine_logits(e, i), expected[i], sizeof expected[i]) == 0, "run %u", i);
    lld_engine_destroy(e);
}

enum { OUTPUT_CHUNKS = TINY_VOCAB / 16 + 1 }; /* thread 0 computes some of them */

static void a_cancelled_step_can_be_run_again(lld_model *model)
{
    float expected[TINY_VOCAB];
    reference(model, LLD_KV_F16, 0, expected);
    lld_engine *e = create(model, 2, LLD_KV_F16);
    CHECK(feed(e, 0, 0, 0, 100, 100) == LLD_OK, "%s", lld_error_message());
    uint64_t progress = lld_engine_progress(e);
    CHECK(progress >= TINY_LAYERS && progress <= TINY_LAYERS + OUTPUT_CHUNKS, "progress %llu",
          (unsigned long long)progress);
    lld_engine_cancel(e);
    CHECK(feed(e, 0, 0, 100, N_TOKENS, 200) == LLD_ERR_CANCELLED, "not cancelled");
    CHECK(lld_engine_logits(e, 0) == NULL, "a cancelled step left logits");
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
    lld_engine *e = create(model, 2, LLD_KV_F16);
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, cancel_soon, e) == 0, "thread");
        int status = feed(e, 0, 0, 0, 64, 64);
        CHECK(status == LLD_OK || status == LLD_ERR_CANCELLED, "%s", lld_error_message());
        pthread_join(thread, NULL);
        CHECK(feed(e, 1, 0, 0, 1, 1) == LLD_ERR_CANCELLED, "the flag was lost");
        lld_engine_cancel_clear(e);
    }
    lld_engine_destroy(e);
}

static void a_bad_step_is_refused_and_changes_nothing(lld_model *model)
{
    float expected[TINY_VOCAB];
    reference(model, LLD_KV_F16, 0, expected);
    lld_engine *e = create(model, 1, LLD_KV_F16);
    CHECK(feed(e, 0, 0, 0, 100, 100) == LLD_OK, "%s", lld_error_message());
    int32_t tokens[N_CTX] = {1, 2, 3}, below[] = {1, -1}, above[] = {TINY_VOCAB, 1};
    uint32_t own[BLOCKS_EACH], other[BLOCKS_EACH], twice[BLOCKS_EACH], beyond[BLOCKS_EACH];
    own_blocks(0, own);
    own_blocks(1, other);
    memcpy(twice, other, sizeof twice);
    twice[1] = twice[0];
    memcpy(beyond, other, sizeof beyond);
    beyond[1] = N_SEQUENCES * BLOCKS_EACH;
    const struct {
        const char *fault;
        lld_run first, second;
    } steps[] = {
        {"no tokens", {tokens, 0, 0, other, BLOCKS_EACH, 0, 0, 0, NULL, NULL, 0}, {0}},
        {"tokens that are NULL", {NULL, 1, 0, other, BLOCKS_EACH, 1, 0, 0, NULL, NULL, 0}, {0}},
        {"blocks that are NULL", {tokens, 1, 0, NULL, BLOCKS_EACH, 1, 0, 0, NULL, NULL, 0}, {0}},
        {"token -1", {below, 2, 0, other, BLOCKS_EACH, 1, 0, 0, NULL, NULL, 0}, {0}},
        {"a token beyond the vocabulary",
         {above, 2, 0, other, BLOCKS_EACH, 1, 0, 0, NULL, NULL, 0},
         {0}},
        {"a position beyond the context",
         {tokens, 1, N_CTX, other, BLOCKS_EACH, 1, 0, 0, NULL, NULL, 0},
         {0}},
        {"an end beyond the context",
         {tokens, 3, N_CTX - 2, other, BLOCKS_EACH, 1, 0, 0, NULL, NULL, 0},
         {0}},
        {"a position that wraps",
         {tokens, 3, UINT32_MAX - 1, other, BLOCKS_EACH, 1, 0, 0, NULL, NULL, 0},
         {0}},
        {"too few blocks", {tokens, 3, 30, other, 1, 1, 0, 0, NULL, NULL, 0}, {0}},
        {"a block beyond the cache",
         {tokens, 3, 30, beyond, BLOCKS_EACH, 1, 0, 0, NULL, NULL, 0},
         {0}},
        {"a block named twice", {tokens, 3, 30, twice, BLOCKS_EACH, 1, 0, 0, NULL, NULL, 0}, {0}},
        {"more logits than tokens",
         {tokens, 3, 0, other, BLOCKS_EACH, 4, 0, 0, NULL, NULL, 0},
         {0}},
        {"more logits than n_logits",
         {tokens, 9, 0, other, BLOCKS_EACH, 9, 0, 0, NULL, NULL, 0},
         {0}},
        {"more rows than n_batch",
         {tokens, 321, 0, other, BLOCKS_EACH, 1, 0, 0, NULL, NULL, 0},
         {0}},
        {"more rows than n_batch in all",
         {tokens, 320, 0, other, BLOCKS_EACH, 1, 0, 0, NULL, NULL, 0},
         {tokens, 1, 100, own, BLOCKS_EACH, 1, 0, 0, NULL, NULL, 0}},
        {"more logits than n_logits in all",
         {tokens, 8, 0, other, BLOCKS_EACH, 8, 0, 0, NULL, NULL, 0},
         {tokens, 1, 100, own, BLOCKS_EACH, 1, 0, 0, NULL, NULL, 0}},
        {"a block that two runs write",
         {tokens, 1, 100, own, BLOCKS_EACH, 1, 0, 0, NULL, NULL, 0},
         {tokens, 1, 100, own, BLOCKS_EACH, 1, 0, 0, NULL, NULL, 0}},
        {"a run that overlaps the one before it",
         {tokens, 3, 100, own, BLOCKS_EACH, 1, 0, 0, NULL, NULL, 0},
         {tokens, 1, 102, own, BLOCKS_EACH, 1, 0, 0, NULL, NULL, 0}},
        {"a run that does not continue the one before it",
         {tokens, 3, 100, own, BLOCKS_EACH, 1, 0, 0, NULL, NULL, 0},
         {tokens, 1, 104, own, BLOCKS_EACH, 1, 0, 0, NULL, NULL, 0}},
        {"a block that is read and then written",
         {tokens, 1, 100, own, BLOCKS_EACH, 1, 0, 0, NULL, NULL, 0},
         {tokens, 1, 0, own, BLOCKS_EACH, 1, 0, 0, NULL, NULL, 0}},
        {"a block that is written and then read",
         {tokens, 1, 0, own, BLOCKS_EACH, 1, 0, 0, NULL, NULL, 0},
         {tokens, 1, 100, own, BLOCKS_EACH, 1, 0, 0, NULL, NULL, 0}},
    };
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        const lld_run runs[] = {steps[i].first, steps[i].second};
        size_t n = runs[1].tokens == NULL ? 1 : 2;
        CHECK(lld_engine_forward(e, runs, n) == LLD_ERR_INVALID, "%s", steps[i].fault);
        CHECK(lld_engine_logits(e, 0) == NULL, "%s left logits", steps[i].fault);
    }
    CHECK(lld_engine_forward(e, NULL, 0) == LLD_ERR_INVALID, "an empty step");
    CHECK(feed(e, 0, 0, 100, N_TOKENS, 200) == LLD_OK, "%s", lld_error_message());
    CHECK(memcmp(lld_engine_logits(e, 0), expected, sizeof expected) == 0,
          "refused steps changed bits");
    lld_engine_destroy(e);
}

static void bad_params_are_refused(lld_model *model)
{
    lld_engine *e = NULL;
    lld_engine_sizes sizes;
    const lld_engine_params good = {.n_threads = 1, .n_ctx = 33, .n_batch = 1, .n_logits = 1};
    CHECK(lld_engine_bytes(model, &good, &sizes) == LLD_OK && sizes.n_blocks == 2,
          "blocks of 33 tokens");
    lld_engine_params bad[] = {good, good, good, good, good, good, good};
    bad[0].n_threads = 0;
    bad[1].n_logits = 2;
    bad[2].cpu = "z80";
    bad[3].kv_type = 3;
    bad[4].n_blocks = (1 << 23) + 1;
    bad[5].n_ctx = 0;
    bad[6].n_batch = 4097;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK(lld_engine_create(model, &bad[i], &e) == LLD_ERR_INVALID, "params %zu", i);
        CHECK(lld_engine_bytes(model, &bad[i], &sizes) == LLD_ERR_INVALID, "sizes of %zu", i);
    }
}

int main(void)
{
    for (int quantized = 0; quantized <= 1; quantized++) {
        lld_model *model = open_model(quantized);
        for (lld_kv_type kv = LLD_KV_F16; kv <= LLD_KV_Q4_0; kv++) {
            chunking_and_threads_change_no_bit(model, kv);
            company_changes_no_bit(model, kv);
            a_shared_prefix_equals_a_recomputed_one(model, kv);
            blocks_read_and_written_are_the_same(model, kv);
            runs_that_continue_each_other_are_one(model, kv);
        }
        a_cancelled_step_can_be_run_again(model);
        cancel_from_another_thread_is_seen(model);
        a_bad_step_is_refused_and_changes_nothing(model);
        bad_params_are_refused(model);
        lld_model_close(model);
    }
    return check_result();
}
