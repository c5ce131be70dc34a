/* fuzz_gguf.c - libFuzzer target of the GGUF parser: parse, then read everything that was promised,
 * and the hyperparameters.
 * A pointer that leads outside of the input is found by AddressSanitizer, since libFuzzer's buffer
 * ends where the input ends. Seeds: corpus/, written by make_corpus.py. */
#include <stdlib.h>
#include <string.h>

#include "model/config.h"
#include "gguf/gguf.h"
#include "format/format.h"

/* Read n bytes in a way that the compiler must carry out. */
static void touch(const void *bytes, size_t n)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < n; i++) sum ^= ((const uint8_t *)bytes)[i];
    __asm__ volatile("" : : "r"(sum));
}

/* A name as the lookups want it; NULL when it is too long to be worth it. */
static const char *terminated(const char *name, size_t length, char text[256])
{
    if (length >= 256) return NULL;
    memcpy(text, name, length);
    text[length] = '\0';
    return text;
}

static void require(int condition)
{
    if (!condition) abort();
}

static void read_strings(const lld_kv *kv)
{
    size_t offset = 0;
    for (uint64_t i = 0; i < kv->count; i++) {
        uint64_t n = 0;
        require(kv->data_bytes - offset >= sizeof n);
        memcpy(&n, kv->data + offset, sizeof n);
        offset += sizeof n;
        require(kv->data_bytes - offset >= n);
        touch(kv->data + offset, (size_t)n);
        offset += (size_t)n;
    }
    require(offset == kv->data_bytes);
}

static void read_kv(const lld_gguf *gguf, const lld_kv *kv)
{
    char text[256];
    touch(kv->key, kv->key_length);
    touch(kv->data, kv->data_bytes);
    if (kv->type == LLD_GGUF_ARRAY && kv->element_type == LLD_GGUF_STRING) read_strings(kv);
    const char *key = terminated(kv->key, kv->key_length, text), *string = NULL;
    if (key == NULL) return;
    uint32_t number = 0;
    float real = 0;
    bool flag = false;
    size_t length = 0;
    require(lld_gguf_find(gguf, key) == kv);
    lld_gguf_read_u32(gguf, key, &number, NULL);
    lld_gguf_read_f32(gguf, key, &real, NULL);
    lld_gguf_read_bool(gguf, key, &flag, NULL);
    if (lld_gguf_read_string(gguf, key, &string, &length, NULL) == LLD_OK) touch(string, length);
}

static void read_tensor(const lld_gguf *gguf, const lld_tensor *t)
{
    char text[256];
    touch(t->name, t->name_length);
    touch(t->data, (size_t)t->bytes);
    const char *name = terminated(t->name, t->name_length, text);
    require(name == NULL || lld_gguf_find_tensor(gguf, name) == t);
    size_t block = lld_type_block(t->type);
    float values[LLD_QK_K];
    require(block > 0 && block <= LLD_QK_K && t->dims[0] % block == 0);
    lld_dequantize_row(t->type, t->data, values, block);
    touch(values, block * sizeof *values);
}

/* What everything behind config.c trusts. */
static void require_sound(const lld_config *c)
{
    require(c->n_layers > 0 && c->n_layers + c->n_extra_layers <= LLD_MAX_LAYERS);
    for (uint32_t i = 0; i < lld_bound_layers(c); i++) {
        const lld_layer_sizes *s = &c->layers[i], *source = &c->layers[s->kv_layer];
        require(s->n_kv_heads == 0 || c->n_heads % s->n_kv_heads == 0);
        require(s->head_dim % 2 == 0 && s->n_rot % 2 == 0 && s->n_rot <= s->head_dim);
        require(s->n_kv_heads <= c->n_kv_heads && s->head_dim <= c->head_dim);
        require(s->hidden_dim > 0 || c->architecture->facts.state_space == LLD_SSM_ALONE);
        require(s->hidden_dim <= c->hidden_dim);
        require(s->n_rot == c->n_rot || s->n_rot == c->local_n_rot);
        require(s->kv_layer <= i && source->kv_layer == s->kv_layer);
        require(source->n_kv_heads == s->n_kv_heads && source->head_dim == s->head_dim);
    }
    const lld_expert_sizes *e = &c->experts;
    require(e->n <= LLD_MAX_EXPERTS && e->n_used <= e->n && e->n_dense_layers <= c->n_layers);
    require(e->n == 0 || (e->n_used > 0 && e->hidden_dim > 0 && e->hidden_dim <= c->hidden_dim));
    require(e->n == 0 || e->shared_hidden_dim <= c->hidden_dim);
}

static void require_known(int status)
{
    require(status == LLD_OK || status == LLD_ERR_CORRUPT || status == LLD_ERR_UNSUPPORTED);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lld_gguf gguf;
    require_known(lld_gguf_parse(data, size, &gguf));
    for (size_t i = 0; i < gguf.n_kv; i++) read_kv(&gguf, &gguf.kv[i]);
    for (size_t i = 0; i < gguf.n_tensors; i++) read_tensor(&gguf, &gguf.tensors[i]);
    lld_config config;
    int status = lld_config_read(&gguf, &config);
    require_known(status);
    if (status == LLD_OK) require_sound(&config);
    if (status == LLD_OK && config.n_extra_layers > 0) {
        lld_config_use_guess_layer(&config);
        require_sound(&config);
    }
    lld_gguf_free(&gguf);
    return 0;
}
