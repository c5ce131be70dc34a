/* test_format.c - block formats: half precision exhaustively, packed scales, and every format's
 * dequantization against a second reading of its layout, written here element by element.
 * tests/engine/test_dequantize.py compares the same code with the `gguf` package. */
#include "format/format.h"
#include "format/unpack.h"

#include <math.h>
#include <string.h>

#include "check.h"
#include "llamad_engine.h"

static bool same_bits(float a, float b)
{
    return memcmp(&a, &b, sizeof a) == 0 || (isnan(a) && isnan(b));
}

/* ---- half precision -------------------------------------------------------------------------- */

/* The value of a half from its definition (IEEE 754-2008, 3.4). */
static double half_value(uint16_t h)
{
    int exponent = (h >> 10) & 31, fraction = h & 1023;
    double magnitude = exponent == 0    ? ldexp(fraction, -24)
                       : exponent == 31 ? (fraction == 0 ? (double)INFINITY : (double)NAN)
                                        : ldexp(1024 + fraction, exponent - 25);
    return h & 0x8000 ? -magnitude : magnitude;
}

static void test_every_half_converts_exactly_and_back(void)
{
    for (uint32_t h = 0; h < 65536; h++) {
        float f = lld_f16_to_f32((uint16_t)h);
        CHECK(same_bits(f, (float)half_value((uint16_t)h)), "half %04x is %a", h, (double)f);
        CHECK(!signbit(f) == !(h & 0x8000), "half %04x: sign", h);
        if (!isnan(f))
            CHECK(lld_f32_to_f16(f) == h, "half %04x comes back as %04x", h, lld_f32_to_f16(f));
        else
            CHECK(isnan(lld_f16_to_f32(lld_f32_to_f16(f))), "NaN %04x does not stay one", h);
    }
}

/* f must become the nearest half, and of two equally near the even one. */
static void check_rounding(float f)
{
    uint16_t h = lld_f32_to_f16(f), magnitude = h & 0x7FFF;
    double exact = fabs((double)f);
    CHECK((h >> 15) == (signbit(f) ? 1 : 0), "%a: sign", (double)f);
    if (magnitude == 0x7C00) { /* 65520 is half a step above the largest half */
        CHECK(exact >= 65520.0, "%a became infinite", (double)f);
        return;
    }
    double error = fabs(exact - half_value(magnitude));
    uint16_t below = magnitude == 0 ? 0 : (uint16_t)(magnitude - 1);
    uint16_t neighbours[2] = {(uint16_t)(magnitude + 1), below};
    for (int i = 0; i < 2; i++) {
        double value = neighbours[i] == 0x7C00 ? 65536.0 : half_value(neighbours[i]);
        double other = fabs(exact - value);
        bool tie_to_odd = other == error && neighbours[i] != magnitude && (magnitude & 1);
        CHECK(error <= other && !tie_to_odd, "%a became half %04x, not %04x", (double)f, magnitude,
              neighbours[i]);
    }
}

static void test_float_to_half_rounds_to_nearest_even(void)
{
    uint64_t seed = 1;
    for (uint16_t h = 0; h < 0x7C00; h++) { /* around every border between two halves */
        double next = h == 0x7BFF ? 65536.0 : half_value((uint16_t)(h + 1));
        float middle = (float)((half_value(h) + next) / 2);
        check_rounding(middle);
        check_rounding(-middle);
        check_rounding(nextafterf(middle, 0.0f));
        check_rounding(nextafterf(middle, INFINITY));
    }
    for (int i = 0; i < 20000; i++) {
        uint32_t bits = (uint32_t)check_random(&seed);
        float f;
        memcpy(&f, &bits, sizeof f);
        if (!isnan(f)) check_rounding(f);
    }
    CHECK(lld_f32_to_f16(INFINITY) == 0x7C00 && lld_f32_to_f16(-INFINITY) == 0xFC00, "infinities");
}

/* ---- formats --------------------------------------------------------------------------------- */

static int bits(const uint8_t *bytes, int shift, int mask) { return (*bytes >> shift) & mask; }

static float half_at(const uint8_t *bytes)
{
    return (float)half_value((uint16_t)(bytes[0] | bytes[1] << 8));
}

/* Scale and min number j of Q4_K and Q5_K: 6 bits each in 12 bytes. */
static int k4_scale(const uint8_t *s, int j)
{
    return j < 4 ? bits(s + j, 0, 63) : bits(s + j + 4, 0, 15) + 16 * bits(s + j - 4, 6, 3);
}

static int k4_min(const uint8_t *s, int j)
{
    return j < 4 ? bits(s + j + 4, 0, 63) : bits(s + j + 4, 4, 15) + 16 * bits(s + j, 6, 3);
}

static int q3_scale(const uint8_t *s, int j)
{
    return bits(s + j % 8, j / 8 * 4, 15) + 16 * bits(s + 8 + j % 4, j / 4 * 2, 3) - 32;
}

/* Element e of a block of 32: byte offsets as in the format's struct. */
static float element_32(uint32_t type, const uint8_t *b, int e)
{
    const int nibble = e / 16 * 4, i = e % 16;
    int q;
    switch (type) {
    case LLD_Q4_0:
        return half_at(b) * (float)(bits(b + 2 + i, nibble, 15) - 8);
    case LLD_Q4_1:
        return half_at(b) * (float)bits(b + 4 + i, nibble, 15) + half_at(b + 2);
    case LLD_Q5_0:
        q = bits(b + 6 + i, nibble, 15) + 16 * bits(b + 2 + e / 8, e % 8, 1);
        return half_at(b) * (float)(q - 16);
    case LLD_Q5_1:
        q = bits(b + 8 + i, nibble, 15) + 16 * bits(b + 4 + e / 8, e % 8, 1);
        return half_at(b) * (float)q + half_at(b + 2);
    case LLD_MXFP4: {
        static const float e2m1[8] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
        const double scale = b[0] == 255 ? 0x1p127 : ldexp(0.5, b[0] - 127); /* NaN is not known */
        q = bits(b + 1 + i, nibble, 15);
        /* a zero has no sign */
        return (float)(scale * 2.0 * (double)e2m1[q & 7]) * (q > 8 ? -1.0f : 1.0f);
    }
    case LLD_IQ4_NL:
        return half_at(b) * (float)lld_iq4_values[bits(b + 2 + i, nibble, 15)];
    default: /* Q8_0 */
        return half_at(b) * (float)(int8_t)b[2 + e];
    }
}

/* Bit `place` of a run of bytes, from the lowest of the first on. */
static int bit_of(const uint8_t *bytes, int place) { return bits(bytes + place / 8, place % 8, 1); }

/* `count` bits of a run of bytes, from bit `place` on. */
static int bits_of(const uint8_t *bytes, int place, int count)
{
    int value = 0;
    for (int i = 0; i < count; i++) value |= bit_of(bytes, place + i) << i;
    return value;
}

/* -1 or 1: the sign of element i, 0..7, of a group with seven stored signs at bit `place`. */
static float even_sign(const uint8_t *bytes, int place, int i)
{
    int sum = 0;
    for (int j = 0; j < 7; j++) sum += bit_of(bytes, place + j);
    return (i == 7 ? sum % 2 : bit_of(bytes, place + i)) ? -1.0f : 1.0f;
}

static float magnitude_8(uint64_t entry, int i) { return (float)(entry >> (8 * i) & 255); }

/* Element e of a block of indices; half_at(b) * (0.5 + s) / 4 is the scale of IQ2, and so on, as
 * `gguf` writes it. n = e/8: which eight. */
static float element_grid(uint32_t type, const uint8_t *b, int e)
{
    const int n = e / 8, i = e % 8, four = e / 4, group = e / 32;
    const float d = half_at(b);
    float m, sign, s;
    switch (type) {
    case LLD_IQ2_XXS:
        m = magnitude_8(lld_iq2_xxs_grid[b[2 + 8 * group + n % 4]], i);
        sign = even_sign(b + 6 + 8 * group, 7 * (n % 4), i);
        s = (float)bits_of(b + 6 + 8 * group, 28, 4);
        return d * (0.5f + s) * 0.25f * m * sign;
    case LLD_IQ2_XS:
        m = magnitude_8(lld_iq2_xs_grid[bits_of(b + 2 + 2 * n, 0, 9)], i);
        sign = even_sign(b + 2 + 2 * n, 9, i);
        s = (float)bits_of(b + 66, 4 * (e / 16), 4);
        return d * (0.5f + s) * 0.25f * m * sign;
    case LLD_IQ2_S:
        m = magnitude_8(lld_iq2_s_grid[b[2 + n] + 256 * bits_of(b + 66, 2 * n, 2)], i);
        sign = bit_of(b + 34, e) ? -1.0f : 1.0f;
        s = (float)bits_of(b + 74, 4 * (e / 16), 4);
        return d * (0.5f + s) * 0.25f * m * sign;
    case LLD_IQ3_XXS:
        m = magnitude_8(lld_iq3_xxs_grid[b[2 + four]], e % 4);
        sign = even_sign(b + 66 + 4 * group, 7 * (n % 4), i);
        s = (float)bits_of(b + 66 + 4 * group, 28, 4);
        return d * (0.5f + s) * 0.5f * m * sign;
    default: /* IQ3_S */
        m = magnitude_8(lld_iq3_s_grid[b[2 + four] + 256 * bit_of(b + 66, four)], e % 4);
        sign = bit_of(b + 74, e) ? -1.0f : 1.0f;
        s = (float)bits_of(b + 106, 4 * group, 4);
        return d * (1.0f + 2.0f * s) * m * sign;
    }
}

/* Element e of a block of 256. h: half of the block, g: 64 elements, j: 32 elements. */
static float element_256(uint32_t type, const uint8_t *b, int e)
{
    const int h = e / 128, g = e / 64, j = e / 32, i = e % 32, two = e % 128 / 32 * 2;
    float scale, min;
    int q;
    switch (type) {
    case LLD_Q2_K:
        scale = half_at(b + 80) * (float)bits(b + e / 16, 0, 15);
        min = half_at(b + 82) * (float)bits(b + e / 16, 4, 15);
        return scale * (float)bits(b + 16 + 32 * h + i, two, 3) - min;
    case LLD_Q3_K:
        scale = half_at(b + 108) * (float)q3_scale(b + 96, e / 16);
        q = bits(b + 32 + 32 * h + i, two, 3) - (bits(b + i, j, 1) ? 0 : 4);
        return scale * (float)q;
    case LLD_Q4_K:
        scale = half_at(b) * (float)k4_scale(b + 4, j);
        min = half_at(b + 2) * (float)k4_min(b + 4, j);
        return scale * (float)bits(b + 16 + 32 * g + i, j % 2 * 4, 15) - min;
    case LLD_Q5_K:
        scale = half_at(b) * (float)k4_scale(b + 4, j);
        min = half_at(b + 2) * (float)k4_min(b + 4, j);
        q = bits(b + 48 + 32 * g + i, j % 2 * 4, 15) + 16 * bits(b + 16 + i, j, 1);
        return scale * (float)q - min;
    case LLD_Q6_K:
        scale = half_at(b + 208) * (float)(int8_t)b[192 + e / 16];
        q = bits(b + 64 * h + e % 64, e % 128 / 64 * 4, 15);
        q += 16 * bits(b + 128 + 32 * h + i, two, 3);
        return scale * (float)(q - 32);
    case LLD_IQ4_XS:
        q = bits(b + 4 + j / 2, j % 2 * 4, 15) + 16 * bits(b + 2 + j / 4, j % 4 * 2, 3) - 32;
        scale = half_at(b) * (float)q;
        return scale * (float)lld_iq4_values[bits(b + 8 + 16 * j + e % 16, i / 16 * 4, 15)];
    default:
        return element_grid(type, b, e);
    }
}

static float element(uint32_t type, const uint8_t *row, size_t k)
{
    const size_t block = lld_type_block(type);
    const uint8_t *b = row + k / block * lld_type_block_bytes(type);
    float f;
    switch (block) {
    case 32:
        return element_32(type, b, (int)(k % block));
    case 64:
        return half_at(b) * (float)(bits(b + 2 + k % block / 4, (int)(k % 4) * 2, 3) - 1);
    case 128:
        return half_at(b) * (float)(2 * bits(b + 2 + k % block / 8, (int)(k % 8), 1) - 1);
    case 256:
        return element_256(type, b, (int)(k % block));
    default:
        if (type == LLD_F16) return half_at(b);
        memcpy(&f, type == LLD_F32 ? b : (const uint8_t[4]){0, 0, b[0], b[1]}, sizeof f);
        return f;
    }
}

static void test_every_format_dequantizes_as_specified(void)
{
    enum { N = 1024 };
    static uint16_t row[N * 2]; /* aligned as blocks are */
    static float got[N];
    uint64_t seed = 2;
    for (uint32_t type = 0; type < LLD_TYPE_COUNT; type++) {
        if (!lld_type_supported(type)) continue;
        const uint8_t *bytes = (const uint8_t *)row;
        for (int repeat = 0; repeat < 20; repeat++) {
            for (size_t i = 0; i < sizeof row / sizeof row[0]; i++)
                row[i] = (uint16_t)check_random(&seed); /* any scales: NaN and infinity too */
            int status = lld_dequantize(type, row, lld_type_row_bytes(type, N), N, got);
            CHECK(status == LLD_OK, "%s", lld_error_message());
            for (size_t k = 0; k < N; k++)
                CHECK(same_bits(got[k], element(type, bytes, k)), "%s element %zu: %a, wanted %a",
                      lld_type_name(type), k, (double)got[k], (double)element(type, bytes, k));
        }
    }
}

static void test_signs_of_eight_are_even_and_have_masks(void)
{
    for (unsigned i = 0; i < 128; i++) {
        CHECK((lld_even_signs[i] & 127) == i && __builtin_parity(lld_even_signs[i]) == 0,
              "signs of %u are %02x", i, lld_even_signs[i]);
        CHECK(lld_even_sign_masks[i] == lld_sign_masks[lld_even_signs[i]], "masks of %u", i);
    }
    for (unsigned i = 0; i < 256; i++)
        for (int bit = 0; bit < 8; bit++)
            CHECK((lld_sign_masks[i] >> (8 * bit) & 255) == (i >> bit & 1) * 255u, "mask of %u", i);
}

static void test_packed_scales_unpack(void)
{
    uint64_t seed = 3;
    for (int repeat = 0; repeat < 100; repeat++) {
        uint8_t packed[12], scales[8], mins[8];
        int8_t signed_scales[16];
        for (int i = 0; i < 12; i++) packed[i] = (uint8_t)check_random(&seed);
        lld_k4_scales(packed, scales, mins);
        for (int j = 0; j < 8; j++)
            CHECK(scales[j] == k4_scale(packed, j) && mins[j] == k4_min(packed, j), "number %d", j);
        lld_q3_scales(packed, signed_scales);
        for (int j = 0; j < 16; j++) CHECK(signed_scales[j] == q3_scale(packed, j), "number %d", j);
    }
}

static void test_types_know_their_sizes(void)
{
    static const struct {
        uint32_t type;
        const char *name;
        size_t block, bytes;
    } known[] = {
        {0, "F32", 1, 4},        {1, "F16", 1, 2},       {30, "BF16", 1, 2},
        {2, "Q4_0", 32, 18},     {3, "Q4_1", 32, 20},    {6, "Q5_0", 32, 22},
        {7, "Q5_1", 32, 24},     {8, "Q8_0", 32, 34},    {20, "IQ4_NL", 32, 18},
        {10, "Q2_K", 256, 84},   {11, "Q3_K", 256, 110}, {12, "Q4_K", 256, 144},
        {13, "Q5_K", 256, 176},  {14, "Q6_K", 256, 210}, {23, "IQ4_XS", 256, 136},
        {41, "Q1_0", 128, 18},   {42, "Q2_0", 64, 18},   {16, "IQ2_XXS", 256, 66},
        {17, "IQ2_XS", 256, 74}, {22, "IQ2_S", 256, 82}, {18, "IQ3_XXS", 256, 98},
        {21, "IQ3_S", 256, 110}, {39, "MXFP4", 32, 17},
    };
    const size_t n_known = sizeof known / sizeof known[0];
    size_t n_supported = 0;
    for (size_t i = 0; i < n_known; i++) {
        uint32_t type = known[i].type;
        CHECK(lld_type_supported(type) && strcmp(lld_type_name(type), known[i].name) == 0,
              "type %u", type);
        CHECK(lld_type_block(type) == known[i].block, "%s block", known[i].name);
        CHECK(lld_type_block_bytes(type) == known[i].bytes, "%s bytes", known[i].name);
        CHECK(lld_type_row_bytes(type, 3 * 256) == 3 * 256 / known[i].block * known[i].bytes,
              "%s row", known[i].name);
    }
    for (uint32_t type = 0; type < 100; type++) n_supported += lld_type_supported(type);
    CHECK(n_supported == n_known, "%zu types supported", n_supported);
}

/* Types that files hold and this engine lacks, from the list in the `gguf` package 0.19 and the ids that
 * ggml took out of use before it. */
static void test_types_that_are_not_supported_are_refused_by_name(void)
{
    static const struct {
        uint32_t type;
        const char *name, *instead;
    } refused[] = {
        {4, "Q4_2", "Q4_0"},          {5, "Q4_3", "Q4_1"},          {9, "Q8_1", "Q8_0"},
        {15, "Q8_K", "Q8_0"},         {19, "IQ1_S", "IQ2_XXS"},     {24, "I8", "F16"},
        {25, "I16", "F16"},           {26, "I32", "F16"},           {27, "I64", "F16"},
        {28, "F64", "F16"},           {29, "IQ1_M", "IQ2_XXS"},     {31, "Q4_0_4_4", "Q4_0"},
        {32, "Q4_0_4_8", "Q4_0"},     {33, "Q4_0_8_8", "Q4_0"},     {34, "TQ1_0", "Q2_K"},
        {35, "TQ2_0", "Q2_K"},        {36, "IQ4_NL_4_4", "IQ4_NL"}, {37, "IQ4_NL_4_8", "IQ4_NL"},
        {38, "IQ4_NL_8_8", "IQ4_NL"}, {40, "NVFP4", "MXFP4"},
    };
    enum { N_REFUSED = sizeof refused / sizeof refused[0], N_SUPPORTED = 23 };
    _Static_assert(N_REFUSED + N_SUPPORTED == LLD_TYPE_COUNT, "every id has a name");
    for (size_t i = 0; i < N_REFUSED; i++) {
        char wanted[128];
        snprintf(wanted, sizeof wanted,
                 "tensor 't': type %s (%u) is not supported: fetch the %s file", refused[i].name,
                 (unsigned)refused[i].type, refused[i].instead);
        CHECK(lld_type_refuse("tensor 't'", refused[i].type) == LLD_ERR_UNSUPPORTED, "status");
        CHECK(strcmp(lld_error_message(), wanted) == 0, "%s", lld_error_message());
    }
    lld_type_refuse("tensor 't'", 1000);
    CHECK(strcmp(lld_error_message(), "tensor 't': type 1000 is unknown") == 0, "%s",
          lld_error_message());
}

static void test_unknown_types_and_partial_blocks_are_refused(void)
{
    static const uint32_t unknown[] = {4, 5, 9, 15, 19, 29, 31, 40, UINT32_MAX};
    float out[32];
    const uint16_t data[64] = {0};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
        CHECK(lld_type_name(unknown[i]) == NULL && lld_type_block(unknown[i]) == 0 &&
                  lld_type_block_bytes(unknown[i]) == 0,
              "type %u", unknown[i]);
        CHECK(lld_dequantize(unknown[i], data, 18, 32, out) == LLD_ERR_UNSUPPORTED, "type %u",
              unknown[i]);
    }
    CHECK(lld_dequantize(LLD_Q4_0, data, 18, 31, out) == LLD_ERR_INVALID, "31 elements of Q4_0");
    CHECK(strstr(lld_error_message(), "Q4_0") != NULL, "message: %s", lld_error_message());
    CHECK(lld_dequantize(LLD_Q4_K, data, 18, 32, out) == LLD_ERR_INVALID, "32 elements of Q4_K");
    CHECK(lld_dequantize(LLD_Q4_0, data, 17, 32, out) == LLD_ERR_INVALID, "a short row");
    CHECK(lld_dequantize(LLD_Q4_0, data, 36, 32, out) == LLD_ERR_INVALID, "a long row");
    CHECK(strstr(lld_error_message(), "36 bytes") != NULL, "message: %s", lld_error_message());
    CHECK(lld_dequantize(LLD_Q4_K, data, 0, 0, out) == LLD_OK, "no elements");
}

int main(void)
{
    test_every_half_converts_exactly_and_back();
    test_float_to_half_rounds_to_nearest_even();
    test_every_format_dequantizes_as_specified();
    test_signs_of_eight_are_even_and_have_masks();
    test_packed_scales_unpack();
    test_types_know_their_sizes();
    test_types_that_are_not_supported_are_refused_by_name();
    test_unknown_types_and_partial_blocks_are_refused();
    return check_result();
}
