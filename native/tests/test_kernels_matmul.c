/* test_kernels_matmul.c - every weight format's matmul: each instruction set against generic, bit
 * for bit, over row lengths, row and column counts and extreme blocks; generic against a product in
 * double. */
#include "format/grids.h"
#include "kernel_check.h"

enum { MAX_ROWS = 33, MAX_COLS = 17, MAX_K = 4864, MAX_STRIDE = MAX_ROWS + 5 };

static guarded weights, y_buffer, d_buffer, sum_buffer, s_buffer, sum16_buffer, f32_buffer,
    scratch_buffer, out_buffer;

typedef struct format {
    uint32_t type;
    int d_offset, m_offset;             /* of the f16 scale fields in a block, bytes; -1: none */
    float largest_min;                  /* factor on m in an element's offset */
    size_t scales_offset, scales_bytes; /* of the packed sub-block scales */
} format;

static const format formats[] = {
    {LLD_F32, -1, -1, 0, 0, 0},    {LLD_F16, -1, -1, 0, 0, 0},      {LLD_BF16, -1, -1, 0, 0, 0},
    {LLD_Q4_0, 0, -1, 0, 0, 0},    {LLD_Q4_1, 0, 2, 1, 0, 0},       {LLD_Q5_0, 0, -1, 0, 0, 0},
    {LLD_Q5_1, 0, 2, 1, 0, 0},     {LLD_Q8_0, 0, -1, 0, 0, 0},      {LLD_IQ4_NL, 0, -1, 0, 0, 0},
    {LLD_Q2_K, 80, 82, 15, 0, 16}, {LLD_Q3_K, 108, -1, 0, 96, 12},  {LLD_Q4_K, 0, 2, 63, 4, 12},
    {LLD_Q5_K, 0, 2, 63, 4, 12},   {LLD_Q6_K, 208, -1, 0, 192, 16}, {LLD_IQ4_XS, 0, -1, 0, 2, 6},
    {LLD_Q1_0, 0, -1, 0, 0, 0},    {LLD_Q2_0, 0, -1, 0, 0, 0},      {LLD_IQ2_XXS, 0, -1, 0, 0, 0},
    {LLD_IQ2_XS, 0, -1, 0, 66, 8}, {LLD_IQ2_S, 0, -1, 0, 74, 8},    {LLD_IQ3_XXS, 0, -1, 0, 0, 0},
    {LLD_IQ3_S, 0, -1, 0, 106, 4}, {LLD_MXFP4, -1, -1, 0, 0, 1},
};

enum { N_FORMATS = sizeof formats / sizeof formats[0] };

/* ---- operands -------------------------------------------------------------------------------- */

/* A matrix of MAX_ROWS weight rows of K elements and MAX_COLS activation rows, each operand at the
 * end of its guarded buffer. */
typedef struct operands {
    const format *format;
    size_t k, row_bytes;
    uint8_t *w;
    lld_acts x;
} operands;

static operands operands_place(const format *f, size_t k, size_t y_stride)
{
    operands o = {.format = f, .k = k, .row_bytes = lld_type_row_bytes(f->type, k)};
    o.w = guarded_tail(weights, MAX_ROWS * o.row_bytes);
    o.x.n_rows = MAX_COLS;
    o.x.n_cols = k;
    lld_act_kind kind = lld_type_act_kind(f->type);
    if (kind == LLD_ACT_F32) {
        o.x.f32 = guarded_tail(f32_buffer, MAX_COLS * k * sizeof(float));
        return o;
    }
    size_t n_blocks = MAX_COLS * (k / (kind == LLD_ACT_Q8 ? LLD_QK : LLD_QK_K));
    o.x.y_stride = y_stride;
    o.x.y = guarded_tail(y_buffer, MAX_COLS * y_stride);
    o.x.d = guarded_tail(d_buffer, n_blocks * sizeof(float));
    if (kind == LLD_ACT_Q8) {
        o.x.sum = guarded_tail(sum_buffer, n_blocks * sizeof(int32_t));
        o.x.s = guarded_tail(s_buffer, n_blocks * sizeof(float));
    } else {
        o.x.sum16 = guarded_tail(sum16_buffer, n_blocks * 16 * sizeof(int16_t));
    }
    return o;
}

/* Activations that share a scale. */
static size_t act_block(const operands *o)
{
    return lld_type_act_kind(o->format->type) == LLD_ACT_Q8K ? LLD_QK_K : LLD_QK;
}

static void put_f16(uint8_t *block, int offset, float value)
{
    uint16_t half = lld_f32_to_f16(value);
    if (offset >= 0) memcpy(block + offset, &half, sizeof half);
}

static float *activations_f32(const operands *o)
{
    return guarded_tail(f32_buffer, MAX_COLS * o->k * sizeof(float));
}

/* Random payloads, scales as in real models, activations quantized by the generic kernel. */
static void fill_random(operands *o, uint64_t seed)
{
    const size_t block = lld_type_block(o->format->type);
    const size_t block_bytes = lld_type_block_bytes(o->format->type);
    const size_t n_blocks = MAX_ROWS * o->k / block;
    for (size_t b = 0; b < n_blocks; b++) {
        uint8_t *bytes = o->w + b * block_bytes;
        for (size_t i = 0; i < block_bytes; i++) bytes[i] = (uint8_t)check_random(&seed);
        float w = random_unit(&seed);
        uint32_t bits;
        memcpy(&bits, &w, sizeof bits);
        if (o->format->type == LLD_F32)
            memcpy(bytes, &w, sizeof w);
        else if (o->format->type == LLD_BF16)
            memcpy(bytes, (const uint8_t *)&bits + 2, 2);
        else if (o->format->type == LLD_F16)
            put_f16(bytes, 0, w);
        else if (o->format->type == LLD_MXFP4)
            bytes[0] = 118 + bytes[0] % 8; /* the exponent */
        put_f16(bytes, o->format->d_offset, w * 0.01f);
        put_f16(bytes, o->format->m_offset, random_unit(&seed) * 0.01f);
    }
    float *x = activations_f32(o);
    random_vector(x, MAX_COLS * o->k, 3.0f, &seed);
    const lld_kernels *generic = lld_kernels_get(0);
    lld_act_kind kind = lld_type_act_kind(o->format->type);
    for (size_t c = 0; c < MAX_COLS; c++)
        if (kind == LLD_ACT_Q8)
            generic->quantize_q8(x + c * o->k, o->k, &o->x, c);
        else if (kind == LLD_ACT_Q8K)
            generic->quantize_q8k(x + c * o->k, o->k, &o->x, c);
}

/* Make the sums of every activation block those of its y. */
static void sum_activations(operands *o)
{
    const size_t n = o->k;
    for (size_t c = 0; c < MAX_COLS; c++)
        for (size_t i = 0; i < n; i++) {
            int y = o->x.y[c * o->x.y_stride + i];
            if (o->x.sum != NULL) {
                size_t b = c * (n / LLD_QK) + i / LLD_QK;
                o->x.sum[b] = (i % LLD_QK == 0 ? 0 : o->x.sum[b]) + y;
                o->x.s[b] = o->x.d[b] * (float)o->x.sum[b];
            } else {
                int16_t *sum = &o->x.sum16[c * (n / 16) + i / 16];
                *sum = (int16_t)((i % 16 == 0 ? 0 : *sum) + y);
            }
        }
}

/* Every payload byte equal, every byte of sub-block scales equal, every |y| = 127: the largest sums
 * a block can give. sign_mask picks the signs of y: bit i % 8. */
static void fill_extreme(operands *o, uint8_t payload, uint8_t scales, float d, float m,
                         uint8_t sign_mask)
{
    const size_t block_bytes = lld_type_block_bytes(o->format->type);
    memset(o->w, payload, MAX_ROWS * o->row_bytes);
    for (uint8_t *block = o->w; block < o->w + MAX_ROWS * o->row_bytes; block += block_bytes) {
        memset(block + o->format->scales_offset, scales, o->format->scales_bytes);
        put_f16(block, o->format->d_offset, d);
        put_f16(block, o->format->m_offset, m);
    }
    for (size_t c = 0; c < MAX_COLS; c++)
        for (size_t i = 0; i < o->k; i++)
            o->x.y[c * o->x.y_stride + i] = (sign_mask >> (i % 8)) & 1 ? -127 : 127;
    size_t n_blocks = MAX_COLS * (o->k / act_block(o));
    for (size_t b = 0; b < n_blocks; b++) o->x.d[b] = 0.5f + (float)b;
    sum_activations(o);
}

/* ---- comparison ------------------------------------------------------------------------------ */

/* out: (MAX_COLS, MAX_ROWS) */
static void multiply_all(const lld_kernels *table, const operands *o, float *out)
{
    void *scratch = guarded_tail(scratch_buffer, lld_kernels_scratch_bytes(o->k));
    table->matmul[o->format->type](&(lld_matmul){.out = out,
                                                 .out_stride = MAX_ROWS,
                                                 .w = o->w,
                                                 .row_bytes = o->row_bytes,
                                                 .n_rows = MAX_ROWS,
                                                 .x = &o->x,
                                                 .scratch = scratch});
}

/* Multiply the last n_rows weight rows with the last n_cols activation rows into a canary-filled
 * buffer: (n_cols, out_stride), and compare with those of `expected`: (MAX_COLS, MAX_ROWS). */
static void check_part(const lld_kernels *table, const operands *o, const float *expected,
                       size_t n_rows, size_t n_cols, size_t out_stride)
{
    const size_t first_row = MAX_ROWS - n_rows, first_col = MAX_COLS - n_cols;
    const size_t n_blocks = o->k / act_block(o);
    const size_t n_out = (n_cols - 1) * out_stride + n_rows;
    lld_acts x = o->x;
    x.n_rows = n_cols;
    if (x.f32 != NULL) x.f32 += first_col * o->k;
    if (x.y != NULL) {
        x.y += first_col * x.y_stride;
        x.d += first_col * n_blocks;
    }
    if (x.sum != NULL) {
        x.sum += first_col * n_blocks;
        x.s += first_col * n_blocks;
    }
    if (x.sum16 != NULL) x.sum16 += first_col * n_blocks * 16;
    float *out = guarded_tail(out_buffer, n_out * sizeof(float));
    void *scratch = guarded_tail(scratch_buffer, lld_kernels_scratch_bytes(o->k));
    fill_canary(out, n_out);
    table->matmul[o->format->type](&(lld_matmul){.out = out,
                                                 .out_stride = out_stride,
                                                 .w = o->w + first_row * o->row_bytes,
                                                 .row_bytes = o->row_bytes,
                                                 .n_rows = n_rows,
                                                 .x = &x,
                                                 .scratch = scratch});

    static float wanted[MAX_COLS * MAX_STRIDE];
    fill_canary(wanted, n_out);
    for (size_t c = 0; c < n_cols; c++)
        memcpy(wanted + c * out_stride, expected + (first_col + c) * MAX_ROWS + first_row,
               n_rows * sizeof(float));
    size_t i = first_difference(wanted, out, n_out);
    CHECK(i == n_out, "%s %s k=%zu rows=%zu cols=%zu stride=%zu: [%zu, %zu] = %a, generic %a",
          table->name, lld_type_name(o->format->type), o->k, n_rows, n_cols, out_stride,
          i / out_stride, i % out_stride, (double)out[i], (double)wanted[i]);
}

/* Numbers of weight rows and activation rows to multiply. */
typedef struct counts {
    size_t rows, cols;
} counts;

enum { N_EVERY = 20 * 10, N_SEVERAL = 5, N_FEW = 2 };

static counts every_count[N_EVERY]; /* 1..19 and 33 rows times ten numbers of columns */
static const counts several_counts[N_SEVERAL] = {{33, 17}, {33, 1}, {6, 4}, {1, 17}, {16, 3}};
static const counts few_counts[N_FEW] = {{MAX_ROWS, 1}, {17, 9}};

static void list_every_count(void)
{
    static const size_t cols[] = {1, 2, 3, 4, 5, 7, 8, 9, 16, 17};
    size_t n = 0;
    for (size_t rows = 1; rows <= 20; rows++)
        for (size_t c = 0; c < sizeof cols / sizeof cols[0]; c++)
            every_count[n++] = (counts){rows == 20 ? MAX_ROWS : rows, cols[c]};
}

/* Compare every table with generic, for each of n counts. */
static void check_tables(const operands *o, const counts *list, size_t n)
{
    static float expected[MAX_COLS * MAX_ROWS];
    const lld_kernels *tables[MAX_TABLES];
    const size_t n_tables = machine_tables(tables);
    multiply_all(tables[0], o, expected);
    for (size_t t = 0; t < n_tables; t++)
        for (size_t i = 0; i < n; i++)
            check_part(tables[t], o, expected, list[i].rows, list[i].cols,
                       list[i].rows + list[i].rows % 6);
}

/* ---- generic against double ------------------------------------------------------------------ */

/* Unit roundoff of float32. An output is a chain of `steps` fused additions, each rounded relative
 * to a partial sum that never exceeds the sum of the terms' magnitudes; a term carries at most 8
 * more roundings (scale product, integer to float, and up to three in the dequantized weight, twice
 * where there is an offset). So |error| <= (steps + 8) * 2^-24 * magnitude, to first order. */
static const double ROUNDOFF = 0x1p-24;

static size_t chain_steps(lld_act_kind kind, size_t k)
{
    if (kind == LLD_ACT_F32) return k / 8 + 4;
    return 2 * (k / (kind == LLD_ACT_Q8 ? LLD_QK : LLD_QK_K));
}

static double activation(const operands *o, size_t c, size_t i)
{
    if (o->x.f32 != NULL) return (double)o->x.f32[c * o->k + i];
    const size_t block = act_block(o);
    return (double)o->x.d[c * (o->k / block) + i / block] * o->x.y[c * o->x.y_stride + i];
}

/* |offset| of the elements in element i's block, at most. */
static double offset_bound(const operands *o, size_t r, size_t i)
{
    if (o->format->m_offset < 0) return 0.0;
    const size_t b = i / lld_type_block(o->format->type);
    uint16_t m;
    memcpy(&m,
           o->w + r * o->row_bytes + b * lld_type_block_bytes(o->format->type) +
               (size_t)o->format->m_offset,
           sizeof m);
    return fabs((double)lld_f16_to_f32(m)) * (double)o->format->largest_min;
}

static void check_against_double(const operands *o)
{
    static float expected[MAX_COLS * MAX_ROWS], row[MAX_K];
    multiply_all(lld_kernels_get(0), o, expected);
    const size_t steps = chain_steps(lld_type_act_kind(o->format->type), o->k);
    for (size_t r = 0; r < MAX_ROWS; r += 8) {
        lld_dequantize_row(o->format->type, o->w + r * o->row_bytes, row, o->k);
        for (size_t c = 0; c < MAX_COLS; c += 4) {
            double sum = 0.0, magnitude = 0.0;
            for (size_t i = 0; i < o->k; i++) {
                double x = activation(o, c, i);
                sum += (double)row[i] * x;
                magnitude += (fabs((double)row[i]) + 2.0 * offset_bound(o, r, i)) * fabs(x);
            }
            double error = fabs((double)expected[c * MAX_ROWS + r] - sum);
            double bound = (double)(steps + 8) * ROUNDOFF * magnitude;
            CHECK(error <= bound, "%s k=%zu row %zu column %zu: error %g, bound %g",
                  lld_type_name(o->format->type), o->k, r, c, error, bound);
        }
    }
}

/* ---- the tests ------------------------------------------------------------------------------- */

static void test_random_rows_of_every_length(const format *f)
{
    static const size_t lengths[LLD_ACT_COUNT][8] = {
        [LLD_ACT_F32] = {13, 1, 7, 100, 577},
        [LLD_ACT_Q8] = {96, 32, 576, 896, 4864, 128, 384},
        [LLD_ACT_Q8K] = {256, 768, 2304},
    };
    const size_t *k = lengths[lld_type_act_kind(f->type)];
    for (size_t i = 0; k[i] != 0; i++) {
        if (lld_type_bytes(f->type, k[i]) == 0) continue; /* no whole blocks */
        operands o = operands_place(f, k[i], i % 2 == 0 ? k[i] : (k[i] + 63) / 64 * 64 + 4);
        fill_random(&o, 1000 * f->type + k[i]);
        if (i == 0 || k[i] == 128)
            check_tables(&o, every_count, N_EVERY);
        else
            check_tables(&o, several_counts, N_SEVERAL);
        check_against_double(&o);
    }
}

static void test_extreme_blocks(const format *f)
{
    static const uint8_t payloads[] = {0x00, 0xFF, 0x80, 0x7F, 0x0F, 0xF0, 0x55, 0xAA};
    static const uint8_t scales[] = {0xFF, 0x00, 0x80, 0x7F};
    static const uint8_t sign_masks[] = {0x00, 0xFF, 0x55, 0x0F};
    const size_t n_scales = f->scales_bytes > 0 ? sizeof scales : 1;
    const size_t k = 2 * lld_type_block(f->type);
    operands o = operands_place(f, k, k);
    for (size_t p = 0; p < sizeof payloads; p++)
        for (size_t i = 0; i < n_scales; i++)
            for (size_t s = 0; s < sizeof sign_masks; s++) {
                fill_extreme(&o, payloads[p], scales[i], 65504.0f, -65504.0f, sign_masks[s]);
                check_tables(&o, few_counts, N_FEW);
            }
    fill_extreme(&o, 0xC3, 0xC3, 0x1p-24f, 0x1p-24f, 0x11); /* the smallest half */
    check_tables(&o, few_counts, N_FEW);
    fill_extreme(&o, 0xC3, 0xC3, -0.0f, 0.0f, 0x11);
    check_tables(&o, few_counts, N_FEW);
}

/* The entry of a table with the largest sum of magnitudes. bytes: of an entry, 4 or 8. */
static unsigned largest_entry(const void *table, size_t n_entries, size_t bytes)
{
    unsigned largest = 0, best = 0;
    for (size_t i = 0; i < n_entries; i++) {
        const uint8_t *entry = (const uint8_t *)table + i * bytes;
        unsigned sum = 0;
        for (size_t k = 0; k < bytes; k++) sum += entry[k];
        if (sum > best) largest = (unsigned)i;
        if (sum > best) best = sum;
    }
    return largest;
}

/* A block whose indices all are `entry`, with no sign and the largest scales; d is left out. */
static void fill_with_entry(uint32_t type, uint8_t *block, unsigned entry)
{
    memset(block + 2, 0, lld_type_block_bytes(type) - 2);
    switch (type) {
    case LLD_IQ2_XXS:
        for (int i = 0; i < 64; i++) block[2 + i] = i % 8 < 4 ? (uint8_t)entry : 0;
        for (int g = 0; g < 8; g++) block[2 + 8 * g + 7] = 0xF0;
        break;
    case LLD_IQ2_XS:
        for (int i = 0; i < 64; i++) block[2 + i] = (uint8_t)(entry >> (8 * (i % 2)));
        memset(block + 66, 0xFF, 8);
        break;
    case LLD_IQ2_S:
        memset(block + 2, (uint8_t)entry, 32);
        memset(block + 66, (uint8_t)((entry >> 8) * 0x55), 8);
        memset(block + 74, 0xFF, 8);
        break;
    case LLD_IQ3_XXS:
        memset(block + 2, (uint8_t)entry, 64);
        for (int g = 0; g < 8; g++) block[66 + 4 * g + 3] = 0xF0;
        break;
    default: /* IQ3_S */
        memset(block + 2, (uint8_t)entry, 64);
        memset(block + 66, entry >> 8 ? 0xFF : 0, 8);
        memset(block + 106, 0xFF, 4);
    }
}

/* The largest magnitudes of a table everywhere: what bounds the sums of 16 bits. */
static void test_largest_entries(const format *f)
{
    static const struct {
        uint32_t type;
        const void *table;
        size_t n_entries, bytes;
        float eight; /* the first eight weights together, 31 being the largest 2s + 1 */
    } grids[] = {
        {LLD_IQ2_XXS, lld_iq2_xxs_grid, 256, 8, 0.125f * 31 * 203},
        {LLD_IQ2_XS, lld_iq2_xs_grid, 512, 8, 0.125f * 31 * 8 * 43},
        {LLD_IQ2_S, lld_iq2_s_grid, 1024, 8, 0.125f * 31 * 8 * 43},
        {LLD_IQ3_XXS, lld_iq3_xxs_grid, 256, 4, 0.25f * 31 * 2 * 162},
        {LLD_IQ3_S, lld_iq3_s_grid, 512, 4, 31 * 2 * 42},
    };
    static float row[2 * LLD_QK_K];
    for (size_t i = 0; i < sizeof grids / sizeof grids[0]; i++) {
        if (grids[i].type != f->type) continue;
        const unsigned entry = largest_entry(grids[i].table, grids[i].n_entries, grids[i].bytes);
        const size_t k = sizeof row / sizeof row[0], bytes = lld_type_block_bytes(f->type);
        operands o = operands_place(f, k, k);
        for (int sign = 0; sign < 2; sign++) {
            fill_extreme(&o, 0, 0, 1.0f, 0.0f, sign == 0 ? 0x00 : 0xFF);
            for (size_t at = 0; at < MAX_ROWS * o.row_bytes; at += bytes)
                fill_with_entry(f->type, o.w + at, entry);
            lld_dequantize_row(f->type, o.w, row, k);
            float sum = 0.0f;
            for (int e = 0; e < 8; e++) sum += row[e];
            CHECK(sum == grids[i].eight, "%s: the first eight are %g together",
                  lld_type_name(f->type), (double)sum);
            check_tables(&o, few_counts, N_FEW);
        }
    }
}

/* A row whose scale is NaN or infinite must spoil its own outputs and no others. */
static void test_scales_that_are_not_finite(const format *f)
{
    static const float broken[] = {NAN, INFINITY, -INFINITY};
    const size_t block_bytes = lld_type_block_bytes(f->type);
    const size_t block = lld_type_block(f->type), k = block == LLD_QK    ? 96
                                                      : block < LLD_QK_K ? 384
                                                                         : 512;
    operands o = operands_place(f, k, k);
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        fill_random(&o, 77 + f->type);
        put_f16(o.w + 3 * o.row_bytes, f->d_offset, broken[i]);
        put_f16(o.w + 17 * o.row_bytes + block_bytes, f->d_offset, broken[i]);
        put_f16(o.w + 30 * o.row_bytes + block_bytes, f->m_offset, broken[i]);
        o.x.d[MAX_COLS * (k / act_block(&o)) - 1] = broken[i];
        sum_activations(&o);
        check_tables(&o, several_counts, N_SEVERAL);
    }
}

static void test_float_weights_at_the_edges(const format *f)
{
    const size_t k = 100;
    uint64_t seed = 5;
    operands o = operands_place(f, k, k);
    fill_random(&o, 6);
    edge_vector(activations_f32(&o), MAX_COLS * k, &seed);
    check_tables(&o, several_counts, N_SEVERAL);
    for (size_t i = 0; i < MAX_ROWS * o.row_bytes; i++) /* any bits: NaN and infinity too */
        o.w[i] = (uint8_t)check_random(&seed);
    check_tables(&o, several_counts, N_SEVERAL);
}

int main(void)
{
    weights = guarded_create(MAX_ROWS * MAX_K * 4);
    y_buffer = guarded_create(MAX_COLS * (MAX_K + 128));
    d_buffer = guarded_create(MAX_COLS * MAX_K);
    sum_buffer = guarded_create(MAX_COLS * MAX_K);
    s_buffer = guarded_create(MAX_COLS * MAX_K);
    sum16_buffer = guarded_create(MAX_COLS * MAX_K);
    f32_buffer = guarded_create(MAX_COLS * MAX_K * sizeof(float));
    scratch_buffer = guarded_create(lld_kernels_scratch_bytes(MAX_K));
    out_buffer = guarded_create(MAX_COLS * MAX_STRIDE * sizeof(float));
    list_every_count();
    for (size_t i = 0; i < N_FORMATS; i++) {
        test_random_rows_of_every_length(&formats[i]);
        if (lld_type_act_kind(formats[i].type) == LLD_ACT_F32) {
            test_float_weights_at_the_edges(&formats[i]);
        } else {
            test_extreme_blocks(&formats[i]);
            test_largest_entries(&formats[i]);
            test_scales_that_are_not_finite(&formats[i]);
        }
    }
    return check_result();
}
