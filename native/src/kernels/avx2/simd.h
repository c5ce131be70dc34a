/* simd.h - the target attribute and the small vector idioms that the AVX2 kernel files share.
 * Private to the *_avx2.c files; include only where __x86_64__ is defined. */
#ifndef LLD_SIMD_AVX2_H
#define LLD_SIMD_AVX2_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LLD_AVX2 __attribute__((target("avx2,fma,f16c")))
#define LLD_AVX2_INLINE                                                                            \
    static inline __attribute__((always_inline, unused, target("avx2,fma,f16c")))

/* The vector is in a register here, and sums before and after are not regrouped across this point.
 * GCC would turn a chain of integer additions into a tree, compute all its leaves first and spill
 * them. */
#define LLD_AVX2_PIN(vector) __asm__("" : "+x"(vector))

enum { LLD_AVX2_ROWS = 8 }; /* weight rows of one group: one float lane each */

LLD_AVX2_INLINE __m256i lld_load256(const void *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

LLD_AVX2_INLINE __m128i lld_load128(const void *p) { return _mm_loadu_si128((const __m128i *)p); }

/* Two 16-byte pieces of memory as the low and the high half of one vector. */
LLD_AVX2_INLINE __m256i lld_load2x128(const void *low, const void *high)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(lld_load128(low)), lld_load128(high), 1);
}

/* Four bytes of memory in every 32-bit lane. */
LLD_AVX2_INLINE __m256i lld_broadcast32(const void *p)
{
    int32_t value;
    memcpy(&value, p, sizeof value);
    return _mm256_set1_epi32(value);
}

LLD_AVX2_INLINE uint16_t lld_load_u16(const void *p)
{
    uint16_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

LLD_AVX2_INLINE uint32_t lld_load_u32(const void *p)
{
    uint32_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

LLD_AVX2_INLINE uint64_t lld_load_u64(const void *p)
{
    uint64_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

/* rows[i] = row first + i of w; beyond the last row (n_rows - 1) it is repeated, so that a short
 * group computes lanes that nobody stores. */
LLD_AVX2_INLINE void lld_row_pointers(const uint8_t *rows[LLD_AVX2_ROWS], const uint8_t *w,
                                      size_t row_bytes, size_t first, size_t n_rows)
{
    for (size_t i = 0; i < LLD_AVX2_ROWS; i++)
        rows[i] = w + row_bytes * (first + i < n_rows ? first + i : n_rows - 1);
}

/* The f16 value at `offset` of each of eight rows, as float32 lanes. */
LLD_AVX2_INLINE __m256 lld_gather_f16(const uint8_t *const rows[LLD_AVX2_ROWS], size_t offset)
{
    __m128i half[2];
#pragma GCC unroll 2
    for (int h = 0; h < 2;
         h++) { /* vpinsrw from memory; GCC makes twice the work of shifts and ors */
        half[h] = _mm_cvtsi32_si128(lld_load_u16(rows[4 * h] + offset));
        half[h] = _mm_insert_epi16(half[h], lld_load_u16(rows[4 * h + 1] + offset), 1);
        half[h] = _mm_insert_epi16(half[h], lld_load_u16(rows[4 * h + 2] + offset), 2);
        half[h] = _mm_insert_epi16(half[h], lld_load_u16(rows[4 * h + 3] + offset), 3);
    }
    return _mm256_cvtph_ps(_mm_unpacklo_epi64(half[0], half[1]));
}

/* The first `count` lanes from memory (all eight when count >= 8), the others zero. */
LLD_AVX2_INLINE __m256 lld_load_lanes(const float *p, size_t count)
{
    if (count >= LLD_AVX2_ROWS) return _mm256_loadu_ps(p);
    float all[LLD_AVX2_ROWS] = {0};
    memcpy(all, p, count * sizeof *p);
    return _mm256_loadu_ps(all);
}

/* Store the first `count` lanes (all eight when count >= 8). */
LLD_AVX2_INLINE void lld_store_lanes(float *out, __m256 lanes, size_t count)
{
    if (count >= LLD_AVX2_ROWS) {
        _mm256_storeu_ps(out, lanes);
        return;
    }
    float all[LLD_AVX2_ROWS];
    _mm256_storeu_ps(all, lanes);
    memcpy(out, all, count * sizeof *out);
}

/* Lane i of the result is the sum of the eight int32 lanes of v[i]. */
LLD_AVX2_INLINE __m256i lld_sum_each8(const __m256i v[8])
{
    __m256i s01 = _mm256_hadd_epi32(v[0], v[1]), s23 = _mm256_hadd_epi32(v[2], v[3]);
    __m256i s45 = _mm256_hadd_epi32(v[4], v[5]), s67 = _mm256_hadd_epi32(v[6], v[7]);
    __m256i s0123 = _mm256_hadd_epi32(s01, s23), s4567 = _mm256_hadd_epi32(s45, s67);
    return _mm256_add_epi32(_mm256_permute2x128_si256(s0123, s4567, 0x20),
                            _mm256_permute2x128_si256(s0123, s4567, 0x31));
}

/* lld_reduce8 of vecmath.h. */
LLD_AVX2_INLINE float lld_reduce_lanes(__m256 lanes)
{
    __m128 a = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
    __m128 b = _mm_add_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}

/* The same of four vectors at once, each sum in its lane: seven shuffles, not twelve. */
LLD_AVX2_INLINE __m128 lld_reduce_lanes_of_four(const __m256 v[4])
{
    __m256 ab = _mm256_add_ps(_mm256_permute2f128_ps(v[0], v[1], 0x20),
                              _mm256_permute2f128_ps(v[0], v[1], 0x31));
    __m256 cd = _mm256_add_ps(_mm256_permute2f128_ps(v[2], v[3], 0x20),
                              _mm256_permute2f128_ps(v[2], v[3], 0x31));
    __m256 acbd = _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
    __m256 sums = _mm256_add_ps(acbd, _mm256_movehdup_ps(acbd)); /* lanes 0, 2, 4, 6: a, c, b, d */
    __m128 ac = _mm256_castps256_ps128(sums), bd = _mm256_extractf128_ps(sums, 1);
    return _mm_shuffle_ps(_mm_unpacklo_ps(ac, bd), _mm_unpackhi_ps(ac, bd), 0x44);
}

/* lld_expf of vecmath.h in each lane. min and max return their second operand where the comparison
 * fails, as the conditional expressions there do. */
LLD_AVX2_INLINE __m256 lld_expf_lanes(__m256 x)
{
    const __m256 lowest = _mm256_set1_ps(-87.33f), magic = _mm256_set1_ps(12582912.0f);
    __m256 clamped = _mm256_max_ps(lowest, _mm256_min_ps(_mm256_set1_ps(88.0f), x));
    __m256 t = _mm256_fmadd_ps(clamped, _mm256_set1_ps(1.44269504088896341f), magic);
    __m256 n = _mm256_sub_ps(t, magic);
    __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-0.693359375f), clamped);
    r = _mm256_fmadd_ps(n, _mm256_set1_ps(2.12194440e-4f), r);
    __m256 p = _mm256_set1_ps(1.9875691500e-4f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.3981999507e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.3334519073e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.1665795894e-2f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.6666665459e-1f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.0000001201e-1f));
    p = _mm256_fmadd_ps(p, _mm256_mul_ps(r, r), _mm256_add_ps(r, _mm256_set1_ps(1.0f)));
    __m256i bits = _mm256_add_epi32(_mm256_castps_si256(t), _mm256_set1_epi32(127 - 0x4B400000));
    __m256 y = _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(bits, 23)));
    return _mm256_andnot_ps(_mm256_cmp_ps(x, lowest, _CMP_LT_OQ), y);
}

/* Transpose 4x4 matrices of 32-bit elements in each 128-bit half. */
LLD_AVX2_INLINE void lld_transpose4x4(__m256i v[4])
{
    __m256i t0 = _mm256_unpacklo_epi32(v[0], v[1]), t1 = _mm256_unpackhi_epi32(v[0], v[1]);
    __m256i t2 = _mm256_unpacklo_epi32(v[2], v[3]), t3 = _mm256_unpackhi_epi32(v[2], v[3]);
    v[0] = _mm256_unpacklo_epi64(t0, t2);
    v[1] = _mm256_unpackhi_epi64(t0, t2);
    v[2] = _mm256_unpacklo_epi64(t1, t3);
    v[3] = _mm256_unpackhi_epi64(t1, t3);
}

/* Transpose an 8x8 matrix of 32-bit elements. */
LLD_AVX2_INLINE void lld_transpose8x8(__m256i v[8])
{
    lld_transpose4x4(v);
    lld_transpose4x4(v + 4);
    for (int i = 0; i < 4; i++) {
        __m256i low = v[i], high = v[i + 4];
        v[i] = _mm256_permute2x128_si256(low, high, 0x20);
        v[i + 4] = _mm256_permute2x128_si256(low, high, 0x31);
    }
}

/* 16 bytes at `offset` of each of eight rows, transposed: v[i] holds bytes 4i..4i+3 of row r in
 * 32-bit lane r. */
LLD_AVX2_INLINE void lld_load_transposed16(__m256i v[4], const uint8_t *const rows[LLD_AVX2_ROWS],
                                           size_t offset)
{
    for (int i = 0; i < 4; i++) v[i] = lld_load2x128(rows[i] + offset, rows[i + 4] + offset);
    lld_transpose4x4(v);
}

#endif
