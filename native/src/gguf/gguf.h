/* gguf.h - the GGUF v2/v3 parser (specification: ggml docs/gguf.md).
 * Works on (bytes, size) and knows nothing of files. Every count, length, offset and product from
 * the bytes is checked before use. It owns the index arrays; strings and values stay in `bytes`. */
#ifndef LLD_GGUF_H
#define LLD_GGUF_H

#include <stdbool.h>

#include "llamad_engine.h"

/* What the parser accepts; real files stay far below. Metadata has no other budget than the file
 * itself: an array must lie in it, so n elements cost at least n bytes of file. */
enum {
    LLD_GGUF_MAX_KV = 65536,
    LLD_GGUF_MAX_TENSORS = 65536,
    LLD_GGUF_MAX_NAME = 65535, /* bytes of a key or tensor name, at least 1 */
    LLD_GGUF_DEFAULT_ALIGNMENT = 32,
    LLD_GGUF_MIN_ALIGNMENT = 8,
    LLD_GGUF_MAX_ALIGNMENT = 65536
};

typedef struct lld_gguf {
    const uint8_t *bytes;
    size_t size;
    uint32_t version;   /* 2 or 3 */
    uint32_t alignment; /* of tensor data, a power of two, 8..65536 */
    size_t n_kv, n_tensors;
    lld_kv *kv;             /* (n_kv) in file order, keys unique */
    lld_tensor *tensors;    /* (n_tensors) in file order, names unique, extents disjoint */
    uint32_t *kv_order;     /* (n_kv) indices sorted by key, for lld_gguf_find */
    uint32_t *tensor_order; /* (n_tensors) indices sorted by name, for lld_gguf_find_tensor */
} lld_gguf;

/* Parse and check the whole header. On failure *out owns nothing. `bytes` must outlive *out. */
int lld_gguf_parse(const uint8_t *bytes, size_t size, lld_gguf *out);
void lld_gguf_free(lld_gguf *gguf);

const lld_kv *lld_gguf_find(const lld_gguf *gguf, const char *key);             /* NULL: absent */
const lld_tensor *lld_gguf_find_tensor(const lld_gguf *gguf, const char *name); /* NULL: absent */

/* Typed reads of a scalar. Absent: LLD_OK, *out unchanged, returns through *found (may be NULL).
 * Wrong type or out of range: LLD_ERR_CORRUPT naming the key. Any integer type widens; so does
 * float64 to float32 (the caller checks for infinity, as it must anyway). */
int lld_gguf_read_u32(const lld_gguf *gguf, const char *key, uint32_t *out, bool *found);
int lld_gguf_read_f32(const lld_gguf *gguf, const char *key, float *out, bool *found);
int lld_gguf_read_bool(const lld_gguf *gguf, const char *key, bool *out, bool *found);
/* Element `index` (0 of a scalar) as a double, a bool as 0 or 1; false where it is no number. */
bool lld_gguf_number(const lld_kv *kv, uint64_t index, double *out);
/* A string value, not terminated; *out points into the file. */
int lld_gguf_read_string(const lld_gguf *gguf, const char *key, const char **out, size_t *length,
                         bool *found);

#endif
