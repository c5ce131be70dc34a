/* test_expert_importance.c - every expert has the sums of the rows that chose it, whatever the number of
 * threads and the chunking, and collecting changes no logit. Against an oracle: test_imatrix.py. */
#include <math.h>
#include <unistd.h>

#define TINY_EXPERTS 5
#include "llamad_engine.h"
#include "tiny_model.h"

enum { N_TOKENS = 150, N_BLOCKS = (N_TOKENS + 31) / 32, N_USED = 2, MAX_COLS = TINY_HIDDEN };

static const lld_importance_input inputs[] = {LLD_IMPORTANCE_EXPERTS_GATE_UP,
                                              LLD_IMPORTANCE_EXPERTS_DOWN};

typedef struct {
    double sums[TINY_LAYERS][2][TINY_EXPERTS][MAX_COLS];
    uint64_t rows[TINY_LAYERS][2][TINY_EXPERTS];
    float logits[TINY_VOCAB];
} result;

static lld_model *open_model(bool quantized)
{
    char path[64];
    lld_model *model = NULL;
    snprintf(path, sizeof path, "/tmp/lld-test-expert-importance-%ld.gguf", (long)getpid());
    tiny_model_write(path, quantized);
    const int status = lld_model_open(path, false, &model);
    CHECK(status == LLD_OK, "%s", lld_error_message());
    unlink(path);
    if (status != LLD_OK) exit(1);
    return model;
}

/* Feed all tokens in pieces, collecting or not. */
static void feed(lld_engine *e, uint32_t piece)
{
    int32_t tokens[N_TOKENS];
    uint32_t blocks[N_BLOCKS];
    for (uint32_t i = 0; i < N_TOKENS; i++)
        tokens[i] = (int32_t)((i * 7 + i * i % 11) % TINY_VOCAB);
    for (uint32_t i = 0; i < N_BLOCKS; i++) blocks[i] = i;
    for (uint32_t at = 0; at < N_TOKENS; at += piece) {
        const uint32_t n = N_TOKENS - at < piece ? N_TOKENS - at : piece;
        const lld_run run = {.tokens = tokens + at,
                             .n_tokens = n,
                             .position = at,
                             .blocks = blocks,
                             .n_blocks = N_BLOCKS,
                             .n_out = 1};
        CHECK(lld_engine_forward(e, &run, 1) == LLD_OK, "%s", lld_error_message());
    }
}

static void read_sums(const lld_importance *importance, result *r)
{
    for (uint32_t layer = 0; layer < TINY_LAYERS; layer++)
        for (int i = 0; i < 2; i++) {
            CHECK(lld_importance_matrices(importance, layer, inputs[i]) == TINY_EXPERTS, "layer %u",
                  layer);
            for (uint32_t expert = 0; expert < TINY_EXPERTS; expert++)
                CHECK(lld_importance_read(importance, layer, inputs[i], expert,
                                          r->sums[layer][i][expert],
                                          lld_importance_cols(importance, layer, inputs[i]),
                                          &r->rows[layer][i][expert]) == LLD_OK,
                      "%s", lld_error_message());
        }
}

static result *run(lld_model *model, uint32_t n_threads, uint32_t piece, bool collects)
{
    const lld_engine_params p = {.n_threads = n_threads,
                                 .n_ctx = N_TOKENS,
                                 .n_batch = N_TOKENS,
                                 .n_logits = 1,
                                 .kv_type = LLD_KV_F16};
    result *r = calloc(1, sizeof *r);
    lld_engine *engine = NULL;
    lld_importance *importance = NULL;
    if (r == NULL || lld_engine_create(model, &p, &engine) != LLD_OK ||
        lld_importance_create(model, n_threads, &importance) != LLD_OK)
        exit(2);
    if (collects)
        CHECK(lld_engine_collect(engine, importance) == LLD_OK, "%s", lld_error_message());
    feed(engine, piece);
    memcpy(r->logits, lld_engine_logits(engine, 0), sizeof r->logits);
    read_sums(importance, r);
    lld_engine_destroy(engine);
    lld_importance_destroy(importance);
    return r;
}

static void check_same(const result *a, const result *b, uint32_t n_threads, uint32_t piece)
{
    for (int layer = 0; layer < TINY_LAYERS; layer++)
        for (int i = 0; i < 2; i++)
            for (int expert = 0; expert < TINY_EXPERTS; expert++) {
                CHECK(a->rows[layer][i][expert] == b->rows[layer][i][expert],
                      "layer %d expert %d threads %u piece %u", layer, expert, n_threads, piece);
                for (int c = 0; c < MAX_COLS; c++) {
                    const double x = a->sums[layer][i][expert][c], y = b->sums[layer][i][expert][c];
                    CHECK(fabs(x - y) <= 1e-12 * fabs(x), "layer %d expert %d column %d: %g and %g",
                          layer, expert, c, x, y);
                }
            }
}

/* The norm's weights are ones, so the mean square of a normed row is 1 whatever the row, less what the
 * norm's epsilon takes. */
static void check_totals(const result *r)
{
    for (int layer = 0; layer < TINY_LAYERS; layer++) {
        uint64_t n_rows = 0;
        for (int expert = 0; expert < TINY_EXPERTS; expert++) {
            double sum = 0;
            const uint64_t rows = r->rows[layer][0][expert];
            for (int c = 0; c < TINY_DIM; c++) sum += r->sums[layer][0][expert][c];
            CHECK(fabs(sum - (double)(rows * TINY_DIM)) <= 1e-2 * (double)(rows * TINY_DIM),
                  "layer %d expert %d: %g of %llu rows", layer, expert, sum,
                  (unsigned long long)rows);
            CHECK(r->rows[layer][1][expert] == rows, "layer %d expert %d", layer, expert);
            n_rows += rows;
        }
        CHECK(n_rows == N_TOKENS * N_USED, "layer %d: %llu rows", layer,
              (unsigned long long)n_rows);
    }
}

static void threads_and_chunking_change_nothing(bool quantized)
{
    const uint32_t threads[] = {1, 2, 4}, pieces[] = {1, 7, N_TOKENS};
    lld_model *model = open_model(quantized);
    result *expected = run(model, 1, N_TOKENS, true), *apart = run(model, 1, N_TOKENS, false);
    check_totals(expected);
    CHECK(apart->rows[0][0][0] == 0, "collected unasked");
    CHECK(memcmp(apart->logits, expected->logits, sizeof apart->logits) == 0, "logits");
    for (int t = 0; t < 3; t++)
        for (int p = 0; p < 3; p++) {
            result *other = run(model, threads[t], pieces[p], true);
            check_same(expected, other, threads[t], pieces[p]);
            free(other);
        }
    free(expected);
    free(apart);
    lld_model_close(model);
}

int main(void)
{
    threads_and_chunking_change_nothing(true);
    threads_and_chunking_change_nothing(false);
    return check_result();
}
