/* test_quantize.c - quantization: every type's error bounds, exact values where a format has them,
 * importance, refusals, and the same bytes for every thread count and instruction set.
 * tests/engine/test_quantize.py compares the legacy formats with the `gguf` package. */
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "base/cpu.h"
#include "llamad_engine.h"
#include "quantize/quantize.h"

enum { COLS = 512, ROWS = 6, MAX_ROW_BYTES = COLS * 4 };

/* bound: the largest RMSE of a normal variable of deviation 1. A uniform quantizer with 2^b levels
 * over the range of its group errs by step / sqrt(12), with the range of 32 normal weights about
 * 4.2 and of 16 about 3.5; measured values are 1 % to 3 % below the bounds. */
static const struct {
    uint32_t type;
    float bound;
    bool searched;
} quantized[] = {
    {LLD_Q4_0, 0.089f, true},  {LLD_Q4_1, 0.081f, true},    {LLD_Q5_0, 0.0445f, true},
    {LLD_Q5_1, 0.0395f, true}, {LLD_Q8_0, 0.0056f, false},  {LLD_Q2_K, 0.270f, true},
    {LLD_Q3_K, 0.148f, true},  {LLD_Q4_K, 0.0725f, true},   {LLD_Q5_K, 0.0357f, true},
    {LLD_Q6_K, 0.0173f, true}, {LLD_IQ4_NL, 0.0765f, true}, {LLD_IQ4_XS, 0.0768f, true},
};
enum { N_QUANTIZED = sizeof quantized / sizeof quantized[0] };

static float uniform(uint64_t *state) { return (float)(check_random(state) >> 40) * 0x1p-24f; }

static float normal(uint64_t *state) /* Box and Muller 1958 */
{
    const float radius = sqrtf(-2.0f * logf(uniform(state) + 0x1p-25f));
    return radius * cosf(6.2831853f * uniform(state));
}

/* Whether rows of a type can be written. */
static bool is_written(uint32_t type)
{
    return lld_type_supported(type) && lld_quantize(type, NULL, 0, COLS, NULL, NULL, 1) == LLD_OK;
}

static void fill_normal(float *x, size_t n, float deviation, uint64_t seed)
{
    for (size_t i = 0; i < n; i++) x[i] = deviation * normal(&seed);
}

/* Quantize and dequantize n_rows rows of COLS. */
static void round_trip(uint32_t type, const float *x, size_t n_rows, const float *importance,
                       float *y)
{
    static uint16_t blocks[ROWS * MAX_ROW_BYTES / 2];
    const size_t row_bytes = lld_type_bytes(type, COLS);
    const int status = lld_quantize(type, x, n_rows, COLS, importance, blocks, 1);
    CHECK(status == LLD_OK, "%s: %s", lld_type_name(type), lld_error_message());
    for (size_t row = 0; row < n_rows; row++)
        CHECK(lld_dequantize(type, (uint8_t *)blocks + row * row_bytes, row_bytes, COLS,
                             y + row * COLS) == LLD_OK,
              "%s", lld_error_message());
}

static double weighted_error(const float *x, const float *y, size_t n, const float *importance)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        const double e = (double)x[i] - (double)y[i];
        sum += e * e * (importance == NULL ? 1.0 : (double)importance[i % COLS]);
    }
    return sqrt(sum / (double)n);
}

static float largest_magnitude(const float *x, size_t n)
{
    float largest = 0.0f;
    for (size_t i = 0; i < n; i++) largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest;
    return largest;
}

/* ---- error ------------------------------------------------------------------------------------- */

static void test_normal_weights_stay_within_each_types_error(void)
{
    static float x[ROWS * COLS], y[ROWS * COLS];
    static const float deviations[] = {1.0f, 0.02f, 300.0f}; /* the error scales with the weights */
    for (size_t t = 0; t < N_QUANTIZED; t++)
        for (size_t s = 0; s < 3; s++) {
            fill_normal(x, ROWS * COLS, deviations[s], 1);
            round_trip(quantized[t].type, x, ROWS, NULL, y);
            const double error = weighted_error(x, y, ROWS * COLS, NULL) / (double)deviations[s];
            CHECK(error < (double)quantized[t].bound, "%s at deviation %g: RMSE %g",
                  lld_type_name(quantized[t].type), (double)deviations[s], error);
            CHECK(error > 0.8 * (double)quantized[t].bound, "%s: RMSE %g is too good for its bits",
                  lld_type_name(quantized[t].type), error);
        }
}

static void test_halves_round_to_nearest(void)
{
    static float x[COLS], y[COLS];
    fill_normal(x, COLS, 1.0f, 2);
    round_trip(LLD_F32, x, 1, NULL, y);
    CHECK(memcmp(x, y, sizeof x) == 0, "F32 changed");
    round_trip(LLD_F16, x, 1, NULL, y);
    for (size_t i = 0; i < COLS; i++) /* half a unit in the last of 11 bits */
        CHECK(fabsf(y[i] - x[i]) <= fabsf(x[i]) * 0x1p-11f + 0x1p-25f, "F16 of %a is %a",
              (double)x[i], (double)y[i]);
    round_trip(LLD_BF16, x, 1, NULL, y);
    for (size_t i = 0; i < COLS; i++) /* of 8 bits */
        CHECK(fabsf(y[i] - x[i]) <= fabsf(x[i]) * 0x1p-8f, "BF16 of %a is %a", (double)x[i],
              (double)y[i]);
    const float ties[4] = {0x1.01p0f, 0x1.03p0f, -0x1.01p0f, 0x1.0101p0f};
    const float even[4] = {0x1.00p0f, 0x1.04p0f, -0x1.00p0f, 0x1.02p0f};
    memcpy(x, ties, sizeof ties);
    round_trip(LLD_BF16, x, 1, NULL, y);
    CHECK(memcmp(y, even, sizeof even) == 0, "BF16 ties: %a %a %a %a", (double)y[0], (double)y[1],
          (double)y[2], (double)y[3]);
}

/* Weights that are d times each format's levels, d a power of two, with the extreme levels present. */
static void test_values_a_legacy_format_holds_are_exact(void)
{
    static const struct {
        uint32_t type;
        int lowest, highest;
    } formats[] = {{LLD_Q4_0, -8, 7},
                   {LLD_Q4_1, -3, 12},
                   {LLD_Q5_0, -16, 15},
                   {LLD_Q5_1, 2, 33},
                   {LLD_Q8_0, -127, 127}};
    static float x[COLS], y[COLS];
    for (size_t f = 0; f < sizeof formats / sizeof formats[0]; f++) {
        uint64_t seed = 3;
        const int levels = formats[f].highest - formats[f].lowest + 1;
        for (int i = 0; i < COLS; i++) {
            const int q = i % 32 == 5   ? 0
                          : i % 32 == 9 ? levels - 1
                                        : (int)(check_random(&seed) % (uint64_t)levels);
            x[i] = 0x1p-5f * (float)(formats[f].lowest + q);
        }
        round_trip(formats[f].type, x, 1, NULL, y);
        CHECK(memcmp(x, y, sizeof x) == 0, "%s changed values it can hold",
              lld_type_name(formats[f].type));
    }
}

/* A K block of one scale: x = d*s*q - dmin*m exactly, so what is left comes from the rounding of d and
 * dmin to 11 bits: of the order of 2^-11 of the largest weight. */
static void test_values_a_k_format_holds_come_back(void)
{
    static const struct {
        uint32_t type;
        int lowest, highest;
    } formats[] = {{LLD_Q2_K, 0, 3},
                   {LLD_Q3_K, -4, 3},
                   {LLD_Q4_K, 0, 15},
                   {LLD_Q5_K, 0, 31},
                   {LLD_Q6_K, -32, 31}};
    static float x[COLS], y[COLS];
    for (size_t f = 0; f < sizeof formats / sizeof formats[0]; f++) {
        uint64_t seed = 4;
        const int levels = formats[f].highest - formats[f].lowest + 1;
        for (int i = 0; i < COLS; i++) {
            const int q = i % 16 == 3   ? 0
                          : i % 16 == 8 ? levels - 1
                                        : (int)(check_random(&seed) % (uint64_t)levels);
            x[i] = 0.013f * (float)(formats[f].lowest + q);
        }
        round_trip(formats[f].type, x, 1, NULL, y);
        const double error = weighted_error(x, y, COLS, NULL) / (double)largest_magnitude(x, COLS);
        CHECK(error < 0x1p-11, "%s: relative RMSE %g", lld_type_name(formats[f].type), error);
    }
}

/* ---- unusual rows ------------------------------------------------------------------------------ */

static void test_zeros_stay_zeros(void)
{
    static float x[COLS], y[COLS];
    for (size_t t = 0; t < N_QUANTIZED; t++)
        for (int sign = 0; sign < 2; sign++) {
            for (int i = 0; i < COLS; i++) x[i] = sign ? -0.0f : 0.0f;
            round_trip(quantized[t].type, x, 1, NULL, y);
            CHECK(largest_magnitude(y, COLS) == 0.0f, "%s", lld_type_name(quantized[t].type));
        }
}

static void test_constant_rows_stay_near_constant(void)
{
    static const float constants[] = {1.0f, -1.0f, 0.03f, -250.0f, 60000.0f, -60000.0f};
    static float x[COLS], y[COLS];
    for (size_t t = 0; t < N_QUANTIZED; t++)
        for (size_t c = 0; c < sizeof constants / sizeof constants[0]; c++) {
            for (int i = 0; i < COLS; i++) x[i] = constants[c];
            round_trip(quantized[t].type, x, 1, NULL, y);
            /* A level is put on the constant itself, so what remains is the rounding of d and dmin to
             * float16: 2^-11 of each, or 2^-25 below 2^-14, times a scale and a level up to 2^12. */
            const float error = fabsf(y[0] - constants[c]);
            CHECK(error <= fabsf(constants[c]) * 0x1p-10f + 0x1p-13f, "%s of %g is %g",
                  lld_type_name(quantized[t].type), (double)constants[c], (double)y[0]);
            for (int i = 1; i < COLS; i++)
                CHECK(y[i] == y[0], "%s element %d", lld_type_name(quantized[t].type), i);
        }
}

static void test_one_outlier_keeps_its_value(void)
{
    static float x[COLS], y[COLS];
    for (size_t t = 0; t < N_QUANTIZED; t++)
        for (int sign = -1; sign <= 1; sign += 2) {
            fill_normal(x, COLS, 0.01f, 5);
            x[300] = 40.0f * (float)sign;
            round_trip(quantized[t].type, x, 1, NULL, y);
            CHECK(fabsf(y[300] - x[300]) < 40.0f * 0.02f, "%s made %g of it",
                  lld_type_name(quantized[t].type), (double)y[300]);
            const size_t near =
                300 / 32 * 32; /* and no other block is disturbed but in its K block */
            for (size_t i = 0; i < COLS; i++)
                CHECK(i == 300 ||
                          fabsf(y[i]) <= (i / 32 * 32 == near || i / 256 == 1 ? 1.0f : 0.06f),
                      "%s element %zu is %g", lld_type_name(quantized[t].type), i, (double)y[i]);
        }
}

static void test_the_smallest_and_largest_weights_make_finite_blocks(void)
{
    static const float scales[] = {65504.0f, 1e-4f, 1e-6f, 0x1p-24f, 0x1p-26f, 1e-20f, 0x1p-149f};
    static float x[COLS], y[COLS];
    for (size_t t = 0; t < N_QUANTIZED; t++)
        for (size_t s = 0; s < sizeof scales / sizeof scales[0]; s++) {
            uint64_t seed = 6;
            for (int i = 0; i < COLS; i++) x[i] = scales[s] * (2.0f * uniform(&seed) - 1.0f);
            x[7] = scales[s];
            round_trip(quantized[t].type, x, 1, NULL, y);
            for (int i = 0; i < COLS; i++) /* float16 has no step below 2^-24, times a level */
                CHECK(isfinite(y[i]) && fabsf(y[i]) <= 1.3f * scales[s] + 128 * 0x1p-24f,
                      "%s of %g is %g", lld_type_name(quantized[t].type), (double)x[i],
                      (double)y[i]);
        }
}

static void test_fits_of_the_largest_weights_stay_finite(void)
{
    static float x[COLS], y[COLS], importance[COLS];
    uint64_t seed = 16;
    for (int i = 0; i < COLS; i++) /* logarithms uniform, so that fits reach beyond the extremes */
        x[i] = 65504.0f * expf(-8.0f * uniform(&seed)) * (i % 2 == 0 ? 1.0f : -1.0f);
    for (int i = 0; i < COLS; i += LLD_QK) x[i + (i / LLD_QK) % 2] = i % 64 ? -65504.0f : 65504.0f;
    for (int k = 0; k < 16; k++) {
        for (int i = 0; i < COLS; i++) importance[i] = uniform(&seed);
        for (size_t t = 0; t < N_QUANTIZED; t++) {
            round_trip(quantized[t].type, x, 1, importance, y);
            CHECK(largest_magnitude(y, COLS) <= 1.3f * 65504.0f, "%s reaches %g",
                  lld_type_name(quantized[t].type), (double)largest_magnitude(y, COLS));
            for (int i = 0; i < COLS; i++)
                CHECK(isfinite(y[i]), "%s of %g", lld_type_name(quantized[t].type), (double)x[i]);
        }
    }
}

static void test_weights_beyond_the_range_are_refused_by_place(void)
{
    static float x[ROWS * COLS];
    static uint16_t blocks[ROWS * MAX_ROW_BYTES / 2];
    static const float bad[] = {NAN, INFINITY, -INFINITY, 65536.0f};
    for (uint32_t type = 0; type < LLD_TYPE_COUNT; type++)
        for (size_t b = 0; is_written(type) && b < 4; b++) {
            fill_normal(x, ROWS * COLS, 1.0f, 7);
            x[5 * COLS + 3] = bad[b];
            x[2 * COLS + 77] = bad[b]; /* the first, whichever thread meets it */
            const int status = lld_quantize(type, x, ROWS, COLS, NULL, blocks, 3);
            const bool holds = isfinite(bad[b]) && (type == LLD_F32 || type == LLD_BF16);
            CHECK(status == (holds ? LLD_OK : LLD_ERR_NUMERIC), "%s of %g: %d", lld_type_name(type),
                  (double)bad[b], status);
            CHECK(holds || strstr(lld_error_message(), "row 2 column 77 is ") != NULL,
                  "message: %s", lld_error_message());
        }
    fill_normal(x, COLS, 1.0f, 7);
    x[0] = FLT_MAX;
    CHECK(lld_quantize(LLD_BF16, x, 1, COLS, NULL, blocks, 1) == LLD_ERR_NUMERIC,
          "rounds to infinity");
}

/* ---- importance -------------------------------------------------------------------------------- */

static void test_importance_lowers_the_error_it_weighs(void)
{
    static float x[ROWS * COLS], plain[ROWS * COLS], weighted[ROWS * COLS], importance[COLS];
    uint64_t seed = 8;
    for (int i = 0; i < COLS; i++)
        importance[i] = expf(1.5f * normal(&seed)); /* log-normal, as activations are */
    fill_normal(x, ROWS * COLS, 1.0f, 9);
    for (size_t t = 0; t < N_QUANTIZED; t++) {
        round_trip(quantized[t].type, x, ROWS, NULL, plain);
        round_trip(quantized[t].type, x, ROWS, importance, weighted);
        const double before = weighted_error(x, plain, ROWS * COLS, importance);
        const double after = weighted_error(x, weighted, ROWS * COLS, importance);
        CHECK(quantized[t].searched ? after < 0.97 * before : after == before, "%s: %g, was %g",
              lld_type_name(quantized[t].type), after, before);
    }
}

static void test_importance_of_any_size_is_taken(void)
{
    static float x[COLS], y[COLS], scaled[COLS], importance[COLS];
    static const float units[] = {0.0f, 0x1p-120f, 0x1p100f};
    uint64_t seed = 10;
    fill_normal(x, COLS, 1.0f, 11);
    for (size_t t = 0; t < N_QUANTIZED; t++)
        for (size_t u = 0; u < 3; u++) {
            for (int i = 0; i < COLS; i++)
                importance[i] = units[u] * (float)(1 + check_random(&seed) % 8);
            round_trip(quantized[t].type, x, 1, importance, y);
            CHECK(largest_magnitude(y, COLS) < 6.0f, "%s", lld_type_name(quantized[t].type));
            for (int i = 0; i < COLS; i++) /* only ratios count: a power of two changes no byte */
                importance[i] *= 4.0f;
            round_trip(quantized[t].type, x, 1, importance, scaled);
            CHECK(memcmp(y, scaled, sizeof y) == 0, "%s", lld_type_name(quantized[t].type));
        }
}

/* ---- the call ---------------------------------------------------------------------------------- */

static void test_threads_and_instruction_sets_change_no_byte(void)
{
    static float x[ROWS * COLS], importance[COLS];
    static uint16_t one[ROWS * MAX_ROW_BYTES / 2], other[ROWS * MAX_ROW_BYTES / 2];
    uint32_t detected = lld_cpu_detect();
    fill_normal(x, ROWS * COLS, 1.0f, 12);
    for (int i = 0; i < COLS; i++) importance[i] = x[i] * x[i];
    for (uint32_t type = 0; type < LLD_TYPE_COUNT; type++) {
        if (!is_written(type)) continue;
        const size_t bytes = ROWS * lld_type_bytes(type, COLS);
        CHECK(lld_quantize(type, x, ROWS, COLS, importance, one, 1) == LLD_OK, "%s",
              lld_error_message());
        CHECK(lld_quantize(type, x, ROWS, COLS, importance, other, 4) == LLD_OK, "%s",
              lld_error_message());
        CHECK(memcmp(one, other, bytes) == 0, "%s with 4 threads", lld_type_name(type));
        if (lld_type_block(type) == 1) continue;
        for (size_t row = 0; row < ROWS; row++) {
            uint8_t *dst = (uint8_t *)other + row * lld_type_bytes(type, COLS);
            memset(dst, 0xAA, lld_type_bytes(type, COLS));
            if (lld_type_block(type) == LLD_QK)
                lld_quantize_row_32(&lld_search_generic, type, x + row * COLS, importance, dst,
                                    COLS);
            else
                lld_quantize_row_256(&lld_search_generic, type, x + row * COLS, importance, dst,
                                     COLS);
        }
        CHECK(memcmp(one, other, bytes) == 0, "%s: %s and generic code differ", lld_type_name(type),
              lld_search_select(detected) == &lld_search_generic ? "generic" : "this machine's");
    }
}

/* FNV-1a (Fowler, Noll, Vo) of the bytes of x86-64; a change of the searches changes these, a change of
 * compiler or processor must not. The weights are made without libm, which does round differently. */
static void test_every_machine_computes_the_same_bytes(void)
{
    static const uint32_t hashes[N_QUANTIZED] = {
        0xebebeb67u, 0x57120a9fu, 0xeab500d7u, 0x69577c1au, 0xe6dc37e9u, 0xb4c2d98cu,
        0xc235b8fau, 0xa4613957u, 0xaf6a3e59u, 0x78989744u, 0x7f591bbcu, 0xd6a4260eu};
    static float x[COLS], importance[COLS];
    static uint16_t blocks[MAX_ROW_BYTES / 2];
    uint64_t seed = 14;
    for (int i = 0; i < COLS; i++) {
        x[i] = uniform(&seed) + uniform(&seed) + uniform(&seed) - 1.5f;
        importance[i] = uniform(&seed);
    }
    for (size_t t = 0; t < N_QUANTIZED; t++) {
        uint32_t hash = 2166136261u;
        for (int weighted = 0; weighted < 2; weighted++) {
            CHECK(lld_quantize(quantized[t].type, x, 1, COLS, weighted ? importance : NULL, blocks,
                               1) == LLD_OK,
                  "%s", lld_error_message());
            for (size_t i = 0; i < lld_type_bytes(quantized[t].type, COLS); i++)
                hash = (hash ^ ((const uint8_t *)blocks)[i]) * 16777619u;
        }
        CHECK(hash == hashes[t], "%s: hash is 0x%08x", lld_type_name(quantized[t].type),
              (unsigned)hash);
    }
}

static void test_requantizing_equals_dequantizing_first(void)
{
    static float x[ROWS * COLS], y[ROWS * COLS];
    static uint16_t source[ROWS * MAX_ROW_BYTES / 2], one[ROWS * MAX_ROW_BYTES / 2],
        other[ROWS * MAX_ROW_BYTES / 2];
    fill_normal(x, ROWS * COLS, 1.0f, 13);
    for (uint32_t from = 0; from < LLD_TYPE_COUNT; from++) {
        if (!is_written(from)) continue;
        round_trip(from, x, ROWS, NULL, y);
        CHECK(lld_quantize(from, x, ROWS, COLS, NULL, source, 2) == LLD_OK, "%s",
              lld_error_message());
        CHECK(lld_quantize(LLD_Q4_K, y, ROWS, COLS, NULL, one, 2) == LLD_OK, "%s",
              lld_error_message());
        CHECK(lld_requantize(from, source, LLD_Q4_K, ROWS, COLS, NULL, other, 2) == LLD_OK, "%s",
              lld_error_message());
        CHECK(memcmp(one, other, ROWS * lld_type_bytes(LLD_Q4_K, COLS)) == 0, "from %s",
              lld_type_name(from));
    }
}

static void test_wrong_arguments_are_refused(void)
{
    float x[64] = {0}, importance[32] = {1.0f};
    uint16_t out[64];
    CHECK(lld_quantize(9, x, 1, 32, NULL, out, 1) == LLD_ERR_UNSUPPORTED, "type 9");
    CHECK(lld_requantize(LLD_TYPE_COUNT, x, LLD_Q4_0, 1, 32, NULL, out, 1) == LLD_ERR_UNSUPPORTED,
          "source type");
    CHECK(lld_quantize(LLD_Q4_0, x, 1, 33, NULL, out, 1) == LLD_ERR_INVALID, "33 columns");
    CHECK(strstr(lld_error_message(), "Q4_0's block of 32") != NULL, "message: %s",
          lld_error_message());
    CHECK(lld_quantize(LLD_Q4_K, x, 1, 32, NULL, out, 1) == LLD_ERR_INVALID, "32 columns of Q4_K");
    CHECK(lld_quantize(LLD_Q4_0, x, 1, 32, NULL, out, 0) == LLD_ERR_INVALID, "no threads");
    CHECK(lld_quantize(LLD_Q4_0, x, 1, 32, NULL, out, 65) == LLD_ERR_INVALID, "65 threads");
    CHECK(lld_quantize(LLD_Q4_0, x, 0, 32, NULL, out, 1) == LLD_OK, "no rows");
    CHECK(lld_quantize(LLD_F32, x, SIZE_MAX, SIZE_MAX / 2, NULL, out, 1) == LLD_ERR_INVALID,
          "a row that no memory holds");
    static const float wrong[] = {-1.0f, NAN, INFINITY};
    for (int i = 0; i < 3; i++) {
        importance[4] = wrong[i];
        CHECK(lld_quantize(LLD_Q4_0, x, 1, 32, importance, out, 1) == LLD_ERR_INVALID, "%g",
              (double)wrong[i]);
        CHECK(strstr(lld_error_message(), "column 4") != NULL, "message: %s", lld_error_message());
    }
    CHECK(lld_type_bytes(LLD_Q4_K, 255) == 0 && lld_type_bytes(9, 32) == 0, "sizes of no row");
}

int main(void)
{
    test_normal_weights_stay_within_each_types_error();
    test_halves_round_to_nearest();
    test_values_a_legacy_format_holds_are_exact();
    test_values_a_k_format_holds_come_back();
    test_zeros_stay_zeros();
    test_constant_rows_stay_near_constant();
    test_one_outlier_keeps_its_value();
    test_the_smallest_and_largest_weights_make_finite_blocks();
    test_fits_of_the_largest_weights_stay_finite();
    test_weights_beyond_the_range_are_refused_by_place();
    test_importance_lowers_the_error_it_weighs();
    test_importance_of_any_size_is_taken();
    test_threads_and_instruction_sets_change_no_byte();
    test_every_machine_computes_the_same_bytes();
    test_requantizing_equals_dequantizing_first();
    test_wrong_arguments_are_refused();
    return check_result();
}
