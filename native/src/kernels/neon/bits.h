/* bits.h - the formats of one or two bits a weight, Q1_0 and Q2_0, to vectors in registers, for NEON and
 * dotprod. Owns their layouts. A row's bits are repeated over a vector and each lane takes its own;
 * the order of weights that gives is that of lld_bits_order, which orders the activations of four
 * rows at once. So no weight goes through a table look-up, three micro-operations on the A72. */
#ifndef LLD_NEON_BITS_H
#define LLD_NEON_BITS_H

#if defined(__aarch64__)

#include "kernels/neon/matmul.h"
#include "kernels/neon/unpack.h"

/* Both formats: an f16 scale, then 16 bytes. Q1_0 has 4 parts of 32 weights in them, Q2_0 has 2. */
enum { LLD_BITS_BLOCK_BYTES = sizeof(lld_block_q1_0), LLD_BITS_QS = offsetof(lld_block_q1_0, qs) };

typedef uint32_t lld_any_u32 __attribute__((aligned(1), may_alias));
typedef uint64_t lld_any_u64 __attribute__((aligned(1), may_alias));

/* 32 activations in the order of the weights. bits: a constant after inlining. */
LLD_INLINE void lld_bits_order(int bits, const int8_t *y, int8x16_t out[2])
{
    int8x16_t y0 = vld1q_s8(y), y1 = vld1q_s8(y + 16);
    if (bits == 1) { /* 8*(lane % 4) + lane / 4 */
        int8x16_t low = vzip1q_s8(y0, y1), high = vzip2q_s8(y0, y1);
        out[0] = vzip1q_s8(low, high);
        out[1] = vzip2q_s8(low, high);
    } else { /* 4*(lane % 8) + lane / 8 */
        int8x16_t even = vuzp1q_s8(y0, y1), odd = vuzp2q_s8(y0, y1);
        out[0] = vcombine_s8(vget_low_s8(vuzp1q_s8(even, even)), vget_low_s8(vuzp1q_s8(odd, odd)));
        out[1] = vcombine_s8(vget_low_s8(vuzp2q_s8(even, even)), vget_low_s8(vuzp2q_s8(odd, odd)));
    }
}

/* Q1_0: -1 where the bit is set, else 0. qs: 4 bytes of 32 weights. */
LLD_INLINE void lld_bits_masks(const uint8_t *qs, int8x16_t q[2])
{
    static const uint8_t bit_of[2][16] = {
        {1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 8, 8, 8, 8},
        {16, 16, 16, 16, 32, 32, 32, 32, 64, 64, 64, 64, 128, 128, 128, 128}};
    uint8x16_t word = vreinterpretq_u8_u32(vdupq_n_u32(*(const lld_any_u32 *)(const void *)qs));
    for (int i = 0; i < 2; i++) q[i] = vreinterpretq_s8_u8(vtstq_u8(word, vld1q_u8(bit_of[i])));
}

/* Q2_0: 0..3. qs: 8 bytes of 32 weights. */
LLD_INLINE void lld_bits_pairs(const uint8_t *qs, int8x16_t q[2])
{
    static const int8_t shift[2][16] = {
        {0, 0, 0, 0, 0, 0, 0, 0, -2, -2, -2, -2, -2, -2, -2, -2},
        {-4, -4, -4, -4, -4, -4, -4, -4, -6, -6, -6, -6, -6, -6, -6, -6}};
    uint8x16_t words = vreinterpretq_u8_u64(vdupq_n_u64(*(const lld_any_u64 *)(const void *)qs));
    for (int i = 0; i < 2; i++)
        q[i] = vreinterpretq_s8_u8(vandq_u8(vshlq_u8(words, vld1q_s8(shift[i])), vdupq_n_u8(3)));
}

LLD_INLINE void lld_bits_unpack(int bits, const uint8_t *qs, int8x16_t q[2])
{
    if (bits == 1)
        lld_bits_masks(qs, q);
    else
        lld_bits_pairs(qs, q);
}

/* One column's activations. */
typedef struct lld_bits_column {
    const int8_t *y;
    const float *d;
    const int32_t *sum;
} lld_bits_column;

LLD_INLINE lld_bits_column lld_bits_column_at(const lld_acts *x, size_t c)
{
    size_t first = c * (x->n_cols / LLD_QK);
    return (lld_bits_column){x->y + c * x->y_stride, x->d + first, x->sum + first};
}

#endif
#endif
