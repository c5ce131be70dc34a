/* test_expert_reads.c - the store of experts alone, with as many slots as a layer has experts: what is read
 * when it is chosen, and before, because it was guessed; also where passes end early. */
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#define TINY_HIDDEN  192
#define TINY_EXPERTS 12
#include "llamad_engine.h"
#include "model/expert_store.h"
#include "tiny_model.h"

static char model_path[64];

typedef struct {
    lld_model *model;
    lld_direct_file file;
    int fd;
    lld_expert_store *store;
} alone;

/* The store keeps a pointer to a->file. */
static void open_alone(alone *a)
{
    *a = (alone){0};
    snprintf(model_path, sizeof model_path, "/var/tmp/lld-test-reads-%ld.gguf", (long)getpid());
    tiny_model_write(model_path, true);
    CHECK(lld_model_open(model_path, false, &a->model) == LLD_OK, "%s", lld_error_message());
    if (a->model == NULL) exit(1);
    uint8_t resident[256] = {0};
    const lld_residency r = {.resident = resident,
                             .n_extents = lld_model_n_extents(a->model),
                             .expert_slots = TINY_EXPERTS};
    CHECK(r.n_extents <= sizeof resident, "%zu extents", r.n_extents);
    a->fd = open(model_path, O_RDONLY | O_CLOEXEC);
    CHECK(lld_direct_file_open(a->fd, model_path, &a->file) == LLD_OK, "%s", lld_error_message());
    CHECK(lld_expert_store_create(a->model, &a->file, &a->store) == LLD_OK, "%s",
          lld_error_message());
    CHECK(lld_expert_store_set(a->store, &r, 0) == LLD_OK, "%s", lld_error_message());
}

static void close_alone(alone *a)
{
    lld_expert_store_destroy(a->store);
    close(a->fd);
    lld_model_close(a->model);
    unlink(model_path);
}

/* A pass over one layer that uses all its experts; in vain: it ends before it takes any. */
static void pass_over(lld_expert_store *s, const lld_model *model, uint32_t layer, bool in_vain)
{
    static atomic_int no_cancel;
    const lld_stream_pass pass = {.n_rows = 1, .n_kept = 1, .cancel = &no_cancel};
    uint32_t experts[TINY_EXPERTS];
    for (uint32_t i = 0; i < TINY_EXPERTS; i++) experts[i] = i;
    lld_expert_store_begin(s, &pass);
    lld_expert_store_choose(s, layer, experts, TINY_EXPERTS);
    for (uint32_t i = 0; i < TINY_EXPERTS && !in_vain; i++) {
        const lld_gated_weights *w = &model->layers[layer].mixture.experts[experts[i]];
        const size_t bytes = w->down.n_rows * w->down.row_bytes;
        lld_gated_weights got;
        CHECK(lld_expert_store_take(s, layer, experts[i], LLD_EXPERT_GATE_UP, &got), "stopped");
        CHECK(memcmp(got.up.data, w->up.data, w->up.n_rows * w->up.row_bytes) == 0, "other up");
        CHECK(lld_expert_store_take(s, layer, experts[i], LLD_EXPERT_DOWN, &got), "stopped");
        CHECK(memcmp(got.down.data, w->down.data, bytes) == 0, "other down");
    }
    CHECK(lld_expert_store_end(s) == LLD_OK, "%s", lld_error_message());
}

static lld_residency_info told_by(lld_expert_store *s)
{
    lld_residency_info info = {0};
    lld_expert_store_add_info(s, &info);
    return info;
}

/* Whether the store reads something beyond n_bytes within a minute. */
static bool reads_more_than(lld_expert_store *s, uint64_t n_bytes)
{
    for (int i = 0; i < 60000 && told_by(s).expert_read_bytes <= n_bytes; i++) usleep(1000);
    return told_by(s).expert_read_bytes > n_bytes;
}

static void choose_and_take(lld_expert_store *s, uint32_t layer, uint32_t expert)
{
    lld_gated_weights got;
    lld_expert_store_choose(s, layer, &expert, 1);
    CHECK(lld_expert_store_take(s, layer, expert, LLD_EXPERT_GATE_UP, &got), "stopped");
    CHECK(lld_expert_store_take(s, layer, expert, LLD_EXPERT_DOWN, &got), "stopped");
}

/* A pass that uses an expert of each of two layers, other ones than the five passes before; that of the
 * second layer is guessed. Returns whether the guess was read before the choice. */
static bool pass_with_guess(lld_expert_store *s, uint32_t number, bool right, bool may_read)
{
    static atomic_int no_cancel;
    const lld_stream_pass pass = {.n_rows = 1, .n_kept = 1, .cancel = &no_cancel};
    const uint32_t expert = number % TINY_EXPERTS;
    const uint32_t guess = right ? expert : (number + TINY_EXPERTS / 2) % TINY_EXPERTS;
    bool was_read = false;
    lld_expert_store_begin(s, &pass);
    choose_and_take(s, 0, expert);
    const uint64_t before = told_by(s).expert_read_bytes;
    if (lld_expert_store_guesses(s)) {
        lld_expert_store_guess(s, 1, &guess, 1);
        was_read = may_read && reads_more_than(s, before);
    }
    choose_and_take(s, 1, expert);
    CHECK(lld_expert_store_end(s) == LLD_OK, "%s", lld_error_message());
    return was_read;
}

static void what_is_guessed_is_read_while_guesses_are_right(void)
{
    enum { JUDGED = 32 }; /* as in expert_guesses.c */
    alone a;
    open_alone(&a);
    uint32_t i = 0;
    for (; i < JUDGED; i++) pass_with_guess(a.store, i, true, false);
    const lld_residency_info before = told_by(a.store);
    CHECK(before.expert_guesses == JUDGED && before.expert_guesses_right == JUDGED, "%d of %d",
          (int)before.expert_guesses_right, (int)before.expert_guesses);
    CHECK(before.expert_hits == 0, "%d were there, of what was used long ago",
          (int)before.expert_hits);
    for (; i < 2 * JUDGED; i++)
        CHECK(pass_with_guess(a.store, i, true, true), "pass %u: a guess was not read", i);
    for (; i < 6 * JUDGED; i++) pass_with_guess(a.store, i, false, false);
    const lld_residency_info wrong = told_by(a.store);
    for (; i < 7 * JUDGED; i++) pass_with_guess(a.store, i, false, false);
    const lld_residency_info after = told_by(a.store);
    const uint64_t used = 2 * JUDGED - (after.expert_hits - wrong.expert_hits);
    const uint64_t each = (before.expert_read_bytes) / (2 * JUDGED);
    CHECK(after.expert_read_bytes - wrong.expert_read_bytes == used * each,
          "wrong guesses are read: %d bytes for %d of %d",
          (int)(after.expert_read_bytes - wrong.expert_read_bytes), (int)used, (int)each);
    close_alone(&a);
}

/* A pass that ends early leaves experts of which one part is still read and the other no more: the next
 * pass that chooses them gets both. */
static void what_an_ended_pass_did_not_read_is_read_by_the_next(void)
{
    alone a;
    open_alone(&a);
    for (int i = 0; i < 400; i++) {
        pass_over(a.store, a.model, 0, true);
        for (int k = 0; k < i % 40; k++) sched_yield(); /* readers begin, or not yet */
        pass_over(a.store, a.model, 0, true);
        pass_over(a.store, a.model, 0, false);
        pass_over(a.store, a.model, 1, false); /* takes the slots of the other layer's */
    }
    close_alone(&a);
}

/* A pass that ends, or chooses other experts, while guesses wait or are read: whoever chooses them later
 * gets all of them. */
static void what_was_guessed_in_vain_is_read_when_it_is_chosen(void)
{
    static atomic_int no_cancel;
    const lld_stream_pass pass = {.n_rows = 1, .n_kept = 1, .cancel = &no_cancel};
    const uint32_t guess[] = {0, 7, 3, 9, 1};
    alone a;
    open_alone(&a);
    for (uint32_t i = 0; i < 64; i++) pass_with_guess(a.store, i, true, false);
    for (uint32_t i = 0; i < 400; i++) {
        lld_expert_store_begin(a.store, &pass);
        choose_and_take(a.store, 0, i % TINY_EXPERTS);
        if (lld_expert_store_guesses(a.store))
            lld_expert_store_guess(a.store, 1, guess, sizeof guess / sizeof *guess);
        for (uint32_t k = 0; k < i % 40; k++) sched_yield(); /* readers begin, or not yet */
        if (i % 3 == 0) choose_and_take(a.store, 1, guess[i / 3 % 5]);
        CHECK(lld_expert_store_end(a.store) == LLD_OK, "%s", lld_error_message());
        if (i % 2 == 0) pass_over(a.store, a.model, 1, false);
        if (i % 3 == 0) continue;
        pass_with_guess(a.store, i, true, false); /* guesses stay right often enough */
    }
    close_alone(&a);
}

int main(void)
{
    what_an_ended_pass_did_not_read_is_read_by_the_next();
    what_is_guessed_is_read_while_guesses_are_right();
    what_was_guessed_in_vain_is_read_when_it_is_chosen();
    return check_result();
}
