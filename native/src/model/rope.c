/* rope.c - see rope.h. */
#include "model/rope.h"

#include <math.h>

#include "base/elementary.h"

static const double TWO_PI = 6.283185307179586476925;

/* The pair index at which a head of n_rot dims makes `rotations` turns over n_ctx tokens (YaRN, eq.
 * 17 solved for the dim). */
static double yarn_pair(const lld_config *c, double rotations)
{
    return c->n_rot * lld_log(c->scaling_original_ctx / (rotations * TWO_PI)) /
           (2.0 * lld_log(c->rope_base));
}

/* 1 where a pair turns often enough to be left alone, 0 where it is fully interpolated. */
static double yarn_extrapolation(const lld_config *c, uint32_t pair)
{
    const bool splits = c->architecture->facts.splits_yarn_pairs;
    double low = yarn_pair(c, c->yarn_beta_fast), high = yarn_pair(c, c->yarn_beta_slow);
    low = fmax(0.0, splits ? low : floor(low));
    high = fmin(c->n_rot - 1.0, splits ? high : ceil(high));
    double ramp = (pair - low) / fmax(0.001, high - low);
    return 1.0 - fmin(1.0, fmax(0.0, ramp));
}

/* Llama 3.1: short wavelengths stay, long ones are divided by the factor, smoothly between. */
static double llama3_frequency(const lld_config *c, double frequency)
{
    double wavelength = TWO_PI / frequency;
    double longest_kept = c->scaling_original_ctx / (double)c->llama3_high_frequency;
    double shortest_scaled = c->scaling_original_ctx / (double)c->llama3_low_frequency;
    if (wavelength < longest_kept) return frequency;
    if (wavelength > shortest_scaled) return frequency / c->scaling_factor;
    double smooth = (c->scaling_original_ctx / wavelength - c->llama3_low_frequency) /
                    ((double)c->llama3_high_frequency - c->llama3_low_frequency);
    return (1.0 - smooth) * frequency / c->scaling_factor + smooth * frequency;
}

float lld_rope_frequencies(const lld_config *c, const float *factors, double *frequencies)
{
    double magnitude = c->rope_attention_factor;
    for (uint32_t i = 0; i < c->n_rot / 2; i++) {
        double f = lld_pow(c->rope_base, -2.0 * i / c->n_rot);
        if (factors != NULL) f /= factors[i];
        if (c->scaling == LLD_SCALING_LINEAR) {
            f /= c->scaling_factor;
        } else if (c->scaling == LLD_SCALING_LLAMA3) {
            f = factors != NULL
                    ? f
                    : llama3_frequency(c, f); /* the factors are this scaling, precomputed */
        } else if (c->scaling == LLD_SCALING_YARN) {
            double keep = yarn_extrapolation(c, i);
            f = f * keep + f / c->scaling_factor * (1.0 - keep);
        }
        frequencies[i] = f;
    }
    if (c->scaling == LLD_SCALING_YARN) magnitude *= c->yarn_magnitude;
    return (float)magnitude;
}

void lld_rope_local_frequencies(const lld_config *c, double *frequencies)
{
    for (uint32_t i = 0; i < c->local_n_rot / 2; i++)
        frequencies[i] = lld_pow(c->local_rope_base, -2.0 * i / c->local_n_rot);
}

void lld_rope_table(const double *frequencies, uint32_t n_rot, float magnitude, uint32_t position,
                    float *cos_sin)
{
    for (uint32_t i = 0; i < n_rot / 2; i++) {
        double sine, cosine;
        lld_sincos(frequencies[i] * position, &sine, &cosine);
        cos_sin[2 * i] = (float)(cosine * magnitude);
        cos_sin[2 * i + 1] = (float)(sine * magnitude);
    }
}
