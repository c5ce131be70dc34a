/* kv_q4.c - the AVX2 kernels of the 4-bit KV cache: rotation, and nibbles to int8. A stage of the
 * rotation within eight lanes is x plus its partner, one of the two with its sign flipped: a + (-b) has
 * the bits of a - b. */
#ifdef __x86_64__

#include <assert.h>

#include "kernels/avx2/avx2.h"
#include "kernels/avx2/simd.h"
#include "kernels/hadamard.h"

/* Stages 1, 2 and 4 of eight elements. */
LLD_AVX2_INLINE __m256 within_lanes(__m256 x)
{
    const __m256 sign1 = _mm256_setr_ps(0, -0.0f, 0, -0.0f, 0, -0.0f, 0, -0.0f),
                 sign2 = _mm256_setr_ps(0, 0, -0.0f, -0.0f, 0, 0, -0.0f, -0.0f),
                 sign4 = _mm256_setr_ps(0, 0, 0, 0, -0.0f, -0.0f, -0.0f, -0.0f);
    x = _mm256_add_ps(_mm256_permute_ps(x, 0xB1), _mm256_xor_ps(x, sign1));
    x = _mm256_add_ps(_mm256_permute_ps(x, 0x4E), _mm256_xor_ps(x, sign2));
    return _mm256_add_ps(_mm256_permute2f128_ps(x, x, 1), _mm256_xor_ps(x, sign4));
}

/* The stage of distance h >= 8. */
LLD_AVX2_INLINE void stage(float *x, size_t block, size_t h)
{
    for (size_t first = 0; first < block; first += 2 * h)
        for (size_t i = first; i < first + h; i += 8) {
            const __m256 a = _mm256_loadu_ps(x + i), b = _mm256_loadu_ps(x + i + h);
            _mm256_storeu_ps(x + i, _mm256_add_ps(a, b));
            _mm256_storeu_ps(x + i + h, _mm256_sub_ps(a, b));
        }
}

LLD_AVX2 static void hadamard(float *x, size_t n)
{
    for (size_t block; n > 0; x += block, n -= block) {
        block = lld_hadamard_block(n);
        const float scale = lld_hadamard_scale(block);
        if (block < 8) {
            lld_hadamard_stages(x, block, 1);
            for (size_t i = 0; i < block; i++) x[i] *= scale;
            continue;
        }
        for (size_t i = 0; i < block; i += 8)
            _mm256_storeu_ps(x + i, within_lanes(_mm256_loadu_ps(x + i)));
        for (size_t h = 8; h < block; h *= 2) stage(x, block, h);
        for (size_t i = 0; i < block; i += 8)
            _mm256_storeu_ps(x + i, _mm256_mul_ps(_mm256_loadu_ps(x + i), _mm256_set1_ps(scale)));
    }
}

LLD_AVX2 static void kv_unpack_q4(int8_t *out, const uint8_t *packed, size_t n_bytes, size_t run)
{
    assert(n_bytes % run == 0);
    const __m128i low = _mm_set1_epi8(15), offset = _mm_set1_epi8(8);
    for (; n_bytes > 0; n_bytes -= run, packed += run, out += 2 * run) {
        size_t i = 0;
        for (; i + 16 <= run; i += 16) {
            const __m128i b = lld_load128(packed + i);
            const __m128i l = _mm_and_si128(b, low), h = _mm_and_si128(_mm_srli_epi16(b, 4), low);
            _mm_storeu_si128((__m128i *)(out + i), _mm_sub_epi8(l, offset));
            _mm_storeu_si128((__m128i *)(out + run + i), _mm_sub_epi8(h, offset));
        }
        for (; i < run; i++) {
            out[i] = (int8_t)((packed[i] & 15) - 8);
            out[run + i] = (int8_t)((packed[i] >> 4) - 8);
        }
    }
}

void lld_kernels_init_avx2_kv_q4(lld_kernels *table)
{
    table->hadamard = hadamard;
    table->kv_unpack_q4 = kv_unpack_q4;
}

#else
typedef int lld_kv_q4_avx2_not_on_this_architecture; /* a translation unit may not be empty */
#endif
