/* quant.c - the table of block formats, half-precision conversion, dequantization.
 * The order of float operations is that of the `gguf` package (gguf.quants), so that results agree
 * bit for bit: a sub-block's scale d*sc and offset dmin*m are rounded first, then
 * x = scale*q - offset.
 * Bit layouts are in unpack.h; products with activations in the kernels. */
#include "format/quant.h"

#include <assert.h>
#include <string.h>

#include "base/status.h"
#include "format/unpack.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF fields are read in place");

static const struct {
    const char *name; /* NULL: not supported */
    uint16_t block, block_bytes;
} types[LLD_TYPE_COUNT] = {
    [LLD_F32] = {"F32", 1, 4},
    [LLD_F16] = {"F16", 1, 2},
    [LLD_BF16] = {"BF16", 1, 2},
    [LLD_Q4_0] = {"Q4_0", LLD_QK, sizeof(lld_block_q4_0)},
    [LLD_Q4_1] = {"Q4_1", LLD_QK, sizeof(lld_block_q4_1)},
    [LLD_Q5_0] = {"Q5_0", LLD_QK, sizeof(lld_block_q5_0)},
    [LLD_Q5_1] = {"Q5_1", LLD_QK, sizeof(lld_block_q5_1)},
    [LLD_Q8_0] = {"Q8_0", LLD_QK, sizeof(lld_block_q8_0)},
    [LLD_IQ4_NL] = {"IQ4_NL", LLD_QK, sizeof(lld_block_iq4_nl)},
    [LLD_Q2_K] = {"Q2_K", LLD_QK_K, sizeof(lld_block_q2_k)},
    [LLD_Q3_K] = {"Q3_K", LLD_QK_K, sizeof(lld_block_q3_k)},
    [LLD_Q4_K] = {"Q4_K", LLD_QK_K, sizeof(lld_block_q4_k)},
    [LLD_Q5_K] = {"Q5_K", LLD_QK_K, sizeof(lld_block_q5_k)},
    [LLD_Q6_K] = {"Q6_K", LLD_QK_K, sizeof(lld_block_q6_k)},
    [LLD_IQ4_XS] = {"IQ4_XS", LLD_QK_K, sizeof(lld_block_iq4_xs)},
};

_Static_assert(sizeof(lld_block_q4_0) == 18 && sizeof(lld_block_q4_1) == 20, "no padding");
_Static_assert(sizeof(lld_block_q5_0) == 22 && sizeof(lld_block_q5_1) == 24, "no padding");
_Static_assert(sizeof(lld_block_q8_0) == 34 && sizeof(lld_block_iq4_nl) == 18, "no padding");
_Static_assert(sizeof(lld_block_q2_k) == 84 && sizeof(lld_block_q3_k) == 110, "no padding");
_Static_assert(sizeof(lld_block_q4_k) == 144 && sizeof(lld_block_q5_k) == 176, "no padding");
_Static_assert(sizeof(lld_block_q6_k) == 210 && sizeof(lld_block_iq4_xs) == 136, "no padding");

const int8_t lld_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                   1,    13,   25,  38,  53,  69,  89,  113};

bool lld_type_supported(uint32_t type) { return type < LLD_TYPE_COUNT && types[type].name != NULL; }

const char *lld_type_name(uint32_t type) { return type < LLD_TYPE_COUNT ? types[type].name : NULL; }

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

/* ---- half precision (IEEE 754 binary16) ------------------------------------------------------ */

float lld_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, magnitude = (uint32_t)(h & 0x7FFF) << 13;
    uint32_t bits;
    if (magnitude >= 0x7C00u << 13) { /* infinity or NaN: the exponent becomes all ones */
        bits = magnitude | 0x7F800000u;
    } else { /* rebias the exponent by 127 - 15; exact, subnormals too */
        float f;
        memcpy(&f, &magnitude, sizeof f);
        f *= 0x1p112f;
        memcpy(&bits, &f, sizeof bits);
    }
    bits |= sign;
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

uint16_t lld_f32_to_f16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7FFFFFFFu, half;
    if (magnitude > 0x7F800000u) { /* NaN: quiet, the top of the payload kept */
        half = 0x7E00u | ((magnitude >> 13) & 0x3FFu);
    } else if (magnitude >= 0x477FF000u) { /* 65520 and above round to infinity */
        half = 0x7C00u;
    } else if (magnitude < 0x38800000u) { /* below 2^-14: the last place of 0.5f is worth 2^-24 */
        float shifted;
        memcpy(&shifted, &magnitude, sizeof shifted);
        shifted += 0.5f;
        memcpy(&half, &shifted, sizeof half);
        half -= 0x3F000000u;
    } else {
        half = (magnitude + 0xFFFu + ((magnitude >> 13) & 1u) - (112u << 23)) >> 13;
    }
    return (uint16_t)(sign | half);
}

/* ---- packed scales --------------------------------------------------------------------------- */

void lld_k4_scales(const uint8_t packed[12], uint8_t scales[8], uint8_t mins[8])
{
    /* Bytes 0-3: scales 0-3, bytes 4-7: mins 0-3. Their top two bits, over the nibbles of bytes
     * 8-11 (low: scale, high: min), give scales and mins 4-7. */
    for (int j = 0; j < 4; j++) {
        scales[j] = packed[j] & 63;
        mins[j] = packed[j + 4] & 63;
        scales[j + 4] = (uint8_t)((packed[j + 8] & 15) | (packed[j] >> 6 << 4));
        mins[j + 4] = (uint8_t)((packed[j + 8] >> 4) | (packed[j + 4] >> 6 << 4));
    }
}

void lld_q3_scales(const uint8_t packed[12], int8_t scales[16])
{
    /* The low four bits in the low nibbles of bytes 0-7, then in the high ones; the top two in
     * bytes 8-11. */
    for (int j = 0; j < 16; j++) {
        int low = (packed[j % 8] >> (j / 8 * 4)) & 15;
        int high = (packed[8 + j % 4] >> (j / 4 * 2)) & 3;
        scales[j] = (int8_t)((low | (high << 4)) - 32);
    }
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

#define DEFINE_DEQUANTIZE(format, unpacked, expand_block, has_min)                                 \
    static void dequantize_##format(const void *src, float *dst, size_t n)                         \
    {                                                                                              \
        unpacked u;                                                                                \
        const lld_block_##format *blocks = src;                                                    \
        for (size_t i = 0; i < n / sizeof u.q; i++) {                                              \
            lld_unpack_##format(&blocks[i], &u);                                                   \
            expand_block(&u, has_min, dst + i * sizeof u.q);                                       \
        }                                                                                          \
    }

DEFINE_DEQUANTIZE(q4_0, lld_unpacked, expand, false)
DEFINE_DEQUANTIZE(q4_1, lld_unpacked, expand, true)
DEFINE_DEQUANTIZE(q5_0, lld_unpacked, expand, false)
DEFINE_DEQUANTIZE(q5_1, lld_unpacked, expand, true)
DEFINE_DEQUANTIZE(q8_0, lld_unpacked, expand, false)
DEFINE_DEQUANTIZE(iq4_nl, lld_unpacked, expand, false)
DEFINE_DEQUANTIZE(q2_k, lld_unpacked_k, expand_k, true)
DEFINE_DEQUANTIZE(q3_k, lld_unpacked_k, expand_k, false)
DEFINE_DEQUANTIZE(q4_k, lld_unpacked_k, expand_k, true)
DEFINE_DEQUANTIZE(q5_k, lld_unpacked_k, expand_k, true)
DEFINE_DEQUANTIZE(q6_k, lld_unpacked_k, expand_k, false)
DEFINE_DEQUANTIZE(iq4_xs, lld_unpacked_k, expand_k, false)

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

static void (*const dequantizers[LLD_TYPE_COUNT])(const void *src, float *dst, size_t n) = {
    [LLD_F32] = dequantize_f32,       [LLD_F16] = dequantize_f16,
    [LLD_BF16] = dequantize_bf16,     [LLD_Q4_0] = dequantize_q4_0,
    [LLD_Q4_1] = dequantize_q4_1,     [LLD_Q5_0] = dequantize_q5_0,
    [LLD_Q5_1] = dequantize_q5_1,     [LLD_Q8_0] = dequantize_q8_0,
    [LLD_Q2_K] = dequantize_q2_k,     [LLD_Q3_K] = dequantize_q3_k,
    [LLD_Q4_K] = dequantize_q4_k,     [LLD_Q5_K] = dequantize_q5_k,
    [LLD_Q6_K] = dequantize_q6_k,     [LLD_IQ4_NL] = dequantize_iq4_nl,
    [LLD_IQ4_XS] = dequantize_iq4_xs,
};

void lld_dequantize_row(uint32_t type, const void *src, float *dst, size_t n)
{
    assert(lld_type_supported(type) && n % types[type].block == 0);
    dequantizers[type](src, dst, n);
}

int lld_dequantize(uint32_t type, const void *src, size_t src_bytes, size_t n, float *dst)
{
    if (!lld_type_supported(type))
        return lld_fail(LLD_ERR_UNSUPPORTED, "tensor type %u is not supported", (unsigned)type);
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
