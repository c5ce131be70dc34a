/* matmul.h - the parts of the AVX2 matmul; matmul.c joins them. gemv: one activation row (gemv2: two),
 * straight from the GGUF layout, bound by memory. gemm: more, through panels of unpacked weights in
 * scratch, bound by arithmetic. float: F32, F16, BF16 of both kinds; bits: Q1_0, Q2_0. */
#ifndef LLD_AVX2_MATMUL_H
#define LLD_AVX2_MATMUL_H

#include "kernels/avx2/matmul_formats.h"
#include "kernels/kernels.h"

typedef void lld_avx2_matmul(const lld_matmul *m);

#define LLD_AVX2_DECLARE(name, function, block, two, ...)                                          \
    lld_avx2_matmul lld_gemv_avx2_##function, lld_gemv2_avx2_##function, lld_gemm_avx2_##function;
LLD_AVX2_FORMATS(LLD_AVX2_DECLARE)

lld_avx2_matmul lld_matmul_avx2_f32, lld_matmul_avx2_f16, lld_matmul_avx2_bf16;
lld_avx2_matmul lld_matmul_avx2_q1_0, lld_matmul_avx2_q2_0; /* matmul_bits.c */

#endif
