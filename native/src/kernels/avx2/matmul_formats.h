/* matmul_formats.h - the block formats as AVX2 unpack functions and constants, for
 * matmul_gemv.c and matmul_gemm.c. A format says how its bytes become integers; how they
 * are multiplied is theirs. Bit layouts as in unpack.h.
 *
 * Multiplication is vpmaddubsw: unsigned quants q (0..max) times signed activations y (|y| <= 127),
 * two products a 16-bit lane. `fit` is how many such results a lane adds without overflow, because
 *   fit * 2 * max * 127 <= 32767:   max 15: 8 (30480)   max 31: 4 (31496)   max 63: 2 (32004)
 *                                   max 126: 1 (32004).
 * Signed quants (8 bits) go in as |q| times y with the sign of q: one result, 2 * 128 * 127 = 32512;
 * matmul_gemm.c, which multiplies a quant often, cuts them into nibbles instead. Magnitudes whose signs
 * lie apart go in as they are, and y with the signs; matmul_gemm.c adds `bias` to the signed quants. */
#ifndef LLD_MATMUL_AVX2_FORMATS_H
#define LLD_MATMUL_AVX2_FORMATS_H

#include <stdbool.h>

#include "format/format.h"
#include "kernels/avx2/matmul_grids.h"
#include "kernels/avx2/simd.h"

enum {
    LLD_FIT_4_BITS = 8,
    LLD_FIT_5_BITS = 4,
    LLD_FIT_6_BITS = 2,
    LLD_FIT_7_BITS = 1, /* 0..126 */
    LLD_FIT_SIGNED = 0
};

/* A format of 32-element blocks that start with an f16 scale d: x = d * (q - offset), or, with an
 * f16 m behind d, x = d * q + m. */
typedef struct lld_format32 {
    size_t bytes; /* of a block */
    unsigned fit;
    int offset;
    bool has_m;
    bool exponent; /* the scale is no f16 but a power of two in one byte, as MXFP4 has it */
    bool nibbles;  /* the quants are the low and high halves of the block's last 16 bytes */
    __m256i (*unpack)(const uint8_t *block); /* the 32 quants in order */
    /* The same of eight rows at byte `at`, transposed: q[i] lane r = elements 4i..4i+3 of row r.
     * NULL: unpack, then transpose. */
    void (*unpack8)(__m256i q[8], const uint8_t *const rows[LLD_AVX2_ROWS], size_t at);
} lld_format32;

/* A format of 256-element blocks: x = d * scale[e/16] * q' - dmin * min[e/16], q' = q or q -
 * offset. */
typedef struct lld_format256 {
    size_t bytes, d_at, dmin_at;
    unsigned fit;
    unsigned sub; /* elements one scale covers, 16 or 32 */
    /* What `side` multiplies the sums of 16 activations for: */
    enum { LLD_SIDE_NONE, LLD_SIDE_OFFSET, LLD_SIDE_MIN } side;
    __m256i (*unpack)(const uint8_t *block, unsigned j); /* elements 32j..32j+31 in order */
    /* (16) int16 in order of e/16: scales; and side = -offset * scale (OFFSET) or mins (MIN). */
    void (*scales)(const uint8_t *block, __m256i *scale, __m256i *side);
    /* As lld_format32.unpack8, for elements 64j..64j+63: q[0..15]. NULL: unpack, then transpose. */
    void (*unpack8)(__m256i q[16], const uint8_t *const rows[LLD_AVX2_ROWS], size_t at, unsigned j);
    /* Not NULL, of blocks that point into grids: instead of unpack, the magnitudes of elements
     * 32j..32j+31, 0..bias-1, and before them what is found out of the whole block, their signs too.
     * Such a format has no side; d is that of the file times `unit`. */
    __m256i (*magnitudes)(const uint8_t *block, const lld_grid_block *b, unsigned j);
    void (*prepare)(const uint8_t *block, lld_grid_block *out);
    int bias;
    float unit;
} lld_format256;

/* ---- blocks of 32 ------------------------------------------------------------------------ */

/* 16 bytes: low nibbles are elements 0..15, high nibbles 16..31. */
LLD_AVX2_INLINE __m256i lld_unpack_nibbles(const uint8_t *qs)
{
    __m128i bytes = lld_load128(qs);
    __m256i both =
        _mm256_inserti128_si256(_mm256_castsi128_si256(bytes), _mm_srli_epi16(bytes, 4), 1);
    return _mm256_and_si256(both, _mm256_set1_epi8(15));
}

LLD_AVX2_INLINE void lld_unpack8_nibbles(__m256i q[8], const uint8_t *const rows[LLD_AVX2_ROWS],
                                         size_t at)
{
    const __m256i mask = _mm256_set1_epi8(15);
    __m256i bytes[4];
    lld_load_transposed16(bytes, rows, at);
    for (int i = 0; i < 4; i++) {
        q[i] = _mm256_and_si256(bytes[i], mask);
        q[i + 4] = _mm256_and_si256(_mm256_srli_epi16(bytes[i], 4), mask);
    }
}

LLD_AVX2_INLINE __m256i lld_iq4_lookup(__m256i nibbles)
{
    const __m256i table = _mm256_broadcastsi128_si256(lld_load128(lld_iq4_values));
    return _mm256_shuffle_epi8(table, nibbles);
}

/* The fifth bit of element e is bit e of the 32-bit qh, as 0 or 16 in byte e. */
LLD_AVX2_INLINE __m256i lld_unpack_fifth_bits(const uint8_t *qh)
{
    const __m256i byte_of =
        _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    const __m256i bit_of = _mm256_set1_epi64x((long long)0x8040201008040201);
    __m256i bits = _mm256_and_si256(_mm256_shuffle_epi8(lld_broadcast32(qh), byte_of), bit_of);
    return _mm256_and_si256(_mm256_cmpeq_epi8(bits, bit_of), _mm256_set1_epi8(16));
}

LLD_AVX2_INLINE __m256i lld_q4_0_unpack(const uint8_t *block)
{
    return lld_unpack_nibbles(block + offsetof(lld_block_q4_0, qs));
}

LLD_AVX2_INLINE void lld_q4_0_unpack8(__m256i q[8], const uint8_t *const rows[8], size_t at)
{
    lld_unpack8_nibbles(q, rows, at + offsetof(lld_block_q4_0, qs));
}

LLD_AVX2_INLINE __m256i lld_q4_1_unpack(const uint8_t *block)
{
    return lld_unpack_nibbles(block + offsetof(lld_block_q4_1, qs));
}

LLD_AVX2_INLINE void lld_q4_1_unpack8(__m256i q[8], const uint8_t *const rows[8], size_t at)
{
    lld_unpack8_nibbles(q, rows, at + offsetof(lld_block_q4_1, qs));
}

LLD_AVX2_INLINE __m256i lld_q5_0_unpack(const uint8_t *block)
{
    return _mm256_or_si256(lld_unpack_nibbles(block + offsetof(lld_block_q5_0, qs)),
                           lld_unpack_fifth_bits(block + offsetof(lld_block_q5_0, qh)));
}

LLD_AVX2_INLINE __m256i lld_q5_1_unpack(const uint8_t *block)
{
    return _mm256_or_si256(lld_unpack_nibbles(block + offsetof(lld_block_q5_1, qs)),
                           lld_unpack_fifth_bits(block + offsetof(lld_block_q5_1, qh)));
}

LLD_AVX2_INLINE __m256i lld_q8_0_unpack(const uint8_t *block)
{
    return lld_load256(block + offsetof(lld_block_q8_0, qs));
}

LLD_AVX2_INLINE void lld_q8_0_unpack8(__m256i q[8], const uint8_t *const rows[8], size_t at)
{
    lld_load_transposed16(q, rows, at + offsetof(lld_block_q8_0, qs));
    lld_load_transposed16(q + 4, rows, at + offsetof(lld_block_q8_0, qs) + 16);
}

LLD_AVX2_INLINE __m256i lld_iq4_nl_unpack(const uint8_t *block)
{
    return lld_iq4_lookup(lld_unpack_nibbles(block + offsetof(lld_block_iq4_nl, qs)));
}

LLD_AVX2_INLINE void lld_iq4_nl_unpack8(__m256i q[8], const uint8_t *const rows[8], size_t at)
{
    lld_unpack8_nibbles(q, rows, at + offsetof(lld_block_iq4_nl, qs));
    for (int i = 0; i < 8; i++) q[i] = lld_iq4_lookup(q[i]);
}

/* The values of MXFP4 plus 12, 0..24. */
LLD_AVX2_INLINE __m256i lld_mxfp4_lookup(__m256i nibbles)
{
    const __m256i table = _mm256_broadcastsi128_si256(lld_load128(lld_mxfp4_values));
    return _mm256_shuffle_epi8(_mm256_add_epi8(table, _mm256_set1_epi8(12)), nibbles);
}

LLD_AVX2_INLINE __m256i lld_mxfp4_unpack(const uint8_t *block)
{
    return lld_mxfp4_lookup(lld_unpack_nibbles(block + offsetof(lld_block_mxfp4, qs)));
}

LLD_AVX2_INLINE void lld_mxfp4_unpack8(__m256i q[8], const uint8_t *const rows[8], size_t at)
{
    lld_unpack8_nibbles(q, rows, at + offsetof(lld_block_mxfp4, qs));
    for (int i = 0; i < 8; i++) q[i] = lld_mxfp4_lookup(q[i]);
}

/* lld_e8m0_half of the byte at `at` of each of eight rows. */
LLD_AVX2_INLINE __m256 lld_gather_exponents(const uint8_t *const rows[LLD_AVX2_ROWS], size_t at)
{
    const __m256i e = _mm256_setr_epi32(rows[0][at], rows[1][at], rows[2][at], rows[3][at],
                                        rows[4][at], rows[5][at], rows[6][at], rows[7][at]);
    const __m256i one = _mm256_set1_epi32(1);
    __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, one), 23);
    __m256i subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
    __m256i bits = _mm256_blendv_epi8(subnormal, normal, _mm256_cmpgt_epi32(e, one));
    return _mm256_castsi256_ps(bits);
}

/* The scales of eight rows' blocks of 32. */
LLD_AVX2_INLINE __m256 lld_gather_scales(const lld_format32 *f,
                                         const uint8_t *const rows[LLD_AVX2_ROWS], size_t at)
{
    return f->exponent ? lld_gather_exponents(rows, at) : lld_gather_f16(rows, at);
}

/* ---- blocks of 256 ----------------------------------------------------------------------- */

/* Every byte of v shifted right by n (a constant after inlining), masked. */
LLD_AVX2_INLINE __m256i lld_shift_mask(__m256i v, unsigned n, char mask)
{
    return _mm256_and_si256(_mm256_srli_epi16(v, (int)n), _mm256_set1_epi8(mask));
}

/* The eight 6-bit scales and mins of Q4_K and Q5_K, each repeated for its two sixteens. */
LLD_AVX2_INLINE void lld_k4_unpack_scales(const uint8_t *packed, __m256i *scale, __m256i *mins)
{
    const uint32_t a = lld_load_u32(packed), b = lld_load_u32(packed + 4),
                   c = lld_load_u32(packed + 8);
    const uint32_t scale03 = a & 0x3f3f3f3f, min03 = b & 0x3f3f3f3f;
    const uint32_t scale47 = (c & 0x0f0f0f0f) | (a >> 6 & 0x03030303) << 4;
    const uint32_t min47 = (c >> 4 & 0x0f0f0f0f) | (b >> 6 & 0x03030303) << 4;
    __m128i bytes = _mm_set_epi64x((long long)((uint64_t)min47 << 32 | min03),
                                   (long long)((uint64_t)scale47 << 32 | scale03));
    *scale = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(bytes, bytes));
    *mins = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(bytes, bytes));
}

LLD_AVX2_INLINE void lld_q4_k_scales(const uint8_t *block, __m256i *scale, __m256i *side)
{
    lld_k4_unpack_scales(block + offsetof(lld_block_q4_k, scales), scale, side);
}

LLD_AVX2_INLINE __m256i lld_q4_k_unpack(const uint8_t *block, unsigned j)
{
    __m256i bytes = lld_load256(block + offsetof(lld_block_q4_k, qs) + 32 * (j / 2));
    return lld_shift_mask(bytes, 4 * (j % 2), 15);
}

LLD_AVX2_INLINE void lld_q4_k_unpack8(__m256i q[16], const uint8_t *const rows[8], size_t at,
                                      unsigned j)
{
    for (unsigned half = 0; half < 2; half++) {
        __m256i bytes[4];
        lld_load_transposed16(bytes, rows, at + offsetof(lld_block_q4_k, qs) + 32 * j + 16 * half);
        for (unsigned i = 0; i < 4; i++) {
            q[4 * half + i] = lld_shift_mask(bytes[i], 0, 15);
            q[8 + 4 * half + i] = lld_shift_mask(bytes[i], 4, 15);
        }
    }
}

LLD_AVX2_INLINE void lld_q5_k_scales(const uint8_t *block, __m256i *scale, __m256i *side)
{
    lld_k4_unpack_scales(block + offsetof(lld_block_q5_k, scales), scale, side);
}

LLD_AVX2_INLINE __m256i lld_q5_k_unpack(const uint8_t *block, unsigned j)
{
    __m256i bytes = lld_load256(block + offsetof(lld_block_q5_k, qs) + 32 * (j / 2));
    __m256i high = lld_shift_mask(lld_load256(block + offsetof(lld_block_q5_k, qh)), j, 1);
    return _mm256_or_si256(lld_shift_mask(bytes, 4 * (j % 2), 15), _mm256_slli_epi16(high, 4));
}

LLD_AVX2_INLINE void lld_q6_k_scales(const uint8_t *block, __m256i *scale, __m256i *side)
{
    *scale = _mm256_cvtepi8_epi16(lld_load128(block + offsetof(lld_block_q6_k, scales)));
    *side = _mm256_mullo_epi16(*scale, _mm256_set1_epi16(-32));
}

LLD_AVX2_INLINE __m256i lld_q6_k_unpack(const uint8_t *block, unsigned j)
{
    const unsigned half = j / 4, part = j % 4;
    __m256i low = lld_load256(block + offsetof(lld_block_q6_k, ql) + 64 * half + 32 * (part % 2));
    __m256i high = lld_load256(block + offsetof(lld_block_q6_k, qh) + 32 * half);
    return _mm256_or_si256(lld_shift_mask(low, 4 * (part / 2), 15),
                           _mm256_slli_epi16(lld_shift_mask(high, 2 * part, 3), 4));
}

LLD_AVX2_INLINE void lld_q3_k_scales(const uint8_t *block, __m256i *scale, __m256i *side)
{
    const uint8_t *packed = block + offsetof(lld_block_q3_k, scales);
    const uint32_t a = lld_load_u32(packed), b = lld_load_u32(packed + 4),
                   c = lld_load_u32(packed + 8);
    __m128i bytes = _mm_setr_epi32((int)((a & 0x0f0f0f0f) | (c & 0x03030303) << 4),
                                   (int)((b & 0x0f0f0f0f) | (c >> 2 & 0x03030303) << 4),
                                   (int)((a >> 4 & 0x0f0f0f0f) | (c >> 4 & 0x03030303) << 4),
                                   (int)((b >> 4 & 0x0f0f0f0f) | (c >> 6 & 0x03030303) << 4));
    *scale = _mm256_cvtepi8_epi16(_mm_sub_epi8(bytes, _mm_set1_epi8(32)));
    *side = _mm256_mullo_epi16(*scale, _mm256_set1_epi16(-4));
}

/* As 0..7: the set bit of hmask adds 4 and the format's offset is 4. */
LLD_AVX2_INLINE __m256i lld_q3_k_unpack(const uint8_t *block, unsigned j)
{
    __m256i low = lld_load256(block + offsetof(lld_block_q3_k, qs) + 32 * (j / 4));
    __m256i high = lld_shift_mask(lld_load256(block + offsetof(lld_block_q3_k, hmask)), j, 1);
    return _mm256_or_si256(lld_shift_mask(low, 2 * (j % 4), 3), _mm256_slli_epi16(high, 2));
}

LLD_AVX2_INLINE void lld_q2_k_scales(const uint8_t *block, __m256i *scale, __m256i *side)
{
    __m256i both = _mm256_cvtepu8_epi16(lld_load128(block + offsetof(lld_block_q2_k, scales)));
    *scale = _mm256_and_si256(both, _mm256_set1_epi16(15));
    *side = _mm256_srli_epi16(both, 4);
}

LLD_AVX2_INLINE __m256i lld_q2_k_unpack(const uint8_t *block, unsigned j)
{
    __m256i bytes = lld_load256(block + offsetof(lld_block_q2_k, qs) + 32 * (j / 4));
    return lld_shift_mask(bytes, 2 * (j % 4), 3);
}

/* Eight scales of 4 low bits (scales_l) and 2 high bits (scales_h), offset 32, each in both 16-bit
 * halves of its 32-bit lane. */
LLD_AVX2_INLINE void lld_iq4_xs_scales(const uint8_t *block, __m256i *scale, __m256i *side)
{
    const __m256i index = _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14);
    __m256i low = lld_broadcast32(block + offsetof(lld_block_iq4_xs, scales_l));
    __m256i high = _mm256_set1_epi32(lld_load_u16(block + offsetof(lld_block_iq4_xs, scales_h)));
    low = _mm256_and_si256(_mm256_srlv_epi32(low, _mm256_add_epi32(index, index)),
                           _mm256_set1_epi32(15));
    high = _mm256_and_si256(_mm256_srlv_epi32(high, index), _mm256_set1_epi32(3));
    __m256i value = _mm256_or_si256(low, _mm256_slli_epi32(high, 4));
    value = _mm256_or_si256(value, _mm256_slli_epi32(value, 16));
    *scale = _mm256_sub_epi16(value, _mm256_set1_epi16(32));
    *side = _mm256_setzero_si256();
}

LLD_AVX2_INLINE __m256i lld_iq4_xs_unpack(const uint8_t *block, unsigned j)
{
    return lld_iq4_lookup(lld_unpack_nibbles(block + offsetof(lld_block_iq4_xs, qs) + 16 * j));
}

/* ---- the formats ------------------------------------------------------------------------- */

/* A line makes the constant lld_avx2_<function> and the format's products: name and function as in the
 * list of formats; block; how two activation rows are multiplied: GEMM where unpacking takes longer
 * than multiplying twice, else GEMV; then what the constant has besides its defaults. A format of the
 * list without a line here is multiplied by generic C. */
/* clang-format off */
#define LLD_AVX2_FORMATS(X) \
    X(Q4_0,   q4_0,    32, GEMV, .fit = LLD_FIT_4_BITS, .offset = 8, .nibbles = true, .unpack8 = lld_q4_0_unpack8) \
    X(Q4_1,   q4_1,    32, GEMV, .fit = LLD_FIT_4_BITS, .has_m = true, .nibbles = true, .unpack8 = lld_q4_1_unpack8) \
    X(Q5_0,   q5_0,    32, GEMM, .fit = LLD_FIT_5_BITS, .offset = 16) \
    X(Q5_1,   q5_1,    32, GEMM, .fit = LLD_FIT_5_BITS, .has_m = true) \
    X(Q8_0,   q8_0,    32, GEMV, .fit = LLD_FIT_SIGNED, .unpack8 = lld_q8_0_unpack8) \
    X(IQ4_NL, iq4_nl,  32, GEMV, .fit = LLD_FIT_SIGNED, .unpack8 = lld_iq4_nl_unpack8) \
    X(MXFP4,  mxfp4,   32, GEMM, .fit = LLD_FIT_5_BITS, .offset = 12, .exponent = true, .unpack8 = lld_mxfp4_unpack8) \
    X(Q2_K,   q2_k,   256, GEMV, .unpack = lld_q2_k_unpack, .fit = LLD_FIT_5_BITS, .sub = 16, .side = LLD_SIDE_MIN, .dmin_at = offsetof(lld_block_q2_k, dmin)) \
    X(Q3_K,   q3_k,   256, GEMV, .unpack = lld_q3_k_unpack, .fit = LLD_FIT_5_BITS, .sub = 16, .side = LLD_SIDE_OFFSET) \
    X(Q4_K,   q4_k,   256, GEMV, .unpack = lld_q4_k_unpack, .fit = LLD_FIT_4_BITS, .sub = 32, .side = LLD_SIDE_MIN, .dmin_at = offsetof(lld_block_q4_k, dmin), \
                                 .unpack8 = lld_q4_k_unpack8) \
    X(Q5_K,   q5_k,   256, GEMV, .unpack = lld_q5_k_unpack, .fit = LLD_FIT_5_BITS, .sub = 32, .side = LLD_SIDE_MIN, .dmin_at = offsetof(lld_block_q5_k, dmin)) \
    X(Q6_K,   q6_k,   256, GEMV, .unpack = lld_q6_k_unpack, .fit = LLD_FIT_6_BITS, .sub = 16, .side = LLD_SIDE_OFFSET) \
    X(IQ4_XS, iq4_xs, 256, GEMV, .unpack = lld_iq4_xs_unpack, .fit = LLD_FIT_SIGNED, .sub = 32, .side = LLD_SIDE_NONE) \
    X(IQ2_XXS, iq2_xxs, 256, GEMV, .fit = LLD_FIT_7_BITS, .sub = 32, LLD_AVX2_GRID(iq2_xxs), .bias = 64, .unit = 0.125f) \
    X(IQ2_XS,  iq2_xs,  256, GEMV, .fit = LLD_FIT_7_BITS, .sub = 16, LLD_AVX2_GRID(iq2_xs), .bias = 64, .unit = 0.125f) \
    X(IQ2_S,   iq2_s,   256, GEMV, .fit = LLD_FIT_7_BITS, .sub = 16, LLD_AVX2_GRID(iq2_s), .bias = 64, .unit = 0.125f) \
    X(IQ3_XXS, iq3_xxs, 256, GEMV, .fit = LLD_FIT_7_BITS, .sub = 32, LLD_AVX2_GRID(iq3_xxs), .bias = 64, .unit = 0.25f) \
    X(IQ3_S,   iq3_s,   256, GEMV, .fit = LLD_FIT_5_BITS, .sub = 32, LLD_AVX2_GRID(iq3_s), .bias = 16, .unit = 1.0f)
/* clang-format on */

#define LLD_AVX2_CONSTANT(name, function, block, two, ...)                                         \
    static const lld_format##block lld_avx2_##function = {LLD_AVX2_DEFAULTS_##block(function),     \
                                                          __VA_ARGS__};
#define LLD_AVX2_GRID(function)                                                                    \
    .prepare = lld_##function##_prepare, .magnitudes = lld_##function##_magnitudes
#define LLD_AVX2_DEFAULTS_32(function)                                                             \
    .bytes = sizeof(lld_block_##function), .unpack = lld_##function##_unpack
#define LLD_AVX2_DEFAULTS_256(function)                                                            \
    .bytes = sizeof(lld_block_##function), .d_at = offsetof(lld_block_##function, d),              \
    .scales = lld_##function##_scales
LLD_AVX2_FORMATS(LLD_AVX2_CONSTANT)

/* The scales d of a block of eight rows. */
LLD_AVX2_INLINE __m256 lld_gather_d(const lld_format256 *f,
                                    const uint8_t *const rows[LLD_AVX2_ROWS], size_t at)
{
    const __m256 d = lld_gather_f16(rows, at + f->d_at);
    return f->magnitudes != NULL ? _mm256_mul_ps(d, _mm256_set1_ps(f->unit)) : d;
}

#endif
