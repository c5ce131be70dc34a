/* kernel_check.h - what the kernel tests share: the tables of this machine, buffers that end at an
 * unreadable page (so that reading one byte too far is a crash and not luck), comparison of bits.
 * Every kernel of every table must return the generic table's bits; a NaN equals any NaN. */
#ifndef KERNEL_CHECK_H
#define KERNEL_CHECK_H

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "check.h"
#include "base/cpu.h"
#include "kernels/kernels.h"
#include "llamad_engine.h"

enum { MAX_TABLES = 3 };

/* The tables this machine can run, generic first. Returns their number. */
static inline size_t machine_tables(const lld_kernels *tables[MAX_TABLES])
{
    const uint32_t words[MAX_TABLES - 1] = {LLD_CPU_AVX2 | LLD_CPU_NEON,
                                            LLD_CPU_NEON | LLD_CPU_DOTPROD};
    const uint32_t detected = lld_cpu_detect();
    size_t n = 0;
    tables[n++] = lld_kernels_get(0);
    for (size_t i = 0; i < MAX_TABLES - 1; i++) {
        const lld_kernels *table = lld_kernels_get(words[i] & detected);
        if (table != tables[0] && table != tables[n - 1]) tables[n++] = table;
    }
    return n;
}

/* One buffer: the last byte given out lies just before a page that cannot be touched. */
typedef struct guarded {
    uint8_t *end;
    size_t size;
} guarded;

static inline guarded guarded_create(size_t size)
{
    const size_t page = 65536; /* the largest page of the supported machines */
    size = (size + page - 1) / page * page;
    uint8_t *bytes =
        mmap(NULL, size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED || mprotect(bytes + size, page, PROT_NONE) != 0) {
        perror("guarded_create");
        exit(2);
    }
    return (guarded){bytes + size, size};
}

/* The last `bytes` bytes of a buffer. */
static inline void *guarded_tail(guarded buffer, size_t bytes)
{
    if (bytes > buffer.size) {
        fprintf(stderr, "guarded_tail: %zu bytes of %zu\n", bytes, buffer.size);
        exit(2);
    }
    return buffer.end - bytes;
}

static inline bool same_float(float a, float b)
{
    return memcmp(&a, &b, sizeof a) == 0 || (isnan(a) && isnan(b));
}

/* The first index where two vectors differ, or n. */
static inline size_t first_difference(const float *a, const float *b, size_t n)
{
    size_t i = 0;
    while (i < n && same_float(a[i], b[i])) i++;
    return i;
}

static inline size_t first_difference_f16(const uint16_t *a, const uint16_t *b, size_t n)
{
    size_t i = 0;
    while (i < n && same_float(lld_f16_to_f32(a[i]), lld_f16_to_f32(b[i]))) i++;
    return i;
}

/* Uniform in [-1, 1). */
static inline float random_unit(uint64_t *state)
{
    return (float)(int32_t)(check_random(state) >> 32) * 0x1p-31f;
}

static inline void random_vector(float *x, size_t n, float scale, uint64_t *state)
{
    for (size_t i = 0; i < n; i++) x[i] = random_unit(state) * scale;
}

/* Values at the edges of float32: zeros of both signs, subnormal, tiny, huge, and ordinary ones. */
static inline void edge_vector(float *x, size_t n, uint64_t *state)
{
    const float edges[] = {0.0f,    -0.0f,  0x1p-149f, -0x1p-130f, 1e-31f,      1e-30f,
                           -3e-20f, 88.5f,  -87.4f,    -1000.0f,   6.5e4f,      -7e4f,
                           1e18f,   -2e19f, 3.4e38f,   0.5f,       -0.49999997f};
    const size_t n_edges = sizeof edges / sizeof edges[0];
    for (size_t i = 0; i < n; i++) {
        size_t pick = check_random(state) % (2 * n_edges);
        x[i] = pick < n_edges ? edges[pick] : random_unit(state) * 4.0f;
    }
}

static inline void fill_canary(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) x[i] = -12345.678f;
}

#endif
