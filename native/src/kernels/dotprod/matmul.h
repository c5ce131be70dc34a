/* matmul.h - what the two dotprod (armv8.2) matmul files share. Every function that uses
 * SDOT carries LLD_DOTPROD: the rest of the program stays armv8.0, so that a CPU without the
 * instruction never meets it. Row groups and unpacking are those of NEON. */
#ifndef LLD_MATMUL_DOTPROD_H
#define LLD_MATMUL_DOTPROD_H

#if defined(__aarch64__)

#include "kernels/neon/formats.h"

#define LLD_DOTPROD __attribute__((target("arch=armv8.2-a+dotprod")))

/* From this many columns on, packing eight rows into a panel pays. */
enum { LLD_PANEL_MIN_COLUMNS = 4 };

/* The product of a type's weights, from panels of eight rows packed into scratch. */
void lld_dotprod_panels(uint32_t type, const lld_matmul *m);

/* Fill the table's entries of the quantized formats. */
void lld_dotprod_init_matmul(lld_kernels *table);
void lld_dotprod_init_bits(lld_kernels *table);

#endif
#endif
