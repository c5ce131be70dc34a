/* unpack.h - one block of a GGML format as plain integers and float scales: the bit layouts, once.
 * Inline, so that dequantization (format.c) and the generic kernels (kernels/generic/matmul.c)
 * compile them into their own loops. Does no float arithmetic on the elements.
 * Element numbers are written e = ...; the layouts are those of ggml-common.h and of `gguf`. */
#ifndef LLD_UNPACK_H
#define LLD_UNPACK_H

#include <stddef.h>

#include "format/blocks.h"
#include "format/grids.h"
#include "format/half.h"

#define LLD_UNPACK static inline __attribute__((always_inline, unused))

/* A block of 32: x[e] = d * q[e] + m. Formats without an offset set m = 0: they mean d * q[e]. */
typedef struct lld_unpacked {
    float d, m;
    int8_t q[LLD_QK];
} lld_unpacked;

/* A block of 256: x[e] = d * scale[e/16] * q[e] - dmin * min[e/16]. Formats whose scales cover 32
 * elements repeat them; formats without mins leave dmin and min zero. */
typedef struct lld_unpacked_k {
    float d, dmin;
    int8_t scale[LLD_QK_K / 16];
    uint8_t min[LLD_QK_K / 16];
    int8_t q[LLD_QK_K];
} lld_unpacked_k;

/* ---- blocks of 32: e = i is the low nibble of byte i, e = 16 + i the high one ---------------- */

LLD_UNPACK void lld_unpack_q4_0(const void *block, lld_unpacked *out)
{
    const lld_block_q4_0 *b = block;
    out->d = lld_f16_to_f32(b->d);
    out->m = 0.0f;
    for (int i = 0; i < 16; i++) {
        out->q[i] = (int8_t)((b->qs[i] & 15) - 8);
        out->q[i + 16] = (int8_t)((b->qs[i] >> 4) - 8);
    }
}

LLD_UNPACK void lld_unpack_q4_1(const void *block, lld_unpacked *out)
{
    const lld_block_q4_1 *b = block;
    out->d = lld_f16_to_f32(b->d);
    out->m = lld_f16_to_f32(b->m);
    for (int i = 0; i < 16; i++) {
        out->q[i] = (int8_t)(b->qs[i] & 15);
        out->q[i + 16] = (int8_t)(b->qs[i] >> 4);
    }
}

/* The fifth bit of element e is bit e of qh, a little-endian 32-bit word. */
LLD_UNPACK void lld_unpack_5_bits(const uint8_t qh[4], const uint8_t qs[16], int offset,
                                  int8_t q[32])
{
    for (int i = 0; i < 16; i++) {
        int high0 = (qh[i / 8] >> (i % 8)) & 1, high1 = (qh[2 + i / 8] >> (i % 8)) & 1;
        q[i] = (int8_t)(((qs[i] & 15) | (high0 << 4)) - offset);
        q[i + 16] = (int8_t)(((qs[i] >> 4) | (high1 << 4)) - offset);
    }
}

LLD_UNPACK void lld_unpack_q5_0(const void *block, lld_unpacked *out)
{
    const lld_block_q5_0 *b = block;
    out->d = lld_f16_to_f32(b->d);
    out->m = 0.0f;
    lld_unpack_5_bits(b->qh, b->qs, 16, out->q);
}

LLD_UNPACK void lld_unpack_q5_1(const void *block, lld_unpacked *out)
{
    const lld_block_q5_1 *b = block;
    out->d = lld_f16_to_f32(b->d);
    out->m = lld_f16_to_f32(b->m);
    lld_unpack_5_bits(b->qh, b->qs, 0, out->q);
}

LLD_UNPACK void lld_unpack_q8_0(const void *block, lld_unpacked *out)
{
    const lld_block_q8_0 *b = block;
    out->d = lld_f16_to_f32(b->d);
    out->m = 0.0f;
    for (int i = 0; i < 32; i++) out->q[i] = b->qs[i];
}

LLD_UNPACK void lld_unpack_iq4_nl(const void *block, lld_unpacked *out)
{
    const lld_block_iq4_nl *b = block;
    out->d = lld_f16_to_f32(b->d);
    out->m = 0.0f;
    for (int i = 0; i < 16; i++) {
        out->q[i] = lld_iq4_values[b->qs[i] & 15];
        out->q[i + 16] = lld_iq4_values[b->qs[i] >> 4];
    }
}

/* The scale of MXFP4: a power of two with a bias of 127 (E8M0), half of it, because the table has
 * twice the values. e = 0 and 1 give subnormals; 255, which the specification calls NaN, gives 2^127, as
 * in ggml (ggml_e8m0_to_fp32_half). */
LLD_UNPACK float lld_e8m0_half(uint8_t e)
{
    uint32_t bits = e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23;
    float d;
    memcpy(&d, &bits, sizeof d);
    return d;
}

LLD_UNPACK void lld_unpack_mxfp4(const void *block, lld_unpacked *out)
{
    const lld_block_mxfp4 *b = block;
    out->d = lld_e8m0_half(b->e);
    out->m = 0.0f;
    for (int i = 0; i < 16; i++) {
        out->q[i] = lld_mxfp4_values[b->qs[i] & 15];
        out->q[i + 16] = lld_mxfp4_values[b->qs[i] >> 4];
    }
}

/* ---- parts of 32 of longer blocks with one scale --------------------------------------------- */

/* One bit an element: e is bit e % 8 of byte e / 8; 1 is +d, 0 is -d. part: 0..3 */
LLD_UNPACK void lld_unpack_q1_0(const void *block, size_t part, lld_unpacked *out)
{
    const lld_block_q1_0 *b = block;
    out->d = lld_f16_to_f32(b->d);
    out->m = 0.0f;
    for (int i = 0; i < 32; i++)
        out->q[i] = (int8_t)(2 * ((b->qs[4 * part + (size_t)i / 8] >> (i % 8)) & 1) - 1);
}

/* Two bits an element: e is bits 2*(e % 4).. of byte e / 4, less 1. part: 0, 1 */
LLD_UNPACK void lld_unpack_q2_0(const void *block, size_t part, lld_unpacked *out)
{
    const lld_block_q2_0 *b = block;
    out->d = lld_f16_to_f32(b->d);
    out->m = 0.0f;
    for (int i = 0; i < 32; i++)
        out->q[i] = (int8_t)(((b->qs[8 * part + (size_t)i / 4] >> (2 * (i % 4))) & 3) - 1);
}

/* ---- packed scales --------------------------------------------------------------------------- */

/* The 6-bit scales and mins of Q4_K and Q5_K: (8) each. */
LLD_UNPACK void lld_k4_scales(const uint8_t packed[12], uint8_t scales[8], uint8_t mins[8])
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

/* The 6-bit signed scales (-32..31) of Q3_K: (16). */
LLD_UNPACK void lld_q3_scales(const uint8_t packed[12], int8_t scales[16])
{
    /* The low four bits in the low nibbles of bytes 0-7, then in the high ones; the top two in
     * bytes 8-11. */
    for (int j = 0; j < 16; j++) {
        int low = (packed[j % 8] >> (j / 8 * 4)) & 15;
        int high = (packed[8 + j % 4] >> (j / 4 * 2)) & 3;
        scales[j] = (int8_t)((low | (high << 4)) - 32);
    }
}

/* ---- blocks of 256 --------------------------------------------------------------------------- */

/* Two bits an element: e = 128*h + 32*j + i is bits 2j..2j+1 of byte 32*h + i. */
LLD_UNPACK void lld_unpack_2_bits(const uint8_t qs[64], int8_t q[256])
{
    for (int h = 0; h < 2; h++)
        for (int j = 0; j < 4; j++)
            for (int i = 0; i < 32; i++)
                q[128 * h + 32 * j + i] = (int8_t)((qs[32 * h + i] >> (2 * j)) & 3);
}

LLD_UNPACK void lld_unpack_q2_k(const void *block, lld_unpacked_k *out)
{
    const lld_block_q2_k *b = block;
    out->d = lld_f16_to_f32(b->d);
    out->dmin = lld_f16_to_f32(b->dmin);
    for (int i = 0; i < 16; i++) {
        out->scale[i] = (int8_t)(b->scales[i] & 15);
        out->min[i] = b->scales[i] >> 4;
    }
    lld_unpack_2_bits(b->qs, out->q);
}

/* The third bit of e = 32*j + i is bit j of hmask[i]; the three-bit number has an offset of 4. */
LLD_UNPACK void lld_unpack_q3_k(const void *block, lld_unpacked_k *out)
{
    const lld_block_q3_k *b = block;
    out->d = lld_f16_to_f32(b->d);
    out->dmin = 0.0f;
    lld_q3_scales(b->scales, out->scale);
    for (int i = 0; i < 16; i++) out->min[i] = 0;
    lld_unpack_2_bits(b->qs, out->q);
    for (int j = 0; j < 8; j++)
        for (int i = 0; i < 32; i++)
            out->q[32 * j + i] = (int8_t)((out->q[32 * j + i] | ((b->hmask[i] >> j) & 1) << 2) - 4);
}

/* Four bits an element: e = 64*g + i is the low nibble of byte 32*g + i, e + 32 the high one. */
LLD_UNPACK void lld_unpack_4_bits(const uint8_t qs[128], int8_t q[256])
{
    for (int g = 0; g < 4; g++)
        for (int i = 0; i < 32; i++) {
            q[64 * g + i] = (int8_t)(qs[32 * g + i] & 15);
            q[64 * g + 32 + i] = (int8_t)(qs[32 * g + i] >> 4);
        }
}

LLD_UNPACK void lld_unpack_k4_scales(const uint8_t packed[12], lld_unpacked_k *out)
{
    uint8_t scales[8], mins[8];
    lld_k4_scales(packed, scales, mins);
    for (int i = 0; i < 16; i++) {
        out->scale[i] = (int8_t)scales[i / 2];
        out->min[i] = mins[i / 2];
    }
}

LLD_UNPACK void lld_unpack_q4_k(const void *block, lld_unpacked_k *out)
{
    const lld_block_q4_k *b = block;
    out->d = lld_f16_to_f32(b->d);
    out->dmin = lld_f16_to_f32(b->dmin);
    lld_unpack_k4_scales(b->scales, out);
    lld_unpack_4_bits(b->qs, out->q);
}

/* The fifth bit of e = 32*j + i is bit j of qh[i]. */
LLD_UNPACK void lld_unpack_q5_k(const void *block, lld_unpacked_k *out)
{
    const lld_block_q5_k *b = block;
    out->d = lld_f16_to_f32(b->d);
    out->dmin = lld_f16_to_f32(b->dmin);
    lld_unpack_k4_scales(b->scales, out);
    lld_unpack_4_bits(b->qs, out->q);
    for (int j = 0; j < 8; j++)
        for (int i = 0; i < 32; i++)
            out->q[32 * j + i] = (int8_t)(out->q[32 * j + i] | (((b->qh[i] >> j) & 1) << 4));
}

/* e = 128*h + 32*j + i: low bits from byte 64*h + 32*(j%2) + i of ql (its high nibble for j >= 2),
 * high bits from bits 2j..2j+1 of byte 32*h + i of qh. */
LLD_UNPACK void lld_unpack_q6_k(const void *block, lld_unpacked_k *out)
{
    const lld_block_q6_k *b = block;
    out->d = lld_f16_to_f32(b->d);
    out->dmin = 0.0f;
    for (int i = 0; i < 16; i++) {
        out->scale[i] = b->scales[i];
        out->min[i] = 0;
    }
    for (int h = 0; h < 2; h++)
        for (int j = 0; j < 4; j++)
            for (int i = 0; i < 32; i++) {
                int low = (b->ql[64 * h + 32 * (j % 2) + i] >> (j / 2 * 4)) & 15;
                int high = (b->qh[32 * h + i] >> (2 * j)) & 3;
                out->q[128 * h + 32 * j + i] = (int8_t)((low | (high << 4)) - 32);
            }
}

/* Eight sub-blocks of 32, each laid out as IQ4_NL; 6-bit scales with an offset of 32. */
LLD_UNPACK void lld_unpack_iq4_xs(const void *block, lld_unpacked_k *out)
{
    const lld_block_iq4_xs *b = block;
    out->d = lld_f16_to_f32(b->d);
    out->dmin = 0.0f;
    for (int g = 0; g < 8; g++) {
        int low = (b->scales_l[g / 2] >> (g % 2 * 4)) & 15, high = (b->scales_h >> (2 * g)) & 3;
        out->scale[2 * g] = out->scale[2 * g + 1] = (int8_t)((low | (high << 4)) - 32);
        out->min[2 * g] = out->min[2 * g + 1] = 0;
        for (int i = 0; i < 16; i++) {
            out->q[32 * g + i] = lld_iq4_values[b->qs[16 * g + i] & 15];
            out->q[32 * g + 16 + i] = lld_iq4_values[b->qs[16 * g + i] >> 4];
        }
    }
}

/* ---- blocks of 256 that point into a table (grids.h) ------------------------------------------
 *
 * x = d/8 * (2s+1) * q (IQ2), d/4 * (2s+1) * q (IQ3_XXS), d * (2s+1) * q (IQ3_S); s is a scale of 4
 * bits, q a magnitude of the table with its sign. In that order all products are exact. */

LLD_UNPACK uint32_t lld_unpack_u32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Elements e.. of q: `n` magnitudes of an entry; bit i of signs is set where element i is negative. */
LLD_UNPACK void lld_unpack_grid(uint64_t entry, int n, unsigned signs, int8_t *q)
{
    for (int i = 0; i < n; i++) {
        int magnitude = (int)(entry >> (8 * i) & 0xff);
        q[i] = (int8_t)(signs >> i & 1 ? -magnitude : magnitude);
    }
}

/* Scale s of the sixteens 2g and 2g+1, as 2s+1. */
LLD_UNPACK void lld_unpack_grid_scales(lld_unpacked_k *out, int g, int even, int odd)
{
    out->scale[2 * g] = (int8_t)(2 * even + 1);
    out->scale[2 * g + 1] = (int8_t)(2 * odd + 1);
    out->min[2 * g] = out->min[2 * g + 1] = 0;
}

/* 32 weights are 8 bytes: four indices, then four sevens of signs and a scale in a 32-bit word. */
LLD_UNPACK void lld_unpack_iq2_xxs(const void *block, lld_unpacked_k *out)
{
    const lld_block_iq2_xxs *b = block;
    out->d = lld_f16_to_f32(b->d) * 0.125f;
    out->dmin = 0.0f;
    for (int g = 0; g < 8; g++) {
        const uint32_t word = lld_unpack_u32(b->qs + 8 * g + 4);
        lld_unpack_grid_scales(out, g, (int)(word >> 28), (int)(word >> 28));
        for (int i = 0; i < 4; i++)
            lld_unpack_grid(lld_iq2_xxs_grid[b->qs[8 * g + i]], 8,
                            lld_even_signs[word >> (7 * i) & 127], out->q + 32 * g + 8 * i);
    }
}

/* Eight weights are 16 bits: an index of nine and seven signs. Sixteen share a scale. */
LLD_UNPACK void lld_unpack_iq2_xs(const void *block, lld_unpacked_k *out)
{
    const lld_block_iq2_xs *b = block;
    out->d = lld_f16_to_f32(b->d) * 0.125f;
    out->dmin = 0.0f;
    for (int g = 0; g < 8; g++)
        lld_unpack_grid_scales(out, g, b->scales[g] & 15, b->scales[g] >> 4);
    for (int i = 0; i < 32; i++) {
        const unsigned code = b->qs[2 * i] | (unsigned)b->qs[2 * i + 1] << 8;
        lld_unpack_grid(lld_iq2_xs_grid[code & 511], 8, lld_even_signs[code >> 9], out->q + 8 * i);
    }
}

/* Eight weights have an index of ten bits, the top two in qh, and eight signs. */
LLD_UNPACK void lld_unpack_iq2_s(const void *block, lld_unpacked_k *out)
{
    const lld_block_iq2_s *b = block;
    out->d = lld_f16_to_f32(b->d) * 0.125f;
    out->dmin = 0.0f;
    for (int g = 0; g < 8; g++)
        lld_unpack_grid_scales(out, g, b->scales[g] & 15, b->scales[g] >> 4);
    for (int i = 0; i < 32; i++) {
        const unsigned high = b->qh[i / 4] >> (2 * (i % 4)) & 3;
        lld_unpack_grid(lld_iq2_s_grid[b->qs[i] | high << 8], 8, b->signs[i], out->q + 8 * i);
    }
}

/* Four weights have an index of eight bits; signs and scales as the words of IQ2_XXS. */
LLD_UNPACK void lld_unpack_iq3_xxs(const void *block, lld_unpacked_k *out)
{
    const lld_block_iq3_xxs *b = block;
    out->d = lld_f16_to_f32(b->d) * 0.25f;
    out->dmin = 0.0f;
    for (int g = 0; g < 8; g++) {
        const uint32_t word = lld_unpack_u32(b->signs + 4 * g);
        lld_unpack_grid_scales(out, g, (int)(word >> 28), (int)(word >> 28));
        for (int i = 0; i < 8; i++)
            lld_unpack_grid(lld_iq3_xxs_grid[b->qs[8 * g + i]], 4,
                            (unsigned)lld_even_signs[word >> (7 * (i / 2)) & 127] >> (4 * (i % 2)),
                            out->q + 32 * g + 4 * i);
    }
}

/* Four weights have an index of nine bits, the top one in qh; eight weights have eight signs. */
LLD_UNPACK void lld_unpack_iq3_s(const void *block, lld_unpacked_k *out)
{
    const lld_block_iq3_s *b = block;
    out->d = lld_f16_to_f32(b->d);
    out->dmin = 0.0f;
    for (int g = 0; g < 8; g++) {
        const int scale = b->scales[g / 2] >> (4 * (g % 2)) & 15;
        lld_unpack_grid_scales(out, g, scale, scale);
        for (int i = 0; i < 8; i++) {
            const unsigned high = b->qh[g] >> i & 1;
            lld_unpack_grid(lld_iq3_s_grid[b->qs[8 * g + i] | high << 8], 4,
                            (unsigned)b->signs[4 * g + i / 2] >> (4 * (i % 2)),
                            out->q + 32 * g + 4 * i);
        }
    }
}

#endif
