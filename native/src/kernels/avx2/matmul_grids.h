/* matmul_grids.h - blocks of IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS and IQ3_S as AVX2 unpack functions, for the
 * lines of matmul_formats.h. Magnitudes are loaded from the tables of grids.h, eight or four bytes an
 * index: a gather instruction was slower. Signs come apart, a bit a weight, so that a product of one
 * activation row can give them to the activations, and a panel to the magnitudes. */
#ifndef LLD_MATMUL_AVX2_GRIDS_H
#define LLD_MATMUL_AVX2_GRIDS_H

#include "format/format.h"
#include "format/grids.h"
#include "kernels/avx2/simd.h"

/* What is found out of a whole block at once: byte i of signs (32) has those of weights 8i..8i+7,
 * and lies in the block or in room; index: the nine or ten bits of IQ2_S (32) and IQ3_S (64). */
typedef struct lld_grid_block {
    const uint8_t *signs;
    uint8_t room[32];
    uint16_t index[64];
} lld_grid_block;

/* ---- signs and long indices ---------------------------------------------------------------------- */

/* Bytes of seven signs get the eighth: their parity, of both nibbles together. */
LLD_AVX2_INLINE void lld_complete_signs(__m256i sevens, lld_grid_block *out)
{
    const __m256i nibble = _mm256_set1_epi8(15);
    const __m256i parity = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, -128, -128, 0, -128, 0, 0, -128, -128, 0, 0, -128, 0, -128, -128, 0));
    __m256i high = _mm256_and_si256(_mm256_srli_epi16(sevens, 4), nibble);
    __m256i both = _mm256_xor_si256(_mm256_and_si256(sevens, nibble), high);
    __m256i all = _mm256_or_si256(sevens, _mm256_shuffle_epi8(parity, both));
    _mm256_storeu_si256((__m256i *)out->room, all);
    out->signs = out->room;
}

/* Eight words of four sevens and a scale of four bits. */
LLD_AVX2_INLINE void lld_word_signs(__m256i words, lld_grid_block *out)
{
    __m256i sevens = _mm256_and_si256(words, _mm256_set1_epi32(0x7f));
    __m256i next = _mm256_and_si256(_mm256_slli_epi32(words, 1), _mm256_set1_epi32(0x7f00));
    sevens = _mm256_or_si256(sevens, next);
    next = _mm256_and_si256(_mm256_slli_epi32(words, 2), _mm256_set1_epi32(0x7f0000));
    sevens = _mm256_or_si256(sevens, next);
    next = _mm256_and_si256(_mm256_slli_epi32(words, 3), _mm256_set1_epi32(0x7f000000));
    lld_complete_signs(_mm256_or_si256(sevens, next), out);
}

/* The words of IQ2_XXS: every other of 64 bytes. */
LLD_AVX2_INLINE __m256i lld_iq2_xxs_words(const uint8_t *block)
{
    const uint8_t *qs = block + offsetof(lld_block_iq2_xxs, qs);
    __m256 both = _mm256_shuffle_ps(_mm256_castsi256_ps(lld_load256(qs)),
                                    _mm256_castsi256_ps(lld_load256(qs + 32)), 0xdd);
    return _mm256_permute4x64_epi64(_mm256_castps_si256(both), 0xd8);
}

LLD_AVX2_INLINE void lld_iq2_xxs_prepare(const uint8_t *block, lld_grid_block *out)
{
    lld_word_signs(lld_iq2_xxs_words(block), out);
}

LLD_AVX2_INLINE void lld_iq2_xs_prepare(const uint8_t *block, lld_grid_block *out)
{
    const uint8_t *qs = block + offsetof(lld_block_iq2_xs, qs);
    __m256i low = _mm256_srli_epi16(lld_load256(qs), 9);
    __m256i high = _mm256_srli_epi16(lld_load256(qs + 32), 9);
    __m256i sevens = _mm256_permute4x64_epi64(_mm256_packus_epi16(low, high), 0xd8);
    lld_complete_signs(sevens, out);
}

LLD_AVX2_INLINE void lld_iq2_s_prepare(const uint8_t *block, lld_grid_block *out)
{
    const __m256i shift = _mm256_setr_epi32(8, 6, 4, 2, 8, 6, 4, 2);
    out->signs = block + offsetof(lld_block_iq2_s, signs);
    for (int i = 0; i < 32; i += 8) { /* bits 2n.. of qh[i/4 + n/4] go to bits 8 and 9 */
        const uint8_t *qh = block + offsetof(lld_block_iq2_s, qh) + i / 4;
        __m256i high = _mm256_set_m128i(_mm_set1_epi32(qh[1]), _mm_set1_epi32(qh[0]));
        high = _mm256_and_si256(_mm256_sllv_epi32(high, shift), _mm256_set1_epi32(0x300));
        __m128i low = _mm_loadl_epi64((const __m128i *)(block + offsetof(lld_block_iq2_s, qs) + i));
        __m256i index = _mm256_or_si256(_mm256_cvtepu8_epi32(low), high);
        __m128i words =
            _mm_packus_epi32(_mm256_castsi256_si128(index), _mm256_extracti128_si256(index, 1));
        _mm_storeu_si128((__m128i *)(out->index + i), words);
    }
}

LLD_AVX2_INLINE void lld_iq3_xxs_prepare(const uint8_t *block, lld_grid_block *out)
{
    lld_word_signs(lld_load256(block + offsetof(lld_block_iq3_xxs, signs)), out);
}

LLD_AVX2_INLINE void lld_iq3_s_prepare(const uint8_t *block, lld_grid_block *out)
{
    const __m256i bit_of = _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048,
                                             4096, 8192, 16384, (short)32768);
    out->signs = block + offsetof(lld_block_iq3_s, signs);
    for (int i = 0; i < 64; i += 16) { /* bit n of qh goes to bit 8 */
        const uint8_t *qh = block + offsetof(lld_block_iq3_s, qh) + i / 8;
        __m256i high = _mm256_and_si256(_mm256_set1_epi16((short)lld_load_u16(qh)), bit_of);
        high = _mm256_and_si256(_mm256_cmpeq_epi16(high, bit_of), _mm256_set1_epi16(256));
        __m256i low = _mm256_cvtepu8_epi16(lld_load128(block + offsetof(lld_block_iq3_s, qs) + i));
        _mm256_storeu_si256((__m256i *)(out->index + i), _mm256_or_si256(low, high));
    }
}

/* Four bytes of signs as -1 where the bit is set, else 1: what vpsignb takes. */
LLD_AVX2_INLINE __m256i lld_spread_signs(const uint8_t *signs)
{
    const __m256i byte_of =
        _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit_of = _mm256_set1_epi64x((long long)0x8040201008040201);
    __m256i bits = _mm256_and_si256(_mm256_shuffle_epi8(lld_broadcast32(signs), byte_of), bit_of);
    return _mm256_or_si256(_mm256_cmpeq_epi8(bits, bit_of), _mm256_set1_epi8(1));
}

/* ---- magnitudes of elements 32j..32j+31 --------------------------------------------------------- */

/* Four entries of eight bytes, by their addresses. */
LLD_AVX2_INLINE __m256i lld_join_entries8(const uint64_t *a, const uint64_t *b, const uint64_t *c,
                                          const uint64_t *d)
{
    const __m128i *at[] = {(const __m128i *)a, (const __m128i *)b, (const __m128i *)c,
                           (const __m128i *)d};
    __m128i low = _mm_unpacklo_epi64(_mm_loadl_epi64(at[0]), _mm_loadl_epi64(at[1]));
    __m128i high = _mm_unpacklo_epi64(_mm_loadl_epi64(at[2]), _mm_loadl_epi64(at[3]));
    return _mm256_set_m128i(high, low);
}

LLD_AVX2_INLINE __m256i lld_iq2_xxs_magnitudes(const uint8_t *block, const lld_grid_block *b,
                                               unsigned j)
{
    (void)b;
    const uint8_t *q = block + offsetof(lld_block_iq2_xxs, qs) + 8 * j;
    const uint64_t *grid = lld_iq2_xxs_grid;
    return lld_join_entries8(&grid[q[0]], &grid[q[1]], &grid[q[2]], &grid[q[3]]);
}

LLD_AVX2_INLINE __m256i lld_iq2_xs_magnitudes(const uint8_t *block, const lld_grid_block *b,
                                              unsigned j)
{
    (void)b;
    const uint8_t *q = block + offsetof(lld_block_iq2_xs, qs) + 8 * j;
    const uint64_t *grid = lld_iq2_xs_grid;
    return lld_join_entries8(&grid[lld_load_u16(q) & 511], &grid[lld_load_u16(q + 2) & 511],
                             &grid[lld_load_u16(q + 4) & 511], &grid[lld_load_u16(q + 6) & 511]);
}

LLD_AVX2_INLINE __m256i lld_iq2_s_magnitudes(const uint8_t *block, const lld_grid_block *b,
                                             unsigned j)
{
    const uint16_t *i = b->index + 4 * j;
    const uint64_t *grid = lld_iq2_s_grid;
    (void)block;
    return lld_join_entries8(&grid[i[0]], &grid[i[1]], &grid[i[2]], &grid[i[3]]);
}

/* The number of `bits` at place i of a word: indices are taken out of one load, because the loads of
 * the entries are what limits. */
LLD_AVX2_INLINE size_t lld_index_at(uint64_t word, unsigned bits, unsigned i)
{
    return (size_t)(word >> (bits * i)) & (((size_t)1 << bits) - 1);
}

/* Four entries of four bytes. */
LLD_AVX2_INLINE __m128i lld_join_entries4(const uint32_t *grid, size_t a, size_t b, size_t c,
                                          size_t d)
{
    __m128i ab =
        _mm_unpacklo_epi32(_mm_cvtsi32_si128((int)grid[a]), _mm_cvtsi32_si128((int)grid[b]));
    __m128i cd =
        _mm_unpacklo_epi32(_mm_cvtsi32_si128((int)grid[c]), _mm_cvtsi32_si128((int)grid[d]));
    return _mm_unpacklo_epi64(ab, cd);
}

LLD_AVX2_INLINE __m256i lld_iq3_xxs_magnitudes(const uint8_t *block, const lld_grid_block *b,
                                               unsigned j)
{
    const uint64_t q = lld_load_u64(block + offsetof(lld_block_iq3_xxs, qs) + 8 * j);
    const uint32_t *grid = lld_iq3_xxs_grid;
    (void)b;
    return _mm256_set_m128i(lld_join_entries4(grid, lld_index_at(q, 8, 4), lld_index_at(q, 8, 5),
                                              lld_index_at(q, 8, 6), lld_index_at(q, 8, 7)),
                            lld_join_entries4(grid, lld_index_at(q, 8, 0), lld_index_at(q, 8, 1),
                                              lld_index_at(q, 8, 2), lld_index_at(q, 8, 3)));
}

LLD_AVX2_INLINE __m256i lld_iq3_s_magnitudes(const uint8_t *block, const lld_grid_block *b,
                                             unsigned j)
{
    const uint64_t low = lld_load_u64(b->index + 8 * j), high = lld_load_u64(b->index + 8 * j + 4);
    const uint32_t *grid = lld_iq3_s_grid;
    (void)block;
    return _mm256_set_m128i(
        lld_join_entries4(grid, lld_index_at(high, 16, 0), lld_index_at(high, 16, 1),
                          lld_index_at(high, 16, 2), lld_index_at(high, 16, 3)),
        lld_join_entries4(grid, lld_index_at(low, 16, 0), lld_index_at(low, 16, 1),
                          lld_index_at(low, 16, 2), lld_index_at(low, 16, 3)));
}

/* ---- scales: 2s + 1 in order of e/16, int16 ------------------------------------------------------ */

/* Eight scales in 32-bit lanes, each for two sixteens. */
LLD_AVX2_INLINE void lld_double_scales(__m256i s, __m256i *scale, __m256i *side)
{
    __m256i twice = _mm256_or_si256(_mm256_add_epi32(s, s), _mm256_set1_epi32(1));
    *scale = _mm256_or_si256(twice, _mm256_slli_epi32(twice, 16));
    *side = _mm256_setzero_si256();
}

LLD_AVX2_INLINE void lld_iq2_xxs_scales(const uint8_t *block, __m256i *scale, __m256i *side)
{
    lld_double_scales(_mm256_srli_epi32(lld_iq2_xxs_words(block), 28), scale, side);
}

LLD_AVX2_INLINE void lld_iq3_xxs_scales(const uint8_t *block, __m256i *scale, __m256i *side)
{
    __m256i words = lld_load256(block + offsetof(lld_block_iq3_xxs, signs));
    lld_double_scales(_mm256_srli_epi32(words, 28), scale, side);
}

LLD_AVX2_INLINE void lld_iq3_s_scales(const uint8_t *block, __m256i *scale, __m256i *side)
{
    __m256i all = lld_broadcast32(block + offsetof(lld_block_iq3_s, scales));
    all = _mm256_srlv_epi32(all, _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
    lld_double_scales(_mm256_and_si256(all, _mm256_set1_epi32(15)), scale, side);
}

/* Sixteen nibbles, one a sixteen. */
LLD_AVX2_INLINE void lld_nibble_scales(const uint8_t *packed, __m256i *scale, __m256i *side)
{
    __m128i bytes = _mm_loadl_epi64((const __m128i *)packed);
    __m128i nibbles = _mm_unpacklo_epi8(bytes, _mm_srli_epi16(bytes, 4));
    __m256i s = _mm256_cvtepu8_epi16(_mm_and_si128(nibbles, _mm_set1_epi8(15)));
    *scale = _mm256_or_si256(_mm256_add_epi16(s, s), _mm256_set1_epi16(1));
    *side = _mm256_setzero_si256();
}

LLD_AVX2_INLINE void lld_iq2_xs_scales(const uint8_t *block, __m256i *scale, __m256i *side)
{
    lld_nibble_scales(block + offsetof(lld_block_iq2_xs, scales), scale, side);
}

LLD_AVX2_INLINE void lld_iq2_s_scales(const uint8_t *block, __m256i *scale, __m256i *side)
{
    lld_nibble_scales(block + offsetof(lld_block_iq2_s, scales), scale, side);
}

#endif
