/* readers.c - see readers.h. */
#include "model/readers.h"

#include <signal.h>
#include <string.h>

#include "base/clock.h"
#include "base/status.h"

void lld_readers_init(lld_readers *r)
{
    *r = (lld_readers){0};
    pthread_mutex_init(&r->pass_mutex, NULL);
    pthread_mutex_init(&r->mutex, NULL);
    pthread_cond_init(&r->to_read, NULL);
    pthread_cond_init(&r->loaded, NULL);
    pthread_cond_init(&r->idle, NULL);
}

void lld_readers_join(lld_readers *r)
{
    pthread_mutex_lock(&r->mutex);
    r->quit = true;
    pthread_cond_broadcast(&r->to_read);
    pthread_mutex_unlock(&r->mutex);
    for (unsigned i = 0; i < r->n_threads; i++) pthread_join(r->threads[i], NULL);
}

void lld_readers_free(lld_readers *r)
{
    pthread_cond_destroy(&r->idle);
    pthread_cond_destroy(&r->loaded);
    pthread_cond_destroy(&r->to_read);
    pthread_mutex_destroy(&r->mutex);
    pthread_mutex_destroy(&r->pass_mutex);
}

int lld_readers_start(lld_readers *r, unsigned n, void *(*function)(void *), void *owner,
                      const char *what)
{
    sigset_t all, previous;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &previous);
    int error = 0;
    while (r->n_threads < n && error == 0) {
        error = pthread_create(&r->threads[r->n_threads], NULL, function, owner);
        r->n_threads += error == 0;
    }
    pthread_sigmask(SIG_SETMASK, &previous, NULL);
    if (r->n_threads == 0)
        return lld_fail(LLD_ERR_MEMORY, "cannot start a thread that reads %s: %s", what,
                        strerror(error));
    return LLD_OK;
}

void lld_readers_wait_idle(lld_readers *r)
{
    while (r->n_reading != 0) pthread_cond_wait(&r->idle, &r->mutex);
}

void lld_readers_begin_read(lld_readers *r)
{
    if (r->n_reading++ == 0) r->reading_since = lld_now_nanoseconds();
    pthread_mutex_unlock(&r->mutex);
}

void lld_readers_end_read(lld_readers *r, int status)
{
    pthread_mutex_lock(&r->mutex);
    const int64_t now = lld_now_nanoseconds();
    r->read_nanoseconds += now - r->reading_since;
    r->reading_since = now;
    r->n_reading--;
    if (status != LLD_OK) {
        r->status = status;
        strncpy(r->message, lld_error_message(), sizeof r->message - 1);
    }
    pthread_cond_broadcast(&r->loaded);
    pthread_cond_broadcast(&r->idle);
}

bool lld_readers_wait(lld_readers *r)
{
    if (r->status != LLD_OK || atomic_load(r->cancel) != 0) {
        atomic_store(&r->stopped, true);
        pthread_cond_broadcast(&r->loaded);
    }
    if (atomic_load(&r->stopped)) return false;
    if (r->n_waiting++ == 0) r->waiting_since = lld_now_nanoseconds();
    pthread_cond_wait(&r->loaded, &r->mutex);
    if (--r->n_waiting == 0) r->wait_nanoseconds += lld_now_nanoseconds() - r->waiting_since;
    return true;
}

void lld_readers_begin_pass(lld_readers *r, const atomic_int *cancel)
{
    pthread_mutex_lock(&r->pass_mutex);
    pthread_mutex_lock(&r->mutex);
    r->cancel = cancel;
    atomic_store(&r->stopped, false);
}

int lld_readers_end_pass(lld_readers *r)
{
    int status = LLD_OK;
    if (r->status != LLD_OK)
        status = lld_fail(r->status, "%s", r->message);
    else if (atomic_load(&r->stopped))
        status = lld_fail(LLD_ERR_CANCELLED, "the step was cancelled");
    pthread_mutex_unlock(&r->mutex);
    pthread_mutex_unlock(&r->pass_mutex);
    return status;
}

bool lld_readers_is_stopped(const lld_readers *r)
{
    return atomic_load_explicit(&r->stopped, memory_order_relaxed);
}

void lld_readers_wake(lld_readers *r)
{
    pthread_mutex_lock(&r->mutex);
    pthread_cond_broadcast(&r->loaded);
    pthread_mutex_unlock(&r->mutex);
}
