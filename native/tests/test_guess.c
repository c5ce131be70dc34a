/* test_guess.c - the layer that guesses tokens, of a model with states: the same bits in any chunking, with
 * any number of threads, in company and after guesses that were wrong; what is refused; and that the
 * model's own logits are those without the layer. What they should be, tests/engine/test_guesses.py says. */
#include <math.h>
#include <unistd.h>

#include "llamad_engine.h"
#include "tiny_guess_model.h"

enum { N_TOKENS = 70, N_GUESSES = 4, N_BLOCKS = 3, N_CTX = 32 * N_BLOCKS, N_STATES = 4 };

typedef float guesses[N_GUESSES][TINY_VOCAB];

static const uint32_t own_blocks[N_BLOCKS] = {4, 0, 2}, other_blocks[N_BLOCKS] = {1, 5, 3};

static lld_model *open_model(bool quantized, bool with_guess)
{
    lld_model *model = NULL;
    lld_model_info info;
    char path[64];
    snprintf(path, sizeof path, "/tmp/lld-test-guess-%ld.gguf", (long)getpid());
    tiny_guess_model_write(path, quantized);
    const int status = lld_model_open(path, with_guess, &model);
    unlink(path);
    CHECK(status == LLD_OK, "%s", lld_error_message());
    if (status != LLD_OK) exit(1);
    lld_model_get_info(model, &info);
    CHECK(info.n_guess_layers == (with_guess ? 1 : 0), "%u layers guess", info.n_guess_layers);
    return model;
}

static lld_engine *create(lld_model *model, uint32_t n_threads, lld_kv_type kv_type)
{
    const lld_engine_params p = {.n_threads = n_threads,
                                 .n_ctx = N_CTX,
                                 .n_blocks = 2 * N_BLOCKS,
                                 .n_batch = 2 * N_TOKENS,
                                 .n_logits = 4,
                                 .kv_type = kv_type,
                                 .n_states = N_STATES};
    lld_engine *engine = NULL;
    const int status = lld_engine_create(model, &p, &engine);
    CHECK(status == LLD_OK, "%s", lld_error_message());
    if (status != LLD_OK) exit(1);
    return engine;
}

static void text(uint32_t number, int32_t tokens[N_TOKENS])
{
    for (int32_t i = 0; i < N_TOKENS; i++)
        tokens[i] = (i * 7 + (int32_t)number * 13 + i * i % 11) % TINY_VOCAB;
}

static lld_run run_of(const int32_t *tokens, uint32_t from, uint32_t to, const uint32_t *blocks,
                      uint32_t state)
{
    return (lld_run){.tokens = tokens + from,
                     .n_tokens = to - from,
                     .position = from,
                     .blocks = blocks,
                     .n_blocks = N_BLOCKS,
                     .n_out = 1,
                     .state_in = state,
                     .state_out = state};
}

/* Feed a text but its last tokens, in pieces. */
static void feed(lld_engine *e, const int32_t *tokens, uint32_t piece)
{
    const uint32_t end = N_TOKENS - N_GUESSES;
    for (uint32_t at = 0; at < end; at += piece) {
        const lld_run run = run_of(tokens, at, at + piece < end ? at + piece : end, own_blocks, 0);
        CHECK(lld_engine_forward(e, &run, 1) == LLD_OK, "%s", lld_error_message());
    }
}

/* Guess behind each of the last tokens, the first drawn from the kept row `row`. */
static void guess(lld_engine *e, const int32_t *tokens, uint32_t row, guesses out)
{
    for (uint32_t i = 0; i < N_GUESSES; i++, row = 0) {
        const uint32_t at = N_TOKENS - N_GUESSES + i;
        const lld_run run = run_of(tokens, at, at + 1, own_blocks, 0);
        CHECK(lld_engine_guess(e, &run, &row, 1) == LLD_OK, "%s", lld_error_message());
        memcpy(out[i], lld_engine_logits(e, 0), sizeof out[i]);
    }
}

static void chunking_and_threads_change_no_bit(lld_model *model, lld_kv_type kv, guesses expected)
{
    int32_t tokens[N_TOKENS];
    text(0, tokens);
    const uint32_t threads[] = {1, 3}, pieces[] = {N_TOKENS, 7, 1};
    for (int t = 0; t < 2; t++) {
        for (int p = 0; p < 3; p++) {
            guesses found;
            lld_engine *e = create(model, threads[t], kv);
            feed(e, tokens, pieces[p]);
            guess(e, tokens, 0, found);
            if (t == 0 && p == 0) memcpy(expected, found, sizeof found);
            CHECK(memcmp(found, expected, sizeof found) == 0, "threads %u piece %u kv %d",
                  threads[t], pieces[p], (int)kv);
            lld_engine_destroy(e);
        }
    }
    for (int i = 0; i < TINY_VOCAB; i++) CHECK(isfinite(expected[0][i]), "logit %d", i);
    CHECK(memcmp(expected[0], expected[1], sizeof expected[0]) != 0, "one guess for all tokens");
}

/* Beside another text in the step and in the guess; then once more, over guesses of other tokens. */
static void company_and_wrong_guesses_change_no_bit(lld_model *model, lld_kv_type kv,
                                                    guesses expected)
{
    int32_t tokens[N_TOKENS], other[N_TOKENS];
    guesses found;
    text(0, tokens);
    text(1, other);
    lld_engine *e = create(model, 2, kv);
    const uint32_t end = N_TOKENS - N_GUESSES, rows[] = {0, 1};
    const lld_run both[] = {run_of(other, 0, 50, other_blocks, 1),
                            run_of(tokens, 0, end, own_blocks, 0)},
                  drawn[] = {run_of(other, 50, 51, other_blocks, 1),
                             run_of(tokens, end, end + 1, own_blocks, 0)};
    CHECK(lld_engine_forward(e, both, 2) == LLD_OK, "%s", lld_error_message());
    CHECK(lld_engine_guess(e, drawn, rows, 2) == LLD_OK, "%s", lld_error_message());
    CHECK(memcmp(lld_engine_logits(e, 1), expected[0], sizeof expected[0]) == 0, "kv %d", (int)kv);
    CHECK(lld_engine_logits(e, 2) == NULL, "a third row was kept");

    CHECK(lld_engine_forward(e, both, 2) == LLD_OK, "%s", lld_error_message());
    guess(e, other, 1, found);
    CHECK(memcmp(found, expected, sizeof found) != 0, "other tokens, the same guesses");
    feed(e, tokens, 33);
    guess(e, tokens, 0, found);
    CHECK(memcmp(found, expected, sizeof found) == 0, "after wrong guesses, kv %d", (int)kv);
    lld_engine_destroy(e);
}

/* The model's own logits behind a text, with guesses between or without. */
static void own_logits(bool quantized, bool with_guess, lld_kv_type kv, float out[TINY_VOCAB])
{
    int32_t tokens[N_TOKENS];
    guesses ignored;
    text(0, tokens);
    lld_model *model = open_model(quantized, with_guess);
    lld_engine *e = create(model, 2, kv);
    feed(e, tokens, 20);
    if (with_guess) guess(e, tokens, 0, ignored);
    const lld_run run = run_of(tokens, N_TOKENS - N_GUESSES, N_TOKENS, own_blocks, 0);
    CHECK(lld_engine_forward(e, &run, 1) == LLD_OK, "%s", lld_error_message());
    memcpy(out, lld_engine_logits(e, 0), TINY_VOCAB * sizeof *out);
    lld_engine_destroy(e);
    lld_model_close(model);
}

static void the_models_own_logits_are_those_without(bool quantized, lld_kv_type kv)
{
    float with[TINY_VOCAB], without[TINY_VOCAB];
    own_logits(quantized, true, kv, with);
    own_logits(quantized, false, kv, without);
    CHECK(memcmp(with, without, sizeof with) == 0, "quantized %d kv %d", (int)quantized, (int)kv);
}

static void refused(lld_engine *e, const char *name, const lld_run *run, uint32_t row)
{
    CHECK(lld_engine_guess(e, run, &row, 1) == LLD_ERR_INVALID, "%s was taken", name);
}

static void what_no_guess_is_is_refused(lld_model *model)
{
    int32_t tokens[N_TOKENS];
    text(0, tokens);
    lld_engine *e = create(model, 1, LLD_KV_F16);
    const uint32_t at = N_TOKENS - N_GUESSES;
    const lld_run run = run_of(tokens, at, at + 1, own_blocks, 0);
    refused(e, "a guess before any step", &run, 0);
    feed(e, tokens, N_TOKENS);
    refused(e, "a row that was not kept", &run, 1);
    lld_run other = run_of(tokens, 0, 1, own_blocks, 0);
    refused(e, "the first position", &other, 0);
    other = run_of(tokens, at, at + 2, own_blocks, 0);
    refused(e, "two tokens", &other, 0);
    other = run;
    other.n_out = 0;
    refused(e, "no logits", &other, 0);
    guesses found;
    guess(e, tokens, 0, found); /* what was refused has changed nothing */
    CHECK(isfinite(found[0][0]), "%g", (double)found[0][0]);
    lld_engine_destroy(e);

    lld_model *plain = open_model(false, false);
    e = create(plain, 1, LLD_KV_F16);
    feed(e, tokens, N_TOKENS);
    refused(e, "a model without the layer", &run, 0);
    lld_engine_destroy(e);
    lld_model_close(plain);
}

int main(void)
{
    for (int quantized = 0; quantized < 2; quantized++) {
        lld_model *model = open_model(quantized, true);
        for (int kv = LLD_KV_F16; kv <= LLD_KV_Q4_0; kv++) {
            guesses expected;
            chunking_and_threads_change_no_bit(model, (lld_kv_type)kv, expected);
            company_and_wrong_guesses_change_no_bit(model, (lld_kv_type)kv, expected);
            the_models_own_logits_are_those_without(quantized, (lld_kv_type)kv);
        }
        what_no_guess_is_is_refused(model);
        lld_model_close(model);
    }
    return check_result();
}
