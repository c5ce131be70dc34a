/* quantize_search.c - see quantize_search.h.
 *
 * Both searches start LANES fits around the one that spans the group exactly and move each by
 * Lloyd's iteration (Lloyd 1982): nearest levels, then the least-squares scale (and offset) for
 * them, which never makes the error larger. The sums of a lane run over the group in order. */
#include "quantize_search.h"

#include <math.h>

#define LANES LLD_SEARCH_LANES
#define INLINE static inline __attribute__((always_inline))

enum { PASSES = 2 }; /* Lloyd steps of each lane; a third gains less than 0.1 % */

/* Below this the scale of a group rounds to a float16 zero whatever its levels. */
static const float TINY = 0x1p-26f;

typedef struct {
    float inverse[LANES], offset[LANES]; /* t = (x - offset) * inverse: which level is nearest */
} trials;

typedef struct {
    float q[LANES], qq[LANES], qx[LANES]; /* sums of w*q, w*q*q, w*q*x */
} sums;

/* ---- levels ---------------------------------------------------------------------------------- */

INLINE void to_levels(const lld_levels *levels, const float *t, float *q)
{
    if (levels->table == NULL) {
        const float lo = levels->lo, hi = levels->hi;
        for (size_t c = 0; c < LANES; c++) {
            float u = t[c] > lo ? t[c] : lo;
            u = u < hi ? u : hi;
            q[c] = lld_round_small(u);
        }
        return;
    }
    for (size_t c = 0; c < LANES; c++)
        q[c] = levels->lo;
    for (int k = 1; k < 16; k++) { /* one step up for each border that lies below */
        const float step = (float)(levels->table[k] - levels->table[k - 1]);
        const float border = (float)levels->table[k] - 0.5f * step;
        for (size_t c = 0; c < LANES; c++)
            q[c] += t[c] > border ? step : 0.0f;
    }
}

INLINE void accumulate(const float *x, const float *w, size_t n, const lld_levels *levels,
                       const trials *trial, sums *out)
{
    sums s = {0};
    for (size_t i = 0; i < n; i++) {
        float t[LANES], q[LANES];
        for (size_t c = 0; c < LANES; c++)
            t[c] = (x[i] - trial->offset[c]) * trial->inverse[c];
        to_levels(levels, t, q);
        for (size_t c = 0; c < LANES; c++) {
            const float wq = w[i] * q[c];
            s.q[c] += wq;
            s.qq[c] += wq * q[c];
            s.qx[c] += wq * x[i];
        }
    }
    *out = s;
}

/* ---- scale alone ----------------------------------------------------------------------------- */

INLINE float search_scale(const float *x, const float *w, size_t n, const lld_levels *levels)
{
    float extreme = 0.0f;
    for (size_t i = 0; i < n; i++)
        extreme = fabsf(x[i]) > fabsf(extreme) ? x[i] : extreme;
    if (fabsf(extreme) < TINY)
        return 0.0f;

    /* Half the lanes put the extreme weight at the lowest level, half at the highest: around them
     * from 15 % beyond the level (which clips it) to 10 % within. */
    trials trial = {.offset = {0}};
    for (int c = 0; c < LANES; c++) {
        const float level = c % 2 == 0 ? levels->lo : levels->hi;
        const float slack = 0.5f / fabsf(level) + 0.05f;
        trial.inverse[c] = level * (1.0f + slack * (float)(c / 2 - 3) / 4.0f) / extreme;
    }
    float best = extreme / levels->lo, best_gain = 0.0f;
    for (int pass = 0; pass < PASSES; pass++) {
        sums s;
        accumulate(x, w, n, levels, &trial, &s);
        for (size_t c = 0; c < LANES; c++) {
            if (s.qq[c] <= 0.0f || s.qx[c] == 0.0f)
                continue;
            const float scale = s.qx[c] / s.qq[c], gain = s.qx[c] * scale;
            if (gain > best_gain) {
                best_gain = gain;
                best = scale;
            }
            trial.inverse[c] = fabsf(scale) < TINY ? trial.inverse[c] : 1.0f / scale;
        }
    }
    return best;
}

float lld_search_scale(const float *x, const float *w, size_t n, const lld_levels *levels)
{
    if (levels->table != NULL)
        return search_scale(x, w, n, levels);
    const lld_levels integers = {levels->lo, levels->hi, NULL}; /* compiled without the table */
    return search_scale(x, w, n, &integers);
}

/* ---- scale and offset ------------------------------------------------------------------------ */

/* The least-squares fit of lane c to its levels; offset at most `limit`. False: the levels are all
 * equal, and say nothing about the scale. *error lacks the sum of w*x*x, which all lanes share. */
static bool solve(const sums *s, size_t c, float sum_w, float sum_wx, float limit, lld_fit *fit,
                  float *error)
{
    const float q = s->q[c], qq = s->qq[c], qx = s->qx[c];
    const float determinant = sum_w * qq - q * q;
    if (!(determinant > 1e-6f * sum_w * qq))
        return false;
    float scale = (sum_w * qx - sum_wx * q) / determinant;
    float offset = (sum_wx * qq - q * qx) / determinant;
    if (offset > limit) {
        offset = limit;
        scale = (qx - offset * q) / qq;
    }
    if (!(scale > TINY / 64.0f))
        return false;
    *fit = (lld_fit){scale, offset};
    *error = scale * (scale * qq + 2.0f * (offset * q - qx)) +
             offset * (offset * sum_w - 2.0f * sum_wx);
    return true;
}

lld_fit lld_search_affine(const float *x, const float *w, size_t n, const lld_levels *levels,
                          bool any_offset)
{
    float lo = x[0], hi = x[0];
    for (size_t i = 1; i < n; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    if (!any_offset && lo > 0.0f)
        lo = 0.0f;
    if (hi - lo < TINY)
        return (lld_fit){0.0f, lo};

    float above[LLD_SEARCH_MAX]; /* measured from lo, so that a large offset costs no precision */
    float sum_w = 0.0f, sum_wx = 0.0f;
    for (size_t i = 0; i < n; i++) {
        above[i] = x[i] - lo;
        sum_w += w[i];
        sum_wx += w[i] * above[i];
    }
    const lld_levels integers = {0.0f, levels->hi, NULL};
    trials trial = {.offset = {0}};
    for (int c = 0; c < LANES; c++) /* 1.1 levels fewer to 1.1 more than span the group */
        trial.inverse[c] = (levels->hi + 1.1f * ((float)c - 7.5f) / 7.5f) / (hi - lo);

    lld_fit best = {(hi - lo) / levels->hi, 0.0f};
    float best_error = INFINITY;
    for (int pass = 0; pass < PASSES; pass++) {
        sums s;
        accumulate(above, w, n, &integers, &trial, &s);
        for (size_t c = 0; c < LANES; c++) {
            lld_fit fit;
            float error;
            if (!solve(&s, c, sum_w, sum_wx, any_offset ? INFINITY : -lo, &fit, &error))
                continue;
            if (error < best_error) {
                best_error = error;
                best = fit;
            }
            trial.inverse[c] = 1.0f / fit.scale;
            trial.offset[c] = fit.offset;
        }
    }
    return (lld_fit){best.scale, best.offset + lo};
}

/* ---- given fits ------------------------------------------------------------------------------ */

static float inverse_of(float scale)
{
    return fabsf(scale) < 0x1p-100f ? 0.0f : 1.0f / scale;
}

INLINE size_t choose(const float *x, const float *w, size_t n, const lld_levels *levels,
                     const lld_scale_candidates *candidates, float *error)
{
    float inverse[LANES], errors[LANES] = {0};
    for (size_t c = 0; c < LANES; c++)
        inverse[c] = inverse_of(candidates->scale[c]);
    for (size_t i = 0; i < n; i++) {
        float t[LANES], q[LANES];
        for (size_t c = 0; c < LANES; c++)
            t[c] = (x[i] - candidates->offset[c]) * inverse[c];
        to_levels(levels, t, q);
        for (size_t c = 0; c < LANES; c++) {
            const float e = x[i] - candidates->offset[c] - candidates->scale[c] * q[c];
            errors[c] += w[i] * e * e;
        }
    }
    size_t best = 0;
    for (size_t c = 1; c < LANES; c++)
        best = errors[c] < errors[best] ? c : best;
    *error = errors[best];
    return best;
}

size_t lld_search_choose(const float *x, const float *w, size_t n, const lld_levels *levels,
                         const lld_scale_candidates *candidates, float *error)
{
    if (levels->table != NULL)
        return choose(x, w, n, levels, candidates, error);
    const lld_levels integers = {levels->lo, levels->hi, NULL};
    return choose(x, w, n, &integers, candidates, error);
}

void lld_search_levels(const float *x, size_t n, const lld_levels *levels, lld_fit fit, int8_t *q)
{
    const float inverse = inverse_of(fit.scale);
    for (size_t i = 0; i < n; i += LANES) { /* here the lanes are weights; n is a multiple */
        float t[LANES], level[LANES];
        for (size_t c = 0; c < LANES; c++)
            t[c] = (x[i + c] - fit.offset) * inverse;
        to_levels(levels, t, level);
        for (size_t c = 0; c < LANES; c++)
            q[i + c] = (int8_t)level[c];
    }
}
