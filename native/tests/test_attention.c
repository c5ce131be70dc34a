/* test_attention.c - attention of rows that see one token, some, or none: of a layer that guesses the row
 * at position 0 has none (guess.c), and its output is zeros, with sinks as without, in split tiles too. */
#include "engine/attention.h"
#include "kernel_check.h"

enum { N_HEADS = 4, N_KV_HEADS = 2, HEAD_DIM = 32, MAX_ROWS = 6, N_CTX = 300, BLOCK = 3 };
enum { ROW = N_HEADS * HEAD_DIM };

typedef struct bench {
    lld_kv_cache cache;
    lld_attention attention;
    lld_attention_scratch scratch;
    void *memory;
    float values[MAX_ROWS][N_KV_HEADS][HEAD_DIM]; /* as f16 has them */
    float q[MAX_ROWS * ROW], out[MAX_ROWS * ROW];
} bench;

static float random_value(uint64_t *seed)
{
    return (float)(check_random(seed) >> 40) / (float)(1 << 23) - 1.0f;
}

static void alloc(bench *b, lld_arena *arena)
{
    lld_attention_alloc(arena, &b->attention, MAX_ROWS, N_CTX);
    lld_attention_scratch_alloc(arena, &b->attention, &b->scratch);
}

static void create(bench *b, const lld_kernels *kernels)
{
    static lld_config config; /* too large for a stack */
    uint64_t seed = 5;
    config.n_layers = 1;
    config.layers[0] = (lld_layer_sizes){.n_kv_heads = N_KV_HEADS, .head_dim = HEAD_DIM};
    memset(b, 0, sizeof *b);
    CHECK(lld_kv_cache_plan(&b->cache, &config, LLD_KV_F16, BLOCK + 1, 0) == LLD_OK, "plan");
    CHECK(lld_kv_cache_create(&b->cache) == LLD_OK, "create");
    b->attention = (lld_attention){.kernels = kernels,
                                   .cache = &b->cache,
                                   .n_heads = N_HEADS,
                                   .head_dim = HEAD_DIM,
                                   .group = N_HEADS / N_KV_HEADS,
                                   .q_scale = 0.2f};
    lld_arena arena = {0};
    alloc(b, &arena);
    const size_t size = (arena.used + 63) / 64 * 64;
    b->memory = aligned_alloc(64, size);
    if (b->memory == NULL) exit(2);
    memset(b->memory, 0xFF, size); /* not a number, whatever is read before it is written */
    arena = (lld_arena){.base = b->memory};
    alloc(b, &arena);
    for (size_t i = 0; i < MAX_ROWS * ROW; i++) b->q[i] = random_value(&seed);
    for (size_t token = 0; token < MAX_ROWS; token++) {
        for (uint32_t h = 0; h < N_KV_HEADS; h++) {
            const lld_kv_head head = lld_kv_head_at(&b->cache, BLOCK, 0, h);
            float key[HEAD_DIM], *value = b->values[token][h];
            for (size_t d = 0; d < HEAD_DIM; d++) {
                key[d] = random_value(&seed);
                value[d] = (float)(int)(random_value(&seed) * 64.0f) / 64.0f;
            }
            kernels->kv_store_f16(head.k, head.v, token, key, value, HEAD_DIM);
        }
    }
}

static void destroy(bench *b)
{
    free(b->memory);
    lld_kv_cache_destroy(&b->cache);
}

static void attend(bench *b, const lld_attention_layer *layer, uint32_t n_rows)
{
    const uint32_t blocks[] = {BLOCK};
    const lld_batch_run run = {.n_rows = n_rows, .blocks = blocks};
    memset(b->out, 0xFF, sizeof b->out);
    lld_attention_plan(&b->attention, &run, 1, n_rows);
    for (size_t unit = 0; unit < lld_attention_units(&b->attention, layer); unit++)
        lld_attention_run(&b->attention, unit, &run, layer, b->q, b->out, &b->scratch);
    for (uint32_t row = 0; row < n_rows && lld_attention_is_split(&b->attention); row++)
        lld_attention_merge(&b->attention, layer, row, row, b->out + row * ROW);
}

static void a_row_that_sees_no_token_is_zeros(const lld_kernels *kernels, uint32_t n_rows,
                                              const float *sinks)
{
    static bench b;
    create(&b, kernels);
    const lld_attention_layer layer = {
        .n_kv_heads = N_KV_HEADS, .head_dim = HEAD_DIM, .first = 1, .sinks = sinks};
    attend(&b, &layer, n_rows);
    CHECK(lld_attention_is_split(&b.attention) == (n_rows <= LLD_ATTENTION_SPLIT_ROWS), "tiles");
    for (size_t i = 0; i < ROW; i++) {
        const float *value = b.values[1][i / HEAD_DIM * N_KV_HEADS / N_HEADS];
        CHECK(b.out[i] == 0.0f, "%s: row 0, %zu: %g", kernels->name, i, (double)b.out[i]);
        if (sinks == NULL)
            CHECK(b.out[ROW + i] == value[i % HEAD_DIM], "%s: row 1, %zu: %g, the only token's %g",
                  kernels->name, i, (double)b.out[ROW + i], (double)value[i % HEAD_DIM]);
    }
    for (size_t i = ROW; i < n_rows * ROW; i++)
        CHECK(fabsf(b.out[i]) <= 1.0f, "%s: %zu: %g", kernels->name, i, (double)b.out[i]);
    destroy(&b);
}

int main(void)
{
    static const float sinks[N_HEADS] = {0.5f, -1.0f, 2.0f, 0.0f};
    const lld_kernels *tables[MAX_TABLES];
    const size_t n_tables = machine_tables(tables);
    for (size_t i = 0; i < n_tables; i++) {
        for (uint32_t n_rows = 2; n_rows <= MAX_ROWS; n_rows += 2) {
            a_row_that_sees_no_token_is_zeros(tables[i], n_rows, NULL);
            a_row_that_sees_no_token_is_zeros(tables[i], n_rows, sinks);
        }
    }
    return check_result();
}
