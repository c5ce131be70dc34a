/* search_body.h - the searches of search.h, inlined into one file an instruction set.
 *
 * Both searches start from the fit that spans the group exactly, and from others around it; each lane
 * takes the nearest levels under its start and then the least-squares scale (and offset) for those
 * levels. The sums of a lane run over the group in order; nothing here may be contracted to FMA. */
#ifndef LLD_QUANTIZE_SEARCH_BODY_H
#define LLD_QUANTIZE_SEARCH_BODY_H

#include <math.h>

#include "quantize/search.h"

#define LANES  LLD_SEARCH_LANES
#define INLINE static inline __attribute__((always_inline, unused))

/* Unrolled before it is vectorized, a loop over lanes becomes shuffles: keep it a loop. */
#define LANES_LOOP _Pragma("GCC unroll 1")

/* Below this the scale of a group rounds to a float16 zero whatever its levels. */
#define TINY 0x1p-26f

typedef struct {
    float inverse[LANES], offset[LANES]; /* t = (x - offset) * inverse: which level is nearest */
} search_starts;

typedef struct {
    float q[LANES], qq[LANES], qx[LANES]; /* sums of w*q, w*q*q, w*q*x */
} search_sums;

INLINE float magnitude(float x) { return x < 0.0f ? -x : x; }

INLINE float inverse_of(float scale) { return magnitude(scale) < 0x1p-100f ? 0.0f : 1.0f / scale; }

/* ---- levels ---------------------------------------------------------------------------------- */

INLINE float to_level(const lld_levels *levels, float t)
{
    if (levels->table == NULL) {
        t = t > levels->lo ? t : levels->lo;
        return lld_round_small(t < levels->hi ? t : levels->hi);
    }
    float q = levels->lo;
#pragma GCC unroll 15
    for (int k = 1; k < 16; k++) { /* one step up for each border that lies below */
        const float step = (float)(levels->table[k] - levels->table[k - 1]);
        q += t > (float)levels->table[k] - 0.5f * step ? step : 0.0f;
    }
    return q;
}

INLINE void nearest_levels(const float *x, size_t n, const lld_levels *levels, lld_fit fit,
                           int8_t *q)
{
    const float inverse = inverse_of(fit.scale);
    for (size_t i = 0; i < n; i += LANES) { /* here the lanes are weights */
        LANES_LOOP
        for (size_t c = 0; c < LANES; c++)
            q[i + c] = (int8_t)to_level(levels, (x[i + c] - fit.offset) * inverse);
    }
}

INLINE void accumulate(const float *x, const float *w, size_t n, const lld_levels *levels,
                       const search_starts *starts, search_sums *out)
{
    search_sums s = {0};
    for (size_t i = 0; i < n; i++) {
        LANES_LOOP
        for (size_t c = 0; c < LANES; c++) {
            const float q = to_level(levels, (x[i] - starts->offset[c]) * starts->inverse[c]);
            const float wq = w[i] * q;
            s.q[c] += wq;
            s.qq[c] += wq * q;
            s.qx[c] += wq * x[i];
        }
    }
    *out = s;
}

/* ---- scale alone ----------------------------------------------------------------------------- */

INLINE float best_scale(const float *x, const float *w, size_t n, const lld_levels *levels)
{
    float extreme = 0.0f;
    for (size_t i = 0; i < n; i++) extreme = magnitude(x[i]) > magnitude(extreme) ? x[i] : extreme;
    if (magnitude(extreme) < TINY) return 0.0f;

    /* Half the lanes put the extreme weight near the lowest level, half near the highest. */
    search_starts starts = {.offset = {0}};
    for (int c = 0; c < LANES; c++) {
        const float level = c % 2 == 0 ? levels->lo : levels->hi;
        const float slack = 0.5f / magnitude(level) + 0.05f;
        starts.inverse[c] = level * (1.0f + slack * (float)(c / 2 - 3) / 4.0f) / extreme;
    }
    search_sums s;
    accumulate(x, w, n, levels, &starts, &s);
    float best = extreme / levels->lo, best_gain = 0.0f;
    for (size_t c = 0; c < LANES; c++) {
        const float scale = s.qq[c] > 0.0f ? s.qx[c] / s.qq[c] : 0.0f, gain = s.qx[c] * scale;
        if (gain > best_gain) {
            best_gain = gain;
            best = scale;
        }
    }
    return best;
}

/* ---- scale and offset ------------------------------------------------------------------------ */

/* The least-squares fit of lane c to its levels; offset at most `limit`. False: the levels are all
 * equal, and say nothing about the scale. *error lacks the sum of w*x*x, which all lanes share. */
INLINE bool solve(const search_sums *s, size_t c, float sum_w, float sum_wx, float limit,
                  lld_fit *fit, float *error)
{
    const float q = s->q[c], qq = s->qq[c], qx = s->qx[c];
    const float determinant = sum_w * qq - q * q;
    if (!(determinant > 1e-6f * sum_w * qq)) return false;
    float scale = (sum_w * qx - sum_wx * q) / determinant;
    float offset = (sum_wx * qq - q * qx) / determinant;
    if (offset > limit) {
        offset = limit;
        scale = (qx - offset * q) / qq;
    }
    if (!(scale > 0.0f)) return false;
    *fit = (lld_fit){scale, offset};
    *error =
        scale * (scale * qq + 2.0f * (offset * q - qx)) + offset * (offset * sum_w - 2.0f * sum_wx);
    return true;
}

INLINE lld_fit best_affine(const float *x, const float *w, size_t n, const lld_levels *levels,
                           bool any_offset)
{
    float lo = x[0], hi = x[0];
    for (size_t i = 1; i < n; i++) {
        lo = x[i] < lo ? x[i] : lo;
        hi = x[i] > hi ? x[i] : hi;
    }
    if (!any_offset && lo > 0.0f) lo = 0.0f;
    if (hi - lo < TINY) return (lld_fit){0.0f, lo};

    float above[LLD_SEARCH_MAX]; /* measured from lo, so that a large offset costs no precision */
    float sum_w = 0.0f, sum_wx = 0.0f;
    for (size_t i = 0; i < n; i++) {
        above[i] = x[i] - lo;
        sum_w += w[i];
        sum_wx += w[i] * above[i];
    }
    search_starts starts = {.offset = {0}};
    for (int c = 0; c < LANES; c++) /* 1.1 levels fewer to 1.1 more than span the group */
        starts.inverse[c] = (levels->hi + 1.1f * ((float)c - 7.5f) / 7.5f) / (hi - lo);
    search_sums s;
    accumulate(above, w, n, levels, &starts, &s);
    lld_fit best = {(hi - lo) / levels->hi, 0.0f};
    float best_error = INFINITY;
    for (size_t c = 0; c < LANES; c++) {
        lld_fit fit;
        float error;
        if (solve(&s, c, sum_w, sum_wx, any_offset ? INFINITY : -lo, &fit, &error) &&
            error < best_error) {
            best_error = error;
            best = fit;
        }
    }
    return (lld_fit){best.scale, best.offset + lo};
}

/* ---- given fits ------------------------------------------------------------------------------ */

INLINE size_t best_candidate(const float *x, const float *w, size_t n, const lld_levels *levels,
                             const lld_fit_candidates *candidates, float *error)
{
    float inverse[LANES], errors[LANES] = {0};
    for (size_t c = 0; c < LANES; c++) inverse[c] = inverse_of(candidates->scale[c]);
    for (size_t i = 0; i < n; i++) {
        LANES_LOOP
        for (size_t c = 0; c < LANES; c++) {
            const float above = x[i] - candidates->offset[c];
            const float e = above - candidates->scale[c] * to_level(levels, above * inverse[c]);
            errors[c] += w[i] * e * e;
        }
    }
    size_t best = 0;
    for (size_t c = 1; c < LANES; c++) best = errors[c] < errors[best] ? c : best;
    *error = errors[best];
    return best;
}

/* ---- one set of functions -------------------------------------------------------------------- */

/* Define `set` from the functions above, each compiled with `target`: once for integers, where the
 * compiler drops the table's loop, and once for a table. */
#define LLD_DEFINE_SEARCH(set, target)                                                             \
    target static float set##_scale(const float *x, const float *w, size_t n,                      \
                                    const lld_levels *levels)                                      \
    {                                                                                              \
        const lld_levels integers = {levels->lo, levels->hi, NULL};                                \
        return levels->table != NULL ? best_scale(x, w, n, levels)                                 \
                                     : best_scale(x, w, n, &integers);                             \
    }                                                                                              \
    target static lld_fit set##_affine(const float *x, const float *w, size_t n,                   \
                                       const lld_levels *levels, bool any_offset)                  \
    {                                                                                              \
        const lld_levels integers = {0.0f, levels->hi, NULL};                                      \
        return best_affine(x, w, n, &integers, any_offset);                                        \
    }                                                                                              \
    target static size_t set##_choose(const float *x, const float *w, size_t n,                    \
                                      const lld_levels *levels,                                    \
                                      const lld_fit_candidates *candidates, float *error)          \
    {                                                                                              \
        const lld_levels integers = {levels->lo, levels->hi, NULL};                                \
        return levels->table != NULL ? best_candidate(x, w, n, levels, candidates, error)          \
                                     : best_candidate(x, w, n, &integers, candidates, error);      \
    }                                                                                              \
    target static void set##_levels(const float *x, size_t n, const lld_levels *levels,            \
                                    lld_fit fit, int8_t *q)                                        \
    {                                                                                              \
        nearest_levels(x, n, levels, fit, q);                                                      \
    }                                                                                              \
    const lld_search set = {set##_scale, set##_affine, set##_choose, set##_levels}

#endif
