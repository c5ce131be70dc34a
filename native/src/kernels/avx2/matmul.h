/* matmul.h - the parts of the AVX2 matmul; matmul.c joins them. gemv: one activation row
 * (gemv2: two), straight from the GGUF layout, bound by memory. gemm: more, through panels of unpacked
 * weights in scratch, bound by arithmetic. float: F32, F16, BF16 of both kinds. */
#ifndef LLD_MATMUL_AVX2_H
#define LLD_MATMUL_AVX2_H

#include "kernels/kernels.h"

/* Same arguments as lld_matmul_fn with x->n_rows == 1; no scratch. */
typedef void lld_gemv_avx2(float *out, const uint8_t *w, size_t row_bytes, size_t n_rows,
                           const lld_acts *x);
lld_gemv_avx2 lld_gemv_avx2_q4_0, lld_gemv_avx2_q4_1, lld_gemv_avx2_q5_0, lld_gemv_avx2_q5_1,
    lld_gemv_avx2_q8_0, lld_gemv_avx2_iq4_nl, lld_gemv_avx2_q2_k, lld_gemv_avx2_q3_k,
    lld_gemv_avx2_q4_k, lld_gemv_avx2_q5_k, lld_gemv_avx2_q6_k, lld_gemv_avx2_iq4_xs;

/* The same with x->n_rows == 2. */
typedef void lld_gemv2_avx2(float *out, size_t out_stride, const uint8_t *w, size_t row_bytes,
                            size_t n_rows, const lld_acts *x);
lld_gemv2_avx2 lld_gemv2_avx2_q8_0, lld_gemv2_avx2_iq4_nl, lld_gemv2_avx2_q2_k, lld_gemv2_avx2_q3_k,
    lld_gemv2_avx2_q5_k, lld_gemv2_avx2_q6_k, lld_gemv2_avx2_iq4_xs;

typedef void lld_gemm_avx2(float *out, size_t out_stride, const uint8_t *w, size_t row_bytes,
                           size_t n_rows, const lld_acts *x, void *scratch);
lld_gemm_avx2 lld_gemm_avx2_q4_0, lld_gemm_avx2_q4_1, lld_gemm_avx2_q5_0, lld_gemm_avx2_q5_1,
    lld_gemm_avx2_q8_0, lld_gemm_avx2_iq4_nl, lld_gemm_avx2_q2_k, lld_gemm_avx2_q3_k,
    lld_gemm_avx2_q4_k, lld_gemm_avx2_q5_k, lld_gemm_avx2_q6_k, lld_gemm_avx2_iq4_xs;

lld_gemm_avx2 lld_matmul_avx2_f32, lld_matmul_avx2_f16, lld_matmul_avx2_bf16;

#endif
