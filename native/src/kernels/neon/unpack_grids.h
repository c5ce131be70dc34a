/* unpack_grids.h - blocks of IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS and IQ3_S to int8 vectors, and their scales,
 * for NEON and dotprod. Owns their bit layouts; does not multiply.
 *
 * Magnitudes are loads of eight (four) bytes from the tables of grids.h by an index in a general
 * register, and so are the masks of signs: spreading a sign byte to eight lanes with zips takes more
 * micro-operations. Two halves are joined with TRN1, because INS, which the compiler chooses, is two of
 * them on the A72 as LLVM models it, and ZIP1 of 128 bits is three. */
#ifndef LLD_NEON_UNPACK_GRIDS_H
#define LLD_NEON_UNPACK_GRIDS_H

#if defined(__aarch64__)

#include "format/grids.h"
#include "kernels/neon/unpack_k.h"

/* ---- 32 weights --------------------------------------------------------------------- */

LLD_INLINE uint64_t lld_load_u64(const void *p)
{
    uint64_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

LLD_INLINE uint32_t lld_load_u32(const void *p)
{
    uint32_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

/* `count` bits of a word from bit `at` on. */
LLD_INLINE size_t lld_bits_at(uint64_t word, unsigned at, unsigned count)
{
    return (size_t)(word >> at) & (((size_t)1 << count) - 1);
}

LLD_INLINE uint8x16_t lld_join(uint8x8_t low, uint8x8_t high)
{
    uint8x16_t both;
    __asm__("trn1 %0.2d, %1.2d, %2.2d" : "=w"(both) : "w"(low), "w"(high));
    return both;
}

/* The entries a and b of a table of eight bytes each. */
LLD_INLINE uint8x16_t lld_two_entries(const uint64_t *table, size_t a, size_t b)
{
    return lld_join(vld1_u8((const uint8_t *)(table + a)), vld1_u8((const uint8_t *)(table + b)));
}

/* An entry of four bytes, in the low half of the result. */
LLD_INLINE uint32x2_t lld_low_entry(const uint32_t *table, size_t i)
{
    float32_t entry; /* a scalar of the vector registers */
    uint32x2_t low;
    memcpy(&entry, table + i, sizeof entry);
    __asm__("" : "=w"(low) : "0"(entry));
    return low;
}

LLD_INLINE uint8x16_t lld_four_entries(const uint32_t *table, const size_t i[4])
{
    uint32x2_t low = vzip1_u32(lld_low_entry(table, i[0]), lld_low_entry(table, i[1]));
    uint32x2_t high = vzip1_u32(lld_low_entry(table, i[2]), lld_low_entry(table, i[3]));
    return lld_join(vreinterpret_u8_u32(low), vreinterpret_u8_u32(high));
}

/* Magnitudes, negative where the mask is -1. */
LLD_INLINE uint8x16_t lld_with_signs(uint8x16_t magnitudes, uint8x16_t mask)
{
    return vsubq_u8(veorq_u8(magnitudes, mask), mask);
}

/* Two groups of eight, their seven signs at bits `at` and `at` + 7 of a word. */
LLD_INLINE uint8x16_t lld_with_even_signs(uint8x16_t magnitudes, uint64_t word, unsigned at)
{
    const size_t a = lld_bits_at(word, at, 7), b = lld_bits_at(word, at + 7, 7);
    return lld_with_signs(magnitudes, lld_two_entries(lld_even_sign_masks, a, b));
}

/* The same with eight signs each, in 16 bits of a word. */
LLD_INLINE uint8x16_t lld_with_all_signs(uint8x16_t magnitudes, uint64_t word, unsigned at)
{
    const size_t a = lld_bits_at(word, at, 8), b = lld_bits_at(word, at + 8, 8);
    return lld_with_signs(magnitudes, lld_two_entries(lld_sign_masks, a, b));
}

LLD_INLINE void lld_neon_unpack_iq2_xxs(const uint8_t *block, int half, int g, uint8x16_t q[2])
{
    const uint64_t word =
        lld_load_u64(block + offsetof(lld_block_iq2_xxs, qs) + 8 * (4 * half + g));
    for (unsigned i = 0; i < 2; i++)
        q[i] = lld_with_even_signs(lld_two_entries(lld_iq2_xxs_grid, lld_bits_at(word, 16 * i, 8),
                                                   lld_bits_at(word, 16 * i + 8, 8)),
                                   word, 32 + 14 * i);
}

LLD_INLINE void lld_neon_unpack_iq2_xs(const uint8_t *block, int half, int g, uint8x16_t q[2])
{
    const uint64_t word = lld_load_u64(block + offsetof(lld_block_iq2_xs, qs) + 8 * (4 * half + g));
    for (unsigned i = 0; i < 2; i++) {
        const unsigned a = 32 * i, b = 32 * i + 16;
        q[i] = lld_with_signs(
            lld_two_entries(lld_iq2_xs_grid, lld_bits_at(word, a, 9), lld_bits_at(word, b, 9)),
            lld_two_entries(lld_even_sign_masks, lld_bits_at(word, a + 9, 7),
                            lld_bits_at(word, b + 9, 7)));
    }
}

LLD_INLINE void lld_neon_unpack_iq3_xxs(const uint8_t *block, int half, int g, uint8x16_t q[2])
{
    const uint64_t word =
        lld_load_u64(block + offsetof(lld_block_iq3_xxs, qs) + 8 * (4 * half + g));
    const uint32_t signs =
        lld_load_u32(block + offsetof(lld_block_iq3_xxs, signs) + 4 * (4 * half + g));
    for (unsigned i = 0; i < 2; i++) {
        size_t index[4];
        for (unsigned n = 0; n < 4; n++) index[n] = lld_bits_at(word, 32 * i + 8 * n, 8);
        q[i] = lld_with_even_signs(lld_four_entries(lld_iq3_xxs_grid, index), signs, 14 * i);
    }
}

/* Bits `mask` of a word that was shifted right by n, or left for n < 0. */
LLD_INLINE size_t lld_high_bits(uint32_t word, int n, uint32_t mask)
{
    return (n < 0 ? word << -n : word >> n) & mask;
}

LLD_INLINE void lld_neon_unpack_iq2_s(const uint8_t *block, int half, int g, uint8x16_t q[2])
{
    const int j = 4 * half + g;
    const uint32_t low = lld_load_u32(block + offsetof(lld_block_iq2_s, qs) + 4 * j);
    const uint32_t signs = lld_load_u32(block + offsetof(lld_block_iq2_s, signs) + 4 * j);
    const uint32_t high = block[offsetof(lld_block_iq2_s, qh) + j];
    for (int i = 0; i < 2; i++) {
        size_t a = lld_bits_at(low, 16 * i, 8) | lld_high_bits(high, 4 * i - 8, 0x300);
        size_t b = lld_bits_at(low, 16 * i + 8, 8) | lld_high_bits(high, 4 * i - 6, 0x300);
        q[i] = lld_with_all_signs(lld_two_entries(lld_iq2_s_grid, a, b), signs, 16 * i);
    }
}

LLD_INLINE void lld_neon_unpack_iq3_s(const uint8_t *block, int half, int g, uint8x16_t q[2])
{
    const int j = 4 * half + g;
    const uint64_t low = lld_load_u64(block + offsetof(lld_block_iq3_s, qs) + 8 * j);
    const uint32_t signs = lld_load_u32(block + offsetof(lld_block_iq3_s, signs) + 4 * j);
    const uint32_t high = block[offsetof(lld_block_iq3_s, qh) + j];
    for (int i = 0; i < 2; i++) {
        size_t index[4];
        for (int n = 0; n < 4; n++)
            index[n] =
                lld_bits_at(low, 32 * i + 8 * n, 8) | lld_high_bits(high, 4 * i + n - 8, 0x100);
        q[i] = lld_with_all_signs(lld_four_entries(lld_iq3_s_grid, index), signs, 16 * i);
    }
}

/* ---- scales of four rows --------------------------------------------------------------------------- */

/* The scales of eight words, their top four bits. */
LLD_INLINE uint8x8_t lld_word_scales(uint32x4_t low, uint32x4_t high)
{
    uint16x4_t a = vmovn_u32(vshrq_n_u32(low, 28)), b = vmovn_u32(vshrq_n_u32(high, 28));
    return vmovn_u16(vcombine_u16(a, b));
}

/* s: (8) scales of each row, as 2s + 1 to sub-blocks `first`.. . */
LLD_INLINE void lld_store_grid_scales(const uint8x8_t s[4], lld_k_scales *out, int first)
{
    int16x8x4_t rows;
    for (int r = 0; r < 4; r++) {
        uint16x8_t odd = vorrq_u16(vshll_n_u8(s[r], 1), vdupq_n_u16(1));
        rows.val[r] = vreinterpretq_s16_u16(odd);
    }
    vst4q_s16(out->scale[first], rows);
}

/* Sixteen nibbles of each row, at byte `at` of the block. */
LLD_INLINE void lld_nibble_scales(const lld_row_group *w, size_t at, lld_k_scales *out)
{
    uint8x8_t low[4], high[4];
    for (int r = 0; r < 4; r++) {
        uint8x8_t bytes = vld1_u8(w->row[r] + at);
        uint8x8_t even = vand_u8(bytes, vdup_n_u8(15)), odd = vshr_n_u8(bytes, 4);
        low[r] = vzip1_u8(even, odd);
        high[r] = vzip2_u8(even, odd);
    }
    lld_store_grid_scales(low, out, 0);
    lld_store_grid_scales(high, out, 8);
}

LLD_INLINE void lld_neon_scales_iq2_xxs(const lld_row_group *w, lld_k_scales *out)
{
    uint8x8_t s[4];
    for (int r = 0; r < 4; r++) {
        const uint8_t *qs = w->row[r] + offsetof(lld_block_iq2_xxs, qs);
        uint32x4_t part[4];
        for (int i = 0; i < 4; i++) part[i] = vreinterpretq_u32_u8(vld1q_u8(qs + 16 * i));
        s[r] = lld_word_scales(vuzp2q_u32(part[0], part[1]), vuzp2q_u32(part[2], part[3]));
    }
    lld_store_grid_scales(s, out, 0);
}

LLD_INLINE void lld_neon_scales_iq2_xs(const lld_row_group *w, lld_k_scales *out)
{
    lld_nibble_scales(w, offsetof(lld_block_iq2_xs, scales), out);
}

LLD_INLINE void lld_neon_scales_iq2_s(const lld_row_group *w, lld_k_scales *out)
{
    lld_nibble_scales(w, offsetof(lld_block_iq2_s, scales), out);
}

LLD_INLINE void lld_neon_scales_iq3_xxs(const lld_row_group *w, lld_k_scales *out)
{
    uint8x8_t s[4];
    for (int r = 0; r < 4; r++) {
        const uint8_t *words = w->row[r] + offsetof(lld_block_iq3_xxs, signs);
        s[r] = lld_word_scales(vreinterpretq_u32_u8(vld1q_u8(words)),
                               vreinterpretq_u32_u8(vld1q_u8(words + 16)));
    }
    lld_store_grid_scales(s, out, 0);
}

LLD_INLINE void lld_neon_scales_iq3_s(const lld_row_group *w, lld_k_scales *out)
{
    uint8x8_t s[4];
    for (int r = 0; r < 4; r++) {
        uint8x8_t bytes = vcreate_u8(lld_load_u32(w->row[r] + offsetof(lld_block_iq3_s, scales)));
        s[r] = vzip1_u8(vand_u8(bytes, vdup_n_u8(15)), vshr_n_u8(bytes, 4));
    }
    lld_store_grid_scales(s, out, 0);
}

#endif
#endif
