/* kernels_neon.c - the NEON (armv8.0) entries of the dispatch table. Owns no numbers. */
#include "kernels.h"

#if defined(__aarch64__)

void lld_kernels_init_neon(lld_kernels *table)
{
    table->name = "neon";
}

#endif
