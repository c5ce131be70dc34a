/* test_adapter.c - runs through adapters on a tiny model: in one step rows through two adapters, one of them
 * at half of its scale, and rows through none have the bits that each has alone; and files that are refused. */
#include <math.h>
#include <unistd.h>

#include "llamad_engine.h"
#include "tiny_model.h"

enum { N_TOKENS = 70, N_CTX = 96, N_RUNS = 4, BLOCKS_EACH = N_CTX / 32, MAX_RANK = 8 };

typedef float logits[TINY_VOCAB];

static char path[64];

static lld_model *open_model(bool quantized)
{
    lld_model *model = NULL;
    tiny_model_write(path, quantized);
    CHECK(lld_model_open(path, false, &model) == LLD_OK, "%s", lld_error_message());
    unlink(path);
    if (model == NULL) exit(1);
    return model;
}

/* ---- files of adapters ------------------------------------------------------------------------ */

/* One half of a pair, as the file has it; rows of n_cols float32. */
typedef struct half {
    const char *name;
    uint64_t n_cols, n_rows;
} half;

typedef struct file_of {
    const char *architecture;
    float alpha;
    const half *halves;
    size_t n;
    uint64_t seed;
} file_of;

static void put_text(tiny_writer *w, const char *key, const char *text)
{
    tiny_string(w, key);
    tiny_u32(w, 8);
    tiny_string(w, text);
}

static void write_adapter(const file_of *f)
{
    tiny_writer w = {.file = fopen(path, "wb"), .random = f->seed};
    if (w.file == NULL) {
        perror(path);
        exit(2);
    }
    fwrite("GGUF", 1, 4, w.file);
    tiny_u32(&w, 3);
    tiny_u64(&w, f->n);
    tiny_u64(&w, 4);
    put_text(&w, "general.type", "adapter");
    put_text(&w, "general.architecture", f->architecture);
    put_text(&w, "adapter.type", "lora");
    tiny_string(&w, "adapter.lora.alpha");
    tiny_u32(&w, 6);
    fwrite(&f->alpha, sizeof f->alpha, 1, w.file);
    for (size_t i = 0; i < f->n; i++) {
        tiny_string(&w, f->halves[i].name);
        tiny_u32(&w, 2);
        tiny_u64(&w, f->halves[i].n_cols);
        tiny_u64(&w, f->halves[i].n_rows);
        tiny_u32(&w, LLD_F32);
        tiny_u64(&w, w.offset);
        w.offset += (f->halves[i].n_cols * f->halves[i].n_rows * sizeof(float) + 31) / 32 * 32;
    }
    for (size_t i = 0; i < f->n; i++) {
        while (ftell(w.file) % 32 != 0) fputc(0, w.file);
        if (f->halves[i].n_rows > 128 || f->halves[i].n_cols > 128)
            continue; /* of a file that is too short */
        for (size_t r = 0; r < f->halves[i].n_rows; r++)
            tiny_row(&w, f->halves[i].n_cols, false, 0);
    }
    while (ftell(w.file) % 32 != 0) fputc(0, w.file);
    if (fclose(w.file) != 0) exit(2);
}

/* Q and down of the first layer, gate and output of the second. */
static lld_adapter *open_adapter(const lld_model *model, uint64_t rank, uint64_t seed)
{
    const half halves[] = {{"blk.0.attn_q.weight.lora_a", TINY_DIM, rank},
                           {"blk.0.attn_q.weight.lora_b", rank, TINY_DIM},
                           {"blk.0.ffn_down.weight.lora_a", TINY_HIDDEN, rank},
                           {"blk.0.ffn_down.weight.lora_b", rank, TINY_DIM},
                           {"blk.1.ffn_gate.weight.lora_b", rank, TINY_HIDDEN},
                           {"blk.1.ffn_gate.weight.lora_a", TINY_DIM, rank},
                           {"blk.1.attn_output.weight.lora_a", TINY_DIM, rank},
                           {"blk.1.attn_output.weight.lora_b", rank, TINY_DIM}};
    const file_of f = {"llama", 80.0f, halves, sizeof halves / sizeof *halves, seed};
    lld_adapter *adapter = NULL;
    lld_adapter_info info;
    write_adapter(&f);
    CHECK(lld_adapter_open(model, path, &adapter) == LLD_OK, "%s", lld_error_message());
    unlink(path);
    if (adapter == NULL) exit(1);
    lld_adapter_get_info(adapter, &info);
    CHECK(info.n_pairs == 4 && info.max_rank == rank && info.alpha == 80.0f, "told otherwise");
    return adapter;
}

/* ---- steps ------------------------------------------------------------------------------------ */

static lld_engine *create(lld_model *model, uint32_t n_threads)
{
    const lld_engine_params p = {.n_threads = n_threads,
                                 .n_ctx = N_CTX,
                                 .n_blocks = N_RUNS * BLOCKS_EACH,
                                 .n_batch = N_RUNS * N_TOKENS,
                                 .n_logits = N_RUNS};
    lld_engine *engine = NULL;
    CHECK(lld_engine_create(model, &p, &engine) == LLD_OK, "%s", lld_error_message());
    if (engine == NULL) exit(1);
    CHECK(lld_engine_reserve_adapters(engine, MAX_RANK) == LLD_OK, "%s", lld_error_message());
    return engine;
}

/* What a run goes through; adapter NULL: the model as it is. */
typedef struct use {
    const lld_adapter *adapter;
    float scale;
} use;

/* Feed texts first, ..., first + n - 1 together, in pieces; keep each one's last logits. */
static void feed(lld_engine *e, const use *uses, uint32_t first, uint32_t n, uint32_t piece,
                 logits *out)
{
    int32_t tokens[N_RUNS][N_TOKENS];
    uint32_t blocks[N_RUNS][BLOCKS_EACH];
    lld_run runs[N_RUNS];
    for (uint32_t at = 0; at < N_TOKENS; at += piece) {
        const uint32_t m = N_TOKENS - at < piece ? N_TOKENS - at : piece;
        for (uint32_t s = 0; s < n; s++) {
            const uint32_t text = first + s;
            for (uint32_t i = 0; i < BLOCKS_EACH; i++) blocks[s][i] = i * N_RUNS + text;
            for (uint32_t i = 0; i < m; i++)
                tokens[s][i] = (int32_t)(((at + i) * 7 + text * 13) % TINY_VOCAB);
            runs[s] = (lld_run){.tokens = tokens[s],
                                .n_tokens = m,
                                .position = at,
                                .blocks = blocks[s],
                                .n_blocks = BLOCKS_EACH,
                                .n_out = 1,
                                .adapter = uses[s].adapter,
                                .adapter_scale = uses[s].scale};
        }
        CHECK(lld_engine_forward(e, runs, n) == LLD_OK, "%s", lld_error_message());
    }
    for (uint32_t s = 0; s < n; s++) memcpy(out[s], lld_engine_logits(e, s), sizeof out[s]);
}

static void company_changes_no_bit(lld_model *model)
{
    lld_adapter *a = open_adapter(model, 4, 11), *b = open_adapter(model, 7, 12);
    const use uses[N_RUNS] = {{a, 1.0f}, {NULL, 0.0f}, {b, 1.0f}, {a, 0.5f}};
    const use none[N_RUNS] = {{NULL, 0.0f}, {NULL, 0.0f}, {NULL, 0.0f}, {NULL, 0.0f}};
    logits alone[N_RUNS], plain[N_RUNS], full, together[N_RUNS];
    lld_engine *e = create(model, 1);
    for (uint32_t s = 0; s < N_RUNS; s++) feed(e, &uses[s], s, 1, N_TOKENS, &alone[s]);
    feed(e, none, 0, N_RUNS, N_TOKENS, plain);
    feed(e, &uses[0], 3, 1, N_TOKENS, &full); /* the last text at the whole scale */
    lld_engine_destroy(e);
    for (uint32_t s = 0; s < N_RUNS; s++) {
        for (int i = 0; i < TINY_VOCAB; i++) CHECK(isfinite(alone[s][i]), "run %u logit %d", s, i);
        CHECK((memcmp(alone[s], plain[s], sizeof plain[s]) == 0) == (uses[s].adapter == NULL),
              "run %u: what its adapter changes", s);
    }
    CHECK(memcmp(alone[3], full, sizeof full) != 0, "half of a scale is the whole");
    const uint32_t threads[] = {1, 2, 4}, pieces[] = {1, 9, N_TOKENS};
    for (int t = 0; t < 3; t++)
        for (int p = 0; p < 3; p++) {
            e = create(model, threads[t]);
            feed(e, uses, 0, N_RUNS, pieces[p], together);
            for (uint32_t s = 0; s < N_RUNS; s++)
                CHECK(memcmp(together[s], alone[s], sizeof alone[s]) == 0,
                      "run %u, %u threads, pieces of %u", s, threads[t], pieces[p]);
            lld_engine_destroy(e);
        }
    lld_adapter_close(a);
    lld_adapter_close(b);
}

/* ---- what is refused -------------------------------------------------------------------------- */

#define A "blk.0.attn_q.weight.lora_a"
#define B "blk.0.attn_q.weight.lora_b"

static void hostile_files_are_refused(const lld_model *model)
{
    static const half good[] = {{A, TINY_DIM, 4}, {B, 4, TINY_DIM}};
    static const half ranks[] = {{A, TINY_DIM, 4}, {B, 5, TINY_DIM}};
    static const half columns[] = {{A, TINY_DIM - 1, 4}, {B, 4, TINY_DIM}};
    static const half twice[] = {{A, TINY_DIM, 4}, {A, TINY_DIM, 4}, {B, 4, TINY_DIM}};
    static const half rank_of_2_31[] = {{A, TINY_DIM, 1u << 31}, {B, 1u << 31, TINY_DIM}};
    static const half wraps[] = {{A, TINY_DIM, UINT64_MAX / 128}, {B, 4, TINY_DIM}};
    const struct {
        const char *fault;
        file_of file;
        const char *words; /* of the message */
    } cases[] = {
        {"ranks that differ", {"llama", 1, ranks, 2, 1}, "lora_b"},
        {"other columns", {"llama", 1, columns, 2, 1}, "lora_a"},
        {"A without B", {"llama", 1, good, 1, 1}, "'" B "' is missing"},
        {"B without A", {"llama", 1, good + 1, 1, 1}, "'" A "' is missing"},
        {"no tensors", {"llama", 1, good, 0, 1}, "has no tensors"},
        {"a name twice", {"llama", 1, twice, 3, 1}, A},
        {"another architecture", {"qwen2", 1, good, 2, 1}, "general.architecture"},
        {"an alpha that is none", {"llama", NAN, good, 2, 1}, "adapter.lora.alpha"},
        {"an alpha without end", {"llama", INFINITY, good, 2, 1}, "adapter.lora.alpha"},
        {"a rank of 2^31", {"llama", 1, rank_of_2_31, 2, 1}, A},
        {"a size that wraps", {"llama", 1, wraps, 2, 1}, A},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        lld_adapter *adapter = NULL;
        write_adapter(&cases[i].file);
        const int status = lld_adapter_open(model, path, &adapter);
        CHECK(status != LLD_OK && adapter == NULL, "%s is taken", cases[i].fault);
        const char *message = lld_error_message();
        CHECK(strstr(message, path) != NULL && strstr(message, cases[i].words) != NULL,
              "%s: the message is %s", cases[i].fault, message);
        lld_adapter_close(adapter);
        unlink(path);
    }
}

int main(void)
{
    snprintf(path, sizeof path, "/tmp/lld-test-adapter-%ld.gguf", (long)getpid());
    for (int quantized = 0; quantized <= 1; quantized++) {
        lld_model *model = open_model(quantized);
        company_changes_no_bit(model);
        hostile_files_are_refused(model);
        lld_model_close(model);
    }
    return check_result();
}
