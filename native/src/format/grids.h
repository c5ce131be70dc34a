/* grids.h - the tables that blocks of IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS and IQ3_S point into. An entry is
 * eight (IQ2) or four (IQ3) magnitudes, one byte each, the first element in the lowest byte. Largest:
 * 43 (IQ2), 62 (IQ3_XXS), 15 (IQ3_S); none is 0. */
#ifndef LLD_GRIDS_H
#define LLD_GRIDS_H

#include <stdint.h>

extern const uint64_t lld_iq2_xxs_grid[256], lld_iq2_xs_grid[512], lld_iq2_s_grid[1024];
extern const uint32_t lld_iq3_xxs_grid[256], lld_iq3_s_grid[512];

/* The signs of eight weights, bit i set where weight i is negative, of the seven bits that IQ2_XXS,
 * IQ2_XS and IQ3_XXS store: the number of negative ones is even. */
extern const uint8_t lld_even_signs[128];
/* The same, and any eight signs, as bytes: 0xff where the weight is negative, else 0. */
extern const uint64_t lld_even_sign_masks[128], lld_sign_masks[256];

#endif
