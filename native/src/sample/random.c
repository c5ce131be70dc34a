/* random.c - counter-based random numbers (Salmon et al. 2011, "Parallel random numbers: as easy as
 * 1, 2, 3") by the mixing function of SplitMix64. */
#include "sample/random.h"

/* The output function of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
 * generators", figure 16). */
static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* Seed and stream are mixed first, so that neighbours share no stretch of numbers. */
double lld_random(uint64_t seed, uint64_t stream, uint64_t index)
{
    const uint64_t gamma = 0x9E3779B97F4A7C15u;
    uint64_t start = mix(seed + gamma);
    if (stream > 0) start = mix(start + stream * gamma);
    return (double)(mix(start + (index + 1) * gamma) >> 11) * 0x1p-53;
}
