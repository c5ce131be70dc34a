/* gguf.c - parses the header of a GGUF file: metadata entries, tensor table, their indices.
 *
 * Everything read is the world's fault until checked. One cursor walks the bytes; take() is the
 * only place that moves it, so nothing is read beyond the end. The cursor carries the name of the
 * thing being read, and every message starts with it. A count is compared with what the remaining
 * bytes could hold before memory is taken for it.
 *
 * Does not interpret keys, except general.alignment: model.c does. */
#include "gguf/gguf.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gguf/name.h"
#include "format/format.h"
#include "base/status.h"

enum {
    MIN_KV_BYTES = 8 + 1 + 4 + 1,             /* key length, key, type, value */
    MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8, /* name length, name, n_dims, a dim, type, offset */
    MIN_STRING_BYTES = 8
};

typedef struct cursor {
    const uint8_t *bytes;
    uint64_t size, offset;
    char subject[LLD_NAME_TEXT + 24]; /* what is being read, for messages */
} cursor;

static int take(cursor *c, uint64_t n, const char *what, const uint8_t **out)
{
    if (n > c->size - c->offset)
        return lld_fail(LLD_ERR_CORRUPT,
                        "%s: %s of %" PRIu64 " bytes at byte %" PRIu64 ", file has %" PRIu64
                        " bytes",
                        c->subject, what, n, c->offset, c->size);
    *out = c->bytes + c->offset;
    c->offset += n;
    return LLD_OK;
}

static uint64_t little_endian(const uint8_t *bytes, size_t n)
{
    uint64_t value = 0;
    for (size_t i = 0; i < n; i++) value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}

static int take_u32(cursor *c, const char *what, uint32_t *out)
{
    const uint8_t *bytes = NULL;
    int status = take(c, sizeof *out, what, &bytes);
    if (status == LLD_OK) *out = (uint32_t)little_endian(bytes, sizeof *out);
    return status;
}

static int take_u64(cursor *c, const char *what, uint64_t *out)
{
    const uint8_t *bytes = NULL;
    int status = take(c, sizeof *out, what, &bytes);
    if (status == LLD_OK) *out = little_endian(bytes, sizeof *out);
    return status;
}

/* Read a key or tensor name; from here on it is the cursor's subject. */
static int take_name(cursor *c, const char *kind, const char **name, size_t *length)
{
    uint64_t n = 0;
    int status = take_u64(c, "name length", &n);
    if (status != LLD_OK) return status;
    if (n < 1 || n > LLD_GGUF_MAX_NAME)
        return lld_fail(LLD_ERR_CORRUPT, "%s: name of %" PRIu64 " bytes, must be 1..%d", c->subject,
                        n, LLD_GGUF_MAX_NAME);
    const uint8_t *bytes = NULL;
    if ((status = take(c, n, "name", &bytes)) != LLD_OK) return status;
    if (!lld_name_valid(bytes, (size_t)n))
        return lld_fail(LLD_ERR_CORRUPT, "%s: name is not UTF-8 without NUL", c->subject);
    *name = (const char *)bytes;
    *length = (size_t)n;
    char text[LLD_NAME_TEXT];
    lld_name_text(*name, *length, text);
    snprintf(c->subject, sizeof c->subject, "%s '%s'", kind, text);
    return LLD_OK;
}

/* ---- header ---------------------------------------------------------------------------------- */

static int check_version(uint32_t version)
{
    if (version == 2 || version == 3) return LLD_OK;
    if (version == 0) return lld_fail(LLD_ERR_CORRUPT, "GGUF version is 0, must be 2 or 3");
    if (version == 1)
        return lld_fail(LLD_ERR_UNSUPPORTED, "GGUF version 1 is obsolete, must be 2 or 3");
    if ((version & 0xFFFFu) == 0)
        return lld_fail(LLD_ERR_UNSUPPORTED,
                        "GGUF version is 0x%08" PRIx32 ": a big-endian file, must be little-endian",
                        version);
    return lld_fail(LLD_ERR_UNSUPPORTED, "GGUF version %" PRIu32 " is newer than 3", version);
}

static int check_count(const cursor *c, const char *what, uint64_t n, uint64_t limit,
                       uint64_t min_bytes)
{
    if (n > limit)
        return lld_fail(LLD_ERR_CORRUPT, "header: %" PRIu64 " %s, limit is %" PRIu64, n, what,
                        limit);
    if (n > (c->size - c->offset) / min_bytes)
        return lld_fail(LLD_ERR_CORRUPT,
                        "header: %" PRIu64 " %s do not fit a file of %" PRIu64 " bytes", n, what,
                        c->size);
    return LLD_OK;
}

static int read_header(cursor *c, lld_gguf *out)
{
    uint64_t n_kv = 0, n_tensors = 0;
    const uint8_t *magic = NULL;
    int status = take(c, 4, "magic", &magic);
    if (status != LLD_OK) return status;
    if (memcmp(magic, "GGUF", 4) != 0)
        return lld_fail(LLD_ERR_CORRUPT, "not a GGUF file: starts with bytes %02x %02x %02x %02x",
                        magic[0], magic[1], magic[2], magic[3]);
    if ((status = take_u32(c, "version", &out->version)) != LLD_OK ||
        (status = check_version(out->version)) != LLD_OK ||
        (status = take_u64(c, "tensor count", &n_tensors)) != LLD_OK ||
        (status = take_u64(c, "metadata count", &n_kv)) != LLD_OK)
        return status;
    status = check_count(c, "metadata entries", n_kv, LLD_GGUF_MAX_KV, MIN_KV_BYTES);
    if (status == LLD_OK)
        status = check_count(c, "tensors", n_tensors, LLD_GGUF_MAX_TENSORS, MIN_TENSOR_BYTES);
    if (status != LLD_OK) return status;
    out->n_kv = (size_t)n_kv;
    out->n_tensors = (size_t)n_tensors;
    return LLD_OK;
}

/* ---- metadata -------------------------------------------------------------------------------- */

/* Bytes of one value of a fixed-size type; 0 for strings, arrays and unknown types. */
static size_t value_bytes(uint32_t type)
{
    static const uint8_t sizes[] = {
        [LLD_GGUF_UINT8] = 1,  [LLD_GGUF_INT8] = 1,  [LLD_GGUF_UINT16] = 2,  [LLD_GGUF_INT16] = 2,
        [LLD_GGUF_UINT32] = 4, [LLD_GGUF_INT32] = 4, [LLD_GGUF_FLOAT32] = 4, [LLD_GGUF_BOOL] = 1,
        [LLD_GGUF_UINT64] = 8, [LLD_GGUF_INT64] = 8, [LLD_GGUF_FLOAT64] = 8,
    };
    return type < sizeof sizes ? sizes[type] : 0;
}

static int take_string(cursor *c, const uint8_t **data, uint64_t *n)
{
    int status = take_u64(c, "string length", n);
    return status != LLD_OK ? status : take(c, *n, "string", data);
}

static int take_values(cursor *c, uint32_t type, uint64_t count, lld_kv *kv)
{
    uint64_t n = 0;
    if (__builtin_mul_overflow(count, (uint64_t)value_bytes(type), &n))
        return lld_fail(LLD_ERR_CORRUPT, "%s: array of %" PRIu64 " elements overflows 64 bits",
                        c->subject, count);
    int status = take(c, n, "value", &kv->data);
    if (status != LLD_OK) return status;
    kv->data_bytes = (size_t)n;
    for (uint64_t i = 0; type == LLD_GGUF_BOOL && i < n; i++)
        if (kv->data[i] > 1)
            return lld_fail(LLD_ERR_CORRUPT, "%s: bool is %u, must be 0 or 1", c->subject,
                            kv->data[i]);
    return LLD_OK;
}

static int take_string_array(cursor *c, uint64_t count, lld_kv *kv)
{
    if (count > (c->size - c->offset) / MIN_STRING_BYTES)
        return lld_fail(LLD_ERR_CORRUPT,
                        "%s: array of %" PRIu64 " strings does not fit a file of %" PRIu64 " bytes",
                        c->subject, count, c->size);
    uint64_t start = c->offset;
    for (uint64_t i = 0; i < count; i++) {
        const uint8_t *data = NULL;
        uint64_t n = 0;
        int status = take_string(c, &data, &n);
        if (status != LLD_OK) return status;
    }
    kv->data = c->bytes + start;
    kv->data_bytes = (size_t)(c->offset - start);
    return LLD_OK;
}

static int take_array(cursor *c, lld_kv *kv)
{
    int status = take_u32(c, "element type", &kv->element_type);
    if (status == LLD_OK) status = take_u64(c, "element count", &kv->count);
    if (status != LLD_OK) return status;
    if (kv->element_type == LLD_GGUF_STRING) return take_string_array(c, kv->count, kv);
    if (kv->element_type == LLD_GGUF_ARRAY)
        return lld_fail(LLD_ERR_UNSUPPORTED, "%s: nested arrays are not supported", c->subject);
    if (value_bytes(kv->element_type) == 0)
        return lld_fail(LLD_ERR_CORRUPT, "%s: element type %" PRIu32 " is unknown, must be 0..12",
                        c->subject, kv->element_type);
    return take_values(c, kv->element_type, kv->count, kv);
}

static int take_kv(cursor *c, size_t index, lld_kv *kv)
{
    snprintf(c->subject, sizeof c->subject, "metadata entry %zu", index);
    int status = take_name(c, "key", &kv->key, &kv->key_length);
    if (status == LLD_OK) status = take_u32(c, "type", &kv->type);
    if (status != LLD_OK) return status;
    kv->element_type = kv->type;
    kv->count = 1;
    if (kv->type == LLD_GGUF_ARRAY) return take_array(c, kv);
    if (kv->type == LLD_GGUF_STRING) {
        uint64_t n = 0;
        status = take_string(c, &kv->data, &n);
        kv->data_bytes = (size_t)n;
        return status;
    }
    if (value_bytes(kv->type) == 0)
        return lld_fail(LLD_ERR_CORRUPT, "%s: type %" PRIu32 " is unknown, must be 0..12",
                        c->subject, kv->type);
    return take_values(c, kv->type, 1, kv);
}

static int read_alignment(lld_gguf *gguf)
{
    gguf->alignment = LLD_GGUF_DEFAULT_ALIGNMENT;
    const lld_kv *kv = lld_gguf_find(gguf, "general.alignment");
    if (kv == NULL) return LLD_OK;
    if (kv->type != LLD_GGUF_UINT32)
        return lld_fail(LLD_ERR_CORRUPT,
                        "key 'general.alignment': type %" PRIu32 ", must be uint32 (4)", kv->type);
    uint32_t alignment = (uint32_t)little_endian(kv->data, sizeof alignment);
    if (alignment < LLD_GGUF_MIN_ALIGNMENT || alignment > LLD_GGUF_MAX_ALIGNMENT ||
        (alignment & (alignment - 1)) != 0)
        return lld_fail(LLD_ERR_CORRUPT,
                        "key 'general.alignment': %" PRIu32 ", must be a power of two in %d..%d",
                        alignment, LLD_GGUF_MIN_ALIGNMENT, LLD_GGUF_MAX_ALIGNMENT);
    gguf->alignment = alignment;
    return LLD_OK;
}

/* ---- tensors --------------------------------------------------------------------------------- */

static int take_dims(cursor *c, lld_tensor *t)
{
    int status = take_u32(c, "dimension count", &t->n_dims);
    if (status != LLD_OK) return status;
    if (t->n_dims < 1 || t->n_dims > 4)
        return lld_fail(LLD_ERR_CORRUPT, "%s: %" PRIu32 " dimensions, must be 1..4", c->subject,
                        t->n_dims);
    for (uint32_t d = 0; d < 4; d++) {
        t->dims[d] = 1;
        if (d < t->n_dims && (status = take_u64(c, "dimension", &t->dims[d])) != LLD_OK)
            return status;
        if (t->dims[d] < 1 || t->dims[d] > INT64_MAX)
            return lld_fail(LLD_ERR_CORRUPT,
                            "%s: dimension %" PRIu32 " is %" PRIu64 ", must be 1..2^63-1",
                            c->subject, d, t->dims[d]);
    }
    return LLD_OK;
}

/* Compute t->bytes from its type and dims. */
static int measure_tensor(const cursor *c, lld_tensor *t)
{
    uint64_t block = lld_type_block(t->type);
    if (block == 0) return lld_type_refuse(c->subject, t->type);
    if (t->dims[0] % block != 0)
        return lld_fail(LLD_ERR_CORRUPT,
                        "%s: rows of %" PRIu64 " elements, type %s needs a "
                        "multiple of %" PRIu64,
                        c->subject, t->dims[0], lld_type_name(t->type), block);
    uint64_t bytes = t->dims[0] / block;
    if (__builtin_mul_overflow(bytes, (uint64_t)lld_type_block_bytes(t->type), &bytes) ||
        __builtin_mul_overflow(bytes, t->dims[1], &bytes) ||
        __builtin_mul_overflow(bytes, t->dims[2], &bytes) ||
        __builtin_mul_overflow(bytes, t->dims[3], &bytes))
        return lld_fail(LLD_ERR_CORRUPT, "%s: product of dimensions overflows 64 bits", c->subject);
    t->bytes = bytes;
    return LLD_OK;
}

/* Read one entry of the tensor table; file_offset is relative to the data section still. */
static int take_tensor(cursor *c, size_t index, lld_tensor *t)
{
    snprintf(c->subject, sizeof c->subject, "tensor entry %zu", index);
    int status = take_name(c, "tensor", &t->name, &t->name_length);
    if (status != LLD_OK || (status = take_dims(c, t)) != LLD_OK ||
        (status = take_u32(c, "type", &t->type)) != LLD_OK ||
        (status = take_u64(c, "offset", &t->file_offset)) != LLD_OK)
        return status;
    return measure_tensor(c, t);
}

static int place_tensor(const lld_gguf *gguf, uint64_t data_start, lld_tensor *t)
{
    char name[LLD_NAME_TEXT];
    lld_name_text(t->name, t->name_length, name);
    if (t->file_offset % gguf->alignment != 0)
        return lld_fail(LLD_ERR_CORRUPT,
                        "tensor '%s': offset %" PRIu64 " is no multiple of the alignment %" PRIu32,
                        name, t->file_offset, gguf->alignment);
    uint64_t start = 0, end = 0;
    if (__builtin_add_overflow(data_start, t->file_offset, &start) ||
        __builtin_add_overflow(start, t->bytes, &end))
        return lld_fail(LLD_ERR_CORRUPT,
                        "tensor '%s': offset %" PRIu64 " plus %" PRIu64 " bytes overflows 64 bits",
                        name, t->file_offset, t->bytes);
    if (end > gguf->size)
        return lld_fail(LLD_ERR_CORRUPT,
                        "tensor '%s': ends at byte %" PRIu64 ", file has %zu bytes", name, end,
                        gguf->size);
    t->file_offset = start;
    t->data = gguf->bytes + start;
    return LLD_OK;
}

static int compare_offsets(const void *a, const void *b, void *tensors)
{
    const lld_tensor *x = (const lld_tensor *)tensors + *(const uint32_t *)a;
    const lld_tensor *y = (const lld_tensor *)tensors + *(const uint32_t *)b;
    return (x->file_offset > y->file_offset) - (x->file_offset < y->file_offset);
}

/* order: (n_tensors) scratch. */
static int check_overlap(const lld_gguf *gguf, uint32_t *order)
{
    for (size_t i = 0; i < gguf->n_tensors; i++) order[i] = (uint32_t)i;
    qsort_r(order, gguf->n_tensors, sizeof *order, compare_offsets, gguf->tensors);
    for (size_t i = 1; i < gguf->n_tensors; i++) {
        const lld_tensor *before = &gguf->tensors[order[i - 1]], *t = &gguf->tensors[order[i]];
        if (before->file_offset + before->bytes <= t->file_offset) continue;
        char name[LLD_NAME_TEXT], other[LLD_NAME_TEXT];
        lld_name_text(t->name, t->name_length, name);
        lld_name_text(before->name, before->name_length, other);
        return lld_fail(LLD_ERR_CORRUPT,
                        "tensor '%s': starts at byte %" PRIu64
                        ", but tensor '%s' ends at byte %" PRIu64,
                        name, t->file_offset, other, before->file_offset + before->bytes);
    }
    return LLD_OK;
}

/* ---- indices --------------------------------------------------------------------------------- */

static int compare_keys(const void *a, const void *b, void *entries)
{
    const lld_kv *x = (const lld_kv *)entries + *(const uint32_t *)a;
    const lld_kv *y = (const lld_kv *)entries + *(const uint32_t *)b;
    return lld_name_compare(x->key, x->key_length, y->key, y->key_length);
}

static int compare_names(const void *a, const void *b, void *tensors)
{
    const lld_tensor *x = (const lld_tensor *)tensors + *(const uint32_t *)a;
    const lld_tensor *y = (const lld_tensor *)tensors + *(const uint32_t *)b;
    return lld_name_compare(x->name, x->name_length, y->name, y->name_length);
}

static int index_kv(lld_gguf *gguf)
{
    for (size_t i = 0; i < gguf->n_kv; i++) gguf->kv_order[i] = (uint32_t)i;
    qsort_r(gguf->kv_order, gguf->n_kv, sizeof *gguf->kv_order, compare_keys, gguf->kv);
    for (size_t i = 1; i < gguf->n_kv; i++)
        if (compare_keys(&gguf->kv_order[i - 1], &gguf->kv_order[i], gguf->kv) == 0) {
            const lld_kv *kv = &gguf->kv[gguf->kv_order[i]];
            char key[LLD_NAME_TEXT];
            lld_name_text(kv->key, kv->key_length, key);
            return lld_fail(LLD_ERR_CORRUPT, "key '%s': occurs twice", key);
        }
    return LLD_OK;
}

static int index_tensors(lld_gguf *gguf)
{
    int status = check_overlap(gguf, gguf->tensor_order);
    if (status != LLD_OK) return status;
    qsort_r(gguf->tensor_order, gguf->n_tensors, sizeof *gguf->tensor_order, compare_names,
            gguf->tensors);
    for (size_t i = 1; i < gguf->n_tensors; i++)
        if (compare_names(&gguf->tensor_order[i - 1], &gguf->tensor_order[i], gguf->tensors) == 0) {
            const lld_tensor *t = &gguf->tensors[gguf->tensor_order[i]];
            char name[LLD_NAME_TEXT];
            lld_name_text(t->name, t->name_length, name);
            return lld_fail(LLD_ERR_CORRUPT, "tensor '%s': occurs twice", name);
        }
    return LLD_OK;
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* At least one element each, so that an empty table is no failed allocation. */
static int allocate(lld_gguf *gguf)
{
    gguf->kv = calloc(gguf->n_kv + 1, sizeof *gguf->kv);
    gguf->kv_order = calloc(gguf->n_kv + 1, sizeof *gguf->kv_order);
    gguf->tensors = calloc(gguf->n_tensors + 1, sizeof *gguf->tensors);
    gguf->tensor_order = calloc(gguf->n_tensors + 1, sizeof *gguf->tensor_order);
    if (!gguf->kv || !gguf->kv_order || !gguf->tensors || !gguf->tensor_order)
        return lld_fail(LLD_ERR_MEMORY, "no memory for the index of %zu keys and %zu tensors",
                        gguf->n_kv, gguf->n_tensors);
    return LLD_OK;
}

static int parse(cursor *c, lld_gguf *gguf)
{
    int status = read_header(c, gguf);
    if (status == LLD_OK) status = allocate(gguf);
    for (size_t i = 0; status == LLD_OK && i < gguf->n_kv; i++)
        status = take_kv(c, i, &gguf->kv[i]);
    if (status != LLD_OK || (status = index_kv(gguf)) != LLD_OK ||
        (status = read_alignment(gguf)) != LLD_OK)
        return status;
    for (size_t i = 0; status == LLD_OK && i < gguf->n_tensors; i++)
        status = take_tensor(c, i, &gguf->tensors[i]);
    uint64_t mask = gguf->alignment - 1, data_start = (c->offset + mask) & ~mask;
    for (size_t i = 0; status == LLD_OK && i < gguf->n_tensors; i++)
        status = place_tensor(gguf, data_start, &gguf->tensors[i]);
    return status != LLD_OK ? status : index_tensors(gguf);
}

int lld_gguf_parse(const uint8_t *bytes, size_t size, lld_gguf *out)
{
    memset(out, 0, sizeof *out);
    out->bytes = bytes;
    out->size = size;
    cursor c = {.bytes = bytes, .size = size, .offset = 0, .subject = "header"};
    int status = parse(&c, out);
    if (status != LLD_OK) lld_gguf_free(out);
    return status;
}

void lld_gguf_free(lld_gguf *gguf)
{
    free(gguf->kv);
    free(gguf->kv_order);
    free(gguf->tensors);
    free(gguf->tensor_order);
    memset(gguf, 0, sizeof *gguf);
}
