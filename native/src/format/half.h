/* half.h - IEEE 754 binary16 (f16) and float32, one value at a time. Inline, so that loops of the caller
 * vectorize. Vectors of the kernels convert with instructions of their own, to the same bits. */
#ifndef LLD_HALF_H
#define LLD_HALF_H

#include <stdint.h>
#include <string.h>

/* Exact, subnormals, infinities and NaN included. */
static inline float lld_f16_to_f32(uint16_t h)
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

/* Round to nearest even; overflow to infinity. */
static inline uint16_t lld_f32_to_f16(float f)
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

#endif
