/* test_kernels_vector.c - activation quantization, norm, SiLU, addition, rotation: each instruction
 * set against generic, bit for bit; generic against its definition in double. */
#include "kernel_check.h"
#include "base/vecmath.h"

enum { MAX_N = 1024, MAX_Y = 3 * MAX_N };

static guarded x_buffer, y_buffer, out_buffer;
static const lld_kernels *tables[MAX_TABLES];
static size_t n_tables;

static const size_t lengths[] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12,  13,  15,  16,
                                 17, 23, 24, 25, 31, 32, 33, 40, 47, 64, 65, 100, 576, 577, 896};

enum { N_LENGTHS = sizeof lengths / sizeof lengths[0] };

/* ---- quantization ---------------------------------------------------------------------------- */

/* Room for three rows of activations in both forms. */
typedef struct quantized {
    int8_t y[MAX_Y];
    float d[MAX_Y / 32], s[MAX_Y / 32];
    int32_t sum[MAX_Y / 32];
    int16_t sum16[MAX_Y / 16];
} quantized;

static lld_acts quantized_acts(quantized *q, size_t n)
{
    memset(q, 0x5A, sizeof *q);
    return (lld_acts){.n_rows = 1,
                      .n_cols = n,
                      .y = q->y,
                      .y_stride = n,
                      .d = q->d,
                      .sum = q->sum,
                      .s = q->s,
                      .sum16 = q->sum16};
}

static bool same_quantized(const quantized *a, const quantized *b)
{
    return memcmp(a->y, b->y, sizeof a->y) == 0 && memcmp(a->sum, b->sum, sizeof a->sum) == 0 &&
           memcmp(a->sum16, b->sum16, sizeof a->sum16) == 0 &&
           first_difference(a->d, b->d, MAX_Y / 32) == MAX_Y / 32 &&
           first_difference(a->s, b->s, MAX_Y / 32) == MAX_Y / 32;
}

static void check_quantized(const float *x, size_t n)
{
    static quantized wanted, got;
    lld_acts acts = quantized_acts(&wanted, n);
    tables[0]->quantize_q8(x, n, &acts, 0);
    for (size_t t = 1; t < n_tables; t++) {
        acts = quantized_acts(&got, n);
        tables[t]->quantize_q8(x, n, &acts, 0);
        CHECK(same_quantized(&wanted, &got), "%s quantize_q8 n=%zu", tables[t]->name, n);
    }
    if (n % LLD_QK_K != 0) return;
    acts = quantized_acts(&wanted, n);
    tables[0]->quantize_q8k(x, n, &acts, 0);
    for (size_t t = 1; t < n_tables; t++) {
        acts = quantized_acts(&got, n);
        tables[t]->quantize_q8k(x, n, &acts, 0);
        CHECK(same_quantized(&wanted, &got), "%s quantize_q8k n=%zu", tables[t]->name, n);
    }
}

/* The middle 256 of row 1 of three rows of 768 columns: the place of a part of a row. */
static void check_quantized_part(const float *x)
{
    enum { N_COLS = 768, FIRST = 256 };
    static quantized wanted, got;
    for (int k_blocks = 0; k_blocks < 2; k_blocks++)
        for (size_t t = 0; t < n_tables; t++) {
            quantized *q = t == 0 ? &wanted : &got;
            lld_acts part = quantized_acts(q, N_COLS);
            part.y += FIRST;
            part.d += FIRST / (k_blocks ? LLD_QK_K : LLD_QK);
            part.s += FIRST / LLD_QK;
            part.sum += FIRST / LLD_QK;
            part.sum16 += FIRST / 16;
            part.n_rows = 3;
            part.y_stride = N_COLS + 4;
            (k_blocks ? tables[t]->quantize_q8k : tables[t]->quantize_q8)(x, 256, &part, 1);
            CHECK(same_quantized(&wanted, q), "%s %s of a part of a row", tables[t]->name,
                  k_blocks ? "quantize_q8k" : "quantize_q8");
        }
    CHECK(wanted.d[3 + 1] != 0.0f && wanted.y[N_COLS + 4 + FIRST - 1] == 0x5A, "in its place");
}

static void test_quantization_is_the_same_everywhere(void)
{
    uint64_t seed = 1;
    for (size_t n = 32; n <= MAX_N; n += n < 256 ? 32 : 256) {
        float *x = guarded_tail(x_buffer, n * sizeof(float));
        random_vector(x, n, 5.0f, &seed);
        check_quantized(x, n);
        if (n == 256) check_quantized_part(x);
        edge_vector(x, n, &seed);
        check_quantized(x, n);
        for (size_t i = 0; i < n; i++) /* multiples of one half, so that many values are ties */
            x[i] = i % 32 == 0 ? 127.0f : (float)((int)(check_random(&seed) % 255) - 127) * 0.5f;
        check_quantized(x, n);
        x[n / 2] = NAN;
        check_quantized(x, n);
        x[n / 2] = -INFINITY;
        check_quantized(x, n);
        x[n - 1] = -NAN;
        check_quantized(x, n);
        memset(x, 0, n * sizeof *x);
        check_quantized(x, n);
        x[n - 1] = 0.9e-30f; /* just below the smallest block that is quantized */
        check_quantized(x, n);
        x[0] = -1.1e-30f;
        check_quantized(x, n);
    }
}

/* y = round(x / d) with d = amax / 127: half a step, and the roundings of the operations (each
 * 2^-24 relative, on values up to 127 steps). */
static const double HALF_STEP = 0.5 + 4 * 127 * 0x1p-24;

static void test_quantization_keeps_values_within_half_a_step(void)
{
    static quantized q;
    static float x[MAX_N];
    uint64_t seed = 2;
    random_vector(x, MAX_N, 7.0f, &seed);
    lld_acts acts = quantized_acts(&q, MAX_N);
    tables[0]->quantize_q8(x, MAX_N, &acts, 0);
    for (size_t b = 0; b < MAX_N / 32; b++) {
        int sum = 0;
        for (size_t i = 32 * b; i < 32 * b + 32; i++) {
            double error = fabs((double)x[i] - (double)q.d[b] * q.y[i]);
            CHECK(error <= HALF_STEP * (double)q.d[b], "q8 element %zu: error %g", i, error);
            sum += q.y[i];
        }
        CHECK(sum == q.sum[b] && q.s[b] == q.d[b] * (float)sum, "q8 block %zu: sums", b);
    }
    acts = quantized_acts(&q, MAX_N);
    tables[0]->quantize_q8k(x, MAX_N, &acts, 0);
    for (size_t i = 0; i < MAX_N; i++) {
        double d = (double)q.d[i / 256], error = fabs((double)x[i] - d * q.y[i]);
        CHECK(error <= HALF_STEP * d, "q8k element %zu: error %g", i, error);
        int sum = 0;
        for (size_t j = i / 16 * 16; j < i / 16 * 16 + 16; j++) sum += q.y[j];
        CHECK(sum == q.sum16[i / 16], "q8k group %zu: sum", i / 16);
    }
}

static void test_quantization_of_blocks_without_a_scale(void)
{
    static const float specials[] = {0.0f, 0.9e-30f, NAN, INFINITY, -INFINITY};
    quantized q;
    float x[32];
    for (size_t i = 0; i < sizeof specials / sizeof specials[0]; i++) {
        memset(x, 0, sizeof x);
        x[5] = isfinite(specials[i]) ? 0.0f : 1.0f;
        x[9] = specials[i];
        lld_acts acts = quantized_acts(&q, 32);
        tables[0]->quantize_q8(x, 32, &acts, 0);
        CHECK(same_float(q.d[0], isfinite(specials[i]) ? 0.0f : NAN), "scale %g", (double)q.d[0]);
        for (size_t j = 0; j < 32; j++) CHECK(q.y[j] == 0, "element %zu is %d", j, q.y[j]);
    }
}

static void test_rounding_is_to_even(void)
{
    quantized q;
    float x[32] = {127.0f, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 126.5f};
    static const int8_t wanted[8] = {127, 0, 2, 2, 0, -2, -2, 126};
    lld_acts acts = quantized_acts(&q, 32);
    tables[0]->quantize_q8(x, 32, &acts, 0);
    CHECK(memcmp(q.y, wanted, sizeof wanted) == 0, "ties round to even");
}

/* ---- vectors --------------------------------------------------------------------------------- */

typedef enum vector_kernel {
    RMSNORM,
    RMSNORM_IN_PLACE,
    SILU_MUL,
    GELU_MUL,
    GELU_ERF_MUL,
    SWIGLU_CLAMPED_MUL,
    SIGMOID_MUL,
    EXP_BELOW,
    SOFTCAP,
    ADD,
    N_VECTOR_KERNELS
} vector_kernel;

static const char *const vector_kernel_names[] = {
    "rmsnorm",     "rmsnorm in place", "silu_mul", "gelu_mul", "gelu_erf_mul", "swiglu_clamped_mul",
    "sigmoid_mul", "exp_below",        "softcap",  "add"};

static void run_vector(const lld_kernels *table, vector_kernel kernel, const float *x,
                       const float *y, size_t n, float *out)
{
    if (kernel != RMSNORM) memcpy(out, x, n * sizeof *out);
    if (kernel == RMSNORM)
        table->rmsnorm(out, x, y, n, 1e-5f);
    else if (kernel == RMSNORM_IN_PLACE)
        table->rmsnorm(out, out, y, n, 1e-5f);
    else if (kernel == SILU_MUL)
        table->silu_mul(out, y, n);
    else if (kernel == GELU_MUL)
        table->gelu_mul(out, y, n);
    else if (kernel == GELU_ERF_MUL)
        table->gelu_erf_mul(out, y, n);
    else if (kernel == SWIGLU_CLAMPED_MUL)
        table->swiglu_clamped_mul(out, y, n);
    else if (kernel == SIGMOID_MUL)
        table->sigmoid_mul(out, y, n);
    else if (kernel == EXP_BELOW)
        table->exp_below(out, n, 3.0f);
    else if (kernel == SOFTCAP)
        table->softcap(out, n, 30.0f);
    else
        table->add(out, y, n);
}

static void check_vectors(const float *x, const float *y, size_t n)
{
    static float wanted[MAX_N];
    float *out = guarded_tail(out_buffer, n * sizeof(float));
    for (vector_kernel kernel = 0; kernel < N_VECTOR_KERNELS; kernel++) {
        run_vector(tables[0], kernel, x, y, n, wanted);
        for (size_t t = 0; t < n_tables; t++) {
            run_vector(tables[t], kernel, x, y, n, out);
            size_t i = first_difference(wanted, out, n);
            CHECK(i == n, "%s %s n=%zu: [%zu] = %a, generic %a", tables[t]->name,
                  vector_kernel_names[kernel], n, i, (double)out[i], (double)wanted[i]);
        }
    }
}

static void test_vector_kernels_are_the_same_everywhere(void)
{
    uint64_t seed = 3;
    for (size_t l = 0; l < N_LENGTHS; l++) {
        const size_t n = lengths[l];
        float *x = guarded_tail(x_buffer, n * sizeof(float));
        float *y = guarded_tail(y_buffer, n * sizeof(float));
        for (int scale = -6; scale <= 6; scale += 3) {
            random_vector(x, n, powf(10.0f, (float)scale), &seed);
            random_vector(y, n, 2.0f, &seed);
            check_vectors(x, y, n);
        }
        for (int repeat = 0; repeat < 8; repeat++) {
            edge_vector(x, n, &seed);
            edge_vector(y, n, &seed);
            check_vectors(x, y, n);
        }
        x[n / 2] = NAN;
        x[n - 1] = INFINITY;
        x[0] = -INFINITY;
        check_vectors(x, y, n);
    }
}

/* rmsnorm: a chain of n/8 fused additions of positive terms, then about ten roundings more. */
static double rmsnorm_bound(size_t n) { return ((double)n / 8 + 10) * 0x1p-24; }

static void test_norm_against_double(void)
{
    static float x[MAX_N], y[MAX_N], out[MAX_N];
    uint64_t seed = 4;
    for (size_t l = 0; l < N_LENGTHS; l++) {
        const size_t n = lengths[l];
        random_vector(x, n, 20.0f, &seed);
        random_vector(y, n, 1.0f, &seed);
        double squares = 0.0;
        for (size_t i = 0; i < n; i++) squares += (double)x[i] * (double)x[i];
        double r = 1.0 / sqrt(squares / (double)n + 1e-5);
        run_vector(tables[0], RMSNORM, x, y, n, out);
        for (size_t i = 0; i < n; i++) {
            double wanted = (double)x[i] * r * (double)y[i];
            CHECK(fabs((double)out[i] - wanted) <= rmsnorm_bound(n) * fabs(wanted),
                  "rmsnorm n=%zu [%zu] = %g, wanted %g", n, i, (double)out[i], wanted);
        }
    }
}

static double sigmoid(double x) { return 1.0 / (1.0 + exp(-x)); }
static double silu_mul(double x, double y) { return x * sigmoid(x) * y; }
static double sigmoid_mul(double x, double y) { return x * sigmoid(y); }
static double gelu_mul(double x, double y)
{
    return x * sigmoid(2.0 * 0.7978845608028654 * x * (1.0 + 0.044715 * x * x)) * y;
}
static double gelu_erf_mul(double x, double y) { return x * 0.5 * erfc(-x / sqrt(2.0)) * y; }
static double swiglu_clamped_mul(double x, double y)
{
    const double g = fmin(x, 7.0), u = fmax(fmin(y, 7.0), -7.0) + 1.0;
    return g * sigmoid((double)1.702f * g) * u;
}
static double softcap(double x, double y)
{
    (void)y;
    return 30.0 * tanh(x / 30.0);
}

/* SiLU and sigmoid: lld_expf is within 3e-7 (vecmath.h), and its error enters 1 + exp at most in full;
 * three roundings follow. */
static const double SIGMOID_BOUND = 3e-7 + 4 * 0x1p-24;
/* GELU: the argument of exp has four roundings, which it carries times its magnitude, up to 87 where
 * the result is not negligible. */
static const double GELU_BOUND = 3e-7 + 87 * 5 * 0x1p-24 + 4 * 0x1p-24;
/* GELU by erf: the approximation's 1.5e-7 of g, and the roundings of a polynomial of terms up to 1.5. */
static const double GELU_ERF_BOUND = 1.5e-7 + 12 * 0x1p-24;
/* The argument of exp carries two roundings times its magnitude, up to 12 for g of 7 and down to where
 * the result is nothing. */
static const double SWIGLU_BOUND = 3e-7 + 87 * 2 * 0x1p-24 + 4 * 0x1p-24;
/* Softcap: the error of exp, and what its argument of at most 2 carries, against the limit. */
static const double SOFTCAP_BOUND = 30.0 * (3e-7 + 6 * 0x1p-24);

typedef enum bound_of { OF_RESULT, OF_PRODUCT, ABSOLUTE } bound_of; /* what a bound is a part of */

static void check_activation(vector_kernel kernel, float x_scale, float y_scale,
                             double (*definition)(double x, double y), double bound, bound_of of)
{
    static float x[MAX_N], y[MAX_N], out[MAX_N];
    uint64_t seed = 9 + (uint64_t)kernel;
    for (size_t l = 0; l < N_LENGTHS; l++) {
        const size_t n = lengths[l];
        random_vector(x, n, x_scale, &seed);
        random_vector(y, n, y_scale, &seed);
        run_vector(tables[0], kernel, x, y, n, out);
        for (size_t i = 0; i < n; i++) {
            const double wanted = definition((double)x[i], (double)y[i]);
            const double size = of == OF_RESULT    ? fabs(wanted)
                                : of == OF_PRODUCT ? fabs((double)x[i] * (double)y[i])
                                                   : 1.0;
            CHECK(fabs((double)out[i] - wanted) <= bound * size,
                  "%s n=%zu [%zu] of %g, %g = %g, wanted %g", vector_kernel_names[kernel], n, i,
                  (double)x[i], (double)y[i], (double)out[i], wanted);
        }
    }
}

static void test_activations_against_double(void)
{
    check_activation(SILU_MUL, 20.0f, 1.0f, silu_mul, SIGMOID_BOUND, OF_RESULT);
    check_activation(SIGMOID_MUL, 20.0f, 20.0f, sigmoid_mul, SIGMOID_BOUND, OF_RESULT);
    check_activation(GELU_MUL, 6.0f, 1.0f, gelu_mul, GELU_BOUND, OF_RESULT);
    check_activation(GELU_ERF_MUL, 6.0f, 1.0f, gelu_erf_mul, GELU_ERF_BOUND, OF_PRODUCT);
    check_activation(SWIGLU_CLAMPED_MUL, 20.0f, 20.0f, swiglu_clamped_mul, SWIGLU_BOUND, OF_RESULT);
    check_activation(SOFTCAP, 90.0f, 1.0f, softcap, SOFTCAP_BOUND, ABSOLUTE);
}

static void test_exp_is_within_its_stated_error(void)
{
    for (float x = -87.0f; x <= 88.0f; x += 0.00137f) {
        double wanted = exp((double)x), error = fabs((double)lld_expf(x) - wanted) / wanted;
        CHECK(error < 3e-7, "exp(%g): relative error %g", (double)x, error);
    }
    CHECK(lld_expf(0.0f) == 1.0f, "exp(0) = %a", (double)lld_expf(0.0f));
    CHECK(lld_expf(-87.4f) == 0.0f && lld_expf(-1e30f) == 0.0f, "far below: 0");
    CHECK(lld_expf(1e30f) == lld_expf(88.0f), "far above: exp(88)");
}

/* ---- rotation -------------------------------------------------------------------------------- */

static void check_rope(const float *x, const float *cos_sin, size_t n_rot)
{
    static float wanted[MAX_N];
    float *out = guarded_tail(out_buffer, n_rot * sizeof(float));
    for (int neox = 0; neox < 2; neox++)
        for (size_t t = 0; t < n_tables; t++) {
            float *target = t == 0 ? wanted : out;
            memcpy(target, x, n_rot * sizeof *x);
            (neox ? tables[t]->rope_neox : tables[t]->rope_norm)(target, cos_sin, n_rot);
            size_t i = first_difference(wanted, target, n_rot);
            CHECK(i == n_rot, "%s rope_%s n_rot=%zu: [%zu] = %a, generic %a", tables[t]->name,
                  neox ? "neox" : "norm", n_rot, i, (double)target[i], (double)wanted[i]);
        }
}

static void test_rotation_is_the_same_everywhere(void)
{
    uint64_t seed = 5;
    for (size_t n_rot = 2; n_rot <= 256; n_rot += n_rot < 72 ? 2 : 8) {
        float *x = guarded_tail(x_buffer, n_rot * sizeof(float));
        float *cos_sin = guarded_tail(y_buffer, n_rot * sizeof(float));
        for (size_t i = 0; i < n_rot / 2; i++) {
            float angle = random_unit(&seed) * 100.0f;
            cos_sin[2 * i] = cosf(angle);
            cos_sin[2 * i + 1] = sinf(angle);
        }
        random_vector(x, n_rot, 3.0f, &seed);
        check_rope(x, cos_sin, n_rot);
        edge_vector(x, n_rot, &seed);
        check_rope(x, cos_sin, n_rot);
    }
}

static void test_rotation_pairs_the_right_elements(void)
{
    const float quarter[6] = {0, 1, 0, 1, 0, 1}; /* cos 0, sin 1: (a, b) -> (-b, a) */
    float norm[6] = {1, 2, 3, 4, 5, 6}, neox[6] = {1, 2, 3, 4, 5, 6};
    const float norm_wanted[6] = {-2, 1, -4, 3, -6, 5}, neox_wanted[6] = {-4, -5, -6, 1, 2, 3};
    tables[0]->rope_norm(norm, quarter, 6);
    tables[0]->rope_neox(neox, quarter, 6);
    for (size_t i = 0; i < 6; i++) {
        CHECK(norm[i] == norm_wanted[i], "norm [%zu] = %g", i, (double)norm[i]);
        CHECK(neox[i] == neox_wanted[i], "neox [%zu] = %g", i, (double)neox[i]);
    }
}

int main(void)
{
    n_tables = machine_tables(tables);
    x_buffer = guarded_create(MAX_N * sizeof(float));
    y_buffer = guarded_create(MAX_N * sizeof(float));
    out_buffer = guarded_create(MAX_N * sizeof(float));
    test_quantization_is_the_same_everywhere();
    test_quantization_keeps_values_within_half_a_step();
    test_quantization_of_blocks_without_a_scale();
    test_rounding_is_to_even();
    test_vector_kernels_are_the_same_everywhere();
    test_norm_against_double();
    test_activations_against_double();
    test_exp_is_within_its_stated_error();
    test_rotation_is_the_same_everywhere();
    test_rotation_pairs_the_right_elements();
    return check_result();
}
