/* blocks_256.c - the formats with blocks of 256 weights: Q2_K to Q6_K and IQ4_XS.
 *
 * One procedure for all: each group of 16 or 32 weights gets its own best scale (and min); the
 * block's float16 d and dmin follow from the largest; then, ROUNDS times, each group chooses among
 * the integer scales and mins near its best by the error they really make, and d and dmin are fitted
 * anew to all groups by least squares. The best round is kept. Packing is the inverse of unpack.h. */
#include "quantize/quantize.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "quantize/search.h"
#include "format/unpack.h"

enum { ROUNDS = 2, MAX_GROUPS = LLD_QK_K / 16 };

typedef struct {
    size_t group; /* weights that share a scale */
    lld_levels levels;
    int scale_lo, scale_hi; /* the integers that a group's scale may be */
    int min_hi;             /* likewise its min, from 0; 0: the format has none */
    void (*pack)(const lld_unpacked_k *u, void *block);
} format;

/* ---- packing --------------------------------------------------------------------------------- */

static void pack_2_bits(const int8_t q[256], int offset, uint8_t qs[64])
{
    memset(qs, 0, 64);
    for (int h = 0; h < 2; h++)
        for (int j = 0; j < 4; j++)
            for (int i = 0; i < 32; i++)
                qs[32 * h + i] |= (uint8_t)(((q[128 * h + 32 * j + i] + offset) & 3) << (2 * j));
}

static void pack_4_bits(const int8_t q[256], uint8_t qs[128])
{
    for (int g = 0; g < 4; g++)
        for (int i = 0; i < 32; i++)
            qs[32 * g + i] = (uint8_t)((q[64 * g + i] & 15) | (q[64 * g + 32 + i] & 15) << 4);
}

/* Bit `bit` of q + offset of element e = 32*j + i, into bit j of byte i. */
static void pack_high_bit(const int8_t q[256], int offset, int bit, uint8_t high[32])
{
    memset(high, 0, 32);
    for (int j = 0; j < 8; j++)
        for (int i = 0; i < 32; i++)
            high[i] |= (uint8_t)((((q[32 * j + i] + offset) >> bit) & 1) << j);
}

/* The inverse of lld_k4_scales; one scale and min for each 32 weights. */
static void pack_k4_scales(const lld_unpacked_k *u, uint8_t packed[12])
{
    for (int j = 0; j < 4; j++) {
        const int scale = u->scale[2 * j], min = u->min[2 * j];
        const int scale4 = u->scale[2 * j + 8], min4 = u->min[2 * j + 8];
        packed[j] = (uint8_t)(scale | scale4 >> 4 << 6);
        packed[j + 4] = (uint8_t)(min | min4 >> 4 << 6);
        packed[j + 8] = (uint8_t)((scale4 & 15) | (min4 & 15) << 4);
    }
}

static void pack_q2_k(const lld_unpacked_k *u, void *block)
{
    lld_block_q2_k *b = block;
    b->d = lld_f32_to_f16(u->d);
    b->dmin = lld_f32_to_f16(u->dmin);
    for (int j = 0; j < 16; j++) b->scales[j] = (uint8_t)(u->scale[j] | u->min[j] << 4);
    pack_2_bits(u->q, 0, b->qs);
}

static void pack_q3_k(const lld_unpacked_k *u, void *block)
{
    lld_block_q3_k *b = block;
    b->d = lld_f32_to_f16(u->d);
    memset(b->scales, 0, sizeof b->scales);
    for (int j = 0; j < 16; j++) { /* the inverse of lld_q3_scales */
        const int scale = u->scale[j] + 32;
        b->scales[j % 8] |= (uint8_t)((scale & 15) << (j / 8 * 4));
        b->scales[8 + j % 4] |= (uint8_t)((scale >> 4) << (j / 4 * 2));
    }
    pack_2_bits(u->q, 4, b->qs);
    pack_high_bit(u->q, 4, 2, b->hmask);
}

static void pack_q4_k(const lld_unpacked_k *u, void *block)
{
    lld_block_q4_k *b = block;
    b->d = lld_f32_to_f16(u->d);
    b->dmin = lld_f32_to_f16(u->dmin);
    pack_k4_scales(u, b->scales);
    pack_4_bits(u->q, b->qs);
}

static void pack_q5_k(const lld_unpacked_k *u, void *block)
{
    lld_block_q5_k *b = block;
    b->d = lld_f32_to_f16(u->d);
    b->dmin = lld_f32_to_f16(u->dmin);
    pack_k4_scales(u, b->scales);
    pack_4_bits(u->q, b->qs);
    pack_high_bit(u->q, 0, 4, b->qh);
}

static void pack_q6_k(const lld_unpacked_k *u, void *block)
{
    lld_block_q6_k *b = block;
    b->d = lld_f32_to_f16(u->d);
    memcpy(b->scales, u->scale, sizeof b->scales);
    memset(b->ql, 0, sizeof b->ql);
    memset(b->qh, 0, sizeof b->qh);
    for (int h = 0; h < 2; h++)
        for (int j = 0; j < 4; j++)
            for (int i = 0; i < 32; i++) {
                const int q = u->q[128 * h + 32 * j + i] + 32;
                b->ql[64 * h + 32 * (j % 2) + i] |= (uint8_t)((q & 15) << (j / 2 * 4));
                b->qh[32 * h + i] |= (uint8_t)((q >> 4) << (2 * j));
            }
}

static void pack_iq4_xs(const lld_unpacked_k *u, void *block)
{
    lld_block_iq4_xs *b = block;
    b->d = lld_f32_to_f16(u->d);
    b->scales_h = 0;
    memset(b->scales_l, 0, sizeof b->scales_l);
    for (int g = 0; g < 8; g++) {
        const int scale = u->scale[2 * g] + 32;
        b->scales_l[g / 2] |= (uint8_t)((scale & 15) << (g % 2 * 4));
        b->scales_h |= (uint16_t)((scale >> 4) << (2 * g));
        for (int i = 0; i < 16; i++)
            b->qs[16 * g + i] = (uint8_t)(lld_iq4_index(u->q[32 * g + i]) |
                                          lld_iq4_index(u->q[32 * g + 16 + i]) << 4);
    }
}

static const format formats[LLD_TYPE_COUNT] = {
    [LLD_Q2_K] = {16, {0, 3, NULL}, 0, 15, 15, pack_q2_k},
    [LLD_Q3_K] = {16, {-4, 3, NULL}, -32, 31, 0, pack_q3_k},
    [LLD_Q4_K] = {32, {0, 15, NULL}, 0, 63, 63, pack_q4_k},
    [LLD_Q5_K] = {32, {0, 31, NULL}, 0, 63, 63, pack_q5_k},
    [LLD_Q6_K] = {16, {-32, 31, NULL}, -128, 127, 0, pack_q6_k},
    [LLD_IQ4_XS] = {32, {-127, 113, lld_iq4_values}, -32, 31, 0, pack_iq4_xs},
};

/* ---- d and dmin ------------------------------------------------------------------------------ */

typedef struct {
    float d, dmin; /* values of float16 */
} super_scales;

static super_scales to_half(double d, double dmin)
{
    return (super_scales){lld_f16_to_f32(lld_f32_to_f16((float)d)),
                          lld_f16_to_f32(lld_f32_to_f16((float)dmin))};
}

/* d and dmin with which the largest scale and min are the largest integers. */
static super_scales first_scales(const format *f, const lld_fit *fits, size_t n_groups)
{
    float scale = 0.0f, min = 0.0f;
    for (size_t g = 0; g < n_groups; g++) {
        scale = fabsf(fits[g].scale) > fabsf(scale) ? fits[g].scale : scale;
        min = -fits[g].offset > min ? -fits[g].offset : min;
    }
    if (f->min_hi == 0) /* signed scales: one more integer below zero than above */
        return to_half((double)scale / f->scale_lo, 0.0);
    return to_half((double)scale / f->scale_hi, (double)min / f->min_hi);
}

/* Sums for the least-squares d and dmin of x ~ d*a - dmin*b, a = scale*q, b = min of the group. */
typedef struct {
    double aa, ab, bb, xa, xb;
} normal_equations;

static void add_group(normal_equations *sums, const float *x, const float *w, size_t n, int scale,
                      int min, const int8_t *q)
{
    float w_sum = 0.0f, wx = 0.0f, wq = 0.0f, wqq = 0.0f, wqx = 0.0f;
    for (size_t i = 0; i < n; i++) {
        const float weighted = w[i] * (float)q[i];
        w_sum += w[i];
        wx += w[i] * x[i];
        wq += weighted;
        wqq += weighted * (float)q[i];
        wqx += weighted * x[i];
    }
    sums->aa += (double)wqq * scale * scale;
    sums->ab += (double)wq * scale * min;
    sums->bb += (double)w_sum * min * min;
    sums->xa += (double)wqx * scale;
    sums->xb += (double)wx * min;
}

/* The solution, or `old` where the sums determine none. */
static super_scales refit(const normal_equations *s, super_scales old)
{
    const double determinant = s->aa * s->bb - s->ab * s->ab;
    double d = s->xa, dmin = 0.0;
    if (determinant > 1e-9 * s->aa * s->bb) {
        d = (s->xa * s->bb - s->xb * s->ab) / determinant;
        dmin = (s->xa * s->ab - s->xb * s->aa) / determinant;
    } else if (s->bb == 0.0 && s->aa > 0.0) {
        d = s->xa / s->aa;
    } else {
        return old;
    }
    if (!(fabs(d) < 65504.0 && dmin >= 0.0 && dmin < 65504.0)) return old;
    return to_half(d, dmin);
}

/* ---- one block ------------------------------------------------------------------------------- */

static int clamp(int value, int lo, int hi) { return value < lo ? lo : value > hi ? hi : value; }

/* The integer at or below value / unit, in lo .. hi; 0 for a unit of 0. */
static int floor_ratio(float value, float unit, int lo, int hi)
{
    if (unit == 0.0f) return 0;
    const float ratio = floorf(value / unit);
    return ratio <= (float)lo ? lo : ratio >= (float)hi ? hi : (int)ratio;
}

/* The integer scales and mins that lane c stands for: with mins 4 by 4 around the group's best, else
 * 8 around it and 8 around its negative. */
static void propose(const format *f, lld_fit fit, super_scales super, int scales[LLD_SEARCH_LANES],
                    int mins[LLD_SEARCH_LANES], lld_fit_candidates *candidates)
{
    const int scale = floor_ratio(fit.scale, super.d, f->scale_lo, f->scale_hi);
    const int min = f->min_hi == 0 ? 0 : floor_ratio(-fit.offset, super.dmin, 0, f->min_hi);
    for (int c = 0; c < LLD_SEARCH_LANES; c++) {
        int near = f->min_hi == 0 ? scale + c / 2 - 3 : scale + c % 4 - 1;
        if (f->min_hi == 0 && c % 2 == 1) near = -near;
        scales[c] = clamp(near, f->scale_lo, f->scale_hi);
        mins[c] = clamp(min + c / 4 - 1, 0, f->min_hi);
        candidates->scale[c] = super.d * (float)scales[c];
        candidates->offset[c] = -(super.dmin * (float)mins[c]);
    }
}

/* Quantize every group with given d and dmin; return the error and the sums for their next fit. */
static double quantize_groups(const lld_search *search, const format *f, const float *x,
                              const float *w, const lld_fit *fits, super_scales super,
                              lld_unpacked_k *u, normal_equations *sums)
{
    double total = 0.0;
    *sums = (normal_equations){0};
    u->d = super.d;
    u->dmin = super.dmin;
    for (size_t g = 0; g < LLD_QK_K / f->group; g++) {
        const float *xg = x + g * f->group, *wg = w + g * f->group;
        int8_t *q = u->q + g * f->group;
        int scales[LLD_SEARCH_LANES], mins[LLD_SEARCH_LANES];
        lld_fit_candidates candidates;
        float error;
        propose(f, fits[g], super, scales, mins, &candidates);
        const size_t c = search->choose(xg, wg, f->group, &f->levels, &candidates, &error);
        const lld_fit chosen = {candidates.scale[c], candidates.offset[c]};
        search->levels(xg, f->group, &f->levels, chosen, q);
        add_group(sums, xg, wg, f->group, scales[c], mins[c], q);
        total += (double)error;
        for (size_t j = g * f->group / 16; j < (g + 1) * f->group / 16; j++) {
            u->scale[j] = (int8_t)scales[c];
            u->min[j] = (uint8_t)mins[c];
        }
    }
    return total;
}

static void quantize_block(const lld_search *search, const format *f, const float *x,
                           const float *w, lld_unpacked_k *best)
{
    lld_fit fits[MAX_GROUPS];
    const size_t n_groups = LLD_QK_K / f->group;
    for (size_t g = 0; g < n_groups; g++) {
        const float *xg = x + g * f->group, *wg = w + g * f->group;
        fits[g] = f->min_hi == 0 ? (lld_fit){search->scale(xg, wg, f->group, &f->levels), 0.0f}
                                 : search->affine(xg, wg, f->group, &f->levels, false);
    }
    super_scales super = first_scales(f, fits, n_groups);
    double least = INFINITY;
    for (int round = 0; round < ROUNDS; round++) {
        lld_unpacked_k u;
        normal_equations sums;
        const double error = quantize_groups(search, f, x, w, fits, super, &u, &sums);
        if (error < least) {
            least = error;
            *best = u;
        }
        const super_scales next = refit(&sums, super);
        if (next.d == super.d && next.dmin == super.dmin) break;
        super = next;
    }
}

void lld_quantize_row_256(const lld_search *search, uint32_t type, const float *x,
                          const float *importance, void *dst, size_t n)
{
    assert(lld_type_block(type) == LLD_QK_K && n % LLD_QK_K == 0);
    const format *f = &formats[type];
    for (size_t b = 0; b < n / LLD_QK_K; b++) {
        float w[LLD_QK_K];
        lld_unpacked_k u;
        lld_quantize_weights(importance == NULL ? NULL : importance + b * LLD_QK_K, w, LLD_QK_K);
        quantize_block(search, f, x + b * LLD_QK_K, w, &u);
        f->pack(&u, (uint8_t *)dst + b * lld_type_block_bytes(type));
    }
}
