/* format.c - what the list of formats says at run time: names, sizes, refusals; and dequantization.
 * The order of float operations is that of the `gguf` package (gguf.quants), so that results agree
 * bit for bit: a sub-block's scale d*sc and offset dmin*m are rounded first, then
 * x = scale*q - offset.
 * Bit layouts are in unpack.h; products with activations in the kernels. */
#include "format/format.h"

#include <assert.h>
#include <string.h>

#include "base/status.h"
#include "format/unpack.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF fields are read in place");

#define CHECK_BLOCK(name, function, id, block, bytes, offset, quantizer)                           \
    _Static_assert(sizeof(lld_block_##function) == (bytes), #name);
LLD_FORMATS(CHECK_BLOCK)

static const struct {
    const char *name;    /* NULL: no such id */
    const char *instead; /* of what type to fetch a file; NULL: this one is supported */
    uint16_t block, block_bytes;
} types[LLD_TYPE_COUNT] = {
#define FORMAT(name, function, id, block, bytes, offset, quantizer)                                \
    [id] = {#name, NULL, block, bytes},
#define OTHER(name, id, instead) [id] = {#name, instead, 0, 0},
    LLD_FORMATS(FORMAT) LLD_OTHER_TYPES(OTHER)};

const int8_t lld_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                   1,    13,   25,  38,  53,  69,  89,  113};
const int8_t lld_mxfp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

bool lld_type_supported(uint32_t type) { return type < LLD_TYPE_COUNT && types[type].block != 0; }

const char *lld_type_name(uint32_t type)
{
    return lld_type_supported(type) ? types[type].name : NULL;
}

int lld_type_refuse(const char *subject, uint32_t type)
{
    if (type >= LLD_TYPE_COUNT || types[type].name == NULL)
        return lld_fail(LLD_ERR_UNSUPPORTED, "%s: type %u is unknown", subject, (unsigned)type);
    return lld_fail(LLD_ERR_UNSUPPORTED, "%s: type %s (%u) is not supported: fetch the %s file",
                    subject, types[type].name, (unsigned)type, types[type].instead);
}

size_t lld_type_block(uint32_t type) { return type < LLD_TYPE_COUNT ? types[type].block : 0; }

size_t lld_type_block_bytes(uint32_t type)
{
    return type < LLD_TYPE_COUNT ? types[type].block_bytes : 0;
}

size_t lld_type_row_bytes(uint32_t type, size_t n)
{
    assert(lld_type_supported(type) && n % types[type].block == 0);
    return n / types[type].block * types[type].block_bytes;
}

size_t lld_type_bytes(uint32_t type, size_t n_cols)
{
    if (!lld_type_supported(type) || n_cols % types[type].block != 0) return 0;
    return lld_type_row_bytes(type, n_cols);
}

/* ---- dequantization -------------------------------------------------------------------------- */

static void expand(const lld_unpacked *u, bool has_min, float *dst)
{
    for (int e = 0; e < LLD_QK; e++)
        dst[e] = has_min ? u->d * (float)u->q[e] + u->m : u->d * (float)u->q[e];
}

static void expand_k(const lld_unpacked_k *u, bool has_min, float *dst)
{
    for (int j = 0; j < LLD_QK_K / 16; j++) {
        float scale = u->d * (float)u->scale[j], min = u->dmin * (float)u->min[j];
        for (int e = 16 * j; e < 16 * j + 16; e++)
            dst[e] = has_min ? scale * (float)u->q[e] - min : scale * (float)u->q[e];
    }
}

static void dequantize_f32(const void *src, float *dst, size_t n)
{
    memcpy(dst, src, n * sizeof *dst);
}

static void dequantize_f16(const void *src, float *dst, size_t n)
{
    const uint16_t *halves = src;
    for (size_t i = 0; i < n; i++) dst[i] = lld_f16_to_f32(halves[i]);
}

static void dequantize_bf16(const void *src, float *dst, size_t n)
{
    const uint16_t *halves = src;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)halves[i] << 16;
        memcpy(&dst[i], &bits, sizeof bits);
    }
}

/* A format of one weight a block has its function above. */
#define DEFINE_DEQUANTIZE_1(function, offset)
#define DEFINE_DEQUANTIZE_32(function, offset)                                                     \
    DEFINE_DEQUANTIZE(function, lld_unpacked, expand, offset)
#define DEFINE_DEQUANTIZE_256(function, offset)                                                    \
    DEFINE_DEQUANTIZE(function, lld_unpacked_k, expand_k, offset)

#define DEFINE_DEQUANTIZE_64(function, offset)  DEFINE_DEQUANTIZE_PARTS(function, 64)
#define DEFINE_DEQUANTIZE_128(function, offset) DEFINE_DEQUANTIZE_PARTS(function, 128)
#define DEFINE_DEQUANTIZE_PARTS(function, block)                                                   \
    static void dequantize_##function(const void *src, float *dst, size_t n)                       \
    {                                                                                              \
        lld_unpacked u;                                                                            \
        const lld_block_##function *blocks = src;                                                  \
        for (size_t i = 0; i < n; i += LLD_QK) {                                                   \
            lld_unpack_##function(&blocks[i / block], i % block / LLD_QK, &u);                     \
            expand(&u, false, dst + i);                                                            \
        }                                                                                          \
    }

#define DEFINE_DEQUANTIZE(function, unpacked, expand_block, offset)                                \
    static void dequantize_##function(const void *src, float *dst, size_t n)                       \
    {                                                                                              \
        unpacked u;                                                                                \
        const lld_block_##function *blocks = src;                                                  \
        for (size_t i = 0; i < n / sizeof u.q; i++) {                                              \
            lld_unpack_##function(&blocks[i], &u);                                                 \
            expand_block(&u, offset, dst + i * sizeof u.q);                                        \
        }                                                                                          \
    }

#define DEFINE(name, function, id, block, bytes, offset, quantizer)                                \
    DEFINE_DEQUANTIZE_##block(function, offset)
LLD_FORMATS(DEFINE)

static void (*const dequantizers[LLD_TYPE_COUNT])(const void *src, float *dst, size_t n) = {
#define DEQUANTIZER(name, function, id, block, bytes, offset, quantizer)                           \
    [id] = dequantize_##function,
    LLD_FORMATS(DEQUANTIZER)};

void lld_dequantize_row(uint32_t type, const void *src, float *dst, size_t n)
{
    assert(lld_type_supported(type) && n % types[type].block == 0);
    dequantizers[type](src, dst, n);
}

int lld_dequantize(uint32_t type, const void *src, size_t src_bytes, size_t n, float *dst)
{
    if (!lld_type_supported(type)) return lld_type_refuse("tensor", type);
    const char *name = types[type].name;
    if (n % types[type].block != 0)
        return lld_fail(LLD_ERR_INVALID, "row of %zu elements is no multiple of %s's block of %u",
                        n, name, (unsigned)types[type].block);
    if (src_bytes % types[type].block_bytes != 0 ||
        src_bytes / types[type].block_bytes != n / types[type].block)
        return lld_fail(LLD_ERR_INVALID, "%zu bytes are not the size of %zu elements of %s",
                        src_bytes, n, name);
    lld_dequantize_row(type, src, dst, n);
    return LLD_OK;
}
