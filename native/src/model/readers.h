/* readers.h - threads that read weights, and a pass that waits for what they read.
 *
 * Owns what a stream and a store of experts have in common: the mutex, the threads, the time in which
 * something was read or waited for, the failure of the disk, and whether a pass ends early. What is
 * read next and where it goes to is the owner's: its tables are guarded by the mutex, and its threads
 * run a function of its own. */
#ifndef LLD_READERS_H
#define LLD_READERS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { LLD_MAX_READERS = 4 };

typedef struct lld_readers {
    pthread_mutex_t pass_mutex; /* held by the pass that runs */
    pthread_mutex_t mutex;      /* of everything below, and of the owner's tables */
    pthread_cond_t to_read;     /* a thread waits: something to read, or quit */
    pthread_cond_t loaded;      /* a pass waits: what was read, a failure, a cancel */
    pthread_cond_t idle;        /* lld_readers_wait_idle waits */
    pthread_t threads[LLD_MAX_READERS];
    unsigned n_threads, n_reading;
    bool quit;                /* the threads' function returns */
    const atomic_int *cancel; /* of the pass */
    atomic_bool stopped;      /* this pass ends early */
    int status;               /* not LLD_OK: the disk failed, for good */
    char message[512];
    int64_t read_nanoseconds, wait_nanoseconds; /* in which something was read, waited for */
    int64_t reading_since, waiting_since;
    unsigned n_waiting;
} lld_readers;

void lld_readers_init(lld_readers *readers);
/* End the threads. Without the mutex. */
void lld_readers_join(lld_readers *readers);
/* After lld_readers_join. */
void lld_readers_free(lld_readers *readers);

/* ---- with the mutex held ------------------------------------------------------------------------ */

/* Have n threads, at most LLD_MAX_READERS, run a function of the owner's, with no signals of the
 * process. LLD_ERR_MEMORY, with `what` in the message, when none could be started; fewer are enough. */
int lld_readers_start(lld_readers *readers, unsigned n, void *(*function)(void *), void *owner,
                      const char *what);
/* Wait until nothing is read. */
void lld_readers_wait_idle(lld_readers *readers);
/* Give the mutex back for a read, and take it again; status: how the read ended, on this thread. */
void lld_readers_begin_read(lld_readers *readers);
void lld_readers_end_read(lld_readers *readers, int status);
/* Wait for the end of a read; false: the pass ends, cancelled or failed. */
bool lld_readers_wait(lld_readers *readers);

/* ---- a pass ------------------------------------------------------------------------------------- */

/* One at a time: waits for the one that runs. Returns with the mutex held. *cancel nonzero: stop
 * waiting; whoever sets it calls lld_readers_wake. */
void lld_readers_begin_pass(lld_readers *readers, const atomic_int *cancel);
/* Gives the mutex back. LLD_ERR_FAULT with the message of the read that failed, LLD_ERR_CANCELLED when
 * the pass was stopped. */
int lld_readers_end_pass(lld_readers *readers);
/* Whether this pass was stopped. Any thread. */
bool lld_readers_is_stopped(const lld_readers *readers);
/* Let those that wait look at their cancel flag. Any thread, any time, without the mutex. */
void lld_readers_wake(lld_readers *readers);

#endif
