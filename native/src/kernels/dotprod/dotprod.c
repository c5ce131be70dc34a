/* dotprod.c - the NEON + dotprod (armv8.2) entries of the dispatch table: the integer
 * matmuls. The rest is NEON's. Owns no numbers. */
#include "kernels/kernels.h"

#if defined(__aarch64__)

#include "kernels/dotprod/matmul.h"

void lld_kernels_init_dotprod(lld_kernels *table)
{
    table->name = "dotprod";
    lld_dotprod_init_matmul(table);
    lld_dotprod_init_bits(table);
}

#endif
