/* bandwidth.c - how fast this machine reads a model's weights: lld_model_read_bandwidth.
 * The limit of decoding, since every token reads every weight once. Only of what stays in memory: the
 * rest would tell the disk's speed. Measures, decides nothing. */
#include <stdatomic.h>
#include <string.h>

#include "model/model.h"
#include "model/residency.h"
#include "base/clock.h"
#include "base/status.h"
#include "base/threads.h"

enum { UNIT_BYTES = 1 << 20, LANES = 8, MIN_SECONDS_INVERSE = 4 };

typedef struct {
    lld_pool *pool;
    const lld_model *model;
    const uint8_t *bytes;
    size_t size;
    atomic_ullong n_read; /* bytes */
    atomic_ullong sum;    /* what was read, so that no compiler leaves the reading out */
} scan;

static uint64_t sum_unit(const uint8_t *bytes, size_t size)
{
    uint64_t lanes[LANES] = {0}, words[LANES], sum = 0;
    for (size_t i = 0; i + sizeof words <= size; i += sizeof words) {
        memcpy(words, bytes + i, sizeof words);
        for (int k = 0; k < LANES; k++) lanes[k] += words[k];
    }
    for (int k = 0; k < LANES; k++) sum += lanes[k];
    return sum;
}

static void scan_thread(void *argument, unsigned thread)
{
    scan *s = argument;
    size_t n_units = (s->size + UNIT_BYTES - 1) / UNIT_BYTES;
    for (size_t unit; (unit = lld_pool_next(s->pool, thread, n_units)) < n_units;) {
        size_t at = unit * UNIT_BYTES, left = s->size - at;
        size_t size = left < UNIT_BYTES ? left : UNIT_BYTES;
        if (!lld_residency_has(s->model, at, size)) continue;
        atomic_fetch_add(&s->sum, sum_unit(s->bytes + at, size));
        atomic_fetch_add(&s->n_read, size);
    }
}

static double seconds(void) { return 1e-9 * (double)lld_now_nanoseconds(); }

int lld_model_read_bandwidth(const lld_model *model, uint32_t n_threads, double *bytes_per_second)
{
    scan s = {
        .model = model, .bytes = model->file->mapping.bytes, .size = model->file->mapping.size};
    if (n_threads < 1 || n_threads > LLD_MAX_THREADS)
        return lld_fail(LLD_ERR_INVALID, "n_threads is %u, must be 1 to %d", (unsigned)n_threads,
                        LLD_MAX_THREADS);
    int status = lld_pool_create(n_threads, &s.pool);
    if (status != LLD_OK) return status;
    lld_pool_run(s.pool, scan_thread, &s); /* maps what is not mapped yet */
    atomic_store(&s.n_read, 0);
    double start = seconds(), elapsed = 0.0;
    do {
        lld_pool_run(s.pool, scan_thread, &s);
        elapsed = seconds() - start;
    } while (elapsed * MIN_SECONDS_INVERSE < 1.0);
    lld_pool_destroy(s.pool);
    *bytes_per_second = (double)atomic_load(&s.n_read) / elapsed;
    return lld_file_name_fault(model->file, LLD_OK);
}
