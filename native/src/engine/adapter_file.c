/* adapter_file.c - see adapter_file.h: opens and checks the file of an adapter (gguf-py, constants.py,
 * Keys.Adapter; tensors as llama.cpp's convert_lora_to_gguf.py names them). */
#include "engine/adapter_file.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/status.h"
#include "gguf/name.h"

enum { SUFFIX_BYTES = 7, ALIGNMENT = 64 }; /* ".lora_a"; of a matrix in memory */

/* An adapter that is being made. */
typedef struct opening {
    lld_adapter *adapter;
    const lld_gguf *gguf;        /* of the adapter */
    const lld_matrix **matrices; /* (n_matrices) of the model, that adapters reach */
    size_t n_matrices, memory_used;
} opening;

/* ---- which matrices adapters reach ------------------------------------------------------------ */

static size_t list_matrices(const lld_model *m, const lld_matrix **out)
{
    size_t n = 0;
    for (uint32_t i = 0; i < m->config.n_layers; i++) {
        lld_layer *l = &m->layers[i];
        lld_matrix *mixer[LLD_MIXER_MATRICES];
        const uint32_t n_mixer = lld_mixer_matrices(l, mixer);
        for (uint32_t k = 0; k < n_mixer; k++) out[n++] = mixer[k];
        const lld_matrix *const feed[] = {&l->gated.gate, &l->gated.up, &l->gated.down};
        for (int k = 0; k < 3; k++)
            if (feed[k]->data != NULL) out[n++] = feed[k];
    }
    if (m->output.data != NULL && m->output.data != m->embedding.data) out[n++] = &m->output;
    return n;
}

/* ---- what a file must say --------------------------------------------------------------------- */

static int check_string(const lld_gguf *gguf, const char *key, const char *wanted)
{
    const char *value = "";
    size_t length = 0;
    int status = lld_gguf_read_string(gguf, key, &value, &length, NULL);
    if (status != LLD_OK) return status;
    if (length == strlen(wanted) && memcmp(value, wanted, length) == 0) return LLD_OK;
    char text[LLD_NAME_TEXT];
    lld_name_text(value, length, text);
    return lld_fail(LLD_ERR_UNSUPPORTED, "key '%s' is '%s', must be '%s'", key, text, wanted);
}

static int check_keys(const lld_model *model, const lld_gguf *gguf, float *alpha)
{
    int status = check_string(gguf, "general.type", "adapter");
    if (status == LLD_OK)
        status = check_string(gguf, "general.architecture", model->config.architecture->name);
    if (status == LLD_OK) status = check_string(gguf, "adapter.type", "lora");
    if (status == LLD_OK) status = lld_gguf_read_f32(gguf, "adapter.lora.alpha", alpha, NULL);
    if (status != LLD_OK) return status;
    if (!isfinite(*alpha))
        return lld_fail(LLD_ERR_CORRUPT, "key 'adapter.lora.alpha' is not a finite number");
    if (lld_gguf_find(gguf, "adapter.alora.invocation_tokens") != NULL)
        return lld_fail(LLD_ERR_UNSUPPORTED, "key 'adapter.alora.invocation_tokens': adapters that "
                                             "begin at a token are not supported");
    return LLD_OK;
}

/* Of a tensor of the adapter: what stands before its suffix, and whether that is .lora_a. */
typedef struct half_name {
    char text[LLD_NAME_TEXT]; /* the whole name, for messages */
    size_t base_length;
    bool is_a;
} half_name;

static int read_name(const lld_tensor *t, half_name *out)
{
    lld_name_text(t->name, t->name_length, out->text);
    const char *suffix = t->name + t->name_length - SUFFIX_BYTES;
    const bool long_enough = t->name_length > SUFFIX_BYTES && t->name_length < LLD_NAME_TEXT - 4;
    out->is_a = long_enough && memcmp(suffix, ".lora_a", SUFFIX_BYTES) == 0;
    if (!out->is_a && !(long_enough && memcmp(suffix, ".lora_b", SUFFIX_BYTES) == 0))
        return lld_fail(LLD_ERR_UNSUPPORTED,
                        "tensor '%s': an adapter's end in '.lora_a' or '.lora_b'", out->text);
    out->base_length = t->name_length - SUFFIX_BYTES;
    return LLD_OK;
}

static int check_type(const lld_tensor *t, const char *name)
{
    const uint32_t type = t->type;
    if (type == LLD_F32 || type == LLD_F16 || type == LLD_BF16 || type == LLD_Q8_0) return LLD_OK;
    const char *type_name = lld_type_name(type);
    return lld_fail(LLD_ERR_UNSUPPORTED, "tensor '%s' has type %s, must be F32, F16, BF16 or Q8_0",
                    name, type_name == NULL ? "unknown" : type_name);
}

/* Whether the halves fit base: (n_cols, n_rows) in the file's order of dimensions. */
static int check_shapes(const lld_tensor *a, const lld_tensor *b, const lld_tensor *base,
                        const char *name)
{
    const uint64_t rank = a->dims[1];
    if (rank < 1 || rank > LLD_ADAPTER_RANK_MAX)
        return lld_fail(LLD_ERR_UNSUPPORTED,
                        "tensor '%s.lora_a' has rank %" PRIu64 ", must be 1 to %d", name, rank,
                        (int)LLD_ADAPTER_RANK_MAX);
    if (a->dims[0] != base->dims[0] || a->dims[2] != 1 || a->dims[3] != 1)
        return lld_fail(LLD_ERR_CORRUPT,
                        "tensor '%s.lora_a' has shape (%" PRIu64 ", %" PRIu64 "), the model's has "
                        "rows of %" PRIu64,
                        name, a->dims[0], rank, base->dims[0]);
    if (b->dims[0] != rank || b->dims[1] != base->dims[1] || b->dims[2] != 1 || b->dims[3] != 1)
        return lld_fail(LLD_ERR_CORRUPT,
                        "tensor '%s.lora_b' has shape (%" PRIu64 ", %" PRIu64 "), must be (%" PRIu64
                        ", %" PRIu64 ")",
                        name, b->dims[0], b->dims[1], rank, base->dims[1]);
    return LLD_OK;
}

/* ---- memory ----------------------------------------------------------------------------------- */

static uint32_t kept_type(uint32_t type) { return type == LLD_Q8_0 ? LLD_F32 : type; }

/* Bytes that a tensor takes in memory. */
static size_t kept_bytes(const lld_tensor *t)
{
    const size_t row = lld_type_row_bytes(kept_type(t->type), t->dims[0]);
    return (row * t->dims[1] + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* Copy a tensor of a checked type and shape. */
static int keep(opening *o, const lld_tensor *t, const char *name, lld_matrix *out)
{
    const uint32_t type = kept_type(t->type);
    uint8_t *data = o->adapter->memory + o->memory_used;
    o->memory_used += kept_bytes(t);
    *out = (lld_matrix){.data = data,
                        .n_rows = t->dims[1],
                        .n_cols = t->dims[0],
                        .row_bytes = lld_type_row_bytes(type, t->dims[0]),
                        .type = type,
                        .act = LLD_ACT_F32};
    float *row = malloc(out->n_cols * sizeof *row);
    if (row == NULL) return lld_fail(LLD_ERR_MEMORY, "no memory for a row of tensor '%s'", name);
    const size_t file_row_bytes = lld_type_row_bytes(t->type, t->dims[0]);
    bool is_finite = true;
    for (size_t r = 0; r < out->n_rows && is_finite; r++, data += out->row_bytes) {
        lld_dequantize_row(t->type, t->data + r * file_row_bytes, row, out->n_cols);
        memcpy(data, type == t->type ? (const void *)(t->data + r * file_row_bytes) : row,
               out->row_bytes);
        for (size_t i = 0; i < out->n_cols; i++) is_finite = is_finite && isfinite(row[i]);
    }
    free(row);
    if (is_finite) return LLD_OK;
    return lld_fail(LLD_ERR_NUMERIC, "tensor '%s' has a number that is not finite", name);
}

/* ---- pairs ------------------------------------------------------------------------------------ */

/* Add the pairs of one tensor of the model, for each matrix that was bound to rows of it. */
static int add_pairs(opening *o, const lld_tensor *base, const lld_matrix *a, const lld_matrix *b,
                     const char *name)
{
    lld_adapter *adapter = o->adapter;
    size_t n_rows = 0;
    for (size_t i = 0; i < o->n_matrices; i++) {
        const lld_matrix *m = o->matrices[i];
        if (m->data < base->data || m->data >= base->data + base->bytes) continue;
        lld_matrix rows = *b;
        rows.data += (size_t)(m->data - base->data) / m->row_bytes * b->row_bytes;
        rows.n_rows = m->n_rows;
        n_rows += m->n_rows;
        adapter->pairs[adapter->n_pairs++] = (lld_adapter_pair){
            .matrix = m,
            .a = *a,
            .b = rows,
            .scale = adapter->alpha == 0.0f ? 1.0f : adapter->alpha / (float)a->n_rows};
    }
    if (n_rows != base->dims[1] || base->dims[2] != 1)
        return lld_fail(LLD_ERR_UNSUPPORTED,
                        "tensor '%s.lora_a': adapters of the model's '%s' are not supported", name,
                        name);
    adapter->n_tensors++;
    if (a->n_rows > adapter->max_rank) adapter->max_rank = (uint32_t)a->n_rows;
    return LLD_OK;
}

/* Check the pair whose A is `t`, and add it. */
static int open_pair(opening *o, const lld_tensor *t, const half_name *half)
{
    char base_name[LLD_NAME_TEXT], name_b[LLD_NAME_TEXT + SUFFIX_BYTES];
    memcpy(base_name, t->name, half->base_length);
    base_name[half->base_length] = '\0';
    memcpy(name_b, base_name, half->base_length);
    memcpy(name_b + half->base_length, ".lora_b", SUFFIX_BYTES + 1);
    const lld_tensor *b = lld_gguf_find_tensor(o->gguf, name_b),
                     *base = lld_gguf_find_tensor(&o->adapter->model->file->gguf, base_name);
    if (b == NULL) return lld_fail(LLD_ERR_CORRUPT, "tensor '%s' is missing", name_b);
    if (base == NULL)
        return lld_fail(LLD_ERR_UNSUPPORTED, "tensor '%s': the model has no '%s'", half->text,
                        base_name);
    int status = check_shapes(t, b, base, base_name);
    if (status == LLD_OK) status = check_type(t, half->text);
    if (status == LLD_OK) status = check_type(b, name_b);
    lld_matrix kept_a, kept_b;
    if (status == LLD_OK) status = keep(o, t, half->text, &kept_a);
    if (status == LLD_OK) status = keep(o, b, name_b, &kept_b);
    return status == LLD_OK ? add_pairs(o, base, &kept_a, &kept_b, base_name) : status;
}

/* Every tensor must be half of a pair. */
static int check_half(const lld_gguf *gguf, const lld_tensor *t, const half_name *half)
{
    char name_a[LLD_NAME_TEXT + SUFFIX_BYTES];
    memcpy(name_a, t->name, half->base_length);
    memcpy(name_a + half->base_length, ".lora_a", SUFFIX_BYTES + 1);
    if (lld_gguf_find_tensor(gguf, name_a) != NULL) return LLD_OK;
    return lld_fail(LLD_ERR_CORRUPT, "tensor '%s' is missing", name_a);
}

static int by_matrix(const void *a, const void *b)
{
    const uintptr_t x = (uintptr_t)((const lld_adapter_pair *)a)->matrix,
                    y = (uintptr_t)((const lld_adapter_pair *)b)->matrix;
    return (x > y) - (x < y);
}

static int open_pairs(opening *o)
{
    lld_adapter *adapter = o->adapter;
    const lld_gguf *gguf = o->gguf;
    half_name half;
    int status = LLD_OK;
    if (gguf->n_tensors == 0) return lld_fail(LLD_ERR_CORRUPT, "the adapter has no tensors");
    for (size_t i = 0; i < gguf->n_tensors && status == LLD_OK; i++) {
        status = read_name(&gguf->tensors[i], &half);
        if (status == LLD_OK && !half.is_a) status = check_half(gguf, &gguf->tensors[i], &half);
        if (status == LLD_OK) status = check_type(&gguf->tensors[i], half.text);
        if (status == LLD_OK) adapter->memory_bytes += kept_bytes(&gguf->tensors[i]);
    }
    if (status != LLD_OK) return status;
    void *memory = mmap(NULL, adapter->memory_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return lld_fail(LLD_ERR_MEMORY, "no memory for %zu bytes of an adapter",
                        adapter->memory_bytes);
    adapter->memory = memory;
    for (size_t i = 0; i < gguf->n_tensors && status == LLD_OK; i++) {
        status = read_name(&gguf->tensors[i], &half);
        if (status == LLD_OK && half.is_a) status = open_pair(o, &gguf->tensors[i], &half);
    }
    qsort(adapter->pairs, adapter->n_pairs, sizeof *adapter->pairs, by_matrix);
    return status;
}

/* ---- public ----------------------------------------------------------------------------------- */

int lld_adapter_open(const lld_model *model, const char *path, lld_adapter **out)
{
    lld_file *file = NULL;
    *out = NULL;
    int status = lld_file_open(path, &file);
    if (status != LLD_OK) return status;
    const size_t most = (size_t)model->config.n_layers * (LLD_MIXER_MATRICES + 3) + 1;
    opening o = {.adapter = calloc(1, sizeof *o.adapter),
                 .gguf = &file->gguf,
                 .matrices = calloc(most, sizeof *o.matrices)};
    if (o.adapter == NULL || o.matrices == NULL ||
        (o.adapter->pairs = calloc(most, sizeof *o.adapter->pairs)) == NULL) {
        status = lld_fail(LLD_ERR_MEMORY, "no memory for an adapter");
    } else {
        o.adapter->model = model;
        o.n_matrices = list_matrices(model, o.matrices);
        status = check_keys(model, o.gguf, &o.adapter->alpha);
        if (status == LLD_OK) status = open_pairs(&o);
    }
    status = lld_file_name_fault(file, status);
    lld_file_close(file);
    free(o.matrices);
    if (status == LLD_OK)
        *out = o.adapter;
    else
        lld_adapter_close(o.adapter);
    return status;
}

void lld_adapter_close(lld_adapter *adapter)
{
    if (adapter == NULL) return;
    if (adapter->memory != NULL) munmap(adapter->memory, adapter->memory_bytes);
    free(adapter->pairs);
    free(adapter);
}

void lld_adapter_get_info(const lld_adapter *adapter, lld_adapter_info *out)
{
    *out = (lld_adapter_info){.bytes = adapter->memory_bytes,
                              .n_pairs = adapter->n_tensors,
                              .max_rank = adapter->max_rank,
                              .alpha = adapter->alpha};
}

const lld_adapter_pair *lld_adapter_find(const lld_adapter *adapter, const lld_matrix *matrix)
{
    const lld_adapter_pair key = {.matrix = matrix};
    return bsearch(&key, adapter->pairs, adapter->n_pairs, sizeof key, by_matrix);
}
