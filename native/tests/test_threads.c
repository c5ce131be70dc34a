/* test_threads.c - the pool: every unit of every phase is done once, by any number of threads. */
#include <stdatomic.h>
#include <string.h>

#include "check.h"
#include "base/threads.h"

enum { UNITS = 37, PHASES = 200 };

typedef struct {
    lld_pool *pool;
    int done[PHASES][UNITS]; /* plain ints: the counter and the barriers order all access */
    long sum;
    atomic_int started;
} work;

/* Each phase increments its own units; a later phase checks the one before it. */
static void run_phases(void *argument, unsigned thread)
{
    work *w = argument;
    atomic_fetch_add(&w->started, 1);
    for (int phase = 0; phase < PHASES; phase++) {
        for (size_t unit; (unit = lld_pool_next(w->pool, thread, UNITS)) < UNITS;) {
            w->done[phase][unit]++;
            if (phase > 0 && w->done[phase - 1][unit] != 1) w->done[phase][unit] += 100;
        }
        lld_pool_barrier(w->pool);
        if (thread == 0) w->sum += w->done[phase][phase % UNITS];
    }
}

static void every_unit_is_done_once(unsigned n_threads)
{
    static work w;
    memset(&w, 0, sizeof w);
    CHECK(lld_pool_create(n_threads, &w.pool) == 0, "pool of %u", n_threads);
    for (int run = 1; run <= 3; run++) {
        memset(w.done, 0, sizeof w.done);
        lld_pool_run(w.pool, run_phases, &w);
        for (int p = 0; p < PHASES; p++)
            for (int u = 0; u < UNITS; u++)
                CHECK(w.done[p][u] == 1, "threads %u run %d phase %d unit %d: %d", n_threads, run,
                      p, u, w.done[p][u]);
        CHECK(w.sum == (long)run * PHASES, "threads %u run %d: sum %ld", n_threads, run, w.sum);
        CHECK(atomic_load(&w.started) == run * (int)n_threads, "threads %u run %d", n_threads, run);
    }
    lld_pool_destroy(w.pool);
}

int main(void)
{
    const unsigned counts[] = {1, 2, 3, 4, 7};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) every_unit_is_done_once(counts[i]);
    return check_result();
}
