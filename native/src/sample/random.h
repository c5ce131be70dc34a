/* random.h - the random numbers of a sequence: number i of a stream of a seed, without any state.
 *
 * Stream 0 draws tokens. Whoever else needs chance for the same token takes a stream of its own, so
 * that switching it on or off moves no other number. */
#ifndef LLD_RANDOM_H
#define LLD_RANDOM_H

#include <stdint.h>

enum { LLD_RANDOM_DRAW, LLD_RANDOM_XTC };

/* Random number `index` of a stream, uniform in [0, 1) with 53 bits. */
double lld_random(uint64_t seed, uint64_t stream, uint64_t index);

#endif
