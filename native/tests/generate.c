/* generate.c - greedy generation by one kernel set, for comparison between machines.
 *
 *     generate MODEL N_TOKENS KV_TYPE [CPU]      KV_TYPE: f16, q8_0 or q4_0
 *
 * Prints the kernel set, then a line per token: its id and a checksum of all bits of its logits; of a model
 * with a layer that guesses, what it guesses behind the token, likewise. Two machines agree when the
 * lines do. The prompt is fixed ids, so it needs no tokenizer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "llamad_engine.h"

static const int32_t prompt[] = {1, 17, 42, 99, 140, 3, 260, 270, 281, 5, 64, 128};
enum {
    N_PROMPT = sizeof prompt / sizeof *prompt,
    MAX_TOKENS = 1024,
    N_BLOCKS = (N_PROMPT + MAX_TOKENS + 31) / 32
};

/* FNV-1a (Fowler, Noll, Vo) over the bytes of the logits. */
static uint64_t checksum(const float *logits, size_t n)
{
    const unsigned char *bytes = (const unsigned char *)logits;
    uint64_t hash = 0xCBF29CE484222325u;
    for (size_t i = 0; i < n * sizeof *logits; i++) hash = (hash ^ bytes[i]) * 0x100000001B3u;
    return hash;
}

static int32_t largest(const float *logits, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++) {
        if (logits[i] > logits[best]) best = i;
    }
    return (int32_t)best;
}

/* Print the greedy choice of the kept logits, and return it. */
static int32_t chosen(const lld_engine *engine, const char *what, size_t vocab_size)
{
    const float *logits = lld_engine_logits(engine, 0);
    const int32_t token = largest(logits, vocab_size);
    printf("%s%d %016llx\n", what, (int)token, (unsigned long long)checksum(logits, vocab_size));
    return token;
}

/* Feed tokens at *position; *next becomes the greedy choice after the last of them. */
static int step(lld_engine *engine, const lld_model_info *model, const int32_t *tokens, uint32_t n,
                uint32_t *position, int32_t *next)
{
    static uint32_t blocks[N_BLOCKS];
    for (uint32_t i = 0; i < N_BLOCKS; i++) blocks[i] = i;
    lld_run run = {.tokens = tokens,
                   .n_tokens = n,
                   .position = *position,
                   .blocks = blocks,
                   .n_blocks = N_BLOCKS,
                   .n_out = 1};
    int status = lld_engine_forward(engine, &run, 1);
    if (status != LLD_OK) return status;
    const int32_t token = chosen(engine, "", model->vocab_size);
    run.tokens = &token;
    run.n_tokens = 1;
    run.position = *position += n;
    *next = token;
    if (model->n_guess_layers == 0) return LLD_OK;
    status = lld_engine_guess(engine, &run, &(uint32_t){0}, 1);
    if (status == LLD_OK) chosen(engine, "guess ", model->vocab_size);
    return status;
}

static int generate(lld_engine *engine, const lld_model_info *model, int n_tokens)
{
    int32_t token;
    uint32_t position = 0;
    int status = step(engine, model, prompt, N_PROMPT, &position, &token);
    for (int i = 1; status == LLD_OK && i < n_tokens; i++)
        status = step(engine, model, &token, 1, &position, &token);
    return status;
}

int main(int argc, char **argv)
{
    int n_tokens = argc >= 4 ? atoi(argv[2]) : 0;
    if (n_tokens < 1 || n_tokens > MAX_TOKENS) {
        fprintf(stderr, "usage: generate MODEL N_TOKENS(1..%d) f16|q8_0|q4_0 [CPU]\n", MAX_TOKENS);
        return 2;
    }
    lld_engine_params params = {
        .n_threads = 2,
        .n_ctx = N_PROMPT + MAX_TOKENS,
        .n_batch = N_PROMPT,
        .n_logits = 1,
        .kv_type = strcmp(argv[3], "q8_0") == 0   ? LLD_KV_Q8_0
                   : strcmp(argv[3], "q4_0") == 0 ? LLD_KV_Q4_0
                                                  : LLD_KV_F16,
        .cpu = argc > 4 ? argv[4] : NULL,
    };
    lld_model *model = NULL;
    lld_engine *engine = NULL;
    int status = lld_model_open(argv[1], true, &model);
    if (status == LLD_OK) status = lld_engine_create(model, &params, &engine);
    if (status == LLD_OK) {
        lld_engine_info engine_info;
        lld_model_info model_info;
        lld_engine_get_info(engine, &engine_info);
        lld_model_get_info(model, &model_info);
        printf("kernel set %s\n", engine_info.kernel_set);
        status = generate(engine, &model_info, n_tokens);
    }
    if (status != LLD_OK) fprintf(stderr, "generate: %s\n", lld_error_message());
    lld_engine_destroy(engine);
    lld_model_close(model);
    return status != LLD_OK;
}
