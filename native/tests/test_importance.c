/* test_importance.c - the sums are the same with any number of threads and in any chunking, every
 * row is counted once, and the logits stay as they are without a collector. */
#include <math.h>
#include <unistd.h>

#include "llamad_engine.h"
#include "tiny_model.h"

enum { N_TOKENS = 150, N_BLOCKS = (N_TOKENS + 31) / 32, MAX_COLS = TINY_HIDDEN };

typedef struct {
    double sums[TINY_LAYERS][LLD_IMPORTANCE_INPUTS][MAX_COLS];
    uint64_t rows[TINY_LAYERS][LLD_IMPORTANCE_INPUTS];
    float logits[TINY_VOCAB];
} result;

static lld_model *open_model(bool quantized)
{
    char path[64];
    lld_model *model = NULL;
    snprintf(path, sizeof path, "/tmp/lld-test-importance-%ld.gguf", (long)getpid());
    tiny_model_write(path, quantized);
    int status = lld_model_open(path, false, &model);
    CHECK(status == LLD_OK, "%s", lld_error_message());
    unlink(path);
    if (status != LLD_OK) exit(1);
    return model;
}

static lld_engine *create_engine(lld_model *model, uint32_t n_threads)
{
    lld_engine_params p = {.n_threads = n_threads,
                           .n_ctx = N_TOKENS,
                           .n_batch = N_TOKENS,
                           .n_logits = N_TOKENS,
                           .kv_type = LLD_KV_F16};
    lld_engine *engine = NULL;
    int status = lld_engine_create(model, &p, &engine);
    CHECK(status == LLD_OK, "%s", lld_error_message());
    if (status != LLD_OK) exit(1);
    return engine;
}

static lld_importance *create_importance(const lld_model *model, uint32_t n_threads)
{
    lld_importance *importance = NULL;
    int status = lld_importance_create(model, n_threads, &importance);
    CHECK(status == LLD_OK, "%s", lld_error_message());
    if (status != LLD_OK) exit(1);
    return importance;
}

/* Feed all tokens in pieces; every row's logits are kept. */
static void feed(lld_engine *e, uint32_t piece)
{
    int32_t tokens[N_TOKENS];
    uint32_t blocks[N_BLOCKS];
    for (uint32_t i = 0; i < N_TOKENS; i++)
        tokens[i] = (int32_t)((i * 7 + i * i % 11) % TINY_VOCAB);
    for (uint32_t i = 0; i < N_BLOCKS; i++) blocks[i] = i;
    for (uint32_t at = 0; at < N_TOKENS; at += piece) {
        uint32_t n = N_TOKENS - at < piece ? N_TOKENS - at : piece;
        const lld_run run = {.tokens = tokens + at,
                             .n_tokens = n,
                             .position = at,
                             .blocks = blocks,
                             .n_blocks = N_BLOCKS,
                             .n_out = n};
        CHECK(lld_engine_forward(e, &run, 1) == LLD_OK, "%s", lld_error_message());
    }
}

static void read_sums(const lld_importance *importance, result *r)
{
    for (uint32_t layer = 0; layer < TINY_LAYERS; layer++)
        for (int i = 0; i < LLD_IMPORTANCE_INPUTS; i++) {
            lld_importance_input input = (lld_importance_input)i;
            if (lld_importance_matrices(importance, layer, input) == 0) continue;
            int status = lld_importance_read(importance, layer, input, 0, r->sums[layer][i],
                                             lld_importance_cols(importance, layer, input),
                                             &r->rows[layer][i]);
            CHECK(status == LLD_OK, "%s", lld_error_message());
        }
}

static result *collect(lld_model *model, uint32_t n_threads, uint32_t piece)
{
    result *r = calloc(1, sizeof *r);
    if (r == NULL) exit(2);
    lld_importance *importance = create_importance(model, n_threads);
    lld_engine *engine = create_engine(model, n_threads);
    CHECK(lld_engine_collect(engine, importance) == LLD_OK, "%s", lld_error_message());
    feed(engine, piece);
    memcpy(r->logits, lld_engine_logits(engine, (N_TOKENS - 1) % piece), sizeof r->logits);
    lld_engine_destroy(engine);
    read_sums(importance, r);
    lld_importance_destroy(importance);
    return r;
}

static void check_same(const result *a, const result *b, uint32_t n_threads, uint32_t piece)
{
    for (int layer = 0; layer < TINY_LAYERS; layer++)
        for (int i = 0; i < LLD_IMPORTANCE_INPUTS; i++) {
            CHECK(a->rows[layer][i] == b->rows[layer][i], "layer %d input %d threads %u piece %u",
                  layer, i, n_threads, piece);
            for (int c = 0; c < MAX_COLS; c++) {
                double x = a->sums[layer][i][c], y = b->sums[layer][i][c];
                CHECK(fabs(x - y) <= 1e-12 * fabs(x), "layer %d input %d column %d: %g and %g",
                      layer, i, c, x, y);
            }
        }
}

static void threads_and_chunking_change_nothing(bool quantized)
{
    lld_model *model = open_model(quantized);
    result *expected = collect(model, 1, N_TOKENS);
    for (int i = 0; i < LLD_IMPORTANCE_INPUTS; i++) {
        if (i == LLD_IMPORTANCE_EXPERTS_GATE_UP || i == LLD_IMPORTANCE_EXPERTS_DOWN) {
            CHECK(expected->rows[0][i] == 0, "input %d", i);
            continue;
        }
        CHECK(expected->rows[0][i] == N_TOKENS, "input %d", i);
        for (int c = 0; c < (i == LLD_IMPORTANCE_DOWN ? TINY_HIDDEN : TINY_DIM); c++)
            CHECK(expected->sums[0][i][c] > 0, "input %d column %d", i, c);
    }
    const uint32_t threads[] = {1, 2, 4}, pieces[] = {1, 7, N_TOKENS};
    for (int t = 0; t < 3; t++)
        for (int p = 0; p < 3; p++) {
            result *other = collect(model, threads[t], pieces[p]);
            check_same(expected, other, threads[t], pieces[p]);
            free(other);
        }
    free(expected);
    lld_model_close(model);
}

/* The norm's weights are ones, so the mean square of a normed row is 1 whatever the row. */
static void normed_rows_have_their_known_sum(void)
{
    lld_model *model = open_model(true);
    result *r = collect(model, 2, 64);
    double sum = 0;
    for (int c = 0; c < TINY_DIM; c++) sum += r->sums[1][LLD_IMPORTANCE_GATE_UP][c];
    CHECK(fabs(sum / (N_TOKENS * TINY_DIM) - 1) < 1e-3, "mean square %g",
          sum / (N_TOKENS * TINY_DIM));
    free(r);
    lld_model_close(model);
}

static void collecting_changes_no_logit(void)
{
    lld_model *model = open_model(true);
    result *r = collect(model, 2, 64);
    lld_engine *engine = create_engine(model, 2);
    feed(engine, 64);
    CHECK(memcmp(r->logits, lld_engine_logits(engine, (N_TOKENS - 1) % 64), sizeof r->logits) == 0,
          "logits");
    lld_engine_destroy(engine);
    free(r);
    lld_model_close(model);
}

static void detached_it_stays_as_it_is(void)
{
    lld_model *model = open_model(true);
    lld_importance *importance = create_importance(model, 2);
    lld_engine *engine = create_engine(model, 2);
    CHECK(lld_engine_collect(engine, importance) == LLD_OK, "%s", lld_error_message());
    CHECK(lld_engine_collect(engine, NULL) == LLD_OK, "%s", lld_error_message());
    feed(engine, 64);
    double sums[TINY_DIM];
    uint64_t rows = 1;
    CHECK(lld_importance_read(importance, 0, LLD_IMPORTANCE_QKV, 0, sums, TINY_DIM, &rows) ==
              LLD_OK,
          "%s", lld_error_message());
    CHECK(rows == 0 && sums[0] == 0, "rows %llu", (unsigned long long)rows);
    lld_engine_destroy(engine);
    lld_importance_destroy(importance);
    lld_model_close(model);
}

static void wrong_arguments_are_refused(void)
{
    lld_model *model = open_model(true), *another = open_model(true);
    lld_importance *importance = create_importance(model, 1), *none = NULL;
    lld_engine *engine = create_engine(model, 2), *foreign = create_engine(another, 1);
    double sums[MAX_COLS];
    uint64_t rows;
    CHECK(lld_engine_collect(engine, importance) == LLD_ERR_INVALID, "too few threads");
    CHECK(lld_engine_collect(foreign, importance) == LLD_ERR_INVALID, "another model");
    CHECK(lld_importance_create(model, 0, &none) == LLD_ERR_INVALID, "no thread");
    CHECK(lld_importance_create(model, 65, &none) == LLD_ERR_INVALID, "65 threads");
    CHECK(lld_importance_read(importance, TINY_LAYERS, LLD_IMPORTANCE_QKV, 0, sums, TINY_DIM,
                              &rows) == LLD_ERR_INVALID,
          "layer");
    CHECK(lld_importance_read(importance, 1, LLD_IMPORTANCE_OUTPUT, 0, sums, TINY_DIM, &rows) ==
              LLD_ERR_INVALID,
          "a second output");
    CHECK(lld_importance_read(importance, 0, LLD_IMPORTANCE_INPUTS, 0, sums, TINY_DIM, &rows) ==
              LLD_ERR_INVALID,
          "input");
    CHECK(lld_importance_read(importance, 0, LLD_IMPORTANCE_DOWN, 0, sums, TINY_DIM, &rows) ==
              LLD_ERR_INVALID,
          "columns");
    CHECK(lld_importance_read(importance, 0, LLD_IMPORTANCE_QKV, 1, sums, TINY_DIM, &rows) ==
              LLD_ERR_INVALID,
          "a second matrix");
    CHECK(lld_importance_read(importance, 0, LLD_IMPORTANCE_EXPERTS_DOWN, 0, sums, TINY_DIM,
                              &rows) == LLD_ERR_INVALID,
          "an expert of none");
    CHECK(lld_importance_cols(importance, 0, LLD_IMPORTANCE_INPUTS) == 0, "columns of no input");
    lld_engine_destroy(engine);
    lld_engine_destroy(foreign);
    lld_importance_destroy(importance);
    lld_model_close(model);
    lld_model_close(another);
}

int main(void)
{
    threads_and_chunking_change_nothing(true);
    threads_and_chunking_change_nothing(false);
    normed_rows_have_their_known_sum();
    collecting_changes_no_logit();
    detached_it_stays_as_it_is();
    wrong_arguments_are_refused();
    return check_result();
}
