/* unpack_k.h - the 256-element GGUF blocks (Q2_K .. Q6_K, IQ4_XS) to int8 vectors, and
 * the sub-block scales of four rows side by side. Owns their bit layouts; does not multiply. */
#ifndef LLD_MATMUL_NEON_UNPACK_K_H
#define LLD_MATMUL_NEON_UNPACK_K_H

#if defined(__aarch64__)

#include "kernels/neon/matmul.h"
#include "kernels/neon/unpack.h"

/* Integer scales and mins of one superblock of a row group: [sub-block][row]. Sub-blocks are of 16
 * elements for Q2_K, Q3_K and Q6_K, else of 32 (the first eight entries). */
typedef struct lld_k_scales {
    int16_t scale[16][4];
    int16_t min[16][4];
} lld_k_scales;

/* A format of 256-element blocks; its dmin, if it has mins, lies behind d. */
typedef struct lld_neon_format256 {
    size_t bytes, d_at;
    int32_t offset; /* as of lld_neon_format32 */
    bool has_min;
    bool sub_16; /* sub-blocks are of 16 elements, else of 32 */
    /* Weights of 8 bits; the others reach at most 2*32*127 in a lane of two products (Q6_K) or
     * 4*16*127 in one of four. */
    bool wide;
    /* Weights of 7 bits: four products of 62, or two of 43 and a pairwise add, fit 16 bits, no more. */
    bool middle;
    bool grid;  /* weights are loads from a table (grids.h) */
    float unit; /* what d is multiplied with, if not 0 */
    /* Weights 128*half + 32*g .. + 31 in order, without the offset. */
    void (*unpack)(const uint8_t *block, int half, int g, uint8x16_t q[2]);
    /* The integer scales (and mins) of the superblock that the rows of w point to. */
    void (*scales)(const lld_row_group *w, lld_k_scales *out);
} lld_neon_format256;

/* g is a constant after unrolling. Signed results are built by inserting the low bits into a byte whose upper bits
 * are the sign, which needs no subtraction. */
LLD_INLINE void lld_neon_unpack_q2_k(const uint8_t *block, int half, int g, uint8x16_t q[2])
{
    const uint8_t *qs = block + offsetof(lld_block_q2_k, qs) + 32 * half;
    for (int i = 0; i < 2; i++) q[i] = vandq_u8(vld1q_u8(qs + 16 * i) >> (2 * g), vdupq_n_u8(3));
}

LLD_INLINE void lld_neon_unpack_q3_k(const uint8_t *block, int half, int g, uint8x16_t q[2])
{
    const uint8_t *qs = block + offsetof(lld_block_q3_k, qs) + 32 * half;
    const uint8_t *hmask = block + offsetof(lld_block_q3_k, hmask);
    uint8x16_t bit = vdupq_n_u8((uint8_t)(1u << (4 * half + g)));
    for (int i = 0; i < 2; i++) {
        uint8x16_t negative = vtstq_u8(vmvnq_u8(vld1q_u8(hmask + 16 * i)), bit);
        q[i] = vbslq_u8(vdupq_n_u8(3), vld1q_u8(qs + 16 * i) >> (2 * g), negative);
    }
}

LLD_INLINE void lld_neon_unpack_q4_k(const uint8_t *block, int half, int g, uint8x16_t q[2])
{
    const uint8_t *qs = block + offsetof(lld_block_q4_k, qs);
    for (int i = 0; i < 2; i++) {
        uint8x16_t packed = vld1q_u8(qs + 64 * half + 32 * (g / 2) + 16 * i);
        q[i] = g % 2 ? vshrq_n_u8(packed, 4) : vandq_u8(packed, vdupq_n_u8(15));
    }
}

LLD_INLINE void lld_neon_unpack_q5_k(const uint8_t *block, int half, int g, uint8x16_t q[2])
{
    const uint8_t *qs = block + offsetof(lld_block_q5_k, qs) + 64 * half + 32 * (g / 2);
    const uint8_t *qh = block + offsetof(lld_block_q5_k, qh);
    uint8x16_t bit = vdupq_n_u8((uint8_t)(1u << (4 * half + g)));
    for (int i = 0; i < 2; i++) {
        uint8x16_t packed = vld1q_u8(qs + 16 * i);
        uint8x16_t negative = vtstq_u8(vmvnq_u8(vld1q_u8(qh + 16 * i)), bit);
        q[i] = g % 2 ? vsriq_n_u8(negative, packed, 4) : vbslq_u8(vdupq_n_u8(15), packed, negative);
    }
}

LLD_INLINE void lld_neon_unpack_q6_k(const uint8_t *block, int half, int g, uint8x16_t q[2])
{
    const uint8_t *ql = block + offsetof(lld_block_q6_k, ql) + 64 * half + 32 * (g % 2);
    const uint8_t *qh = block + offsetof(lld_block_q6_k, qh) + 32 * half;
    for (int i = 0; i < 2; i++) {
        uint8x16_t packed = vld1q_u8(ql + 16 * i);
        uint8x16_t top = veorq_u8(vld1q_u8(qh + 16 * i), vdupq_n_u8(0xAA)) << (6 - 2 * g);
        uint8x16_t high = vreinterpretq_u8_s8(vshrq_n_s8(vreinterpretq_s8_u8(top), 2));
        q[i] = g / 2 ? vsriq_n_u8(high, packed, 4) : vbslq_u8(vdupq_n_u8(15), packed, high);
    }
}

/* 16 bytes a sub-block: low nibbles first, then high ones. */
LLD_INLINE void lld_neon_unpack_iq4_xs(const uint8_t *block, int half, int g, uint8x16_t q[2])
{
    lld_unpack_iq4(block + offsetof(lld_block_iq4_xs, qs) + 64 * half + 16 * g, q);
}

LLD_INLINE void lld_unpack_k(const lld_neon_format256 *f, const uint8_t *block, int half, int g,
                             int8x16_t w[2])
{
    uint8x16_t q[2];
    f->unpack(block, half, g, q);
    w[0] = vreinterpretq_s8_u8(q[0]);
    w[1] = vreinterpretq_s8_u8(q[1]);
}

/* Word i of the 16 bytes at `offset` of each row: words[i] lane = row. */
LLD_INLINE void lld_row_words(const lld_row_group *w, size_t offset, uint32x4_t words[4])
{
    uint32x4_t r[4];
    for (int i = 0; i < 4; i++) r[i] = vreinterpretq_u32_u8(vld1q_u8(w->row[i] + offset));
    uint64x2_t even0 = vreinterpretq_u64_u32(vtrn1q_u32(r[0], r[1]));
    uint64x2_t even1 = vreinterpretq_u64_u32(vtrn1q_u32(r[2], r[3]));
    uint64x2_t odd0 = vreinterpretq_u64_u32(vtrn2q_u32(r[0], r[1]));
    uint64x2_t odd1 = vreinterpretq_u64_u32(vtrn2q_u32(r[2], r[3]));
    words[0] = vreinterpretq_u32_u64(vtrn1q_u64(even0, even1));
    words[1] = vreinterpretq_u32_u64(vtrn1q_u64(odd0, odd1));
    words[2] = vreinterpretq_u32_u64(vtrn2q_u64(even0, even1));
    words[3] = vreinterpretq_u32_u64(vtrn2q_u64(odd0, odd1));
}

/* Store bytes [row][4 sub-blocks] as int16 [sub-block][row]. */
LLD_INLINE void lld_store_scales(int16_t out[4][4], uint32x4_t words, int8x16_t bias)
{
    static const uint8_t transposed[16] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
    int8x16_t bytes =
        vreinterpretq_s8_u8(vqtbl1q_u8(vreinterpretq_u8_u32(words), vld1q_u8(transposed)));
    bytes = vsubq_s8(bytes, bias);
    vst1q_s16(out[0], vmovl_s8(vget_low_s8(bytes)));
    vst1q_s16(out[2], vmovl_high_s8(bytes));
}

/* Q4_K, Q5_K: bytes 4..15 hold eight 6-bit scales and mins. */
LLD_INLINE void lld_neon_scales_q4_k(const lld_row_group *w, lld_k_scales *out)
{
    uint32x4_t words[4];
    lld_row_words(w, 0, words);
    uint32x4_t low6 = vdupq_n_u32(0x3f3f3f3f), low4 = vdupq_n_u32(0x0f0f0f0f);
    uint32x4_t top2 = vdupq_n_u32(0x30303030);
    int8x16_t none = vdupq_n_s8(0);
    lld_store_scales(out->scale, vandq_u32(words[1], low6), none);
    lld_store_scales(out->min, vandq_u32(words[2], low6), none);
    uint32x4_t scale =
        vorrq_u32(vandq_u32(words[3], low4), vandq_u32(vshrq_n_u32(words[1], 2), top2));
    uint32x4_t min = vorrq_u32(vandq_u32(vshrq_n_u32(words[3], 4), low4),
                               vandq_u32(vshrq_n_u32(words[2], 2), top2));
    lld_store_scales(out->scale + 4, scale, none);
    lld_store_scales(out->min + 4, min, none);
}

#define lld_neon_scales_q5_k lld_neon_scales_q4_k

/* Sixteen 6-bit scales minus 32 in 12 bytes; words 1..3 when read from 4 bytes before them. */
LLD_INLINE void lld_neon_scales_q3_k(const lld_row_group *w, lld_k_scales *out)
{
    uint32x4_t words[4];
    lld_row_words(w, offsetof(lld_block_q3_k, scales) - 4, words);
    uint32x4_t low4 = vdupq_n_u32(0x0f0f0f0f), top2 = vdupq_n_u32(0x30303030);
    int8x16_t bias = vdupq_n_s8(32);
    uint32x4_t high = words[3];
    uint32x4_t s0 = vorrq_u32(vandq_u32(words[1], low4), vandq_u32(vshlq_n_u32(high, 4), top2));
    uint32x4_t s1 = vorrq_u32(vandq_u32(words[2], low4), vandq_u32(vshlq_n_u32(high, 2), top2));
    uint32x4_t s2 = vorrq_u32(vandq_u32(vshrq_n_u32(words[1], 4), low4), vandq_u32(high, top2));
    uint32x4_t s3 =
        vorrq_u32(vandq_u32(vshrq_n_u32(words[2], 4), low4), vandq_u32(vshrq_n_u32(high, 2), top2));
    lld_store_scales(out->scale, s0, bias);
    lld_store_scales(out->scale + 4, s1, bias);
    lld_store_scales(out->scale + 8, s2, bias);
    lld_store_scales(out->scale + 12, s3, bias);
}

LLD_INLINE void lld_neon_scales_q6_k(const lld_row_group *w, lld_k_scales *out)
{
    uint32x4_t words[4];
    lld_row_words(w, offsetof(lld_block_q6_k, scales), words);
    for (int i = 0; i < 4; i++) lld_store_scales(out->scale + 4 * i, words[i], vdupq_n_s8(0));
}

LLD_INLINE void lld_neon_scales_q2_k(const lld_row_group *w, lld_k_scales *out)
{
    uint32x4_t words[4], low4 = vdupq_n_u32(0x0f0f0f0f);
    int8x16_t none = vdupq_n_s8(0);
    lld_row_words(w, offsetof(lld_block_q2_k, scales), words);
    for (int i = 0; i < 4; i++) {
        lld_store_scales(out->scale + 4 * i, vandq_u32(words[i], low4), none);
        lld_store_scales(out->min + 4 * i, vandq_u32(vshrq_n_u32(words[i], 4), low4), none);
    }
}

/* Eight 6-bit scales minus 32, four bits in scales_l, two in scales_h. */
LLD_INLINE void lld_neon_scales_iq4_xs(const lld_row_group *w, lld_k_scales *out)
{
    for (int r = 0; r < 4; r++) {
        lld_block_iq4_xs head;
        memcpy(&head, w->row[r], offsetof(lld_block_iq4_xs, qs));
        for (int j = 0; j < 8; j++) {
            int low = head.scales_l[j / 2] >> (4 * (j % 2)) & 15,
                high = head.scales_h >> (2 * j) & 3;
            out->scale[j][r] = (int16_t)((low | high << 4) - 32);
        }
    }
}

/* acc + rows[0..7] times eight sums. */
LLD_INLINE int32x4_t lld_dot_8_sums(int32x4_t acc, const int16_t (*rows)[4], int16x8_t sums)
{
    acc = vmlal_laneq_s16(acc, vld1_s16(rows[0]), sums, 0);
    acc = vmlal_laneq_s16(acc, vld1_s16(rows[1]), sums, 1);
    acc = vmlal_laneq_s16(acc, vld1_s16(rows[2]), sums, 2);
    acc = vmlal_laneq_s16(acc, vld1_s16(rows[3]), sums, 3);
    acc = vmlal_laneq_s16(acc, vld1_s16(rows[4]), sums, 4);
    acc = vmlal_laneq_s16(acc, vld1_s16(rows[5]), sums, 5);
    acc = vmlal_laneq_s16(acc, vld1_s16(rows[6]), sums, 6);
    return vmlal_laneq_s16(acc, vld1_s16(rows[7]), sums, 7);
}

/* Scales or mins of four rows times the activations' sums of a superblock's sub-blocks.
 * sum16: (16); a sum of 32 is at most 32*127 and fits. */
LLD_INLINE int32x4_t lld_k_dot_sums(const lld_neon_format256 *f, const int16_t (*rows)[4],
                                    const int16_t *sum16)
{
    int16x8_t low = vld1q_s16(sum16), high = vld1q_s16(sum16 + 8);
    int32x4_t acc = vdupq_n_s32(0);
    if (!f->sub_16) return lld_dot_8_sums(acc, rows, vpaddq_s16(low, high));
    return lld_dot_8_sums(lld_dot_8_sums(acc, rows, low), rows + 8, high);
}

/* The scales d of four rows. */
LLD_INLINE float32x4_t lld_k_row_d(const lld_neon_format256 *f, const lld_row_group *w)
{
    float32x4_t d = lld_row_halves(w, f->d_at);
    return f->unit != 0.0f ? vmulq_n_f32(d, f->unit) : d;
}

/* The float steps of one superblock (that w points to) and one column; i: its index in x->d. */
LLD_INLINE float32x4_t lld_k_float_step(const lld_neon_format256 *f, float32x4_t acc, int32x4_t sum,
                                        const lld_row_group *w, const lld_k_scales *k,
                                        const lld_acts *x, size_t i)
{
    const int16_t *sum16 = x->sum16 + i * 16;
    float32x4_t d = lld_k_row_d(f, w);
    if (f->offset) sum = vmlaq_n_s32(sum, lld_k_dot_sums(f, k->scale, sum16), f->offset);
    acc = vfmaq_f32(acc, vmulq_n_f32(d, x->d[i]), vcvtq_f32_s32(sum));
    if (f->has_min) {
        float32x4_t dmin = lld_row_halves(w, f->d_at + sizeof(uint16_t));
        float32x4_t mins = vcvtq_f32_s32(lld_k_dot_sums(f, k->min, sum16));
        acc = vfmsq_f32(acc, vmulq_n_f32(dmin, x->d[i]), mins);
    }
    return acc;
}

#endif
#endif
