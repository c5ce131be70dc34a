/* threads.h - the engine's thread pool: one function on every thread, barriers, and a work counter.
 *
 * A phase is the time between two barriers. Within it each thread takes units of work from its own
 * share, in order, so that what lies behind each other in memory is read by one thread; who has
 * finished takes from the others' shares, so a core that another process keeps busy holds nobody
 * up. The last thread to arrive at a barrier resets the shares. Waiting spins for
 * SPIN_NANOSECONDS, then sleeps on a futex.
 */
#ifndef LLD_THREADS_H
#define LLD_THREADS_H

#include <stddef.h>

enum { LLD_MAX_THREADS = 64 };

typedef struct lld_pool lld_pool;

/* Start n_threads - 1 workers; the thread that calls lld_pool_run is thread 0. */
int lld_pool_create(unsigned n_threads, lld_pool **out);
void lld_pool_destroy(lld_pool *pool);

typedef void (*lld_pool_fn)(void *argument, unsigned thread);

/* Run fn(argument, thread) on every thread; returns when all have returned. One caller at a time.
 */
void lld_pool_run(lld_pool *pool, lld_pool_fn fn, void *argument);

/* Inside fn: wait for all threads, and start the next phase with a fresh counter. */
void lld_pool_barrier(lld_pool *pool);

/* Inside fn: the next unit of this phase for this thread, in [0, n_units), or n_units when there is
 * none left. The same n_units for all calls of a phase. */
size_t lld_pool_next(lld_pool *pool, unsigned thread, size_t n_units);

/* The same without shares: all threads together take the units in their order. One of the two in a
 * phase. */
size_t lld_pool_next_in_order(lld_pool *pool, size_t n_units);

#endif
