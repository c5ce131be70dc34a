/* avx2.h - the parts of the AVX2 kernel set, some files each; vector.c joins them. */
#ifndef LLD_KERNELS_AVX2_H
#define LLD_KERNELS_AVX2_H

#include "kernels/kernels.h"

void lld_kernels_init_avx2_matmul(lld_kernels *table);
void lld_kernels_init_avx2_attention(lld_kernels *table);
void lld_kernels_init_avx2_kv_q4(lld_kernels *table);
void lld_kernels_init_avx2_state(lld_kernels *table);

#endif
