/* test_kernels_kv_q4.c - the kernels of the 4-bit KV cache: each instruction set against generic, bit
 * for bit, for every head size; generic against the transform's definition in double. */
#include "kernel_check.h"

enum { MAX_DIM = LLD_KV_MAX_DIM };

static guarded x_buffer, k_buffer, v_buffer, kd_buffer, vd_buffer, out_buffer;
static const lld_kernels *tables[MAX_TABLES];
static size_t n_tables;

static const size_t head_dims[] = {2, 4, 6, 8, 16, 20, 34, 48, 64, 80, 96, 112, 128, 192, 256, 512};

enum { N_HEAD_DIMS = sizeof head_dims / sizeof head_dims[0] };

/* ---- rotation -------------------------------------------------------------------------------- */

/* out[i] = sum_j (-1)^(number of ones in i & j) x[j] / sqrt(block), block by block. */
static void hadamard_in_double(double *out, const float *x, size_t n)
{
    for (size_t first = 0, block; first < n; first += block) {
        for (block = 1; 2 * block <= n - first;) block *= 2;
        for (size_t i = 0; i < block; i++) {
            double sum = 0.0;
            for (size_t j = 0; j < block; j++)
                sum += (__builtin_popcountl(i & j) % 2 ? -1.0 : 1.0) * (double)x[first + j];
            out[first + i] = sum / sqrt((double)block);
        }
    }
}

static double norm(const float *x, size_t n)
{
    double sum = 0.0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

/* Nine stages of additions and a scale, each rounded relative to a value that the norm bounds. */
static const double ROTATION_ERROR = 12 * 0x1p-24;

static void test_rotation_is_the_transform_and_its_own_inverse(void)
{
    uint64_t seed = 1;
    for (size_t h = 0; h < N_HEAD_DIMS; h++) {
        const size_t n = head_dims[h];
        float x[MAX_DIM], y[MAX_DIM];
        double wanted[MAX_DIM];
        random_vector(x, n, 3.0f, &seed);
        x[n / 3] = 100.0f;
        memcpy(y, x, sizeof x);
        hadamard_in_double(wanted, x, n);
        tables[0]->hadamard(y, n);
        const double bound = ROTATION_ERROR * norm(x, n);
        for (size_t i = 0; i < n; i++)
            CHECK(fabs((double)y[i] - wanted[i]) <= bound, "n=%zu: [%zu] is %g, wanted %g", n, i,
                  (double)y[i], wanted[i]);
        tables[0]->hadamard(y, n);
        for (size_t i = 0; i < n; i++)
            CHECK(fabs((double)y[i] - (double)x[i]) <= 2 * bound, "n=%zu: [%zu] back is %g, was %g",
                  n, i, (double)y[i], (double)x[i]);
    }
}

static void check_rotation(const float *x, size_t n)
{
    float wanted[MAX_DIM];
    memcpy(wanted, x, n * sizeof *x);
    tables[0]->hadamard(wanted, n);
    for (size_t t = 1; t < n_tables; t++) {
        float *got = guarded_tail(out_buffer, n * sizeof *got);
        memcpy(got, x, n * sizeof *x);
        tables[t]->hadamard(got, n);
        const size_t i = first_difference(wanted, got, n);
        CHECK(i == n, "%s hadamard n=%zu: [%zu] = %a, generic %a", tables[t]->name, n, i,
              (double)got[i], (double)wanted[i]);
    }
}

static void test_rotation_is_the_same_everywhere(void)
{
    uint64_t seed = 2;
    float x[MAX_DIM];
    for (size_t n = 1; n <= MAX_DIM; n += n < 130 ? 1 : 31) {
        random_vector(x, n, 5.0f, &seed);
        check_rotation(x, n);
        edge_vector(x, n, &seed);
        check_rotation(x, n);
    }
    random_vector(x, MAX_DIM, 5.0f, &seed);
    check_rotation(x, MAX_DIM);
    x[77] = NAN;
    check_rotation(x, MAX_DIM);
}

/* ---- store and unpack ------------------------------------------------------------------------ */

typedef struct kv_block {
    size_t head_dim, n_groups;
    uint8_t *k, *v;
    uint16_t *kd, *vd;
} kv_block;

static kv_block new_block(size_t head_dim)
{
    const size_t n_groups = (head_dim + 31) / 32, n = head_dim / 2 * LLD_KV_BLOCK;
    const kv_block b = {.head_dim = head_dim,
                        .n_groups = n_groups,
                        .k = guarded_tail(k_buffer, n),
                        .v = guarded_tail(v_buffer, n),
                        .kd = guarded_tail(kd_buffer, n_groups * LLD_KV_BLOCK * 2),
                        .vd = guarded_tail(vd_buffer, n_groups * LLD_KV_BLOCK * 2)};
    memset(b.k, 0x35, n);
    memset(b.v, 0x35, n);
    memset(b.kd, 0x35, n_groups * LLD_KV_BLOCK * 2);
    memset(b.vd, 0x35, n_groups * LLD_KV_BLOCK * 2);
    return b;
}

static void store(const lld_kernels *table, const kv_block *b, size_t slot, const float *k,
                  const float *v)
{
    table->kv_store_q4(b->k, b->kd, b->v, b->vd, slot, k, v, b->head_dim);
}

/* The element of a key as q8_0's kernels meet it. */
static double key_value(const kv_block *b, const int8_t *unpacked, size_t token, size_t d)
{
    return (double)lld_f16_to_f32(b->kd[d / 32 * LLD_KV_BLOCK + token]) *
           unpacked[d * LLD_KV_BLOCK + token];
}

static double value_value(const kv_block *b, const int8_t *unpacked, size_t token, size_t d)
{
    return (double)lld_f16_to_f32(b->vd[token * b->n_groups + d / 32]) *
           unpacked[token * b->head_dim + d];
}

/* x: (n) of the group that d lies in; got: the element d. Where x is of the sign of the largest, or
 * smaller than 7/8 of it, half a step; the rest are cut to 7 steps. And the scale's rounding to f16. */
static void check_group(const float *x, size_t n, size_t d, double got, const char *name)
{
    const size_t first = d / 32 * 32;
    double largest = 0.0;
    for (size_t i = first; i < n && i < first + 32; i++)
        if (fabs((double)x[i]) > fabs(largest)) largest = (double)x[i];
    const double step = fabs(largest) / 8, signed_x = (double)x[d] * (largest < 0 ? -1 : 1);
    const double bound = signed_x < -7 * step ? step : step / 2;
    CHECK(fabs(got - (double)x[d]) <= bound * 1.01, "%s[%zu]: %g, was %g, step %g", name, d, got,
          (double)x[d], step);
}

static void test_what_is_stored_lies_within_half_a_step(void)
{
    uint64_t seed = 3;
    for (size_t h = 0; h < N_HEAD_DIMS; h++) {
        const size_t n = head_dims[h], bytes = n / 2 * LLD_KV_BLOCK;
        const kv_block b = new_block(n);
        static float k[LLD_KV_BLOCK][MAX_DIM], v[LLD_KV_BLOCK][MAX_DIM];
        static int8_t keys[MAX_DIM * LLD_KV_BLOCK], values[MAX_DIM * LLD_KV_BLOCK];
        for (size_t slot = 0; slot < LLD_KV_BLOCK; slot++) {
            random_vector(k[slot], n, 10.0f, &seed);
            random_vector(v[slot], n, 0.1f, &seed);
            store(tables[0], &b, slot, k[slot], v[slot]);
        }
        tables[0]->kv_unpack_q4(keys, b.k, bytes, LLD_KV_BLOCK);
        tables[0]->kv_unpack_q4(values, b.v, bytes, n / 2);
        for (size_t slot = 0; slot < LLD_KV_BLOCK; slot++)
            for (size_t d = 0; d < n; d++) {
                check_group(k[slot], n, d, key_value(&b, keys, slot, d), "k");
                check_group(v[slot], n, d, value_value(&b, values, slot, d), "v");
            }
    }
}

static void test_edges_of_the_store(void)
{
    const kv_block b = new_block(64);
    float k[64] = {0}, v[64] = {0};
    int8_t keys[64 * LLD_KV_BLOCK];
    k[0] = 8.0f; /* the largest gives d = -1 */
    k[1] = -8.0f;
    k[2] = 0.5f; /* a tie: to even */
    k[3] = 1.5f;
    k[32] = 1e9f; /* beyond what a scale can say: the largest that one can */
    v[5] = NAN;
    v[40] = -INFINITY;
    store(tables[0], &b, 9, k, v);
    tables[0]->kv_unpack_q4(keys, b.k, 32 * LLD_KV_BLOCK, LLD_KV_BLOCK);
    const double wanted[] = {8.0, -7.0, 0.0, 2.0, 0.0};
    for (size_t d = 0; d < 5; d++)
        CHECK(key_value(&b, keys, 9, d) == wanted[d], "k[%zu] = %g", d, key_value(&b, keys, 9, d));
    CHECK(key_value(&b, keys, 9, 32) == 8 * 65504.0, "clamped: %g", key_value(&b, keys, 9, 32));
    CHECK(key_value(&b, keys, 9, 33) == 0.0, "beside it: %g", key_value(&b, keys, 9, 33));
    CHECK(isnan(lld_f16_to_f32(b.vd[9 * 2])) && isnan(lld_f16_to_f32(b.vd[9 * 2 + 1])),
          "what is not finite stays seen");
    memset(k, 0, sizeof k);
    store(tables[0], &b, 10, k, k);
    tables[0]->kv_unpack_q4(keys, b.k, 32 * LLD_KV_BLOCK, LLD_KV_BLOCK);
    CHECK(key_value(&b, keys, 10, 3) == 0.0 && key_value(&b, keys, 9, 0) == 8.0,
          "zeros are zeros, and the token beside stays");
}

static void check_store(size_t n, size_t slot, const float *k, const float *v)
{
    static uint8_t wanted[2][MAX_DIM / 2 * LLD_KV_BLOCK];
    static uint16_t wanted_d[2][MAX_DIM / 32 * LLD_KV_BLOCK];
    const size_t bytes = n / 2 * LLD_KV_BLOCK, scales = (n + 31) / 32 * LLD_KV_BLOCK;
    kv_block b = new_block(n);
    store(tables[0], &b, slot, k, v);
    memcpy(wanted[0], b.k, bytes);
    memcpy(wanted[1], b.v, bytes);
    memcpy(wanted_d[0], b.kd, scales * 2);
    memcpy(wanted_d[1], b.vd, scales * 2);
    for (size_t t = 1; t < n_tables; t++) {
        b = new_block(n);
        store(tables[t], &b, slot, k, v);
        CHECK(memcmp(wanted[0], b.k, bytes) == 0 && memcmp(wanted[1], b.v, bytes) == 0,
              "%s kv_store_q4 head_dim=%zu slot=%zu: other nibbles", tables[t]->name, n, slot);
        CHECK(first_difference_f16(wanted_d[0], b.kd, scales) == scales &&
                  first_difference_f16(wanted_d[1], b.vd, scales) == scales,
              "%s kv_store_q4 head_dim=%zu slot=%zu: other scales", tables[t]->name, n, slot);
    }
}

static void check_unpack(size_t n_bytes, size_t run, uint64_t *seed)
{
    static int8_t wanted[MAX_DIM * LLD_KV_BLOCK];
    uint8_t *packed = guarded_tail(k_buffer, n_bytes);
    for (size_t i = 0; i < n_bytes; i++) packed[i] = (uint8_t)check_random(seed);
    tables[0]->kv_unpack_q4(wanted, packed, n_bytes, run);
    for (size_t t = 1; t < n_tables; t++) {
        int8_t *got = guarded_tail(out_buffer, 2 * n_bytes);
        memset(got, 0x7E, 2 * n_bytes);
        tables[t]->kv_unpack_q4(got, packed, n_bytes, run);
        CHECK(memcmp(wanted, got, 2 * n_bytes) == 0, "%s kv_unpack_q4 n_bytes=%zu run=%zu",
              tables[t]->name, n_bytes, run);
    }
}

static void test_store_and_unpack_are_the_same_everywhere(void)
{
    uint64_t seed = 4;
    for (size_t h = 0; h < N_HEAD_DIMS; h++) {
        const size_t n = head_dims[h];
        float *k = guarded_tail(x_buffer, n * sizeof *k),
              *v = guarded_tail(out_buffer, n * sizeof *v);
        for (size_t slot = 0; slot < LLD_KV_BLOCK; slot += 5) {
            random_vector(k, n, 10.0f, &seed);
            random_vector(v, n, 0.01f, &seed);
            check_store(n, slot, k, v);
            edge_vector(k, n, &seed);
            edge_vector(v, n, &seed);
            check_store(n, slot, k, v);
        }
        k[n / 2] = NAN;
        v[n - 1] = INFINITY;
        check_store(n, 31, k, v);
        check_unpack(n / 2 * LLD_KV_BLOCK, LLD_KV_BLOCK, &seed);
        for (size_t n_tokens = 1; n_tokens <= LLD_KV_BLOCK; n_tokens += 6)
            check_unpack(n / 2 * n_tokens, n / 2, &seed);
    }
}

int main(void)
{
    n_tables = machine_tables(tables);
    x_buffer = guarded_create(MAX_DIM * sizeof(float));
    k_buffer = guarded_create(MAX_DIM / 2 * LLD_KV_BLOCK);
    v_buffer = guarded_create(MAX_DIM / 2 * LLD_KV_BLOCK);
    kd_buffer = guarded_create(MAX_DIM / 32 * LLD_KV_BLOCK * 2);
    vd_buffer = guarded_create(MAX_DIM / 32 * LLD_KV_BLOCK * 2);
    out_buffer = guarded_create(MAX_DIM * LLD_KV_BLOCK);
    test_rotation_is_the_transform_and_its_own_inverse();
    test_rotation_is_the_same_everywhere();
    test_what_is_stored_lies_within_half_a_step();
    test_edges_of_the_store();
    test_store_and_unpack_are_the_same_everywhere();
    return check_result();
}
