/* gguf_builder.h - writes GGUF bytes, right or wrong, for the C tests of what reads them.
 * Every count and length is the caller's to choose: nothing is checked but the buffer's end. */
#ifndef GGUF_BUILDER_H
#define GGUF_BUILDER_H

#include <assert.h>
#include <stdint.h>
#include <string.h>

typedef struct builder {
    uint8_t bytes[8192];
    size_t n;
} builder;

static inline void put(builder *b, const void *bytes, size_t n)
{
    assert(b->n + n <= sizeof b->bytes);
    memcpy(b->bytes + b->n, bytes, n);
    b->n += n;
}

static inline void put_u32(builder *b, uint32_t v)
{
    const uint8_t le[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
    put(b, le, 4);
}

static inline void put_u64(builder *b, uint64_t v)
{
    put_u32(b, (uint32_t)v);
    put_u32(b, (uint32_t)(v >> 32));
}

static inline void put_string(builder *b, const char *s)
{
    put_u64(b, strlen(s));
    put(b, s, strlen(s));
}

static inline void put_header(builder *b, uint32_t version, uint64_t n_tensors, uint64_t n_kv)
{
    put(b, "GGUF", 4);
    put_u32(b, version);
    put_u64(b, n_tensors);
    put_u64(b, n_kv);
}

/* A metadata entry up to its value. */
static inline void put_key(builder *b, const char *key, uint32_t type)
{
    put_string(b, key);
    put_u32(b, type);
}

static inline void put_array(builder *b, const char *key, uint32_t element_type, uint64_t count)
{
    put_key(b, key, 9);
    put_u32(b, element_type);
    put_u64(b, count);
}

/* An entry of the tensor table; dims: (n_dims). */
static inline void put_tensor(builder *b, const char *name, uint32_t n_dims, const uint64_t *dims,
                              uint32_t type, uint64_t offset)
{
    put_string(b, name);
    put_u32(b, n_dims);
    for (uint32_t d = 0; d < n_dims; d++) put_u64(b, dims[d]);
    put_u32(b, type);
    put_u64(b, offset);
}

static inline void put_padding(builder *b, size_t alignment)
{
    static const uint8_t zeros[1] = {0};
    while (b->n % alignment != 0) put(b, zeros, 1);
}

static inline void put_data(builder *b, size_t n)
{
    for (size_t i = 0; i < n; i++) put(b, &(const uint8_t){(uint8_t)(i + 1)}, 1);
}

#endif
