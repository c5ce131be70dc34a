/* matmul.c - chooses between the AVX2 matmuls: gemv for one or two activation rows,
 * gemm for more. */
#ifdef __x86_64__

#include "kernels/avx2/avx2.h"
#include "kernels/avx2/matmul.h"

/* `two` computes two activation rows: gemm where unpacking takes longer than multiplying twice. */
#define LLD_MATMUL(format, two)                                                                    \
    static void matmul_##format(float *out, size_t out_stride, const uint8_t *w, size_t row_bytes, \
                                size_t n_rows, const lld_acts *x, void *scratch)                   \
    {                                                                                              \
        if (x->n_rows == 1)                                                                        \
            lld_gemv_avx2_##format(out, w, row_bytes, n_rows, x);                                  \
        else if (x->n_rows == 2)                                                                   \
            two(format);                                                                           \
        else                                                                                       \
            lld_gemm_avx2_##format(out, out_stride, w, row_bytes, n_rows, x, scratch);             \
    }
#define BY_GEMV2(format) lld_gemv2_avx2_##format(out, out_stride, w, row_bytes, n_rows, x)
#define BY_GEMM(format)  lld_gemm_avx2_##format(out, out_stride, w, row_bytes, n_rows, x, scratch)

LLD_MATMUL(q4_0, BY_GEMM)
LLD_MATMUL(q4_1, BY_GEMM)
LLD_MATMUL(q5_0, BY_GEMM)
LLD_MATMUL(q5_1, BY_GEMM)
LLD_MATMUL(q8_0, BY_GEMV2)
LLD_MATMUL(iq4_nl, BY_GEMV2)
LLD_MATMUL(q2_k, BY_GEMV2)
LLD_MATMUL(q3_k, BY_GEMV2)
LLD_MATMUL(q4_k, BY_GEMM)
LLD_MATMUL(q5_k, BY_GEMV2)
LLD_MATMUL(q6_k, BY_GEMV2)
LLD_MATMUL(iq4_xs, BY_GEMV2)

void lld_kernels_init_avx2_matmul(lld_kernels *table)
{
    table->matmul[LLD_F32] = lld_matmul_avx2_f32;
    table->matmul[LLD_F16] = lld_matmul_avx2_f16;
    table->matmul[LLD_BF16] = lld_matmul_avx2_bf16;
    table->matmul[LLD_Q4_0] = matmul_q4_0;
    table->matmul[LLD_Q4_1] = matmul_q4_1;
    table->matmul[LLD_Q5_0] = matmul_q5_0;
    table->matmul[LLD_Q5_1] = matmul_q5_1;
    table->matmul[LLD_Q8_0] = matmul_q8_0;
    table->matmul[LLD_IQ4_NL] = matmul_iq4_nl;
    table->matmul[LLD_Q2_K] = matmul_q2_k;
    table->matmul[LLD_Q3_K] = matmul_q3_k;
    table->matmul[LLD_Q4_K] = matmul_q4_k;
    table->matmul[LLD_Q5_K] = matmul_q5_k;
    table->matmul[LLD_Q6_K] = matmul_q6_k;
    table->matmul[LLD_IQ4_XS] = matmul_iq4_xs;
}

#else
typedef int lld_matmul_avx2_not_on_this_architecture; /* a translation unit may not be empty */
#endif
