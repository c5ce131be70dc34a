/* tiny_model.h - writes a small seeded LLaMA model as a GGUF file, for C tests that need a whole engine, and
 * has what writers of other small models need. Matrices are Q8_0 or F32 with small random values; there is
 * no vocabulary. */
#ifndef TINY_MODEL_H
#define TINY_MODEL_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "format/format.h"

#ifndef TINY_HIDDEN
#define TINY_HIDDEN 96 /* a test may want another */
#endif
#ifndef TINY_EXPERTS
#define TINY_EXPERTS 0 /* of a layer; a test may want some, of which a token uses two */
#endif

enum {
    TINY_DIM = 64,
    TINY_HEADS = 4,
    TINY_KV_HEADS = 2,
    TINY_LAYERS = 2,
    TINY_VOCAB = 50,
    TINY_CTX = 1024
};

typedef struct {
    FILE *file;
    uint64_t offset; /* of the next tensor's data */
    uint64_t random;
} tiny_writer;

static inline void tiny_u32(tiny_writer *w, uint32_t v) { fwrite(&v, sizeof v, 1, w->file); }
static inline void tiny_u64(tiny_writer *w, uint64_t v) { fwrite(&v, sizeof v, 1, w->file); }

static inline void tiny_string(tiny_writer *w, const char *s)
{
    tiny_u64(w, strlen(s));
    fwrite(s, 1, strlen(s), w->file);
}

static inline float tiny_weight(tiny_writer *w)
{
    return ((float)(check_random(&w->random) >> 40) / (float)(1 << 24) - 0.5f) * 0.2f;
}

/* A row of n values as float32, all `constant` if it is not 0, or as Q8_0 blocks. */
static inline void tiny_row(tiny_writer *w, size_t n, bool quantized, float constant)
{
    for (size_t b = 0; b < n; b += 32) {
        float x[32];
        const size_t m = n - b < 32 ? n - b : 32;
        for (size_t i = 0; i < m; i++) x[i] = constant != 0.0f ? constant : tiny_weight(w);
        if (!quantized) {
            fwrite(x, sizeof *x, m, w->file);
            continue;
        }
        lld_block_q8_0 block = {.d = lld_f32_to_f16(0.1f / 127.0f)};
        for (int i = 0; i < 32; i++) block.qs[i] = (int8_t)(x[i] * 1270.0f);
        fwrite(&block, sizeof block, 1, w->file);
    }
}

typedef struct {
    char name[48]; /* of a layer's: behind "blk.N." */
    size_t n_cols, n_rows;
    float constant; /* of a vector; 0: a matrix of random weights */
    bool floats;    /* never quantized */
} tiny_tensor;

typedef struct {
    const char *name;
    uint32_t count;
    float real; /* not 0: in place of count */
} tiny_key;

typedef struct {
    tiny_tensor tensors[80];
    size_t n;
} tiny_table;

static inline void tiny_add(tiny_table *t, int layer, const tiny_tensor *tensors, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        tiny_tensor *to = &t->tensors[t->n++];
        *to = tensors[i];
        if (layer >= 0) snprintf(to->name, sizeof to->name, "blk.%d.%.36s", layer, tensors[i].name);
    }
}
#define TINY_ADD(table, layer, tensors)                                                            \
    tiny_add((table), (layer), (tensors), sizeof(tensors) / sizeof *(tensors))

static inline void tiny_header(tiny_writer *w, const char *architecture, const tiny_key *keys,
                               size_t n_keys, size_t n_tensors)
{
    char name[64];
    fwrite("GGUF", 1, 4, w->file);
    tiny_u32(w, 3);
    tiny_u64(w, n_tensors);
    tiny_u64(w, n_keys + 1);
    tiny_string(w, "general.architecture");
    tiny_u32(w, 8);
    tiny_string(w, architecture);
    for (size_t i = 0; i < n_keys; i++) {
        snprintf(name, sizeof name, "%s.%s", architecture, keys[i].name);
        tiny_string(w, name);
        tiny_u32(w, keys[i].real != 0.0f ? 6 : 4);
        if (keys[i].real != 0.0f)
            fwrite(&keys[i].real, sizeof keys[i].real, 1, w->file);
        else
            tiny_u32(w, keys[i].count);
    }
}

static inline void tiny_write(const char *path, bool quantized, const char *architecture,
                              const tiny_key *keys, size_t n_keys, const tiny_table *table)
{
    tiny_writer w = {.file = fopen(path, "wb"), .random = 7};
    if (w.file == NULL) {
        perror(path);
        exit(2);
    }
    tiny_header(&w, architecture, keys, n_keys, table->n);
    for (size_t i = 0; i < table->n; i++) {
        const tiny_tensor *t = &table->tensors[i];
        const bool vector = t->constant != 0.0f;
        uint32_t type = vector || t->floats || !quantized ? LLD_F32 : LLD_Q8_0;
        tiny_string(&w, t->name);
        const bool experts = strstr(t->name, "_exps.") != NULL; /* their rows behind each other */
        tiny_u32(&w, vector ? 1 : (experts ? 3 : 2));
        tiny_u64(&w, t->n_cols);
        if (!vector) tiny_u64(&w, experts ? t->n_rows / (TINY_EXPERTS + !TINY_EXPERTS) : t->n_rows);
        if (experts) tiny_u64(&w, TINY_EXPERTS);
        tiny_u32(&w, type);
        tiny_u64(&w, w.offset);
        w.offset += (lld_type_row_bytes(type, t->n_cols) * t->n_rows + 31) / 32 * 32;
    }
    for (size_t i = 0; i < table->n; i++) {
        const tiny_tensor *t = &table->tensors[i];
        const bool blocks = quantized && t->constant == 0.0f && !t->floats;
        while (ftell(w.file) % 32 != 0) fputc(0, w.file);
        for (size_t r = 0; r < t->n_rows; r++) tiny_row(&w, t->n_cols, blocks, t->constant);
    }
    while (ftell(w.file) % 32 != 0) fputc(0, w.file);
    if (fclose(w.file) != 0) {
        perror(path);
        exit(2);
    }
}

static const tiny_tensor tiny_outer[] = {{"token_embd.weight", TINY_DIM, TINY_VOCAB, 0, false},
                                         {"output_norm.weight", TINY_DIM, 1, 1, false}};
#if TINY_EXPERTS > 0
static const tiny_tensor tiny_feed[] = {
    {"ffn_gate_inp.weight", TINY_DIM, TINY_EXPERTS, 0, true},
    {"ffn_gate_exps.weight", TINY_DIM, TINY_EXPERTS *TINY_HIDDEN, 0, false},
    {"ffn_up_exps.weight", TINY_DIM, TINY_EXPERTS *TINY_HIDDEN, 0, false},
    {"ffn_down_exps.weight", TINY_HIDDEN, TINY_EXPERTS *TINY_DIM, 0, false}};
#else
static const tiny_tensor tiny_feed[] = {{"ffn_gate.weight", TINY_DIM, TINY_HIDDEN, 0, false},
                                        {"ffn_up.weight", TINY_DIM, TINY_HIDDEN, 0, false},
                                        {"ffn_down.weight", TINY_HIDDEN, TINY_DIM, 0, false}};
#endif

/* Write a LLaMA model to `path`, with Q8_0 or F32 matrices. */
static inline void tiny_model_write(const char *path, bool quantized)
{
    enum { KV = TINY_DIM / TINY_HEADS * TINY_KV_HEADS };
    static const tiny_tensor attention[] = {{"attn_norm.weight", TINY_DIM, 1, 1, false},
                                            {"attn_q.weight", TINY_DIM, TINY_DIM, 0, false},
                                            {"attn_k.weight", TINY_DIM, KV, 0, false},
                                            {"attn_v.weight", TINY_DIM, KV, 0, false},
                                            {"attn_output.weight", TINY_DIM, TINY_DIM, 0, false},
                                            {"ffn_norm.weight", TINY_DIM, 1, 1, false}};
    static const tiny_key keys[] = {
        {"block_count", TINY_LAYERS, 0},
        {"embedding_length", TINY_DIM, 0},
        {"feed_forward_length", TINY_HIDDEN, 0},
        {"context_length", TINY_CTX, 0},
        {"attention.head_count", TINY_HEADS, 0},
        {"attention.head_count_kv", TINY_KV_HEADS, 0},
        {"attention.layer_norm_rms_epsilon", 0, 1e-5f},
#if TINY_EXPERTS > 0
        {"expert_count", TINY_EXPERTS, 0},
        {"expert_used_count", 2, 0},
#endif
        {"rope.freq_base", 0, 10000.0f}
    };
    tiny_table table = {.n = 0};
    TINY_ADD(&table, -1, tiny_outer);
    for (int layer = 0; layer < TINY_LAYERS; layer++) {
        TINY_ADD(&table, layer, attention);
        TINY_ADD(&table, layer, tiny_feed);
    }
    tiny_write(path, quantized, "llama", keys, sizeof keys / sizeof *keys, &table);
}

#endif
