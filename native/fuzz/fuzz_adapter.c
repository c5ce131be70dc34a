/* fuzz_adapter.c - libFuzzer target of files of adapters: open one beside a tiny model and, where it is
 * taken, run a step of which one row goes through it. The row beside it must have the bits that it has alone,
 * whatever the adapter's numbers are. Seeds: adapters/, written by make_corpus.py. */
#include <sys/mman.h>
#include <unistd.h>

#include "llamad_engine.h"
#include "../tests/tiny_model.h"

enum { N_TOKENS = 3, N_CTX = 32, MAX_RANK = 256 };

static lld_model *model;
static lld_engine *engine;
static float alone[TINY_VOCAB]; /* logits of the row without an adapter */
static int file;                /* in memory; what it holds is replaced for each input */
static char path[64];

static void require(int condition)
{
    if (!condition) abort();
}

/* Run a text, behind it the same through an adapter unless that is NULL; return the first one's logits. */
static const float *step(const lld_adapter *adapter)
{
    static const int32_t tokens[N_TOKENS] = {1, 7, 13};
    static const uint32_t blocks[2] = {0, 1};
    lld_run runs[2];
    for (int i = 0; i < 2; i++)
        runs[i] = (lld_run){.tokens = tokens,
                            .n_tokens = N_TOKENS,
                            .blocks = &blocks[i],
                            .n_blocks = 1,
                            .n_out = 1};
    runs[1].adapter = adapter;
    runs[1].adapter_scale = 1.0f;
    require(lld_engine_forward(engine, runs, adapter == NULL ? 1 : 2) == LLD_OK);
    return lld_engine_logits(engine, 0);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    snprintf(path, sizeof path, "/tmp/lld-fuzz-adapter-%ld.gguf", (long)getpid());
    tiny_model_write(path, false);
    require(lld_model_open(path, false, &model) == LLD_OK);
    unlink(path);
    const lld_engine_params p = {
        .n_threads = 1, .n_ctx = N_CTX, .n_blocks = 2, .n_batch = 2 * N_TOKENS, .n_logits = 2};
    require(lld_engine_create(model, &p, &engine) == LLD_OK);
    require(lld_engine_reserve_adapters(engine, MAX_RANK) == LLD_OK);
    memcpy(alone, step(NULL), sizeof alone);
    file = memfd_create("adapter", 0);
    require(file >= 0);
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    require(ftruncate(file, 0) == 0 && pwrite(file, data, size, 0) == (ssize_t)size);
    lld_adapter *adapter = NULL;
    if (lld_adapter_open(model, path, &adapter) != LLD_OK) {
        require(adapter == NULL);
        return 0;
    }
    lld_adapter_info info;
    lld_adapter_get_info(adapter, &info);
    require(info.n_pairs > 0 && info.max_rank > 0 && info.max_rank <= MAX_RANK);
    require(memcmp(step(adapter), alone, sizeof alone) == 0);
    lld_adapter_close(adapter);
    return 0;
}
