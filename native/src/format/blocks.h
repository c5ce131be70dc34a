/* blocks.h - the bytes of one block of every format, as they lie in a file (little-endian, no padding),
 * and the packed parts that two formats share. Layouts are those of ggml-common.h. Which element is in
 * which bits: unpack.h. */
#ifndef LLD_BLOCKS_H
#define LLD_BLOCKS_H

#include <stdint.h>

#include "format/half.h"

/* One format a line. */
/* clang-format off */
enum { LLD_QK = 32, LLD_QK_K = 256 };

typedef float lld_block_f32;
typedef uint16_t lld_block_f16, lld_block_bf16;

/* d = scale (f16), m / dmin = scale of the offset (f16), q = the element's number in the block. */
typedef struct { uint16_t d; uint8_t qs[16]; } lld_block_q4_0;               /* x = d*(q-8) */
typedef struct { uint16_t d, m; uint8_t qs[16]; } lld_block_q4_1;            /* x = d*q + m */
typedef struct { uint16_t d; uint8_t qh[4]; uint8_t qs[16]; } lld_block_q5_0;    /* x = d*(q-16) */
typedef struct { uint16_t d, m; uint8_t qh[4]; uint8_t qs[16]; } lld_block_q5_1; /* x = d*q + m */
typedef struct { uint16_t d; int8_t qs[32]; } lld_block_q8_0;                /* x = d*q */
typedef struct { uint16_t d; uint8_t qs[16]; } lld_block_q1_0;               /* x = d*(2q-1) */
typedef struct { uint16_t d; uint8_t qs[16]; } lld_block_q2_0;               /* x = d*(q-1) */
typedef struct { uint8_t scales[16]; uint8_t qs[64]; uint16_t d, dmin; } lld_block_q2_k;
typedef struct { uint8_t hmask[32], qs[64], scales[12]; uint16_t d; } lld_block_q3_k;
typedef struct { uint16_t d, dmin; uint8_t scales[12]; uint8_t qs[128]; } lld_block_q4_k;
typedef struct { uint16_t d, dmin; uint8_t scales[12], qh[32], qs[128]; } lld_block_q5_k;
typedef struct { uint8_t ql[128]; uint8_t qh[64]; int8_t scales[16]; uint16_t d; } lld_block_q6_k;
typedef struct { uint16_t d; uint8_t qs[16]; } lld_block_iq4_nl;             /* x = d*table[q] */
typedef struct { uint16_t d, scales_h; uint8_t scales_l[4], qs[128]; } lld_block_iq4_xs;
typedef struct { uint8_t e; uint8_t qs[16]; } lld_block_mxfp4;               /* x = 2^(e-128)*table[q] */
/* Indices into the tables of grids.h, signs and scales; signs of seven bits lie beside the index
 * (IQ2_XS) or, with the scale, behind 32 weights' indices (IQ2_XXS) or all (IQ3_XXS). */
typedef struct { uint16_t d; uint8_t qs[64]; } lld_block_iq2_xxs;
typedef struct { uint16_t d; uint8_t qs[64], scales[8]; } lld_block_iq2_xs;
typedef struct { uint16_t d; uint8_t qs[32], signs[32], qh[8], scales[8]; } lld_block_iq2_s;
typedef struct { uint16_t d; uint8_t qs[64], signs[32]; } lld_block_iq3_xxs;
typedef struct { uint16_t d; uint8_t qs[64], qh[8], signs[32], scales[4]; } lld_block_iq3_s;
/* clang-format on */

extern const int8_t lld_iq4_values[16]; /* the non-linear 4-bit table of IQ4_NL and IQ4_XS */
/* Twice the values of E2M1 (OCP Microscaling Formats specification 1.0, 5.3.3). */
extern const int8_t lld_mxfp4_values[16];

#endif
