/* kernels_avx2.c - the AVX2 instruction set's entries of the kernel table. */
#ifdef __x86_64__

#include "kernels.h"

void lld_kernels_init_avx2(lld_kernels *table)
{
    table->name = "avx2";
}

#else
typedef int lld_kernels_avx2_not_on_this_architecture; /* a translation unit may not be empty */
#endif
