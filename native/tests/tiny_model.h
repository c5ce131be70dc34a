/* tiny_model.h - writes a small seeded LLaMA model as a GGUF file, for C tests that need a whole
 * engine. Weights are Q8_0 or F32 with small random values; there is no vocabulary. */
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

static void tiny_u32(tiny_writer *w, uint32_t v) { fwrite(&v, sizeof v, 1, w->file); }
static void tiny_u64(tiny_writer *w, uint64_t v) { fwrite(&v, sizeof v, 1, w->file); }

static void tiny_string(tiny_writer *w, const char *s)
{
    tiny_u64(w, strlen(s));
    fwrite(s, 1, strlen(s), w->file);
}

static void tiny_key_u32(tiny_writer *w, const char *key, uint32_t value)
{
    tiny_string(w, key);
    tiny_u32(w, 4);
    tiny_u32(w, value);
}

static void tiny_key_f32(tiny_writer *w, const char *key, float value)
{
    tiny_string(w, key);
    tiny_u32(w, 6);
    fwrite(&value, sizeof value, 1, w->file);
}

static float tiny_weight(tiny_writer *w)
{
    return ((float)(check_random(&w->random) >> 40) / (float)(1 << 24) - 0.5f) * 0.2f;
}

/* A row of n values as float32 or as Q8_0 blocks. */
static void tiny_row(tiny_writer *w, size_t n, bool quantized, bool ones)
{
    for (size_t b = 0; b < n; b += 32) {
        float x[32];
        for (int i = 0; i < 32; i++) x[i] = ones ? 1.0f : tiny_weight(w);
        if (!quantized) {
            fwrite(x, sizeof *x, 32, w->file);
            continue;
        }
        lld_block_q8_0 block = {.d = lld_f32_to_f16(0.1f / 127.0f)};
        for (int i = 0; i < 32; i++) block.qs[i] = (int8_t)(x[i] * 1270.0f);
        fwrite(&block, sizeof block, 1, w->file);
    }
}

typedef struct {
    char name[40];
    size_t n_cols, n_rows;
    bool vector;
} tiny_tensor;

static size_t tiny_tensors(tiny_tensor *t)
{
    size_t n = 0, kv = TINY_DIM / TINY_HEADS * TINY_KV_HEADS;
    t[n++] = (tiny_tensor){"token_embd.weight", TINY_DIM, TINY_VOCAB, false};
    t[n++] = (tiny_tensor){"output_norm.weight", TINY_DIM, 1, true};
    for (int l = 0; l < TINY_LAYERS; l++) {
        const tiny_tensor layer[] = {
            {"attn_norm", TINY_DIM, 1, true},
            {"attn_q", TINY_DIM, TINY_DIM, false},
            {"attn_k", TINY_DIM, kv, false},
            {"attn_v", TINY_DIM, kv, false},
            {"attn_output", TINY_DIM, TINY_DIM, false},
            {"ffn_norm", TINY_DIM, 1, true},
            {"ffn_gate", TINY_DIM, TINY_HIDDEN, false},
            {"ffn_up", TINY_DIM, TINY_HIDDEN, false},
            {"ffn_down", TINY_HIDDEN, TINY_DIM, false},
        };
        for (size_t i = 0; i < sizeof layer / sizeof *layer; i++, n++) {
            t[n] = layer[i];
            snprintf(t[n].name, sizeof t[n].name, "blk.%d.%.16s.weight", l, layer[i].name);
        }
    }
    return n;
}

/* Write the model to `path`, with Q8_0 or F32 matrices. */
static void tiny_model_write(const char *path, bool quantized)
{
    tiny_tensor tensors[2 + 9 * TINY_LAYERS];
    size_t n = tiny_tensors(tensors);
    tiny_writer w = {.file = fopen(path, "wb"), .random = 7};
    if (w.file == NULL) {
        perror(path);
        exit(2);
    }
    fwrite("GGUF", 1, 4, w.file);
    tiny_u32(&w, 3);
    tiny_u64(&w, n);
    tiny_u64(&w, 9);
    tiny_string(&w, "general.architecture");
    tiny_u32(&w, 8);
    tiny_string(&w, "llama");
    tiny_key_u32(&w, "llama.block_count", TINY_LAYERS);
    tiny_key_u32(&w, "llama.embedding_length", TINY_DIM);
    tiny_key_u32(&w, "llama.feed_forward_length", TINY_HIDDEN);
    tiny_key_u32(&w, "llama.context_length", TINY_CTX);
    tiny_key_u32(&w, "llama.attention.head_count", TINY_HEADS);
    tiny_key_u32(&w, "llama.attention.head_count_kv", TINY_KV_HEADS);
    tiny_key_f32(&w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    tiny_key_f32(&w, "llama.rope.freq_base", 10000.0f);
    for (size_t i = 0; i < n; i++) {
        const tiny_tensor *t = &tensors[i];
        uint32_t type = t->vector || !quantized ? LLD_F32 : LLD_Q8_0;
        tiny_string(&w, t->name);
        tiny_u32(&w, t->vector ? 1 : 2);
        tiny_u64(&w, t->n_cols);
        if (!t->vector) tiny_u64(&w, t->n_rows);
        tiny_u32(&w, type);
        tiny_u64(&w, w.offset);
        w.offset += (lld_type_row_bytes(type, t->n_cols) * t->n_rows + 31) / 32 * 32;
    }
    for (size_t i = 0; i < n; i++) {
        while (ftell(w.file) % 32 != 0) fputc(0, w.file);
        for (size_t r = 0; r < tensors[i].n_rows; r++)
            tiny_row(&w, tensors[i].n_cols, quantized && !tensors[i].vector, tensors[i].vector);
    }
    while (ftell(w.file) % 32 != 0) fputc(0, w.file);
    if (fclose(w.file) != 0) {
        perror(path);
        exit(2);
    }
}

#endif
