/* test_kernels_attention.c - the kernels over one KV block, both element types: each instruction
 * set against generic, bit for bit, for every head size; generic against attention in double. */
#include "kernel_check.h"

enum { MAX_DIM = 256, MAX_QUERIES = 9, MAX_SOFTMAX = 256, STRIDE = LLD_KV_BLOCK + 8 };

static guarded k_buffer, kd_buffer, v_buffer, vd_buffer, q_buffer, p_buffer, x_buffer, out_buffer;
static const lld_kernels *tables[MAX_TABLES];
static size_t n_tables;

static const size_t head_dims[] = {1, 2, 3, 4, 5, 6, 7, 8, 20, 33, 64, 80, 96, 128, 256};

enum { N_HEAD_DIMS = sizeof head_dims / sizeof head_dims[0] };

/* One KV block of either type; the unused members are NULL. */
typedef struct kv_block {
    size_t head_dim, n_groups;
    uint16_t *k16, *v16;
    int8_t *k8, *v8;
    uint16_t *kd, *vd;
} kv_block;

/* Both element types share the buffers: place one, use it, place the other. */
static kv_block block_f16(size_t head_dim)
{
    const size_t bytes = head_dim * LLD_KV_BLOCK * sizeof(uint16_t);
    return (kv_block){.head_dim = head_dim,
                      .k16 = guarded_tail(k_buffer, bytes),
                      .v16 = guarded_tail(v_buffer, bytes)};
}

static kv_block block_q8(size_t head_dim)
{
    const size_t n_groups = (head_dim + 31) / 32;
    const size_t bytes = head_dim * LLD_KV_BLOCK, d_bytes = n_groups * LLD_KV_BLOCK * 2;
    return (kv_block){.head_dim = head_dim,
                      .n_groups = n_groups,
                      .k8 = guarded_tail(k_buffer, bytes),
                      .v8 = guarded_tail(v_buffer, bytes),
                      .kd = guarded_tail(kd_buffer, d_bytes),
                      .vd = guarded_tail(vd_buffer, d_bytes)};
}

static void store(const lld_kernels *table, const kv_block *b, size_t slot, const float *k,
                  const float *v)
{
    if (b->k16 != NULL)
        table->kv_store_f16(b->k16, b->v16, slot, k, v, b->head_dim);
    else
        table->kv_store_q8(b->k8, b->kd, b->v8, b->vd, slot, k, v, b->head_dim);
}

static void fill_block(const kv_block *b, float scale, uint64_t *seed)
{
    float k[MAX_DIM], v[MAX_DIM];
    for (size_t slot = 0; slot < LLD_KV_BLOCK; slot++) {
        random_vector(k, b->head_dim, scale, seed);
        random_vector(v, b->head_dim, scale, seed);
        store(tables[0], b, slot, k, v);
    }
}

static double key_value(const kv_block *b, size_t token, size_t d)
{
    size_t i = d * LLD_KV_BLOCK + token;
    if (b->k16 != NULL) return (double)lld_f16_to_f32(b->k16[i]);
    return (double)lld_f16_to_f32(b->kd[d / 32 * LLD_KV_BLOCK + token]) * b->k8[i];
}

static double value_value(const kv_block *b, size_t token, size_t d)
{
    size_t i = token * b->head_dim + d;
    if (b->v16 != NULL) return (double)lld_f16_to_f32(b->v16[i]);
    return (double)lld_f16_to_f32(b->vd[token * b->n_groups + d / 32]) * b->v8[i];
}

/* ---- store ----------------------------------------------------------------------------------- */

/* The bytes of a block in one array, to compare two stores. Returns their number of halves. */
static size_t block_halves(const kv_block *b, uint16_t *halves)
{
    const size_t n = b->head_dim * LLD_KV_BLOCK, groups = b->n_groups * LLD_KV_BLOCK;
    if (b->k16 != NULL) {
        memcpy(halves, b->k16, n * 2);
        memcpy(halves + n, b->v16, n * 2);
        return 2 * n;
    }
    memcpy(halves, b->kd, groups * 2);
    memcpy(halves + groups, b->vd, groups * 2);
    for (size_t i = 0; i < n; i++) { /* int8 as halves that are never NaN */
        halves[2 * groups + i] = (uint8_t)b->k8[i];
        halves[2 * groups + n + i] = (uint8_t)b->v8[i];
    }
    return 2 * groups + 2 * n;
}

static void clear_block(const kv_block *b)
{
    const size_t n = b->head_dim * LLD_KV_BLOCK, groups = b->n_groups * LLD_KV_BLOCK;
    memset(b->k16 != NULL ? (void *)b->k16 : (void *)b->k8, 0x35, b->k16 != NULL ? 2 * n : n);
    memset(b->v16 != NULL ? (void *)b->v16 : (void *)b->v8, 0x35, b->v16 != NULL ? 2 * n : n);
    if (b->kd != NULL) {
        memset(b->kd, 0x35, 2 * groups);
        memset(b->vd, 0x35, 2 * groups);
    }
}

static void check_store(const kv_block *b, size_t slot, const float *k, const float *v)
{
    static uint16_t wanted[4 * MAX_DIM * LLD_KV_BLOCK], got[4 * MAX_DIM * LLD_KV_BLOCK];
    clear_block(b);
    store(tables[0], b, slot, k, v);
    const size_t n = block_halves(b, wanted);
    for (size_t t = 1; t < n_tables; t++) {
        clear_block(b);
        store(tables[t], b, slot, k, v);
        block_halves(b, got);
        size_t i = first_difference_f16(wanted, got, n);
        CHECK(i == n, "%s kv_store_%s head_dim=%zu slot=%zu: half %zu is %04x, generic %04x",
              tables[t]->name, b->k16 != NULL ? "f16" : "q8", b->head_dim, slot, i, got[i],
              wanted[i]);
    }
}

static void test_store_is_the_same_everywhere(void)
{
    uint64_t seed = 1;
    for (size_t h = 0; h < N_HEAD_DIMS; h++)
        for (int type = 0; type < 2; type++) {
            const size_t n = head_dims[h];
            const kv_block b = type == 0 ? block_f16(n) : block_q8(n);
            float *k = guarded_tail(x_buffer, n * sizeof(float));
            float *v = guarded_tail(q_buffer, n * sizeof(float));
            for (size_t slot = 0; slot < LLD_KV_BLOCK; slot += 5) {
                random_vector(k, n, 10.0f, &seed);
                random_vector(v, n, 0.01f, &seed);
                check_store(&b, slot, k, v);
                edge_vector(k, n, &seed);
                edge_vector(v, n, &seed);
                check_store(&b, slot, k, v);
            }
            k[n / 2] = NAN;
            v[n - 1] = INFINITY;
            v[0] = -INFINITY;
            check_store(&b, 31, k, v);
        }
}

static void test_f16_store_clamps_to_the_largest_half(void)
{
    const kv_block b = block_f16(4);
    const float k[4] = {1e6f, -65520.0f, 65504.0f, 1.0f}, v[4] = {INFINITY, -INFINITY, NAN, 0.5f};
    store(tables[0], &b, 3, k, v);
    const double wanted[4] = {65504.0, -65504.0, 65504.0, 1.0};
    for (size_t d = 0; d < 4; d++)
        CHECK(key_value(&b, 3, d) == wanted[d], "k[%zu] = %g", d, key_value(&b, 3, d));
    CHECK(value_value(&b, 3, 0) == 65504.0 && value_value(&b, 3, 1) == -65504.0, "clamped");
    CHECK(isnan(value_value(&b, 3, 2)), "a NaN stays a NaN");
    CHECK(value_value(&b, 3, 3) == 0.5, "an ordinary value is exact");
}

/* Half a step of rounding y, plus the scale's rounding to f16 (2^-11 relative, on 127 steps). */
static const double Q8_STORE_STEPS = 0.5 + 127 * 0x1p-11 + 4 * 127 * 0x1p-24;

static void test_q8_store_keeps_values_within_its_step(void)
{
    const size_t n = 80;
    const kv_block b = block_q8(n);
    float k[80], v[80];
    uint64_t seed = 2;
    random_vector(k, n, 10.0f, &seed);
    random_vector(v, n, 0.1f, &seed);
    store(tables[0], &b, 7, k, v);
    for (size_t first = 0; first < n; first += 32) {
        double k_max = 0.0, v_max = 0.0;
        for (size_t d = first; d < n && d < first + 32; d++) {
            k_max = fmax(k_max, fabs((double)k[d]));
            v_max = fmax(v_max, fabs((double)v[d]));
        }
        for (size_t d = first; d < n && d < first + 32; d++) {
            double k_error = fabs(key_value(&b, 7, d) - (double)k[d]);
            double v_error = fabs(value_value(&b, 7, d) - (double)v[d]);
            CHECK(k_error <= Q8_STORE_STEPS * k_max / 127, "k[%zu]: error %g", d, k_error);
            CHECK(v_error <= Q8_STORE_STEPS * v_max / 127, "v[%zu]: error %g", d, v_error);
        }
    }
}

/* ---- scores ---------------------------------------------------------------------------------- */

static void run_scores(const lld_kernels *table, const kv_block *b, const float *q, size_t n_q,
                       size_t q_stride, float *scores)
{
    fill_canary(scores, (n_q - 1) * STRIDE + LLD_KV_BLOCK);
    lld_attn_scores s = {.scores = scores,
                         .score_stride = STRIDE,
                         .q = q,
                         .q_stride = q_stride,
                         .n_q = n_q,
                         .head_dim = b->head_dim,
                         .k = b->k16,
                         .kd = b->kd};
    if (b->k16 == NULL) s.k = b->k8;
    (b->k16 != NULL ? table->attn_scores_f16 : table->attn_scores_q8)(&s);
}

/* head_dim fused additions, and for q8_0 one more a group, each rounded relative to a partial sum
 * that the sum of the terms' magnitudes bounds. */
static void check_scores_against_double(const kv_block *b, const float *q, const float *scores)
{
    for (size_t j = 0; j < LLD_KV_BLOCK; j++) {
        double sum = 0.0, magnitude = 0.0;
        for (size_t d = 0; d < b->head_dim; d++) {
            double term = (double)q[d] * key_value(b, j, d);
            sum += term;
            magnitude += fabs(term);
        }
        double bound = (double)(b->head_dim + b->n_groups) * 0x1p-24 * magnitude;
        CHECK(fabs((double)scores[j] - sum) <= bound, "head_dim=%zu token %zu: %g, wanted %g",
              b->head_dim, j, (double)scores[j], sum);
    }
}

static void check_scores(const kv_block *b, size_t n_q, uint64_t *seed)
{
    static float wanted[MAX_QUERIES * STRIDE];
    const size_t q_stride = b->head_dim + n_q % 3;
    const size_t n_scores = (n_q - 1) * STRIDE + LLD_KV_BLOCK;
    float *q = guarded_tail(q_buffer, ((n_q - 1) * q_stride + b->head_dim) * sizeof(float));
    float *scores = guarded_tail(out_buffer, n_scores * sizeof(float));
    random_vector(q, (n_q - 1) * q_stride + b->head_dim, 2.0f, seed);
    run_scores(tables[0], b, q, n_q, q_stride, wanted);
    check_scores_against_double(b, q, wanted);
    for (size_t t = 0; t < n_tables; t++) {
        run_scores(tables[t], b, q, n_q, q_stride, scores);
        size_t i = first_difference(wanted, scores, n_scores);
        CHECK(i == n_scores, "%s attn_scores_%s head_dim=%zu n_q=%zu: [%zu, %zu] = %a, generic %a",
              tables[t]->name, b->k16 != NULL ? "f16" : "q8", b->head_dim, n_q, i / STRIDE,
              i % STRIDE, (double)scores[i], (double)wanted[i]);
    }
}

static void test_scores_of_every_head_size(void)
{
    uint64_t seed = 3;
    for (size_t h = 0; h < N_HEAD_DIMS; h++)
        for (int type = 0; type < 2; type++) {
            const kv_block b = type == 0 ? block_f16(head_dims[h]) : block_q8(head_dims[h]);
            fill_block(&b, 4.0f, &seed);
            for (size_t n_q = 1; n_q <= MAX_QUERIES; n_q++) check_scores(&b, n_q, &seed);
        }
}

/* ---- values ---------------------------------------------------------------------------------- */

typedef struct weighting { /* n_q rows of probabilities over n_tokens tokens */
    size_t n_q, n_tokens, acc_stride, p_stride;
    const float *p; /* (n_q, p_stride) */
} weighting;

static void run_values(const lld_kernels *table, const kv_block *b, const weighting *w, float *acc)
{
    lld_attn_values v = {.acc = acc,
                         .acc_stride = w->acc_stride,
                         .p = w->p,
                         .p_stride = w->p_stride,
                         .n_q = w->n_q,
                         .head_dim = b->head_dim,
                         .n_tokens = w->n_tokens,
                         .v = b->v16,
                         .vd = b->vd};
    if (b->v16 == NULL) v.v = b->v8;
    (b->v16 != NULL ? table->attn_values_f16 : table->attn_values_q8)(&v);
}

/* n_tokens fused additions to a start value, one rounded factor each. */
static void check_values_against_double(const kv_block *b, const weighting *w, const float *start,
                                        const float *acc)
{
    for (size_t d = 0; d < b->head_dim; d++) {
        double sum = (double)start[d], magnitude = fabs(sum);
        for (size_t j = 0; j < w->n_tokens; j++) {
            double term = (double)w->p[j] * value_value(b, j, d);
            sum += term;
            magnitude += fabs(term);
        }
        double bound = (double)(w->n_tokens + 1) * 0x1p-24 * magnitude;
        CHECK(fabs((double)acc[d] - sum) <= bound, "head_dim=%zu element %zu: %g, wanted %g",
              b->head_dim, d, (double)acc[d], sum);
    }
}

static void check_values(const kv_block *b, size_t n_q, size_t n_tokens, uint64_t *seed)
{
    static float start[MAX_QUERIES * (MAX_DIM + 3)], wanted[MAX_QUERIES * (MAX_DIM + 3)];
    weighting w = {.n_q = n_q,
                   .n_tokens = n_tokens,
                   .acc_stride = b->head_dim + n_tokens % 4,
                   .p_stride = n_tokens + n_q % 3};
    const size_t n_p = (n_q - 1) * w.p_stride + n_tokens;
    const size_t n_acc = (n_q - 1) * w.acc_stride + b->head_dim;
    float *p = guarded_tail(p_buffer, n_p * sizeof(float));
    float *acc = guarded_tail(out_buffer, n_acc * sizeof(float));
    for (size_t i = 0; i < n_p; i++) p[i] = fabsf(random_unit(seed));
    w.p = p;
    random_vector(start, n_acc, 1.0f, seed);
    memcpy(wanted, start, n_acc * sizeof(float));
    run_values(tables[0], b, &w, wanted);
    check_values_against_double(b, &w, start, wanted);
    for (size_t t = 0; t < n_tables; t++) {
        memcpy(acc, start, n_acc * sizeof(float));
        run_values(tables[t], b, &w, acc);
        size_t i = first_difference(wanted, acc, n_acc);
        CHECK(i == n_acc, "%s attn_values_%s head_dim=%zu n_q=%zu n_tokens=%zu: [%zu]: %a, not %a",
              tables[t]->name, b->v16 != NULL ? "f16" : "q8", b->head_dim, n_q, n_tokens, i,
              (double)acc[i], (double)wanted[i]);
    }
}

static void test_values_of_every_head_size(void)
{
    uint64_t seed = 4;
    for (size_t h = 0; h < N_HEAD_DIMS; h++)
        for (int type = 0; type < 2; type++) {
            const kv_block b = type == 0 ? block_f16(head_dims[h]) : block_q8(head_dims[h]);
            fill_block(&b, 2.0f, &seed);
            for (size_t n_q = 1; n_q <= MAX_QUERIES; n_q++)
                check_values(&b, n_q, 1 + (7 * n_q + h) % LLD_KV_BLOCK, &seed);
            for (size_t n_tokens = 1; n_tokens <= LLD_KV_BLOCK; n_tokens++)
                check_values(&b, 3, n_tokens, &seed);
        }
}

/* ---- softmax --------------------------------------------------------------------------------- */

static void check_softmax(const float *scores, size_t n)
{
    static float wanted[MAX_SOFTMAX];
    const size_t padded = (n + 31) / 32 * 32;
    float *out = guarded_tail(out_buffer, padded * sizeof(float));
    float wanted_sum = 0.0f, wanted_max = 0.0f;
    for (size_t t = 0; t < n_tables; t++) {
        float *target = t == 0 ? wanted : out, sum;
        fill_canary(target, padded);
        memcpy(target, scores, n * sizeof(float));
        float max = tables[t]->attn_softmax(target, n, &sum);
        if (t == 0) {
            wanted_sum = sum;
            wanted_max = max;
        }
        size_t i = first_difference(wanted, target, padded);
        CHECK(i == padded, "%s attn_softmax n=%zu: [%zu] = %a, generic %a", tables[t]->name, n, i,
              (double)target[i], (double)wanted[i]);
        CHECK(same_float(sum, wanted_sum) && max == wanted_max,
              "%s attn_softmax n=%zu: sum %a max %a, generic %a %a", tables[t]->name, n,
              (double)sum, (double)max, (double)wanted_sum, (double)wanted_max);
    }
}

static void test_softmax_of_every_length(void)
{
    static float scores[MAX_SOFTMAX];
    uint64_t seed = 5;
    for (size_t n = 1; n <= MAX_SOFTMAX; n++) {
        random_vector(scores, n, 10.0f, &seed);
        check_softmax(scores, n);
        random_vector(scores, n, 200.0f, &seed); /* some underflow to 0 */
        check_softmax(scores, n);
        random_vector(scores, n, 1e30f, &seed);
        scores[n / 2] = -0.0f;
        check_softmax(scores, n);
    }
}

static void test_softmax_against_double(void)
{
    float scores[64], out[64], sum;
    uint64_t seed = 6;
    random_vector(scores, 50, 10.0f, &seed);
    memcpy(out, scores, sizeof scores);
    float max = tables[0]->attn_softmax(out, 50, &sum);
    double total = 0.0;
    for (size_t j = 0; j < 50; j++) {
        double wanted = exp((double)scores[j] - (double)max);
        total += wanted;
        CHECK(scores[j] <= max, "score %zu above the maximum", j);
        /* lld_expf's 3e-7, and half the last place of a difference below 32, in the exponent */
        CHECK(fabs((double)out[j] - wanted) <= (3e-7 + 0x1p-20) * wanted, "p[%zu]", j);
    }
    for (size_t j = 50; j < 64; j++) CHECK(out[j] == 0.0f, "padding %zu is %g", j, (double)out[j]);
    CHECK(fabs((double)sum - total) <= 2e-6 * total, "sum %g, wanted %g", (double)sum, total);
}

int main(void)
{
    n_tables = machine_tables(tables);
    k_buffer = guarded_create(MAX_DIM * LLD_KV_BLOCK * 2);
    v_buffer = guarded_create(MAX_DIM * LLD_KV_BLOCK * 2);
    kd_buffer = guarded_create(MAX_DIM * LLD_KV_BLOCK);
    vd_buffer = guarded_create(MAX_DIM * LLD_KV_BLOCK);
    q_buffer = guarded_create(MAX_QUERIES * (MAX_DIM + 3) * sizeof(float));
    p_buffer = guarded_create(MAX_QUERIES * STRIDE * sizeof(float));
    x_buffer = guarded_create(MAX_DIM * sizeof(float));
    out_buffer = guarded_create(MAX_QUERIES * (MAX_DIM + 3) * sizeof(float));
    test_store_is_the_same_everywhere();
    test_f16_store_clamps_to_the_largest_half();
    test_q8_store_keeps_values_within_its_step();
    test_scores_of_every_head_size();
    test_values_of_every_head_size();
    test_softmax_of_every_length();
    test_softmax_against_double();
    return check_result();
}
