/* matmul.c - chooses between the AVX2 matmuls: gemv for one or two activation rows,
 * gemm for more. */
#ifdef __x86_64__

#include "kernels/avx2/avx2.h"
#include "kernels/avx2/matmul.h"

#define MATMUL(name, function, block, two, ...)                                                    \
    static void matmul_##function(const lld_matmul *m)                                             \
    {                                                                                              \
        if (m->x->n_rows == 1)                                                                     \
            lld_gemv_avx2_##function(m);                                                           \
        else if (m->x->n_rows == 2)                                                                \
            TWO_BY_##two(function)(m);                                                             \
        else                                                                                       \
            lld_gemm_avx2_##function(m);                                                           \
    }
#define TWO_BY_GEMV(function) lld_gemv2_avx2_##function
#define TWO_BY_GEMM(function) lld_gemm_avx2_##function
LLD_AVX2_FORMATS(MATMUL)

void lld_kernels_init_avx2_matmul(lld_kernels *table)
{
    table->matmul[LLD_F32] = lld_matmul_avx2_f32;
    table->matmul[LLD_F16] = lld_matmul_avx2_f16;
    table->matmul[LLD_BF16] = lld_matmul_avx2_bf16;
    table->matmul[LLD_Q1_0] = lld_matmul_avx2_q1_0;
    table->matmul[LLD_Q2_0] = lld_matmul_avx2_q2_0;
#define SET(name, function, block, two, ...) table->matmul[LLD_##name] = matmul_##function;
    LLD_AVX2_FORMATS(SET)
}

#else
typedef int lld_matmul_avx2_not_on_this_architecture; /* a translation unit may not be empty */
#endif
