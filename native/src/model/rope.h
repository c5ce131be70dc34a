/* rope.h - rotary position embedding: frequencies, their scaling, and (cos, sin) of a position.
 * RoFormer (arXiv 2104.09864, section 3.4.2); linear scaling (arXiv 2306.15595); YaRN (arXiv
 * 2309.00071, section 3); Llama 3.1's scaling by wavelength. The rotation itself is a kernel. */
#ifndef LLD_ROPE_H
#define LLD_ROPE_H

#include "model/config.h"

/* Angle per position of each pair, scaling applied. factors: (n_rot/2) divisors or NULL.
 * frequencies: (n_rot/2) radians a token. Returns the factor of cos and sin. */
float lld_rope_frequencies(const lld_config *config, const float *factors, double *frequencies);

/* The same of layers with a RoPE base of their own (local_rope_base), which nothing scales.
 * frequencies: (local_n_rot/2). */
void lld_rope_local_frequencies(const lld_config *config, double *frequencies);

/* RoPE tables of a model: 1, or 2 where local layers have their own. */
static inline uint32_t lld_rope_tables(const lld_config *c)
{
    return c->local_rope_base > 0.0f ? 2 : 1;
}

/* Elements of each of them: of the longer one. */
static inline uint32_t lld_rope_stride(const lld_config *c)
{
    return c->n_rot > c->local_n_rot ? c->n_rot : c->local_n_rot;
}

/* cos_sin: (n_rot/2) pairs (cos, sin) of one position, computed in double and rounded once. */
void lld_rope_table(const double *frequencies, uint32_t n_rot, float magnitude, uint32_t position,
                    float *cos_sin);

#endif
