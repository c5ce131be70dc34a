/* unpack.h - GGUF blocks to int8 vectors in registers, for baseline NEON.
 * Owns the bit layouts of the 32-element blocks. Weights come out in order, 16 a vector. The offset
 * that a format subtracts is left to the caller where that is cheaper.
 * The 256-element blocks are in unpack_k.h. */
#ifndef LLD_MATMUL_NEON_UNPACK_H
#define LLD_MATMUL_NEON_UNPACK_H

#if defined(__aarch64__)

#include "kernels/neon/matmul.h"

/* A format of 32-element blocks that start with an f16 scale, and an f16 min behind it if it has one. */
typedef struct lld_neon_format32 {
    size_t bytes; /* of a block */
    int32_t
        offset; /* weight = unpacked + offset: the caller adds offset * sum(y) to the block's sum */
    bool has_min;
    bool exponent; /* the scale is no f16 but a power of two in one byte, as MXFP4 has it */
    /* Weights of 8 bits: a sum of four products does not fit 16 bits. The others reach at most
     * 4*15*127 = 7620 (unsigned nibbles) or 4*16*127 = 8128 (signed five bits). */
    bool wide;
    void (*unpack)(const uint8_t *block, uint8x16_t q[2]); /* the 32 weights in order */
} lld_neon_format32;

LLD_INLINE void lld_unpack_nibbles(const uint8_t *qs, uint8x16_t q[2])
{
    uint8x16_t packed = vld1q_u8(qs);
    q[0] = vandq_u8(packed, vdupq_n_u8(15));
    q[1] = vshrq_n_u8(packed, 4);
}

/* Five-bit weights minus 16: bits 4..7 of a byte are the fifth bit's complement, the sign. */
LLD_INLINE void lld_unpack_five_bits(const uint8_t *qh, const uint8_t *qs, uint8x16_t q[2])
{
    static const uint8_t byte_of[2][16] = {{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1},
                                           {2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3}};
    static const uint8_t bit_of[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint32_t high;
    memcpy(&high, qh, sizeof high);
    uint8x16_t bytes = vreinterpretq_u8_u32(vdupq_n_u32(~high)), bits = vld1q_u8(bit_of);
    uint8x16_t packed = vld1q_u8(qs);
    uint8x16_t sign0 = vtstq_u8(vqtbl1q_u8(bytes, vld1q_u8(byte_of[0])), bits);
    uint8x16_t sign1 = vtstq_u8(vqtbl1q_u8(bytes, vld1q_u8(byte_of[1])), bits);
    q[0] = vbslq_u8(vdupq_n_u8(15), packed, sign0);
    q[1] = vsriq_n_u8(sign1, packed, 4);
}

LLD_INLINE void lld_neon_unpack_q4_0(const uint8_t *block, uint8x16_t q[2])
{
    lld_unpack_nibbles(block + offsetof(lld_block_q4_0, qs), q);
}

LLD_INLINE void lld_neon_unpack_q4_1(const uint8_t *block, uint8x16_t q[2])
{
    lld_unpack_nibbles(block + offsetof(lld_block_q4_1, qs), q);
}

LLD_INLINE void lld_neon_unpack_q5_0(const uint8_t *block, uint8x16_t q[2])
{
    lld_unpack_five_bits(block + offsetof(lld_block_q5_0, qh), block + offsetof(lld_block_q5_0, qs),
                         q);
}

LLD_INLINE void lld_neon_unpack_q5_1(const uint8_t *block, uint8x16_t q[2])
{
    lld_unpack_five_bits(block + offsetof(lld_block_q5_1, qh), block + offsetof(lld_block_q5_1, qs),
                         q);
}

LLD_INLINE void lld_neon_unpack_q8_0(const uint8_t *block, uint8x16_t q[2])
{
    q[0] = vld1q_u8(block + offsetof(lld_block_q8_0, qs));
    q[1] = vld1q_u8(block + offsetof(lld_block_q8_0, qs) + 16);
}

/* Nibbles that are places in the table of IQ4_NL and IQ4_XS. */
LLD_INLINE void lld_unpack_iq4(const uint8_t *qs, uint8x16_t q[2])
{
    uint8x16_t table = vreinterpretq_u8_s8(vld1q_s8(lld_iq4_values));
    lld_unpack_nibbles(qs, q);
    q[0] = vqtbl1q_u8(table, q[0]);
    q[1] = vqtbl1q_u8(table, q[1]);
}

LLD_INLINE void lld_neon_unpack_iq4_nl(const uint8_t *block, uint8x16_t q[2])
{
    lld_unpack_iq4(block + offsetof(lld_block_iq4_nl, qs), q);
}

LLD_INLINE void lld_neon_unpack_mxfp4(const uint8_t *block, uint8x16_t q[2])
{
    uint8x16_t table = vreinterpretq_u8_s8(vld1q_s8(lld_mxfp4_values));
    lld_unpack_nibbles(block + offsetof(lld_block_mxfp4, qs), q);
    q[0] = vqtbl1q_u8(table, q[0]);
    q[1] = vqtbl1q_u8(table, q[1]);
}

/* The 32 weights of one block, in order, without the format's offset. */
LLD_INLINE void lld_unpack_block(const lld_neon_format32 *f, const uint8_t *block, int8x16_t w[2])
{
    uint8x16_t q[2];
    f->unpack(block, q);
    w[0] = vreinterpretq_s8_u8(q[0]);
    w[1] = vreinterpretq_s8_u8(q[1]);
}

/* The f16 field at `offset` of four rows, lane = row. Gathered in general registers, whose pipes
 * are idle here: a lane load would cost a vector slot each. */
LLD_INLINE float32x4_t lld_row_halves(const lld_row_group *w, size_t offset)
{
    uint16_t half[4];
    for (int r = 0; r < 4; r++) memcpy(&half[r], w->row[r] + offset, sizeof half[r]);
    uint64_t bits =
        half[0] | (uint64_t)half[1] << 16 | (uint64_t)half[2] << 32 | (uint64_t)half[3] << 48;
    return vcvt_f32_f16(vcreate_f16(bits));
}

/* lld_e8m0_half of the byte at `offset` of four rows. */
LLD_INLINE float32x4_t lld_row_exponents(const lld_row_group *w, size_t offset)
{
    uint32_t bytes = 0;
    for (int r = 0; r < 4; r++) bytes |= (uint32_t)w->row[r][offset] << (8 * r);
    uint32x4_t e = vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(bytes))));
    uint32x4_t normal = vshlq_n_u32(vsubq_u32(e, vdupq_n_u32(1)), 23);
    uint32x4_t subnormal = vshlq_u32(vdupq_n_u32(0x00200000), vreinterpretq_s32_u32(e));
    return vreinterpretq_f32_u32(vbslq_u32(vcgtq_u32(e, vdupq_n_u32(1)), normal, subnormal));
}

/* The scales of four rows' blocks. */
LLD_INLINE float32x4_t lld_row_scales(const lld_neon_format32 *f, const lld_row_group *w,
                                      size_t offset)
{
    return f->exponent ? lld_row_exponents(w, offset) : lld_row_halves(w, offset);
}

#endif
#endif
