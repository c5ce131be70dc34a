/* generic.h - the parts of the generic kernel set, which vector.c joins. */
#ifndef LLD_KERNELS_GENERIC_H
#define LLD_KERNELS_GENERIC_H

#include "kernels/kernels.h"

void lld_kernels_init_generic_matmul(lld_kernels *table);
void lld_kernels_init_generic_attention(lld_kernels *table);
void lld_kernels_init_generic_kv_q4(lld_kernels *table);
void lld_kernels_init_generic_state(lld_kernels *table);

#endif
