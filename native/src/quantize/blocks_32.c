/* blocks_32.c - the formats with blocks of 32 weights: Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 IQ4_NL.
 *
 * Without importance the first five take their scale from the block's extremes, as their definition
 * in ggml does: the same scales, and the same levels but for ties. With importance, and for IQ4_NL
 * always, the scale is searched; Q8_0 has levels enough to need neither. Packing here is the inverse
 * of unpack.h. */
#include "quantize/quantize.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "quantize/search.h"

#define LARGEST_F16 65504.0f

/* What a block is quantized with: x ~ d*(q - zero) + m. */
typedef struct {
    uint16_t d, m;     /* float16 */
    uint8_t q[LLD_QK]; /* 0 .. the format's highest level; for Q8_0 two's complement */
} levels_32;

typedef struct {
    float lo, hi, extreme; /* extreme: the first weight of the largest magnitude */
} range_32;

static range_32 range_of(const float x[LLD_QK])
{
    enum { LANES = 8 }; /* independent lanes vectorize; one running minimum would not */
    float lo[LANES], hi[LANES];
    memcpy(lo, x, sizeof lo);
    memcpy(hi, x, sizeof hi);
    for (int i = LANES; i < LLD_QK; i += LANES)
        for (int c = 0; c < LANES; c++) {
            lo[c] = x[i + c] < lo[c] ? x[i + c] : lo[c];
            hi[c] = x[i + c] > hi[c] ? x[i + c] : hi[c];
        }
    for (int c = 1; c < LANES; c++) {
        lo[0] = lo[c] < lo[0] ? lo[c] : lo[0];
        hi[0] = hi[c] > hi[0] ? hi[c] : hi[0];
    }
    range_32 range = {lo[0], hi[0], hi[0] > -lo[0] ? hi[0] : lo[0]};
    for (int i = 0; hi[0] == -lo[0] && i < LLD_QK; i++)
        if (fabsf(x[i]) == hi[0]) {
            range.extreme = x[i];
            break;
        }
    return range;
}

/* 1/d, or 0 when d is a float16 zero, and then all levels are that of 0. */
static float inverse_of(float d) { return (lld_f32_to_f16(d) & 0x7FFF) == 0 ? 0.0f : 1.0f / d; }

/* Levels of (x - base) / d above `zero`, halves up. The level of the extreme weight may round past
 * the highest. */
static void round_levels(const float x[LLD_QK], float base, float inverse, float zero, int highest,
                         uint8_t q[LLD_QK])
{
    for (int i = 0; i < LLD_QK; i++) {
        const int level = (int)((x[i] - base) * inverse + (zero + 0.5f));
        q[i] = (uint8_t)(level > highest ? highest : level);
    }
}

/* ---- levels from the extremes: highest = 15 or 31 -------------------------------------------- */

static void symmetric_by_range(const float x[LLD_QK], int highest, levels_32 *out)
{
    const float zero = 0.5f * (float)(highest + 1);
    const float d = range_of(x).extreme / -zero;
    out->d = lld_f32_to_f16(d);
    round_levels(x, 0.0f, inverse_of(d), zero, highest, out->q);
}

static void affine_by_range(const float x[LLD_QK], int highest, levels_32 *out)
{
    const range_32 range = range_of(x);
    const float d = (range.hi - range.lo) / (float)highest;
    out->d = lld_f32_to_f16(d);
    out->m = lld_f32_to_f16(range.lo);
    round_levels(x, range.lo, inverse_of(d), 0.0f, highest, out->q);
}

static void eight_bits(const float x[LLD_QK], levels_32 *out)
{
    const float d = fabsf(range_of(x).extreme) / 127.0f, inverse = inverse_of(d);
    out->d = lld_f32_to_f16(d);
    for (int i = 0; i < LLD_QK; i++) out->q[i] = (uint8_t)(int8_t)lld_round_small(x[i] * inverse);
}

/* ---- levels by search ------------------------------------------------------------------------ */

static void symmetric_by_search(const lld_search *search, const float x[LLD_QK],
                                const float w[LLD_QK], int highest, levels_32 *out)
{
    const int zero = (highest + 1) / 2;
    const lld_levels levels = {(float)-zero, (float)(highest - zero), NULL};
    int8_t q[LLD_QK];
    out->d = lld_f32_to_f16(search->scale(x, w, LLD_QK, &levels));
    search->levels(x, LLD_QK, &levels, (lld_fit){lld_f16_to_f32(out->d), 0.0f}, q);
    for (int i = 0; i < LLD_QK; i++) out->q[i] = (uint8_t)(q[i] + zero);
}

static void affine_by_search(const lld_search *search, const float x[LLD_QK], const float w[LLD_QK],
                             int highest, levels_32 *out)
{
    const lld_levels levels = {0.0f, (float)highest, NULL};
    const lld_fit fit = search->affine(x, w, LLD_QK, &levels, true);
    out->d = lld_f32_to_f16(fit.scale);
    /* a fit may reach beyond the smallest weight, and that may be the largest float16 */
    out->m = lld_f32_to_f16(fminf(fmaxf(fit.offset, -LARGEST_F16), LARGEST_F16));
    int8_t q[LLD_QK];
    search->levels(x, LLD_QK, &levels, (lld_fit){lld_f16_to_f32(out->d), lld_f16_to_f32(out->m)},
                   q);
    memcpy(out->q, q, sizeof out->q);
}

static void table_by_search(const lld_search *search, const float x[LLD_QK], const float w[LLD_QK],
                            levels_32 *out)
{
    const lld_levels levels = {lld_iq4_values[0], lld_iq4_values[15], lld_iq4_values};
    int8_t q[LLD_QK];
    out->d = lld_f32_to_f16(search->scale(x, w, LLD_QK, &levels));
    search->levels(x, LLD_QK, &levels, (lld_fit){lld_f16_to_f32(out->d), 0.0f}, q);
    for (int i = 0; i < LLD_QK; i++) out->q[i] = lld_iq4_index(q[i]);
}

/* ---- packing: e = i is the low nibble of byte i, e = 16 + i the high one --------------------- */

static void pack_nibbles(const uint8_t q[LLD_QK], uint8_t qs[16])
{
    for (int i = 0; i < 16; i++) qs[i] = (uint8_t)((q[i] & 15) | (q[i + 16] << 4));
}

static void pack_fifth_bits(const uint8_t q[LLD_QK], uint8_t qh[4])
{
    uint32_t bits = 0;
    for (int i = 0; i < LLD_QK; i++) bits |= (uint32_t)(q[i] >> 4) << i;
    memcpy(qh, &bits, sizeof bits);
}

static void pack_q4_0(const levels_32 *levels, void *block)
{
    lld_block_q4_0 *b = block;
    b->d = levels->d;
    pack_nibbles(levels->q, b->qs);
}

static void pack_q4_1(const levels_32 *levels, void *block)
{
    lld_block_q4_1 *b = block;
    b->d = levels->d;
    b->m = levels->m;
    pack_nibbles(levels->q, b->qs);
}

static void pack_q5_0(const levels_32 *levels, void *block)
{
    lld_block_q5_0 *b = block;
    b->d = levels->d;
    pack_fifth_bits(levels->q, b->qh);
    pack_nibbles(levels->q, b->qs);
}

static void pack_q5_1(const levels_32 *levels, void *block)
{
    lld_block_q5_1 *b = block;
    b->d = levels->d;
    b->m = levels->m;
    pack_fifth_bits(levels->q, b->qh);
    pack_nibbles(levels->q, b->qs);
}

static void pack_q8_0(const levels_32 *levels, void *block)
{
    lld_block_q8_0 *b = block;
    b->d = levels->d;
    memcpy(b->qs, levels->q, sizeof b->qs);
}

_Static_assert(sizeof(lld_block_q4_0) == sizeof(lld_block_iq4_nl), "packed by the same function");

/* ---- the formats ------------------------------------------------------------------------------ */

typedef struct {
    enum {
        SYMMETRIC,
        AFFINE,
        EIGHT_BITS,
        TABLE
    } levels;    /* d*(q - zero), d*q + m, d*q, d*table[q] */
    int highest; /* level, of the first two */
    void (*pack)(const levels_32 *levels, void *block);
} format;

static const format formats[LLD_TYPE_COUNT] = {
    [LLD_Q4_0] = {SYMMETRIC, 15, pack_q4_0}, [LLD_Q4_1] = {AFFINE, 15, pack_q4_1},
    [LLD_Q5_0] = {SYMMETRIC, 31, pack_q5_0}, [LLD_Q5_1] = {AFFINE, 31, pack_q5_1},
    [LLD_Q8_0] = {EIGHT_BITS, 0, pack_q8_0}, [LLD_IQ4_NL] = {TABLE, 0, pack_q4_0},
};

/* w: NULL for the levels that the extremes give. */
static void find_levels(const lld_search *search, const format *f, const float x[LLD_QK],
                        const float *w, levels_32 *out)
{
    switch (f->levels) {
    case EIGHT_BITS:
        eight_bits(x, out);
        break;
    case TABLE:
        table_by_search(search, x, w, out);
        break;
    case SYMMETRIC:
        if (w == NULL)
            symmetric_by_range(x, f->highest, out);
        else
            symmetric_by_search(search, x, w, f->highest, out);
        break;
    case AFFINE:
        if (w == NULL)
            affine_by_range(x, f->highest, out);
        else
            affine_by_search(search, x, w, f->highest, out);
    }
}

void lld_quantize_row_32(const lld_search *search, uint32_t type, const float *x,
                         const float *importance, void *dst, size_t n)
{
    assert(lld_type_block(type) == LLD_QK && n % LLD_QK == 0);
    const size_t block_bytes = lld_type_block_bytes(type);
    const format *f = &formats[type];
    const bool searched = importance != NULL || f->levels == TABLE;
    for (size_t b = 0; b < n / LLD_QK; b++) {
        float w[LLD_QK];
        levels_32 levels;
        if (searched)
            lld_quantize_weights(importance == NULL ? NULL : importance + b * LLD_QK, w, LLD_QK);
        find_levels(search, f, x + b * LLD_QK, searched ? w : NULL, &levels);
        f->pack(&levels, (uint8_t *)dst + b * block_bytes);
    }
}
