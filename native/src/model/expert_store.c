/* expert_store.c - see expert_store.h.
 *
 * A load is a part of an expert: gate and up, or down. A reader takes the oldest load that waits, one of
 * what was guessed only where nothing that was chosen waits; the next choice drops the guesses that
 * nobody began to read. An entry is pinned once by the layer that chose it and once by each of its
 * loads. One that loses its last pin before all of it was read, because its pass was stopped, the guess
 * was dropped or the disk failed, loses its slot. */
#include "model/expert_store.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "model/expert_cache.h"
#include "model/expert_guesses.h"
#include "model/expert_slots.h"
#include "model/readers.h"

enum {
    READERS = 4,       /* an expert has three matrices, and a step chooses some */
    GUESS_READERS = 2, /* at most: a choice never waits for all readers */
    BOTH_PARTS = LLD_EXPERT_GATE_UP | LLD_EXPERT_DOWN
};

typedef struct load {
    uint32_t entry;
    lld_expert_part part;
} load;

typedef struct load_queue {
    load loads[2 * LLD_MAX_EXPERTS]; /* of which [first, end) wait for a reader */
    uint32_t first, end;
} load_queue;

struct lld_expert_store {
    const lld_model *model;
    lld_direct_file *file;
    uint32_t layer; /* of the pass, whose n_chosen experts are pinned */
    uint32_t chosen[LLD_MAX_EXPERTS], n_chosen;

    lld_readers readers; /* its mutex is that of everything below */
    lld_expert_slots slots;
    lld_expert_cache cache; /* of the slots; an entry is an expert: layer * n_experts + expert */
    atomic_uchar *ready;    /* (slots.most) parts that were read */
    uint8_t *asked;         /* (slots.most) parts that were read, are read, or wait for a reader */
    load_queue chosen_loads, guessed_loads;
    uint32_t n_reading_guesses; /* readers that read what was guessed */
    lld_expert_guesses guesses;
    uint64_t n_uses, n_hits, read_bytes;
};

/* ---- the readers: with the mutex held unless said otherwise -------------------------------------- */

static lld_expert_places places_of(const lld_expert_store *s, uint32_t entry)
{
    return lld_expert_places_of(s->model, lld_expert_weights_of(s->model, entry));
}

static void unpin(lld_expert_store *s, uint32_t entry)
{
    if (--s->cache.pins[entry] != 0) return;
    if (atomic_load(&s->ready[s->cache.slot_of[entry]]) != BOTH_PARTS)
        lld_expert_cache_drop(&s->cache, entry);
}

/* Give up a load that waited. */
static void drop_load(lld_expert_store *s, load l)
{
    s->asked[s->cache.slot_of[l.entry]] &= (uint8_t)~l.part;
    unpin(s, l.entry);
}

static bool is_empty(const load_queue *q) { return q->first == q->end; }

static void drop_loads(lld_expert_store *s, load_queue *q)
{
    while (!is_empty(q)) drop_load(s, q->loads[q->first++]);
    q->first = q->end = 0;
}

/* Without the mutex. */
static int read_blocks(lld_expert_store *s, const lld_blocks *b, uint8_t *dst)
{
    return b->bytes == 0 ? LLD_OK
                         : lld_direct_file_read(s->file, b->offset, b->bytes, b->needed, dst);
}

/* Read a part of an entry, which is pinned. Gives the mutex back meanwhile. */
static int read_part(lld_expert_store *s, uint32_t entry, lld_expert_part part)
{
    const lld_expert_places p = places_of(s, entry);
    const int32_t slot = s->cache.slot_of[entry];
    uint8_t *to = s->slots.bytes + (size_t)slot * s->slots.slot_bytes;
    lld_readers_begin_read(&s->readers);
    int status;
    if (part == LLD_EXPERT_DOWN) {
        status = read_blocks(s, &p.down, to + p.gate.bytes + p.up.bytes);
    } else {
        status = read_blocks(s, &p.gate, to);
        if (status == LLD_OK) status = read_blocks(s, &p.up, to + p.gate.bytes);
    }
    lld_readers_end_read(&s->readers, status);
    if (status == LLD_OK)
        atomic_fetch_or_explicit(&s->ready[slot], (unsigned char)part, memory_order_release);
    unpin(s, entry);
    return status;
}

static uint64_t part_bytes(const lld_expert_store *s, uint32_t entry, lld_expert_part part)
{
    const lld_expert_places p = places_of(s, entry);
    return part == LLD_EXPERT_DOWN ? p.down.bytes : p.gate.bytes + p.up.bytes;
}

static void read_load(lld_expert_store *s, load l)
{
    if (s->readers.status != LLD_OK)
        drop_load(s, l);
    else if (read_part(s, l.entry, l.part) == LLD_OK)
        s->read_bytes += part_bytes(s, l.entry, l.part);
}

static void *reader_main(void *argument)
{
    lld_expert_store *s = argument;
    load_queue *chosen = &s->chosen_loads, *guessed = &s->guessed_loads;
    pthread_mutex_lock(&s->readers.mutex);
    while (!s->readers.quit) {
        if (!is_empty(chosen)) {
            read_load(s, chosen->loads[chosen->first++]);
        } else if (!is_empty(guessed) && s->n_reading_guesses < GUESS_READERS) {
            s->n_reading_guesses++;
            read_load(s, guessed->loads[guessed->first++]);
            s->n_reading_guesses--;
        } else {
            pthread_cond_wait(&s->readers.to_read, &s->readers.mutex);
        }
    }
    pthread_mutex_unlock(&s->readers.mutex);
    return NULL;
}

/* ---- what is kept here -------------------------------------------------------------------------- */

static void clear(lld_expert_store *s)
{
    free(s->ready);
    free(s->asked);
    s->ready = NULL;
    s->asked = NULL;
    lld_expert_cache_free(&s->cache);
    lld_expert_slots_free(&s->slots);
}

static int begin_to_keep(lld_expert_store *s, uint8_t *kept)
{
    const lld_model *m = s->model;
    int status = lld_expert_slots_init(&s->slots, m, kept);
    if (status != LLD_OK || s->slots.most == 0) return status;
    s->ready = calloc(s->slots.most, sizeof *s->ready);
    s->asked = calloc(s->slots.most, sizeof *s->asked);
    if (s->ready == NULL || s->asked == NULL)
        return lld_fail(LLD_ERR_MEMORY, "no memory for the table of experts");
    status =
        lld_expert_cache_init(&s->cache, m->config.n_layers, m->config.experts.n, s->slots.most);
    return status == LLD_OK ? lld_readers_start(&s->readers, READERS, reader_main, s, "experts")
                            : status;
}

/* Takes `kept`. */
static int keep(lld_expert_store *s, uint8_t *kept, const lld_residency *r, uint64_t lock_bytes)
{
    const size_t n_entries = (size_t)s->cache.n_layers * s->cache.n_experts;
    int status = LLD_OK;
    if (s->slots.is_kept != NULL && memcmp(s->slots.is_kept, kept, n_entries) == 0) {
        free(kept);
    } else {
        clear(s);
        status = begin_to_keep(s, kept);
        if (status != LLD_OK || s->slots.most == 0) return status;
    }
    status = lld_expert_slots_resize(&s->slots, r->expert_slots, lock_bytes);
    if (status != LLD_OK) return status;
    for (uint32_t i = s->slots.n; i < s->cache.n_slots; i++) atomic_store(&s->ready[i], 0);
    lld_expert_cache_resize(&s->cache, s->slots.n);
    return LLD_OK;
}

int lld_expert_store_set(lld_expert_store *s, const lld_residency *r, uint64_t lock_bytes)
{
    uint8_t *kept = lld_expert_slots_kept(s->model, r);
    if (kept == NULL) return lld_fail(LLD_ERR_MEMORY, "no memory for the table of experts");
    pthread_mutex_lock(&s->readers.mutex);
    lld_readers_wait_idle(&s->readers);
    int status = keep(s, kept, r, lock_bytes);
    if (status != LLD_OK) clear(s);
    pthread_mutex_unlock(&s->readers.mutex);
    return status;
}

/* The entry that is read next while slots are free; LLD_NO_ENTRY: none. Those of no use yet evenly from
 * all layers. */
static int32_t next_to_fill(const lld_expert_store *s)
{
    int32_t hottest = LLD_NO_ENTRY;
    if (s->slots.is_kept == NULL || s->cache.n_free == 0 || s->readers.status != LLD_OK)
        return hottest;
    for (uint32_t expert = 0; expert < s->cache.n_experts; expert++)
        for (uint32_t layer = 0; layer < s->cache.n_layers; layer++) {
            const uint32_t entry = layer * s->cache.n_experts + expert;
            if (s->slots.is_kept[entry] == 0 || s->cache.slot_of[entry] != LLD_NO_SLOT) continue;
            if (hottest == LLD_NO_ENTRY || s->cache.heat[entry] > s->cache.heat[hottest])
                hottest = (int32_t)entry;
        }
    return hottest;
}

/* Give an entry a slot in which nothing is ready or asked for. */
static bool take_slot(lld_expert_store *s, uint32_t entry)
{
    const int32_t slot = lld_expert_cache_take(&s->cache, entry, s->layer);
    if (slot == LLD_NO_SLOT) return false;
    atomic_store(&s->ready[slot], 0);
    s->asked[slot] = 0;
    return true;
}

int lld_expert_store_fill(lld_expert_store *s, const volatile int32_t *stop,
                          atomic_ullong *read_bytes)
{
    int status = LLD_OK;
    pthread_mutex_lock(&s->readers.mutex);
    for (int32_t next; status == LLD_OK && (next = next_to_fill(s)) != LLD_NO_ENTRY;) {
        const uint32_t entry = (uint32_t)next;
        if (stop != NULL && *stop != 0) {
            status = lld_fail(LLD_ERR_CANCELLED, "loading was stopped");
            break;
        }
        take_slot(s, entry);
        s->asked[s->cache.slot_of[entry]] = BOTH_PARTS;
        s->cache.pins[entry] += 2;
        status = read_part(s, entry, LLD_EXPERT_GATE_UP);
        if (status == LLD_OK)
            status = read_part(s, entry, LLD_EXPERT_DOWN);
        else
            unpin(s, entry);
        if (status == LLD_OK)
            atomic_fetch_add(read_bytes, part_bytes(s, entry, LLD_EXPERT_GATE_UP) +
                                             part_bytes(s, entry, LLD_EXPERT_DOWN));
    }
    pthread_mutex_unlock(&s->readers.mutex);
    return status;
}

int lld_expert_store_create(const lld_model *model, lld_direct_file *file, lld_expert_store **out)
{
    lld_expert_store *s = calloc(1, sizeof *s);
    if (s == NULL) return lld_fail(LLD_ERR_MEMORY, "no memory for the reader of experts");
    s->model = model;
    s->file = file;
    lld_readers_init(&s->readers);
    *out = s;
    return LLD_OK;
}

void lld_expert_store_destroy(lld_expert_store *s)
{
    if (s == NULL) return;
    lld_readers_join(&s->readers);
    clear(s);
    lld_readers_free(&s->readers);
    free(s);
}

bool lld_expert_store_is_active(const lld_expert_store *s) { return s->slots.is_kept != NULL; }

/* ---- a pass ------------------------------------------------------------------------------------- */

void lld_expert_store_begin(lld_expert_store *s, const lld_stream_pass *pass)
{
    lld_readers_begin_pass(&s->readers, pass->cancel);
    s->n_chosen = 0;
    lld_expert_cache_begin(&s->cache);
    lld_expert_guesses_begin(&s->guesses);
    pthread_mutex_unlock(&s->readers.mutex);
}

/* Let go of the experts of the layer before. With the mutex held, as the next. */
static void unpin_chosen(lld_expert_store *s)
{
    for (uint32_t i = 0; i < s->n_chosen; i++) unpin(s, s->chosen[i]);
    s->n_chosen = 0;
}

int lld_expert_store_end(lld_expert_store *s)
{
    pthread_mutex_lock(&s->readers.mutex);
    drop_loads(s, &s->chosen_loads);
    drop_loads(s, &s->guessed_loads);
    unpin_chosen(s);
    return lld_readers_end_pass(&s->readers);
}

/* Have a part of an entry read. */
static void add_load(lld_expert_store *s, load_queue *q, uint32_t entry, lld_expert_part part)
{
    assert(q->end < sizeof q->loads / sizeof *q->loads);
    s->asked[s->cache.slot_of[entry]] |= (uint8_t)part;
    s->cache.pins[entry]++;
    q->loads[q->end++] = (load){.entry = entry, .part = part};
}

/* Have a part of the entries read, where nobody was asked to. */
static void add_loads(lld_expert_store *s, const uint32_t *entries, size_t n, lld_expert_part part)
{
    for (size_t i = 0; i < n; i++)
        if ((s->asked[s->cache.slot_of[entries[i]]] & part) == 0)
            add_load(s, &s->chosen_loads, entries[i], part);
}

/* Give entries that have none a slot; returns how many got one before the pass ended. With the mutex
 * held. */
static size_t take_slots(lld_expert_store *s, const uint32_t *entries, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        /* the loads of a pass that was stopped may have pins yet */
        while (!take_slot(s, entries[i]))
            if (!lld_readers_wait(&s->readers)) return i;
        s->cache.pins[entries[i]]++;
        s->chosen[s->n_chosen++] = entries[i];
    }
    return n;
}

/* Begin to read what the entries, which have slots, lack. With the mutex held. */
static void read_missing(lld_expert_store *s, const uint32_t *entries, size_t n)
{
    if (is_empty(&s->chosen_loads)) s->chosen_loads.first = s->chosen_loads.end = 0;
    add_loads(s, entries, n, LLD_EXPERT_GATE_UP);
    add_loads(s, entries, n, LLD_EXPERT_DOWN);
    pthread_cond_broadcast(&s->readers.to_read);
}

void lld_expert_store_choose(lld_expert_store *s, uint32_t layer, uint32_t *experts, size_t n)
{
    const uint32_t n_experts = s->model->config.experts.n, first = layer * n_experts;
    uint32_t late[LLD_MAX_EXPERTS], missing[LLD_MAX_EXPERTS]; /* some parts are read; in no slot */
    size_t n_there = 0, n_late = 0, n_missing = 0;
    pthread_mutex_lock(&s->readers.mutex);
    unpin_chosen(s);
    lld_expert_guesses_judge(&s->guesses, first, experts, n);
    s->layer = layer;
    for (size_t i = 0; i < n; i++) {
        const uint32_t entry = first + experts[i];
        if (s->slots.is_kept[entry] == 0) {
            experts[n_there++] = experts[i];
            continue;
        }
        s->n_uses++;
        lld_expert_cache_use(&s->cache, entry);
        const int32_t slot = s->cache.slot_of[entry];
        if (slot == LLD_NO_SLOT) {
            missing[n_missing++] = entry;
            continue;
        }
        s->cache.pins[entry]++;
        s->chosen[s->n_chosen++] = entry;
        if (atomic_load(&s->ready[slot]) == BOTH_PARTS) {
            s->n_hits++;
            experts[n_there++] = experts[i];
        } else {
            late[n_late++] = entry;
        }
    }
    drop_loads(s, &s->guessed_loads); /* the chosen, which are pinned, keep what was read of them */
    memcpy(late + n_late, missing, n_missing * sizeof *late);
    for (size_t i = 0; i < n_late + n_missing; i++) experts[n_there + i] = late[i] - first;
    const size_t n_taken = take_slots(s, missing, n_missing);
    if (n_late + n_taken != 0) read_missing(s, late, n_late + n_taken);
    pthread_mutex_unlock(&s->readers.mutex);
}

bool lld_expert_store_guesses(const lld_expert_store *s) { return s->guesses.pass_guesses; }

/* Count what is missing as guessed, and give it slots where it is to be read: not those of others that
 * were guessed, which are pinned. */
static void read_guessed(lld_expert_store *s, uint32_t first, const uint32_t *experts, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const uint32_t entry = first + experts[i];
        if (s->slots.is_kept[entry] == 0 || s->cache.slot_of[entry] != LLD_NO_SLOT) continue;
        lld_expert_guesses_add(&s->guesses, entry);
        if (!s->guesses.pass_reads || !take_slot(s, entry)) continue;
        add_load(s, &s->guessed_loads, entry, LLD_EXPERT_GATE_UP);
        add_load(s, &s->guessed_loads, entry, LLD_EXPERT_DOWN);
    }
}

void lld_expert_store_guess(lld_expert_store *s, uint32_t layer, const uint32_t *experts, size_t n)
{
    const uint32_t first = layer * s->model->config.experts.n;
    uint32_t there[LLD_MAX_EXPERTS], n_there = 0;
    pthread_mutex_lock(&s->readers.mutex);
    for (size_t i = 0; i < n; i++)
        if (s->cache.slot_of[first + experts[i]] != LLD_NO_SLOT)
            there[n_there++] = first + experts[i];
    for (uint32_t i = 0; i < n_there; i++) s->cache.pins[there[i]]++;
    read_guessed(s, first, experts, n);
    for (uint32_t i = 0; i < n_there; i++) unpin(s, there[i]);
    pthread_cond_broadcast(&s->readers.to_read);
    pthread_mutex_unlock(&s->readers.mutex);
}

/* Wait for a part, or the end of the pass. */
static bool wait_for(lld_expert_store *s, uint32_t entry, lld_expert_part part)
{
    pthread_mutex_lock(&s->readers.mutex);
    bool there;
    do {
        const int32_t slot = s->cache.slot_of[entry];
        there = slot != LLD_NO_SLOT && (atomic_load(&s->ready[slot]) & part) != 0;
    } while (!there && lld_readers_wait(&s->readers));
    pthread_mutex_unlock(&s->readers.mutex);
    return there;
}

bool lld_expert_store_take(lld_expert_store *s, uint32_t layer, uint32_t expert,
                           lld_expert_part part, lld_gated_weights *out)
{
    const uint32_t entry = layer * s->model->config.experts.n + expert;
    *out = *lld_expert_weights_of(s->model, entry);
    if (s->slots.is_kept[entry] == 0) return true;
    if (lld_expert_store_is_stopped(s)) return false;
    const int32_t slot = s->cache.slot_of[entry]; /* pinned: nobody changes it */
    if (slot == LLD_NO_SLOT ||
        (atomic_load_explicit(&s->ready[slot], memory_order_acquire) & part) == 0) {
        if (!wait_for(s, entry, part)) return false;
    }
    const lld_expert_places p = places_of(s, entry);
    uint8_t *bytes = s->slots.bytes + (size_t)slot * s->slots.slot_bytes;
    out->gate.data = bytes + p.gate.skip;
    if (out->up.data != NULL) out->up.data = bytes + p.gate.bytes + p.up.skip;
    out->down.data = bytes + p.gate.bytes + p.up.bytes + p.down.skip;
    return true;
}

bool lld_expert_store_is_stopped(const lld_expert_store *s)
{
    return lld_readers_is_stopped(&s->readers);
}

void lld_expert_store_wake(lld_expert_store *s) { lld_readers_wake(&s->readers); }

void lld_expert_store_add_info(lld_expert_store *s, lld_residency_info *out)
{
    pthread_mutex_lock(&s->readers.mutex);
    out->expert_slots = s->cache.n_slots;
    out->expert_uses = s->n_uses;
    out->expert_hits = s->n_hits;
    out->expert_read_bytes = s->read_bytes;
    out->expert_guesses = s->guesses.total;
    out->expert_guesses_right = s->guesses.total_right;
    out->read_bytes += s->read_bytes;
    out->read_seconds += 1e-9 * (double)s->readers.read_nanoseconds;
    out->wait_seconds += 1e-9 * (double)s->readers.wait_nanoseconds;
    if (s->slots.most != 0)
        out->resident_bytes += s->slots.weight_bytes / s->slots.most * s->cache.n_slots;
    pthread_mutex_unlock(&s->readers.mutex);
}

uint64_t lld_expert_store_locked(const lld_expert_store *s, int *error)
{
    *error = s->slots.lock_error;
    return s->slots.locked_bytes;
}
