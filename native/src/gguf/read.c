/* read.c - lookups in a parsed GGUF header: an entry by key, a tensor by name, typed scalars.
 * Parsing is gguf.c's; what a value means is model.c's. */
#include <inttypes.h>
#include <string.h>

#include "gguf/gguf.h"
#include "gguf/name.h"
#include "base/status.h"

const lld_kv *lld_gguf_find(const lld_gguf *gguf, const char *key)
{
    size_t low = 0, high = gguf->n_kv, length = strlen(key);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const lld_kv *kv = &gguf->kv[gguf->kv_order[middle]];
        int order = lld_name_compare(key, length, kv->key, kv->key_length);
        if (order == 0) return kv;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

const lld_tensor *lld_gguf_find_tensor(const lld_gguf *gguf, const char *name)
{
    size_t low = 0, high = gguf->n_tensors, length = strlen(name);
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const lld_tensor *t = &gguf->tensors[gguf->tensor_order[middle]];
        int order = lld_name_compare(name, length, t->name, t->name_length);
        if (order == 0) return t;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

static const char *type_text(uint32_t type)
{
    static const char *const names[] = {"uint8",  "int8",    "uint16", "int16",  "uint32",
                                        "int32",  "float32", "bool",   "string", "array",
                                        "uint64", "int64",   "float64"};
    return type < sizeof names / sizeof *names ? names[type] : "unknown";
}

static int wrong_type(const char *key, const lld_kv *kv, const char *wanted)
{
    return lld_fail(LLD_ERR_CORRUPT, "key '%s': type %s, must be %s", key, type_text(kv->type),
                    wanted);
}

/* Find key and say through *found whether it is there. */
static const lld_kv *look_up(const lld_gguf *gguf, const char *key, bool *found)
{
    const lld_kv *kv = lld_gguf_find(gguf, key);
    if (found != NULL) *found = kv != NULL;
    return kv;
}

static bool is_integer(uint32_t type)
{
    return type <= LLD_GGUF_INT32 || type == LLD_GGUF_UINT64 || type == LLD_GGUF_INT64;
}

static bool is_signed(uint32_t type)
{
    return type == LLD_GGUF_INT8 || type == LLD_GGUF_INT16 || type == LLD_GGUF_INT32 ||
           type == LLD_GGUF_INT64;
}

/* A little-endian integer of n <= 8 bytes, its sign extended to 64 bits if `negative_too`. */
static uint64_t take_integer(const uint8_t *data, size_t n, bool negative_too)
{
    uint64_t value = 0;
    for (size_t i = 0; i < n; i++) value |= (uint64_t)data[i] << (8 * i);
    if (negative_too && n < 8 && (data[n - 1] & 0x80) != 0) value |= ~UINT64_C(0) << (8 * n);
    return value;
}

int lld_gguf_read_u32(const lld_gguf *gguf, const char *key, uint32_t *out, bool *found)
{
    const lld_kv *kv = look_up(gguf, key, found);
    if (kv == NULL) return LLD_OK;
    if (!is_integer(kv->type)) return wrong_type(key, kv, "an integer");
    uint64_t value = take_integer(kv->data, kv->data_bytes, is_signed(kv->type));
    if (is_signed(kv->type) && (int64_t)value < 0)
        return lld_fail(LLD_ERR_CORRUPT, "key '%s': %" PRId64 ", must be 0..4294967295", key,
                        (int64_t)value);
    if (value > UINT32_MAX)
        return lld_fail(LLD_ERR_CORRUPT, "key '%s': %" PRIu64 ", must be 0..4294967295", key,
                        value);
    *out = (uint32_t)value;
    return LLD_OK;
}

int lld_gguf_read_f32(const lld_gguf *gguf, const char *key, float *out, bool *found)
{
    const lld_kv *kv = look_up(gguf, key, found);
    if (kv == NULL) return LLD_OK;
    if (kv->type == LLD_GGUF_FLOAT32) {
        memcpy(out, kv->data, sizeof *out);
        return LLD_OK;
    }
    if (kv->type != LLD_GGUF_FLOAT64) return wrong_type(key, kv, "a float");
    double value = 0;
    memcpy(&value, kv->data, sizeof value);
    *out = (float)value;
    return LLD_OK;
}

bool lld_gguf_number(const lld_kv *kv, uint64_t index, double *out)
{
    const uint32_t type = kv->element_type;
    if (type > LLD_GGUF_FLOAT64 || type == LLD_GGUF_STRING || type == LLD_GGUF_ARRAY) return false;
    const size_t n = kv->data_bytes / kv->count;
    const uint8_t *data = kv->data + index * n;
    float value;
    if (type == LLD_GGUF_FLOAT32) {
        memcpy(&value, data, sizeof value);
        *out = value;
    } else if (type == LLD_GGUF_FLOAT64) {
        memcpy(out, data, sizeof *out);
    } else {
        const uint64_t bits = take_integer(data, n, is_signed(type));
        *out = is_signed(type) ? (double)(int64_t)bits : (double)bits;
    }
    return true;
}

int lld_gguf_read_bool(const lld_gguf *gguf, const char *key, bool *out, bool *found)
{
    const lld_kv *kv = look_up(gguf, key, found);
    if (kv == NULL) return LLD_OK;
    if (kv->type != LLD_GGUF_BOOL) return wrong_type(key, kv, "bool");
    *out = kv->data[0] != 0;
    return LLD_OK;
}

int lld_gguf_read_string(const lld_gguf *gguf, const char *key, const char **out, size_t *length,
                         bool *found)
{
    const lld_kv *kv = look_up(gguf, key, found);
    if (kv == NULL) return LLD_OK;
    if (kv->type != LLD_GGUF_STRING) return wrong_type(key, kv, "string");
    *out = (const char *)kv->data;
    *length = kv->data_bytes;
    return LLD_OK;
}
