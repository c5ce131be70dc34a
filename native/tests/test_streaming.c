/* test_streaming.c - a model of which a part is read from the disk in every step: the same bits as in
 * memory, with any threads, ring, batch and part; what is read; and what happens when the file is
 * cut, written to or cannot be read, and when a step is cancelled while it waits. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#define TINY_HIDDEN 800
#include "llamad_engine.h"
#include "tiny_model.h"
#include "model/extents.h"
#include "model/residency.h"

enum { N_TOKENS = 70, N_CTX = 96, BLOCKS = N_CTX / 32, SMALL_EXTENT = 16 << 10, ALIGN = 4096 };

static char model_path[64];

/* The tiny model, cut so small that its matrices have several extents. */
static lld_model *open_model(void)
{
    lld_model *model = NULL;
    snprintf(model_path, sizeof model_path, "/var/tmp/lld-test-streaming-%ld.gguf", (long)getpid());
    tiny_model_write(model_path, true);
    int status = lld_model_open(model_path, false, &model);
    CHECK(status == LLD_OK, "%s", lld_error_message());
    if (status != LLD_OK) exit(1);
    lld_residency_destroy(model->residency);
    size_t n_vectors = 0;
    while (model->extents[n_vectors].role == LLD_ROLE_VECTOR) n_vectors++;
    model->n_extents = n_vectors;
    status = lld_extents_cut(model, SMALL_EXTENT);
    if (status == LLD_OK) status = lld_residency_create(model);
    CHECK(status == LLD_OK, "%s", lld_error_message());
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

/* Positions [from, to) of the text in one step; keep n_out rows. */
static int feed(lld_engine *e, uint32_t from, uint32_t to, uint32_t n_out)
{
    static const uint32_t blocks[BLOCKS] = {2, 0, 1};
    int32_t tokens[N_CTX];
    for (uint32_t i = from; i < to; i++) tokens[i - from] = (int32_t)((i * 7 + 3) % TINY_VOCAB);
    const lld_run run = {.tokens = tokens,
                         .n_tokens = to - from,
                         .position = from,
                         .blocks = blocks,
                         .n_blocks = BLOCKS,
                         .n_out = n_out};
    return lld_engine_forward(e, &run, 1);
}

/* A prompt in two pieces, the first without logits, then tokens one by one: 12 steps. */
static int try_generate(lld_engine *e, float out[TINY_VOCAB])
{
    int status = feed(e, 0, 40, 0);
    if (status == LLD_OK) status = feed(e, 40, 60, 1);
    for (uint32_t i = 60; i < N_TOKENS && status == LLD_OK; i++) status = feed(e, i, i + 1, 1);
    if (status == LLD_OK) memcpy(out, lld_engine_logits(e, 0), TINY_VOCAB * sizeof *out);
    return status;
}

static void generate(lld_engine *e, float out[TINY_VOCAB])
{
    CHECK(try_generate(e, out) == LLD_OK, "%s", lld_error_message());
}

/* What of a model streams: every nth matrix extent of these roles. */
typedef struct {
    uint32_t every;
    bool attention, feed, output;
    size_t ring_extents; /* room in the ring */
} part;

typedef struct {
    uint8_t resident[256];
    lld_residency residency;
    uint64_t pass_bytes, output_bytes, longest; /* whole blocks on the disk */
} choice;

static bool may_stream(const lld_extent *e, const part *p)
{
    return (e->role == LLD_ROLE_ATTENTION && p->attention) ||
           (e->role == LLD_ROLE_FEED && p->feed) || (e->role == LLD_ROLE_OUTPUT && p->output);
}

static void choose(lld_model *model, const part *p, choice *c)
{
    size_t n = lld_model_n_extents(model);
    uint32_t seen = 0;
    *c = (choice){.residency = {.resident = c->resident, .n_extents = n, .lock_bytes = 1 << 20}};
    CHECK(n <= sizeof c->resident, "%zu extents", n);
    for (size_t i = 0; i < n; i++) {
        lld_extent e;
        CHECK(lld_model_extent(model, i, &e) == LLD_OK, "%s", lld_error_message());
        c->resident[i] = !(may_stream(&e, p) && seen++ % p->every == 0);
        if (c->resident[i]) continue;
        uint64_t blocks = (e.file_offset + e.bytes + ALIGN - 1) / ALIGN - e.file_offset / ALIGN;
        c->pass_bytes += blocks * ALIGN;
        if (e.role == LLD_ROLE_OUTPUT) c->output_bytes += blocks * ALIGN;
        if (blocks * ALIGN > c->longest) c->longest = blocks * ALIGN;
    }
    c->residency.ring_bytes = c->longest * p->ring_extents;
}

static lld_residency_info info_of(const lld_model *model)
{
    lld_residency_info info;
    lld_model_get_residency(model, &info);
    return info;
}

static void streaming_changes_no_bit(void)
{
    static const part parts[] = {{.every = 1, .feed = true, .ring_extents = 3},
                                 {.every = 3, .feed = true, .ring_extents = 3},
                                 {.every = 2, .feed = true, .attention = true, .ring_extents = 5},
                                 {1, true, true, true, 3},
                                 {1, true, true, true, 4},
                                 {1, true, true, true, 1000},
                                 {.every = 1, .output = true, .ring_extents = 3}};
    lld_model *model = open_model();
    float expected[TINY_VOCAB], got[TINY_VOCAB];
    lld_engine *e = create(model, 2);
    generate(e, expected);
    lld_engine_destroy(e);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        for (uint32_t n_threads = 1; n_threads <= 4; n_threads++) {
            choice c;
            choose(model, &parts[i], &c);
            CHECK(lld_model_set_residency(model, &c.residency, NULL) == LLD_OK, "%s",
                  lld_error_message());
            uint64_t passes = info_of(model).passes;
            e = create(model, n_threads);
            generate(e, got);
            CHECK(memcmp(got, expected, sizeof got) == 0, "part %zu, %u threads", i, n_threads);
            CHECK(info_of(model).passes - passes == 12, "%llu passes",
                  (unsigned long long)(info_of(model).passes - passes));
            lld_engine_destroy(e);
        }
    close_model(model);
}

/* Every step reads what streams once; ahead at most what the ring holds. The output matrix is not
 * read for a step that keeps no logits. */
static void a_step_reads_what_it_uses_once(void)
{
    lld_model *model = open_model();
    choice c;
    choose(model, &(part){1, true, true, true, 3}, &c);
    CHECK(lld_model_set_residency(model, &c.residency, NULL) == LLD_OK, "%s", lld_error_message());
    lld_engine *e = create(model, 2);
    for (uint32_t i = 0; i < 10; i++) CHECK(feed(e, i, i + 1, 1) == LLD_OK, "step %u", i);
    const uint64_t kept = 10 * c.pass_bytes;
    uint64_t read = info_of(model).read_bytes;
    CHECK(read >= kept && read <= kept + c.residency.ring_bytes, "read %llu for %llu",
          (unsigned long long)read, (unsigned long long)kept);
    for (uint32_t i = 10; i < 20; i++) CHECK(feed(e, i, i + 1, 0) == LLD_OK, "step %u", i);
    const uint64_t both = kept + 10 * (c.pass_bytes - c.output_bytes);
    read = info_of(model).read_bytes;
    CHECK(read >= both && read <= both + c.residency.ring_bytes, "read %llu for %llu",
          (unsigned long long)read, (unsigned long long)both);
    CHECK(info_of(model).passes == 20 && info_of(model).locked_bytes > 0, "no passes, no lock");
    lld_engine_destroy(e);
    close_model(model);
}

static void a_ring_that_holds_no_extent_is_refused(void)
{
    lld_model *model = open_model();
    choice c;
    choose(model, &(part){.every = 1, .feed = true, .ring_extents = 3}, &c);
    c.residency.ring_bytes -= ALIGN;
    CHECK(lld_model_set_residency(model, &c.residency, NULL) == LLD_ERR_INVALID,
          "too small a ring");
    c.residency.n_extents--;
    CHECK(lld_model_set_residency(model, &c.residency, NULL) == LLD_ERR_INVALID, "too few extents");
    c.residency.n_extents++;
    c.resident[0] = 0;
    CHECK(lld_model_set_residency(model, &c.residency, NULL) == LLD_ERR_INVALID, "a vector");
    lld_engine *e = create(model, 2); /* and the model is as it was */
    CHECK(feed(e, 0, 5, 1) == LLD_OK, "%s", lld_error_message());
    lld_engine_destroy(e);
    close_model(model);
}

/* ---- changes while steps run ---------------------------------------------------------------------- */

typedef struct {
    lld_engine *engine;
    float logits[TINY_VOCAB];
    int status;
} decoder;

static void *decode(void *argument)
{
    decoder *d = argument;
    for (int round = 0; round < 6 && d->status == LLD_OK; round++)
        d->status = try_generate(d->engine, d->logits);
    return NULL;
}

static void residency_changes_while_steps_run(void)
{
    lld_model *model = open_model();
    decoder d = {.engine = create(model, 2)};
    float expected[TINY_VOCAB];
    generate(d.engine, expected);
    pthread_t thread;
    pthread_create(&thread, NULL, decode, &d);
    for (uint32_t i = 0; i < 40; i++) {
        choice c;
        const part p = {1 + i * 7 % 4, i % 2 == 0, i % 3 != 0, i % 5 == 0, 3 + i % 6};
        choose(model, &p, &c);
        CHECK(lld_model_set_residency(model, &c.residency, NULL) == LLD_OK, "%s",
              lld_error_message());
    }
    pthread_join(thread, NULL);
    CHECK(d.status == LLD_OK && memcmp(d.logits, expected, sizeof expected) == 0, "other bits");
    lld_engine_destroy(d.engine);
    close_model(model);
}

/* Weights in huge pages are given back too: the file is read there again. */
static void copied_weights_are_given_back(void)
{
    lld_model *model = open_model();
    lld_engine *e = create(model, 2);
    float expected[TINY_VOCAB], got[TINY_VOCAB];
    generate(e, expected);
    CHECK(lld_model_use_huge_pages(model, NULL) == LLD_OK, "%s", lld_error_message());
    choice c;
    choose(model, &(part){.every = 1}, &c); /* everything stays */
    CHECK(lld_model_set_residency(model, &c.residency, NULL) == LLD_OK, "%s", lld_error_message());
    CHECK(info_of(model).populated_bytes > info_of(model).resident_bytes, "not read");
    for (uint32_t every = 1; every < 4; every++) {
        choose(model, &(part){every, true, true, false, 3}, &c);
        CHECK(lld_model_set_residency(model, &c.residency, NULL) == LLD_OK, "%s",
              lld_error_message());
        generate(e, got);
        CHECK(memcmp(got, expected, sizeof got) == 0, "every %u", every);
    }
    lld_engine_destroy(e);
    close_model(model);
}

/* Two engines share the stream: their steps take turns. */
static void two_engines_take_turns(void)
{
    lld_model *model = open_model();
    choice c;
    choose(model, &(part){1, true, true, true, 3}, &c);
    CHECK(lld_model_set_residency(model, &c.residency, NULL) == LLD_OK, "%s", lld_error_message());
    decoder d = {.engine = create(model, 2)};
    lld_engine *other = create(model, 1);
    float logits[TINY_VOCAB];
    pthread_t thread;
    pthread_create(&thread, NULL, decode, &d);
    for (int round = 0; round < 6; round++) generate(other, logits);
    pthread_join(thread, NULL);
    CHECK(d.status == LLD_OK && memcmp(d.logits, logits, sizeof logits) == 0, "other bits");
    lld_engine_destroy(d.engine);
    lld_engine_destroy(other);
    close_model(model);
}

/* ---- cancel and failures ------------------------------------------------------------------------ */

/* Cancelled at any time, a step can be run again and gives what it gives undisturbed. */
static void a_cancelled_step_can_be_run_again(void)
{
    lld_model *model = open_model();
    lld_engine *e = create(model, 2);
    float expected[TINY_VOCAB], got[TINY_VOCAB];
    generate(e, expected);
    choice c;
    choose(model, &(part){1, true, true, true, 3}, &c);
    CHECK(lld_model_set_residency(model, &c.residency, NULL) == LLD_OK, "%s", lld_error_message());
    for (int i = 0; i < 8; i++) {
        lld_engine_cancel(e);
        CHECK(feed(e, 0, 40, 1) == LLD_ERR_CANCELLED, "not cancelled");
        lld_engine_cancel_clear(e);
        generate(e, got);
        CHECK(memcmp(got, expected, sizeof got) == 0, "round %d", i);
    }
    lld_engine_destroy(e);
    close_model(model);
}

/* What waits for an extent that never comes is woken by a cancel. */
typedef struct {
    lld_stream *stream;
    size_t extent;
    const uint8_t *got;
} taker;

static void *take(void *argument)
{
    taker *t = argument;
    t->got = lld_stream_take(t->stream, t->extent);
    return NULL;
}

static void a_cancel_ends_the_waiting(void)
{
    lld_model *model = open_model();
    choice c;
    choose(model, &(part){.every = 1, .feed = true, .ring_extents = 3}, &c);
    CHECK(lld_model_set_residency(model, &c.residency, NULL) == LLD_OK, "%s", lld_error_message());
    atomic_int cancel = 0;
    const lld_stream_pass pass = {.n_rows = 1, .cancel = &cancel};
    const lld_reading reading = lld_residency_begin(model, &pass);
    taker t = {.stream = reading.stream, .extent = 0};
    for (size_t i = 0; i < model->n_extents; i++) /* the last: the ring holds some, none is used */
        if (!c.resident[i]) t.extent = i;
    pthread_t thread;
    pthread_create(&thread, NULL, take, &t);
    atomic_store(&cancel, 1);
    lld_stream_wake(t.stream);
    pthread_join(thread, NULL);
    CHECK(t.got == NULL && lld_stream_is_stopped(t.stream), "went on");
    CHECK(lld_residency_end(model, &reading, false) == LLD_ERR_CANCELLED, "no cancel");
    close_model(model);
}

static void expect_failure(lld_model *model, lld_engine *e, const char *fault)
{
    int status = LLD_OK;
    for (uint32_t i = 5; i < 12 && status == LLD_OK; i++) status = feed(e, i, i + 1, 1);
    CHECK(status == LLD_ERR_FAULT, "status %d", status);
    CHECK(strstr(lld_error_message(), fault) != NULL &&
              strstr(lld_error_message(), "offset") != NULL &&
              strstr(lld_error_message(), model_path) != NULL,
          "%s", lld_error_message());
    CHECK(feed(e, 5, 6, 1) == LLD_ERR_FAULT, "it came back to life");
    lld_engine_destroy(e);
    close_model(model);
}

static lld_engine *start_streaming(lld_model *model)
{
    choice c;
    choose(model, &(part){.every = 1, .feed = true, .ring_extents = 3}, &c);
    CHECK(lld_model_set_residency(model, &c.residency, NULL) == LLD_OK, "%s", lld_error_message());
    lld_engine *e = create(model, 2);
    CHECK(feed(e, 0, 5, 1) == LLD_OK, "%s", lld_error_message());
    return e;
}

static void a_file_that_was_cut_fails_the_step(void)
{
    lld_model *model = open_model();
    lld_engine *e = start_streaming(model);
    const off_t left = (off_t)lld_file_bytes(lld_model_file(model)) - 2 * ALIGN; /* of ffn_down */
    CHECK(truncate(model_path, left) == 0, "truncate");
    expect_failure(model, e, "was cut to");
}

static void a_file_that_was_written_to_fails_the_step(void)
{
    lld_model *model = open_model();
    lld_engine *e = start_streaming(model);
    FILE *file = fopen(model_path, "r+b");
    const struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
    CHECK(file != NULL && futimens(fileno(file), times) == 0 && fclose(file) == 0, "write");
    expect_failure(model, e, "was written to");
}

/* A descriptor that cannot be read stands for a disk that fails: pread says why. */
static void a_disk_error_fails_the_step(void)
{
    lld_model *model = open_model();
    lld_engine *e = start_streaming(model);
    int writable = open(model_path, O_WRONLY | O_CLOEXEC);
    CHECK(writable >= 0 && dup3(writable, model->file->mapping.fd, O_CLOEXEC) >= 0, "dup");
    close(writable);
    expect_failure(model, e, "Bad file descriptor");
}

int main(void)
{
    streaming_changes_no_bit();
    a_step_reads_what_it_uses_once();
    a_ring_that_holds_no_extent_is_refused();
    residency_changes_while_steps_run();
    copied_weights_are_given_back();
    two_engines_take_turns();
    a_cancelled_step_can_be_run_again();
    a_cancel_ends_the_waiting();
    a_file_that_was_cut_fails_the_step();
    a_file_that_was_written_to_fails_the_step();
    a_disk_error_fails_the_step();
    return check_result();
}
