/* stream.c - see stream.h.
 *
 * Loads are numbered: load number n is item n % n_items of pass n / n_items. `oldest` is the first load
 * that is not used up, `next` the one that the reader takes next, so oldest <= next <= oldest +
 * n_items. Each reader takes the next load when it is done with one, so some are read at a time and a
 * fast disk always has work. A pass that is stopped begins a new generation of loads, from 0; what is
 * being read then is thrown away, and no load begins before that has ended: it has their room. */
#include "model/stream.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/status.h"
#include "model/readers.h"
#include "model/ring.h"

enum {
    NOT_STREAMED = -1,
    READERS = 2, /* a second read at a time: docs/step-cost.md has what it gains */
    EXTENTS_AT_ONCE =
        3 /* a unit of a gated feed-forward needs two that follow each other: see ring.h */
};

/* An extent that streams. */
typedef struct item {
    uint64_t read_offset; /* in the file, and */
    size_t read_bytes;    /* whole blocks around the extent */
    size_t skip;          /* bytes of them before it */
    size_t needed;        /* of them, up to its end */
    uint32_t n_rows;
    bool output;
    bool used_up;                   /* since it was read */
    uint64_t position;              /* in the ring, of its last load */
    _Atomic(const uint8_t *) bytes; /* NULL: not in the ring */
    atomic_ullong left;             /* products of this pass that use it */
} item;

struct lld_stream {
    lld_direct_file file;
    lld_readers readers; /* its mutex is that of everything below */
    unsigned n_stale;    /* reads of a generation before that have not ended */

    item *items; /* (n_items) in order of use */
    size_t n_items;
    int32_t *item_of; /* (n_extents) or NOT_STREAMED */
    uint8_t *ring_bytes;
    lld_ring ring;
    uint64_t next, oldest, n_begun; /* passes of this generation */
    uint64_t generation;
    bool keeps; /* the last pass that began uses the output matrix */

    uint64_t locked_bytes;
    int lock_error;
    uint64_t streamed_bytes, read_bytes;
};

/* ---- the reader: with the mutex held unless said otherwise -------------------------------------- */

/* Give the ring's room of the oldest loads back, as far as they are used up. */
static void advance(lld_stream *s)
{
    while (s->oldest < s->next && s->items[s->oldest % s->n_items].used_up) s->oldest++;
    lld_ring_give_back(&s->ring, s->oldest < s->next ? s->items[s->oldest % s->n_items].position
                                                     : s->ring.head);
}

/* Pass over the output matrix where the pass that began does not use it. */
static void skip_unused(lld_stream *s)
{
    while (s->n_items != 0 && s->next < s->n_begun * s->n_items && !s->keeps &&
           s->items[s->next % s->n_items].output) {
        item *i = &s->items[s->next % s->n_items];
        i->used_up = true;
        i->position = s->ring.head;
        s->next++;
    }
    if (s->n_items != 0) advance(s);
}

/* Take the next load and room for it; NULL when there is none to do now. */
static item *next_load(lld_stream *s, uint64_t *offset)
{
    if (s->n_items == 0 || s->readers.status != LLD_OK || s->n_stale != 0) return NULL;
    skip_unused(s);
    if (s->next == s->oldest + s->n_items) return NULL;
    item *i = &s->items[s->next % s->n_items];
    if (i->output && s->next >= s->n_begun * s->n_items) return NULL; /* who knows whether */
    if (!lld_ring_take(&s->ring, i->read_bytes, offset, &i->position)) return NULL;
    i->used_up = false;
    s->next++;
    return i;
}

static void load(lld_stream *s, item *i, uint8_t *bytes)
{
    const uint64_t generation = s->generation;
    pthread_cond_signal(&s->readers.to_read); /* there may be room for another's load */
    lld_readers_begin_read(&s->readers);
    int status = lld_direct_file_read(&s->file, i->read_offset, i->read_bytes, i->needed, bytes);
    lld_readers_end_read(&s->readers, status);
    if (status == LLD_OK) s->read_bytes += i->read_bytes;
    if (generation != s->generation) {
        if (--s->n_stale == 0) pthread_cond_broadcast(&s->readers.to_read);
    } else if (status == LLD_OK) {
        atomic_store_explicit(&i->bytes, bytes + i->skip, memory_order_release);
    }
}

static void *reader_main(void *argument)
{
    lld_stream *s = argument;
    pthread_mutex_lock(&s->readers.mutex);
    while (!s->readers.quit) {
        uint64_t offset;
        item *i = next_load(s, &offset);
        if (i == NULL)
            pthread_cond_wait(&s->readers.to_read, &s->readers.mutex);
        else
            load(s, i, s->ring_bytes + offset);
    }
    pthread_mutex_unlock(&s->readers.mutex);
    return NULL;
}

/* ---- what streams ------------------------------------------------------------------------------ */

static bool streams(const lld_extent *e, const lld_residency *r, size_t i)
{
    return r->resident[i] == 0 && e[i].role != LLD_ROLE_EMBEDDING && e[i].role != LLD_ROLE_EXPERT;
}

static item item_for(const lld_extent *e)
{
    const uint64_t align = LLD_DIRECT_ALIGN, begin = e->file_offset / align * align;
    const size_t skip = (size_t)(e->file_offset - begin), needed = skip + (size_t)e->bytes;
    return (item){.read_offset = begin,
                  .read_bytes = (needed + align - 1) / align * align,
                  .skip = skip,
                  .needed = needed,
                  .n_rows = e->n_rows,
                  .output = e->role == LLD_ROLE_OUTPUT};
}

static void clear(lld_stream *s)
{
    if (s->ring_bytes != NULL) munmap(s->ring_bytes, s->ring.capacity);
    free(s->items);
    free(s->item_of);
    s->ring_bytes = NULL;
    s->items = NULL;
    s->item_of = NULL;
    s->n_items = 0;
    s->ring = (lld_ring){0};
    s->next = s->oldest = s->n_begun = 0;
    s->generation++;
    s->streamed_bytes = s->locked_bytes = 0;
    s->lock_error = 0;
}

static int create_ring(lld_stream *s, const lld_residency *r)
{
    uint64_t capacity = r->ring_bytes / LLD_DIRECT_ALIGN * LLD_DIRECT_ALIGN, most = 0;
    for (size_t i = 0; i < s->n_items; i++) most += EXTENTS_AT_ONCE * s->items[i].read_bytes;
    if (capacity > most) capacity = most; /* more is of no use */
    for (size_t i = 0; i < s->n_items; i++)
        if (s->items[i].read_bytes > capacity / EXTENTS_AT_ONCE)
            return lld_fail(
                LLD_ERR_INVALID,
                "the ring of %llu bytes must hold %d times each streamed extent, one of "
                "which has %zu",
                (unsigned long long)r->ring_bytes, EXTENTS_AT_ONCE, s->items[i].read_bytes);
    void *bytes = mmap(NULL, capacity, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (bytes == MAP_FAILED)
        return lld_fail(LLD_ERR_MEMORY, "no memory for a ring of %llu bytes for streamed weights",
                        (unsigned long long)capacity);
    s->ring_bytes = bytes;
    s->ring = (lld_ring){.capacity = capacity};
    if (capacity <= r->lock_bytes) {
        if (mlock(bytes, capacity) == 0)
            s->locked_bytes = capacity;
        else
            s->lock_error = errno;
    }
    return LLD_OK;
}

static int fill_items(lld_stream *s, const lld_extent *extents, const lld_residency *r)
{
    size_t n = 0;
    for (size_t i = 0; i < r->n_extents; i++) n += streams(extents, r, i);
    if (n == 0) return LLD_OK;
    s->items = calloc(n, sizeof *s->items);
    s->item_of = malloc(r->n_extents * sizeof *s->item_of);
    if (s->items == NULL || s->item_of == NULL)
        return lld_fail(LLD_ERR_MEMORY, "no memory for the table of streamed extents");
    for (size_t i = 0; i < r->n_extents; i++) {
        s->item_of[i] = NOT_STREAMED;
        if (!streams(extents, r, i)) continue;
        s->item_of[i] = (int32_t)s->n_items;
        s->items[s->n_items++] = item_for(&extents[i]);
        s->streamed_bytes += extents[i].bytes;
    }
    return create_ring(s, r);
}

int lld_stream_set(lld_stream *s, const lld_extent *extents, const lld_residency *r)
{
    pthread_mutex_lock(&s->readers.mutex);
    size_t n_items = s->n_items;
    s->n_items = 0; /* the readers begin nothing */
    lld_readers_wait_idle(&s->readers);
    s->n_items = n_items;
    clear(s);
    int status = fill_items(s, extents, r);
    if (status == LLD_OK && s->n_items != 0)
        status = lld_readers_start(&s->readers, READERS, reader_main, s, "weights");
    if (status != LLD_OK) clear(s);
    pthread_cond_signal(&s->readers.to_read);
    pthread_mutex_unlock(&s->readers.mutex);
    return status;
}

int lld_stream_create(int fd, const char *path, lld_stream **out)
{
    lld_stream *s = calloc(1, sizeof *s);
    if (s == NULL) return lld_fail(LLD_ERR_MEMORY, "no memory for the reader of weights");
    int status = lld_direct_file_open(fd, path, &s->file);
    if (status != LLD_OK) {
        free(s);
        return status;
    }
    lld_readers_init(&s->readers);
    *out = s;
    return LLD_OK;
}

void lld_stream_destroy(lld_stream *s)
{
    if (s == NULL) return;
    lld_readers_join(&s->readers);
    clear(s);
    lld_readers_free(&s->readers);
    free(s);
}

bool lld_stream_is_active(const lld_stream *s) { return s->n_items != 0; }

bool lld_stream_has(const lld_stream *s, size_t extent)
{
    return s->item_of[extent] != NOT_STREAMED;
}

/* ---- a pass ------------------------------------------------------------------------------------- */

void lld_stream_begin(lld_stream *s, const lld_stream_pass *pass)
{
    lld_readers_begin_pass(&s->readers, pass->cancel);
    s->keeps = pass->n_kept > 0;
    s->n_begun++;
    for (size_t i = 0; i < s->n_items; i++) {
        item *x = &s->items[i];
        const uint32_t rows = x->output ? pass->n_kept : pass->n_rows;
        atomic_store_explicit(&x->left, (uint64_t)x->n_rows * rows, memory_order_relaxed);
    }
    pthread_cond_signal(&s->readers.to_read);
    pthread_mutex_unlock(&s->readers.mutex);
}

/* Forget what is in the ring: the next pass begins with the first item. */
static void start_over(lld_stream *s)
{
    s->generation++;
    s->n_stale = s->readers.n_reading;
    s->next = s->oldest = s->n_begun = 0;
    s->ring.head = s->ring.tail = 0;
    for (size_t i = 0; i < s->n_items; i++) atomic_store(&s->items[i].bytes, NULL);
}

int lld_stream_end(lld_stream *s, bool complete)
{
    pthread_mutex_lock(&s->readers.mutex);
    skip_unused(s);
    if (!complete || lld_readers_is_stopped(&s->readers) || s->oldest != s->n_begun * s->n_items)
        start_over(s);
    pthread_cond_signal(&s->readers.to_read);
    return lld_readers_end_pass(&s->readers);
}

const uint8_t *lld_stream_take(lld_stream *s, size_t extent)
{
    item *i = &s->items[s->item_of[extent]];
    if (lld_readers_is_stopped(&s->readers)) return NULL;
    const uint8_t *bytes = atomic_load_explicit(&i->bytes, memory_order_acquire);
    if (bytes != NULL) return bytes;
    pthread_mutex_lock(&s->readers.mutex);
    while ((bytes = atomic_load(&i->bytes)) == NULL && lld_readers_wait(&s->readers)) {
    }
    pthread_mutex_unlock(&s->readers.mutex);
    return bytes;
}

bool lld_stream_give_back(lld_stream *s, size_t extent, uint64_t n_products)
{
    item *i = &s->items[s->item_of[extent]];
    if (atomic_fetch_sub_explicit(&i->left, n_products, memory_order_acq_rel) != n_products)
        return false;
    pthread_mutex_lock(&s->readers.mutex);
    atomic_store_explicit(&i->bytes, NULL, memory_order_relaxed);
    i->used_up = true;
    advance(s);
    pthread_cond_signal(&s->readers.to_read);
    pthread_mutex_unlock(&s->readers.mutex);
    return true;
}

bool lld_stream_is_stopped(const lld_stream *s) { return lld_readers_is_stopped(&s->readers); }

void lld_stream_wake(lld_stream *s) { lld_readers_wake(&s->readers); }

void lld_stream_get_info(lld_stream *s, lld_residency_info *out)
{
    pthread_mutex_lock(&s->readers.mutex);
    out->streamed_bytes = s->streamed_bytes;
    out->ring_bytes = s->ring.capacity;
    out->read_bytes = s->read_bytes;
    out->read_seconds = 1e-9 * (double)s->readers.read_nanoseconds;
    out->wait_seconds = 1e-9 * (double)s->readers.wait_nanoseconds;
    out->direct = atomic_load(&s->file.direct);
    pthread_mutex_unlock(&s->readers.mutex);
}

lld_direct_file *lld_stream_file(lld_stream *s) { return &s->file; }

uint64_t lld_stream_locked(const lld_stream *s, int *error)
{
    *error = s->lock_error;
    return s->locked_bytes;
}
