/* kernels_dotprod.c - the NEON + dotprod (armv8.2) entries of the dispatch table. Owns no numbers. */
#include "kernels.h"

#if defined(__aarch64__)

void lld_kernels_init_dotprod(lld_kernels *table)
{
    table->name = "dotprod";
}

#endif
