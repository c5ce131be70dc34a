/* quantize.c - lld_quantize and lld_requantize: checks, rows shared out over threads, and the types
 * without blocks. The block formats are blocks_32.c and blocks_256.c. */
#include "quantize/quantize.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/cpu.h"
#include "base/status.h"
#include "base/threads.h"

/* Everything the threads share. Each takes the next row until none is left. */
typedef struct {
    lld_pool *pool;
    const lld_search *search;
    uint32_t src_type, type;
    const uint8_t *src;
    uint8_t *dst;
    size_t n_rows, n_cols, src_row_bytes, dst_row_bytes;
    const float *importance;
    float *rows; /* (n_threads, n_cols): each thread's row as float32 */
    struct refusal {
        size_t row, column; /* SIZE_MAX: none */
        float value;
    } refusals[LLD_MAX_THREADS]; /* the first row of those each thread met */
} row_work;

/* ---- rows ------------------------------------------------------------------------------------ */

/* The largest magnitude that rounds to a finite number in every scale, offset or value of the type. */
static float largest_of(uint32_t type)
{
    return type == LLD_F32 ? FLT_MAX : type == LLD_BF16 ? 0x1.FEp127f : 65504.0f;
}

/* The first column of x beyond `largest`, NaN included; n when all are within. */
static size_t find_beyond(const float *x, size_t n, float largest)
{
    uint32_t limit, beyond = 0;
    memcpy(&limit, &largest, sizeof limit);
    for (size_t i = 0; i < n; i++) { /* magnitudes order as their bits do, infinity and NaN last */
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        beyond |= (bits & 0x7FFFFFFFu) > limit;
    }
    if (!beyond) return n;
    size_t i = 0;
    while (fabsf(x[i]) <= largest) i++;
    return i;
}

static void quantize_row_plain(const lld_search *search, uint32_t type, const float *x,
                               const float *importance, void *dst, size_t n)
{
    uint16_t *halves = dst;
    (void)search;
    (void)importance;
    if (type == LLD_F32) {
        memcpy(dst, x, n * sizeof *x);
    } else if (type == LLD_F16) {
        for (size_t i = 0; i < n; i++) halves[i] = lld_f32_to_f16(x[i]);
    } else {
        for (size_t i = 0; i < n; i++) { /* BF16: the upper half, to nearest even */
            uint32_t bits;
            memcpy(&bits, &x[i], sizeof bits);
            halves[i] = (uint16_t)((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
        }
    }
}

/* By type; NULL: it is only read. */
static void (*const quantizers[LLD_TYPE_COUNT])(const lld_search *search, uint32_t type,
                                                const float *x, const float *importance, void *dst,
                                                size_t n) = {
#define QUANTIZER_plain                                                quantize_row_plain
#define QUANTIZER_32                                                   lld_quantize_row_32
#define QUANTIZER_256                                                  lld_quantize_row_256
#define QUANTIZER_none                                                 NULL
#define QUANTIZER(name, function, id, block, bytes, offset, quantizer) [id] = QUANTIZER_##quantizer,
    LLD_FORMATS(QUANTIZER)};

static void work_on_rows(void *argument, unsigned thread)
{
    row_work *work = argument;
    float *x = work->rows + thread * work->n_cols;
    struct refusal *refusal = &work->refusals[thread];
    for (size_t row; (row = lld_pool_next(work->pool, thread, work->n_rows)) < work->n_rows;) {
        lld_dequantize_row(work->src_type, work->src + row * work->src_row_bytes, x, work->n_cols);
        const size_t column = find_beyond(x, work->n_cols, largest_of(work->type));
        if (column == work->n_cols)
            quantizers[work->type](work->search, work->type, x, work->importance,
                                   work->dst + row * work->dst_row_bytes, work->n_cols);
        else if (row < refusal->row)
            *refusal = (struct refusal){row, column, x[column]};
    }
}

void lld_quantize_weights(const float *importance, float *w, size_t n)
{
    double sum = 0.0;
    for (size_t i = 0; importance != NULL && i < n; i++) sum += (double)importance[i];
    const double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++) w[i] = mean > 0.0 ? (float)((double)importance[i] / mean) : 1.0f;
}

/* Why no rows of a format are made, and what to write instead. */
static const char *why_not_written(uint32_t type)
{
    switch (type) {
    case LLD_Q1_0:
    case LLD_Q2_0:
        return "its models are trained in it, and rounding others to it ruins them";
    case LLD_MXFP4:
        return "models are trained in it; write Q4_K, or Q4_0 for rows that Q4_K cannot hold";
    default:
        return lld_type_block_bytes(type) < sizeof(lld_block_q2_k) ? "write Q2_K" : "write Q3_K";
    }
}

/* ---- the call -------------------------------------------------------------------------------- */

static int check_type(uint32_t type, size_t n_cols)
{
    if (!lld_type_supported(type)) return lld_type_refuse("tensor", type);
    if (n_cols % lld_type_block(type) != 0)
        return lld_fail(LLD_ERR_INVALID, "row of %zu elements is no multiple of %s's block of %zu",
                        n_cols, lld_type_name(type), lld_type_block(type));
    return LLD_OK;
}

static int check_importance(const float *importance, size_t n_cols)
{
    for (size_t i = 0; importance != NULL && i < n_cols; i++)
        if (!(importance[i] >= 0.0f && importance[i] <= FLT_MAX))
            return lld_fail(LLD_ERR_INVALID, "importance of column %zu is %g, it may be 0 or more",
                            i, (double)importance[i]);
    return LLD_OK;
}

static int report_refusal(const row_work *work, unsigned n_threads)
{
    const struct refusal *first = &work->refusals[0];
    for (unsigned t = 1; t < n_threads; t++)
        if (work->refusals[t].row < first->row) first = &work->refusals[t];
    if (first->row == SIZE_MAX) return LLD_OK;
    return lld_fail(LLD_ERR_NUMERIC, "row %zu column %zu is %g, %s holds at most %g", first->row,
                    first->column, (double)first->value, lld_type_name(work->type),
                    (double)largest_of(work->type));
}

int lld_requantize(uint32_t src_type, const void *src, uint32_t type, size_t n_rows, size_t n_cols,
                   const float *importance, void *dst, uint32_t n_threads)
{
    int status = check_type(src_type, n_cols);
    if (status == LLD_OK) status = check_type(type, n_cols);
    if (status == LLD_OK && quantizers[type] == NULL)
        return lld_fail(LLD_ERR_UNSUPPORTED, "tensor: type %s can be read, not written: %s",
                        lld_type_name(type), why_not_written(type));
    if (status == LLD_OK) status = check_importance(importance, n_cols);
    uint32_t cpu_flags = 0;
    if (status == LLD_OK) status = lld_cpu_select(NULL, &cpu_flags);
    if (status != LLD_OK) return status;
    if (n_threads < 1 || n_threads > LLD_MAX_THREADS)
        return lld_fail(LLD_ERR_INVALID, "%u threads, 1 to %d are possible", (unsigned)n_threads,
                        LLD_MAX_THREADS);
    if (n_rows == 0 || n_cols == 0) return LLD_OK;
    if (n_threads > n_rows) n_threads = (uint32_t)n_rows;
    if (n_cols > SIZE_MAX / sizeof(float) / n_threads)
        return lld_fail(LLD_ERR_INVALID, "row of %zu elements is too long", n_cols);

    row_work work = {
        .search = lld_search_select(cpu_flags),
        .src_type = src_type,
        .type = type,
        .src = src,
        .dst = dst,
        .n_rows = n_rows,
        .n_cols = n_cols,
        .importance = importance,
        .src_row_bytes = lld_type_row_bytes(src_type, n_cols),
        .dst_row_bytes = lld_type_row_bytes(type, n_cols),
    };
    for (unsigned t = 0; t < n_threads; t++) work.refusals[t].row = SIZE_MAX;
    work.rows = malloc(n_threads * n_cols * sizeof *work.rows);
    if (work.rows == NULL)
        return lld_fail(LLD_ERR_MEMORY, "no memory for %u rows of %zu elements",
                        (unsigned)n_threads, n_cols);
    status = lld_pool_create(n_threads, &work.pool);
    if (status == LLD_OK) {
        lld_pool_run(work.pool, work_on_rows, &work);
        lld_pool_destroy(work.pool);
        status = report_refusal(&work, n_threads);
    }
    free(work.rows);
    return status;
}

int lld_quantize(uint32_t type, const float *src, size_t n_rows, size_t n_cols,
                 const float *importance, void *dst, uint32_t n_threads)
{
    return lld_requantize(LLD_F32, src, type, n_rows, n_cols, importance, dst, n_threads);
}
