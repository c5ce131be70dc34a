/* threads.c - see threads.h. A sense-counting barrier over C11 atomics and Linux futexes. */
#include "base/threads.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/status.h"

enum { SPIN_NANOSECONDS = 60000, SPINS_PER_CLOCK_READ = 64, CACHE_LINE = 64 };

/* A counter that threads wait on: `value` moves, `sleepers` says whether a wake-up is needed. */
typedef struct {
    _Alignas(CACHE_LINE) atomic_uint value;
    atomic_uint sleepers;
} event;

/* How many units of one thread's share are taken. */
typedef struct {
    _Alignas(CACHE_LINE) atomic_size_t taken;
} share;

struct lld_pool {
    unsigned n_threads;
    bool stopping;  /* written before the start event moves */
    lld_pool_fn fn; /* likewise */
    void *argument;
    event start; /* moves once for each lld_pool_run */
    event phase; /* moves at each barrier */
    _Alignas(CACHE_LINE) atomic_uint arrived;
    share shares[LLD_MAX_THREADS]; /* (n_threads) */
    unsigned n_workers;            /* started, of n_threads - 1 */
    struct worker {
        lld_pool *pool;
        unsigned thread;
        pthread_t handle;
    } workers[]; /* (n_threads - 1) */
};

static inline void cpu_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory"); /* `yield` is a no-op on A72 and A76 */
#endif
}

/* Wait until the event's value is no longer `seen`. */
static void event_wait(event *e, unsigned seen)
{
    int64_t deadline = 0;
    for (unsigned spins = 1;; spins++) {
        if (atomic_load_explicit(&e->value, memory_order_acquire) != seen) return;
        cpu_relax();
        if (spins % SPINS_PER_CLOCK_READ == 0) {
            int64_t now = lld_now_nanoseconds();
            if (deadline == 0) deadline = now + SPIN_NANOSECONDS;
            if (now >= deadline) break;
        }
    }
    atomic_fetch_add(&e->sleepers, 1);
    while (atomic_load(&e->value) == seen)
        syscall(SYS_futex, &e->value, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
    atomic_fetch_sub(&e->sleepers, 1);
}

static void event_move(event *e)
{
    atomic_fetch_add(&e->value, 1); /* sequentially consistent with the sleepers' own check */
    if (atomic_load(&e->sleepers) != 0)
        syscall(SYS_futex, &e->value, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void lld_pool_barrier(lld_pool *pool)
{
    unsigned seen = atomic_load_explicit(&pool->phase.value, memory_order_relaxed);
    if (atomic_fetch_add(&pool->arrived, 1) + 1 < pool->n_threads) {
        event_wait(&pool->phase, seen);
        return;
    }
    atomic_store_explicit(&pool->arrived, 0, memory_order_relaxed);
    for (unsigned i = 0; i < pool->n_threads; i++)
        atomic_store_explicit(&pool->shares[i].taken, 0, memory_order_relaxed);
    event_move(&pool->phase);
}

size_t lld_pool_next(lld_pool *pool, unsigned thread, size_t n_units)
{
    for (unsigned i = 0; i < pool->n_threads; i++) {
        unsigned owner = (thread + i) % pool->n_threads;
        size_t begin = n_units * owner / pool->n_threads;
        size_t size = n_units * (owner + 1) / pool->n_threads - begin;
        atomic_size_t *taken = &pool->shares[owner].taken;
        if (atomic_load_explicit(taken, memory_order_relaxed) >= size) continue;
        size_t unit = atomic_fetch_add_explicit(taken, 1, memory_order_relaxed);
        if (unit < size) return begin + unit;
    }
    return n_units;
}

size_t lld_pool_next_in_order(lld_pool *pool, size_t n_units)
{
    size_t unit = atomic_fetch_add_explicit(&pool->shares[0].taken, 1, memory_order_relaxed);
    return unit < n_units ? unit : n_units;
}

static void *worker_main(void *argument)
{
    struct worker *self = argument;
    lld_pool *pool = self->pool;
    char name[16]; /* what ps and the journal call it */
    snprintf(name, sizeof name, "lld-worker-%u", self->thread);
    pthread_setname_np(pthread_self(), name);
    for (unsigned seen = 0;; seen++) {
        event_wait(&pool->start, seen);
        if (pool->stopping) return NULL;
        pool->fn(pool->argument, self->thread);
        lld_pool_barrier(pool);
    }
}

void lld_pool_run(lld_pool *pool, lld_pool_fn fn, void *argument)
{
    pool->fn = fn;
    pool->argument = argument;
    event_move(&pool->start);
    fn(argument, 0);
    lld_pool_barrier(pool);
}

void lld_pool_destroy(lld_pool *pool)
{
    if (pool == NULL) return;
    pool->stopping = true;
    event_move(&pool->start);
    for (unsigned i = 0; i < pool->n_workers; i++) pthread_join(pool->workers[i].handle, NULL);
    free(pool);
}

int lld_pool_create(unsigned n_threads, lld_pool **out)
{
    size_t bytes = sizeof(lld_pool) + (n_threads - 1) * sizeof(struct worker);
    bytes = (bytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    lld_pool *pool = aligned_alloc(CACHE_LINE, bytes);
    if (pool == NULL) return lld_fail(LLD_ERR_MEMORY, "threads: no memory for the pool");
    memset(pool, 0, bytes);
    pool->n_threads = n_threads;

    sigset_t all, previous; /* the process's signals belong to the program, not to workers */
    sigfillset(&all);
    sigdelset(&all, SIGBUS); /* a worker's own: a lost page of the model, see mapping.h */
    pthread_sigmask(SIG_SETMASK, &all, &previous);
    int error = 0;
    for (unsigned i = 0; i + 1 < n_threads && error == 0; i++) {
        pool->workers[i] = (struct worker){.pool = pool, .thread = i + 1};
        error = pthread_create(&pool->workers[i].handle, NULL, worker_main, &pool->workers[i]);
        if (error == 0) pool->n_workers++;
    }
    pthread_sigmask(SIG_SETMASK, &previous, NULL);
    if (error != 0) {
        unsigned started = pool->n_workers;
        lld_pool_destroy(pool);
        return lld_fail(LLD_ERR_MEMORY, "threads: started %u of %u: %s", started, n_threads - 1,
                        strerror(error));
    }
    *out = pool;
    return LLD_OK;
}
