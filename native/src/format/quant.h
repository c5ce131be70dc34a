/* quant.h - the GGML block formats: ids, sizes, block structs, exact dequantization.
 * Formats as specified in ggml (ggml-common.h's layouts, docs/gguf.md); all little-endian.
 * Does not multiply: kernels.h does. */
#ifndef LLD_QUANT_H
#define LLD_QUANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Tables, one format a line. */
/* clang-format off */
enum lld_type { /* GGML type ids as they stand in files; holes are removed or unsupported types */
    LLD_F32 = 0, LLD_F16 = 1, LLD_Q4_0 = 2, LLD_Q4_1 = 3, LLD_Q5_0 = 6, LLD_Q5_1 = 7, LLD_Q8_0 = 8,
    LLD_Q2_K = 10, LLD_Q3_K = 11, LLD_Q4_K = 12, LLD_Q5_K = 13, LLD_Q6_K = 14,
    LLD_IQ4_NL = 20, LLD_IQ4_XS = 23, LLD_BF16 = 30,
    LLD_TYPE_COUNT = 31
};

enum { LLD_QK = 32, LLD_QK_K = 256 };

/* d = scale (f16), m / dmin = scale of the offset (f16), q = the element's number in the block. */
typedef struct { uint16_t d; uint8_t qs[16]; } lld_block_q4_0;               /* x = d*(q-8) */
typedef struct { uint16_t d, m; uint8_t qs[16]; } lld_block_q4_1;            /* x = d*q + m */
typedef struct { uint16_t d; uint8_t qh[4]; uint8_t qs[16]; } lld_block_q5_0;    /* x = d*(q-16) */
typedef struct { uint16_t d, m; uint8_t qh[4]; uint8_t qs[16]; } lld_block_q5_1; /* x = d*q + m */
typedef struct { uint16_t d; int8_t qs[32]; } lld_block_q8_0;                /* x = d*q */
typedef struct { uint8_t scales[16]; uint8_t qs[64]; uint16_t d, dmin; } lld_block_q2_k;
typedef struct { uint8_t hmask[32], qs[64], scales[12]; uint16_t d; } lld_block_q3_k;
typedef struct { uint16_t d, dmin; uint8_t scales[12]; uint8_t qs[128]; } lld_block_q4_k;
typedef struct { uint16_t d, dmin; uint8_t scales[12], qh[32], qs[128]; } lld_block_q5_k;
typedef struct { uint8_t ql[128]; uint8_t qh[64]; int8_t scales[16]; uint16_t d; } lld_block_q6_k;
typedef struct { uint16_t d; uint8_t qs[16]; } lld_block_iq4_nl;             /* x = d*table[q] */
typedef struct { uint16_t d, scales_h; uint8_t scales_l[4], qs[128]; } lld_block_iq4_xs;
/* clang-format on */

extern const int8_t lld_iq4_values[16]; /* the non-linear 4-bit table of IQ4_NL and IQ4_XS */

/* Elements and bytes of one block; 0 for a type that is not supported. */
size_t lld_type_block(uint32_t type);
size_t lld_type_block_bytes(uint32_t type);
bool lld_type_supported(uint32_t type);
/* Bytes of a row of n elements (n a multiple of the block). */
size_t lld_type_row_bytes(uint32_t type, size_t n);

float lld_f16_to_f32(uint16_t h); /* exact, subnormals, inf and NaN included */
uint16_t lld_f32_to_f16(float f); /* round to nearest even; overflow to infinity */

/* src: n/block blocks -> dst: (n) float32, bit for bit what the `gguf` package computes. src is
 * aligned to 2 bytes, as every block in a GGUF file is. */
void lld_dequantize_row(uint32_t type, const void *src, float *dst, size_t n);

/* The 6-bit scales and mins of Q4_K and Q5_K: (8) each. */
void lld_k4_scales(const uint8_t packed[12], uint8_t scales[8], uint8_t mins[8]);
/* The 6-bit signed scales (-32..31) of Q3_K: (16). */
void lld_q3_scales(const uint8_t packed[12], int8_t scales[16]);

#endif
