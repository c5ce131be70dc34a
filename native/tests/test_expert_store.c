/* test_expert_store.c - a model whose experts are read when a step chooses them: the same bits as in memory,
 * with any threads, slots and part; what is read and found; and what happens when the slots change
 * while steps run, when a step is cancelled, and when the file is cut. The store alone:
 * test_expert_reads.c. */
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#define TINY_HIDDEN  192
#define TINY_EXPERTS 12
#include "llamad_engine.h"
#include "tiny_model.h"

enum { N_TOKENS = 70, N_CTX = 96, BLOCKS = N_CTX / 32, ALL_SLOTS = TINY_EXPERTS * TINY_LAYERS };

static char model_path[64];

static lld_model *open_model(void)
{
    lld_model *model = NULL;
    snprintf(model_path, sizeof model_path, "/var/tmp/lld-test-experts-%ld.gguf", (long)getpid());
    tiny_model_write(model_path, true);
    int status = lld_model_open(model_path, false, &model);
    CHECK(status == LLD_OK, "%s", lld_error_message());
    if (status != LLD_OK) exit(1);
    return model;
}

static void close_model(lld_model *model)
{
    lld_model_close(model);
    unlink(model_path);
}

static lld_engine *create(lld_model *model, uint32_t n_threads)
{
    const lld_engine_params p = {
        .n_threads = n_threads, .n_ctx = N_CTX, .n_batch = N_CTX, .n_logits = 4};
    lld_engine *engine = NULL;
    int status = lld_engine_create(model, &p, &engine);
    CHECK(status == LLD_OK, "%s", lld_error_message());
    if (status != LLD_OK) exit(1);
    return engine;
}

/* Positions [from, to) of the text in one step. */
static int feed(lld_engine *e, uint32_t from, uint32_t to)
{
    static const uint32_t blocks[BLOCKS] = {2, 0, 1};
    int32_t tokens[N_CTX];
    for (uint32_t i = from; i < to; i++) tokens[i - from] = (int32_t)((i * 7 + 3) % TINY_VOCAB);
    const lld_run run = {.tokens = tokens,
                         .n_tokens = to - from,
                         .position = from,
                         .blocks = blocks,
                         .n_blocks = BLOCKS,
                         .n_out = 1};
    return lld_engine_forward(e, &run, 1);
}

/* A prompt in two pieces, then tokens one by one: 12 steps. */
static int try_generate(lld_engine *e, float out[TINY_VOCAB])
{
    int status = feed(e, 0, 40);
    if (status == LLD_OK) status = feed(e, 40, 60);
    for (uint32_t i = 60; i < N_TOKENS && status == LLD_OK; i++) status = feed(e, i, i + 1);
    if (status == LLD_OK) memcpy(out, lld_engine_logits(e, 0), TINY_VOCAB * sizeof *out);
    return status;
}

/* Let every nth expert be read on demand. Any thread: no CHECK. */
static int set_residency(lld_model *model, uint32_t every, uint32_t n_slots)
{
    uint8_t resident[256];
    const size_t n = lld_model_n_extents(model);
    if (n > sizeof resident) return LLD_ERR_INVALID;
    for (size_t i = 0; i < n; i++) {
        lld_extent e;
        int status = lld_model_extent(model, i, &e);
        if (status != LLD_OK || (e.expert >= 0) != (e.role == LLD_ROLE_EXPERT))
            return LLD_ERR_INVALID;
        resident[i] = e.expert < 0 || every == 0 || (uint32_t)e.expert % every != 0;
    }
    const lld_residency r = {
        .resident = resident, .n_extents = n, .lock_bytes = 1 << 20, .expert_slots = n_slots};
    return lld_model_set_residency(model, &r, NULL);
}

static lld_residency_info info_of(const lld_model *model)
{
    lld_residency_info info;
    lld_model_get_residency(model, &info);
    return info;
}

static void expect_in_memory(float expected[TINY_VOCAB])
{
    lld_model *model = open_model();
    lld_engine *engine = create(model, 2);
    CHECK(try_generate(engine, expected) == LLD_OK, "%s", lld_error_message());
    lld_engine_destroy(engine);
    close_model(model);
}

static void expect_same(const float *expected, const float *got, const char *what)
{
    CHECK(memcmp(expected, got, TINY_VOCAB * sizeof *got) == 0, "other bits: %s", what);
}

static void slots_change_no_bit(const float *expected)
{
    float got[TINY_VOCAB];
    for (uint32_t n_threads = 1; n_threads <= 3; n_threads += 2)
        for (uint32_t every = 1; every <= 3; every++) {
            lld_model *model = open_model();
            lld_engine *engine = create(model, n_threads);
            /* fewer, more, all, and back to the mapping between */
            const uint32_t slots[] = {TINY_EXPERTS, TINY_EXPERTS + 3, ALL_SLOTS, TINY_EXPERTS, 0};
            for (size_t i = 0; i < sizeof slots / sizeof *slots; i++) {
                const int status = set_residency(model, slots[i] == 0 ? 0 : every, slots[i]);
                CHECK(status == LLD_OK, "%s", lld_error_message());
                CHECK(try_generate(engine, got) == LLD_OK, "%s", lld_error_message());
                expect_same(expected, got, "slots");
            }
            lld_engine_destroy(engine);
            close_model(model);
        }
}

static void what_is_read_and_found_is_counted(void)
{
    float got[TINY_VOCAB];
    lld_model *model = open_model();
    lld_engine *engine = create(model, 2);
    CHECK(set_residency(model, 1, ALL_SLOTS) == LLD_OK, "%s", lld_error_message());
    CHECK(try_generate(engine, got) == LLD_OK, "%s", lld_error_message());
    const lld_residency_info all = info_of(model);
    CHECK(all.passes == 12 && all.expert_slots == ALL_SLOTS, "%d passes", (int)all.passes);
    CHECK(all.expert_hits == all.expert_uses && all.expert_uses >= 10 * 2 * TINY_LAYERS, "%d of %d",
          (int)all.expert_hits, (int)all.expert_uses);
    CHECK(all.read_bytes == 0 && all.expert_read_bytes == 0, "read though all were there");
    CHECK(set_residency(model, 1, TINY_EXPERTS) == LLD_OK, "%s", lld_error_message());
    CHECK(try_generate(engine, got) == LLD_OK, "%s", lld_error_message());
    const lld_residency_info few = info_of(model);
    const uint64_t uses = few.expert_uses - all.expert_uses,
                   misses = uses - (few.expert_hits - all.expert_hits);
    CHECK(few.passes == 24 && misses > 0 && misses < uses, "%d of %d missed", (int)misses,
          (int)uses);
    CHECK(few.read_bytes == few.expert_read_bytes && few.read_bytes % 4096 == 0 &&
              few.read_bytes >= misses * 3 * 4096,
          "%d bytes for %d", (int)few.read_bytes, (int)misses);
    CHECK(few.resident_bytes < all.resident_bytes, "as much as with all slots");
    lld_engine_destroy(engine);
    close_model(model);
}

static void too_few_slots_are_refused(void)
{
    lld_model *model = open_model();
    CHECK(set_residency(model, 1, TINY_EXPERTS - 1) == LLD_ERR_INVALID, "taken");
    CHECK(strstr(lld_error_message(), "11 slots for experts, a layer has 12") != NULL, "%s",
          lld_error_message());
    CHECK(set_residency(model, 2, TINY_EXPERTS / 2) == LLD_OK, "%s", lld_error_message());
    close_model(model);
}

typedef struct {
    lld_model *model;
    lld_engine *engine;
    atomic_int done, failed;
} disturbed;

static void *change_slots(void *argument)
{
    disturbed *d = argument;
    for (uint32_t i = 0; atomic_load(&d->done) == 0; i++) {
        int status = set_residency(d->model, i % 5 == 4 ? 0 : 1, TINY_EXPERTS + i % 7);
        if (status != LLD_OK) atomic_store(&d->failed, status);
    }
    return NULL;
}

static void *cancel_steps(void *argument)
{
    disturbed *d = argument;
    while (atomic_load(&d->done) == 0) {
        usleep(300);
        lld_engine_cancel(d->engine);
    }
    return NULL;
}

static void steps_go_on_while(void *(*disturb)(void *), bool may_cancel, const float *expected)
{
    float got[TINY_VOCAB];
    disturbed d = {.model = open_model()};
    d.engine = create(d.model, 2);
    CHECK(set_residency(d.model, 1, TINY_EXPERTS) == LLD_OK, "%s", lld_error_message());
    pthread_t thread;
    pthread_create(&thread, NULL, disturb, &d);
    for (int i = 0; i < 30; i++) {
        lld_engine_cancel_clear(d.engine);
        const int status = try_generate(d.engine, got);
        CHECK(status == LLD_OK || (may_cancel && status == LLD_ERR_CANCELLED), "%s",
              lld_error_message());
        if (status == LLD_OK) expect_same(expected, got, "disturbed");
    }
    atomic_store(&d.done, 1);
    pthread_join(thread, NULL);
    CHECK(atomic_load(&d.failed) == 0, "a change failed: %d", atomic_load(&d.failed));
    lld_engine_cancel_clear(d.engine);
    CHECK(try_generate(d.engine, got) == LLD_OK, "%s", lld_error_message());
    expect_same(expected, got, "afterwards");
    lld_engine_destroy(d.engine);
    close_model(d.model);
}

static void a_file_that_was_cut_ends_the_step(void)
{
    float got[TINY_VOCAB];
    lld_model *model = open_model();
    lld_engine *engine = create(model, 2);
    CHECK(set_residency(model, 1, TINY_EXPERTS) == LLD_OK, "%s", lld_error_message());
    lld_model_info info;
    lld_model_get_info(model, &info);
    CHECK(truncate(model_path, (off_t)info.file_bytes - 64) == 0, "cannot cut");
    for (int i = 0; i < 2; i++) {
        CHECK(try_generate(engine, got) == LLD_ERR_FAULT, "went on");
        CHECK(strstr(lld_error_message(), "the file was cut to") != NULL, "%s",
              lld_error_message());
    }
    lld_engine_destroy(engine);
    close_model(model);
}

int main(void)
{
    float expected[TINY_VOCAB];
    expect_in_memory(expected);
    slots_change_no_bit(expected);
    what_is_read_and_found_is_counted();
    too_few_slots_are_refused();
    steps_go_on_while(change_slots, false, expected);
    steps_go_on_while(cancel_steps, true, expected);
    a_file_that_was_cut_ends_the_step();
    return check_result();
}
