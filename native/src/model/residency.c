/* residency.c - see residency.h and lld_residency in llamad_engine.h. Decides nothing: the caller knows
 * the budget, and which extents it is for.
 *
 * The mapping is always whole, so a page that was given back is only slow to read. So giving back
 * need not wait for the step that runs, and comes first; then what streams is changed, between two
 * steps; then the rest is read; what was read streams no more after the next step. */
#include "model/residency.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/status.h"
#include "model/pages.h"

struct lld_residency_state {
    pthread_rwlock_t lock; /* read by a pass, written when what streams changes */
    lld_stream *stream;
    lld_expert_store *experts;
    size_t page, n_pages;
    uint8_t *pages;    /* (n_pages) LLD_PAGE_*; NULL before the first lld_model_set_residency */
    uint8_t *resident; /* (n_extents) of the residency in effect, and its ring */
    uint64_t ring_bytes;
    uint32_t expert_slots;
    atomic_ullong resident_bytes, locked_bytes, populated_bytes, n_passes;
};

/* ---- life -------------------------------------------------------------------------------------- */

static void init_lock(pthread_rwlock_t *lock)
{
    pthread_rwlockattr_t attributes; /* steps follow each other: a change must not wait for a gap */
    pthread_rwlockattr_init(&attributes);
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(lock, &attributes);
    pthread_rwlockattr_destroy(&attributes);
}

int lld_residency_create(lld_model *model)
{
    lld_residency_state *r = calloc(1, sizeof *r);
    uint8_t *resident = calloc(model->n_extents + 1, 1);
    if (r == NULL || resident == NULL) {
        free(r);
        free(resident);
        return lld_fail(LLD_ERR_MEMORY, "no memory for the table of what is resident");
    }
    int status = lld_stream_create(model->file->mapping.fd, model->file->path, &r->stream);
    if (status == LLD_OK)
        status = lld_expert_store_create(model, lld_stream_file(r->stream), &r->experts);
    if (status != LLD_OK) {
        lld_stream_destroy(r->stream);
        free(r);
        free(resident);
        return status;
    }
    memset(resident, 1, model->n_extents);
    r->resident = resident;
    for (size_t i = 0; i < model->n_extents; i++) r->resident_bytes += model->extents[i].bytes;
    r->page = (size_t)sysconf(_SC_PAGESIZE);
    r->n_pages = (model->file->mapping.size + r->page - 1) / r->page;
    init_lock(&r->lock);
    model->residency = r;
    return LLD_OK;
}

void lld_residency_destroy(lld_residency_state *r)
{
    if (r == NULL) return;
    lld_expert_store_destroy(r->experts);
    lld_stream_destroy(r->stream);
    pthread_rwlock_destroy(&r->lock);
    free(r->pages);
    free(r->resident);
    free(r);
}

/* ---- a pass ------------------------------------------------------------------------------------ */

lld_reading lld_residency_begin(const lld_model *model, const lld_stream_pass *pass)
{
    lld_residency_state *r = model->residency;
    pthread_rwlock_rdlock(&r->lock);
    const lld_reading reading = {.stream = lld_stream_is_active(r->stream) ? r->stream : NULL,
                                 .experts =
                                     lld_expert_store_is_active(r->experts) ? r->experts : NULL};
    if (reading.stream != NULL) lld_stream_begin(reading.stream, pass);
    if (reading.experts != NULL) lld_expert_store_begin(reading.experts, pass);
    return reading;
}

int lld_residency_end(const lld_model *model, const lld_reading *reading, bool complete)
{
    lld_residency_state *r = model->residency;
    int status = reading->stream == NULL ? LLD_OK : lld_stream_end(reading->stream, complete);
    if (reading->experts != NULL) {
        const int experts = lld_expert_store_end(reading->experts);
        if (status == LLD_OK) status = experts;
    }
    if (status == LLD_OK && complete && (reading->stream != NULL || reading->experts != NULL))
        atomic_fetch_add(&r->n_passes, 1);
    pthread_rwlock_unlock(&r->lock);
    return status;
}

bool lld_reading_is_stopped(const lld_reading *reading)
{
    return (reading->stream != NULL && lld_stream_is_stopped(reading->stream)) ||
           (reading->experts != NULL && lld_expert_store_is_stopped(reading->experts));
}

bool lld_residency_has(const lld_model *model, uint64_t offset, uint64_t size)
{
    const lld_residency_state *r = model->residency;
    if (r->pages == NULL || size == 0) return true;
    const size_t first = (size_t)(offset / r->page), last = (size_t)((offset + size - 1) / r->page);
    return memchr(r->pages + first, LLD_PAGE_OUT, last - first + 1) == NULL;
}

void lld_residency_wake(const lld_model *model)
{
    lld_stream_wake(model->residency->stream);
    lld_expert_store_wake(model->residency->experts);
}

/* ---- a change ---------------------------------------------------------------------------------- */

static int check(const lld_model *m, const lld_residency *new)
{
    if (new->n_extents != m->n_extents)
        return lld_fail(LLD_ERR_INVALID, "residency of %zu extents, model has %zu", new->n_extents,
                        m->n_extents);
    for (size_t i = 0; i < m->n_extents; i++)
        if (new->resident[i] == 0 && m->extents[i].role == LLD_ROLE_VECTOR)
            return lld_fail(LLD_ERR_INVALID, "extent %zu is a vector, which must be resident", i);
    return LLD_OK;
}

/* The pages that hold a byte of a resident extent. */
static uint8_t *wanted_pages(const lld_model *m, const lld_residency *new)
{
    const lld_residency_state *r = m->residency;
    uint8_t *wanted = calloc(r->n_pages, 1);
    if (wanted == NULL) return NULL;
    for (size_t i = 0; i < m->n_extents; i++) {
        const lld_extent *e = &m->extents[i];
        if (new->resident[i] == 0 || e->bytes == 0) continue;
        const size_t first = (size_t)(e->file_offset / r->page),
                     last = (size_t)((e->file_offset + e->bytes - 1) / r->page);
        memset(wanted + first, 1, last - first + 1);
    }
    return wanted;
}

/* Let pages [first, end) leave memory. */
static int drop(const lld_model *m, size_t first, size_t end, bool *kept)
{
    lld_residency_state *r = m->residency;
    uint64_t locked = 0;
    for (size_t i = first; i < end; i++) locked += r->pages[i] == LLD_PAGE_LOCKED;
    int status = lld_pages_give_back(m, (uint64_t)first * r->page, (uint64_t)end * r->page, kept);
    if (status != LLD_OK) return status;
    memset(r->pages + first, LLD_PAGE_OUT, end - first);
    atomic_fetch_sub(&r->locked_bytes, locked * r->page);
    return LLD_OK;
}

/* Let what is no longer wanted leave memory. Where that needs pages beside it to leave, they do, and
 * are read again. */
static int give_back(const lld_model *m, const uint8_t *wanted)
{
    lld_residency_state *r = m->residency;
    const size_t group = LLD_HUGE_PAGE_BYTES / r->page;
    for (size_t i = 0, end; i < r->n_pages; i = end) {
        end = i + 1;
        if (r->pages[i] == LLD_PAGE_OUT || wanted[i]) continue;
        while (end < r->n_pages && r->pages[end] != LLD_PAGE_OUT && !wanted[end]) end++;
        bool kept;
        int status = drop(m, i, end, &kept);
        if (status == LLD_OK && kept) {
            size_t behind = (end + group - 1) / group * group;
            status = drop(m, i / group * group, behind < r->n_pages ? behind : r->n_pages, &kept);
        }
        if (status != LLD_OK) return status;
    }
    return LLD_OK;
}

static int take(const lld_model *m, const uint8_t *wanted, lld_pages_work *work)
{
    lld_residency_state *r = m->residency;
    const uint64_t size = m->file->mapping.size;
    for (size_t i = 0, end; i < r->n_pages; i = end) {
        end = i + 1;
        if (!wanted[i]) continue;
        const uint8_t state = r->pages[i];
        while (end < r->n_pages && wanted[end] && r->pages[end] == state) end++;
        uint64_t begin = (uint64_t)i * r->page, stop = (uint64_t)end * r->page;
        if (stop > size) stop = size;
        if (state == LLD_PAGE_LOCKED || (state == LLD_PAGE_READ && work->lock_bytes < r->page)) {
            atomic_fetch_add(work->read_bytes, stop - begin);
            continue;
        }
        int status = lld_pages_take(m->file, begin, stop, r->pages + i, work);
        if (status != LLD_OK) return status;
    }
    return LLD_OK;
}

/* Whether this process may lock more than RLIMIT_MEMLOCK. */
static bool may_exceed_lock_limit(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {{0}};
    return syscall(SYS_capget, &header, data) == 0 && (data[0].effective >> CAP_IPC_LOCK & 1U) != 0;
}

/* Whether it is RLIMIT_MEMLOCK that kept this process from having `wanted` bytes locked. The kernel
 * answers EPERM where the limit is 0 and ENOMEM beyond it, but ENOMEM for other reasons too; and
 * EAGAIN when it finds no memory for the pages, the machine's or a control group's. */
static bool met_lock_limit(int error, uint64_t wanted, uint64_t *limit_bytes)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return false;
    *limit_bytes = (uint64_t)limit.rlim_cur;
    return error == EPERM || (error == ENOMEM && wanted > *limit_bytes && !may_exceed_lock_limit());
}

/* Bytes of the ring and the slots that are locked, and the errno of what was not, or 0. */
static uint64_t locked_beside(const lld_residency_state *r, int *error)
{
    int ring_error, slots_error;
    const uint64_t ring = lld_stream_locked(r->stream, &ring_error),
                   slots = lld_expert_store_locked(r->experts, &slots_error);
    *error = ring_error != 0 ? ring_error : slots_error;
    return ring + slots;
}

/* Say why the file, or the ring of `ring_bytes` or slots, is not locked as far as lock_bytes says. */
static void explain_lock(const lld_model *m, uint64_t ring_bytes, const lld_pages_work *work)
{
    int ring_error;
    uint64_t limit = 0, unlocked = work->unlocked_bytes;
    const uint64_t locked = atomic_load(&m->residency->locked_bytes),
                   ring = locked_beside(m->residency, &ring_error);
    const int error = work->lock_error != 0 ? work->lock_error : ring_error;
    const char *path = lld_path_tail(m->file->path);
    if (ring == 0 && ring_error != 0) unlocked += ring_bytes;
    if (error == 0)
        lld_fail(LLD_OK, "%s", "");
    else if (met_lock_limit(error, locked + ring + unlocked, &limit))
        lld_fail(LLD_OK, "%s: locked %" PRIu64 " bytes: RLIMIT_MEMLOCK is %" PRIu64 " bytes", path,
                 locked, limit);
    else
        lld_fail(LLD_OK,
                 "%s: locked %" PRIu64 " bytes: the machine or the control group has no memory for "
                 "%" PRIu64 " more: %s",
                 path, locked, unlocked, strerror(error));
}

/* After a failure. */
static void stream_nothing(const lld_model *m)
{
    uint8_t *everything = malloc(m->n_extents + 1);
    if (everything == NULL) return;
    memset(everything, 1, m->n_extents);
    const lld_residency all = {.resident = everything, .n_extents = m->n_extents};
    lld_stream_set(m->residency->stream, m->extents, &all);
    free(everything);
}

/* The slots without which the experts that are not resident cannot be used. */
static uint32_t least_slots(const lld_model *m, const uint8_t *resident)
{
    uint32_t least = 0, in_layer = 0;
    int32_t layer = -1, expert = -1;
    for (size_t i = 0; i < m->n_extents; i++) { /* in order of layers, and of experts in them */
        const lld_extent *e = &m->extents[i];
        if (e->role != LLD_ROLE_EXPERT || resident[i] != 0) continue;
        if (e->layer == layer && e->expert == expert) continue;
        in_layer = e->layer == layer ? in_layer + 1 : 1;
        layer = e->layer;
        expert = e->expert;
        if (in_layer > least) least = in_layer;
    }
    return least;
}

/* Let passes stream what is not in `new`, from now on. */
static int change_stream(const lld_model *m, const lld_residency *new)
{
    lld_residency_state *r = m->residency;
    if (r->ring_bytes == new->ring_bytes &&
        r->expert_slots == new->expert_slots &&memcmp(r->resident, new->resident, m->n_extents) ==
            0)
        return LLD_OK;
    pthread_rwlock_wrlock(&r->lock);
    int error, status = lld_stream_set(r->stream, m->extents, new);
    if (status == LLD_OK) {
        const uint64_t ring = lld_stream_locked(r->stream, &error);
        status = lld_expert_store_set(r->experts, new,
                                      new->lock_bytes > ring ? new->lock_bytes - ring : 0);
        if (status != LLD_OK) stream_nothing(m);
    }
    memset(r->resident, 1, m->n_extents); /* when it failed nothing streams */
    if (status == LLD_OK) memcpy(r->resident, new->resident, m->n_extents);
    r->ring_bytes = status == LLD_OK ? new->ring_bytes : 0;
    r->expert_slots = status == LLD_OK ? new->expert_slots : 0;
    pthread_rwlock_unlock(&r->lock);
    return status;
}

/* Stream what streams now and what is to stream: what is taken again is not in memory yet. Before
 * anything was read no step runs, and the disk is for the loading. */
static int stream_both(const lld_model *m, const lld_residency *new)
{
    if (atomic_load(&m->residency->populated_bytes) == 0) return LLD_OK;
    lld_residency both = *new;
    uint8_t *resident = malloc(m->n_extents + 1);
    if (resident == NULL) return lld_fail(LLD_ERR_MEMORY, "no memory to change what is resident");
    bool less = false, to_mapping = false; /* experts, which leave slots for it */
    for (size_t i = 0; i < m->n_extents; i++) {
        less |= m->residency->resident[i] && !new->resident[i];
        if (m->extents[i].role == LLD_ROLE_EXPERT && m->residency->resident[i] < new->resident[i])
            less = to_mapping = true;
        resident[i] = m->residency->resident[i] && new->resident[i];
    }
    both.resident = resident;
    if (m->residency->ring_bytes > both.ring_bytes) both.ring_bytes = m->residency->ring_bytes;
    if (to_mapping) both.expert_slots = least_slots(m, resident);
    int status = less ? change_stream(m, &both) : LLD_OK;
    free(resident);
    return status;
}

static int change(const lld_model *m, const lld_residency *new, const uint8_t *wanted,
                  const volatile int32_t *stop)
{
    lld_residency_state *r = m->residency;
    int error;
    int status = give_back(m, wanted);
    if (status == LLD_OK) status = stream_both(m, new);
    if (status != LLD_OK) return status;
    atomic_store(&r->populated_bytes, 0);
    const uint64_t locked = atomic_load(&r->locked_bytes) + locked_beside(r, &error);
    lld_pages_work work = {.stop = stop,
                           .lock_bytes = new->lock_bytes > locked ? new->lock_bytes - locked : 0,
                           .lock_error = error,
                           .read_bytes = &r->populated_bytes,
                           .locked_bytes = &r->locked_bytes};
    status = take(m, wanted, &work);
    const int after = status == LLD_ERR_FAULT ? LLD_OK : change_stream(m, new);
    if (status == LLD_OK) status = after;
    if (status == LLD_OK) status = lld_expert_store_fill(r->experts, stop, &r->populated_bytes);
    if (status == LLD_OK) explain_lock(m, new->ring_bytes, &work);
    return status;
}

int lld_model_set_residency(lld_model *model, const lld_residency *new,
                            const volatile int32_t *stop)
{
    lld_residency_state *r = model->residency;
    int status = check(model, new);
    if (status != LLD_OK) return status;
    if (r->pages == NULL) r->pages = calloc(r->n_pages, 1);
    uint8_t *wanted = wanted_pages(model, new);
    if (r->pages == NULL || wanted == NULL) {
        free(wanted);
        return lld_fail(LLD_ERR_MEMORY, "no memory for a table of %zu pages", r->n_pages);
    }
    uint64_t resident_bytes = 0;
    for (size_t i = 0; i < model->n_extents; i++)
        resident_bytes += new->resident[i] ? model->extents[i].bytes : 0;
    atomic_store(&r->resident_bytes, resident_bytes);
    if (memchr(new->resident, 0, model->n_extents) !=
        NULL) /* a fault reads its page and no other */
        madvise(model->file->mapping.bytes, model->file->mapping.size, MADV_RANDOM);
    status = change(model, new, wanted, stop);
    free(wanted);
    return status;
}

void lld_model_get_residency(const lld_model *model, lld_residency_info *out)
{
    lld_residency_state *r = model->residency;
    *out = (lld_residency_info){.resident_bytes = atomic_load(&r->resident_bytes),
                                .locked_bytes = atomic_load(&r->locked_bytes),
                                .populated_bytes = atomic_load(&r->populated_bytes)};
    out->passes = atomic_load(&r->n_passes);
    lld_stream_get_info(r->stream, out);
    lld_expert_store_add_info(r->experts, out);
}
