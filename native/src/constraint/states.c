/* states.c - numbers for stacks and for sets of ways, and the closure under edges that take no
 * byte. */
#include "constraint/states.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"

enum {
    MAX_DEPTH = 4096,         /* frames of a stack */
    MAX_WAYS = 4096,          /* of one closure */
    MAX_ARRAY_BYTES = 1 << 26 /* of frames, ways, sets and transitions each */
};

static const uint32_t unknown_frame = UINT32_MAX;

/* ---- memory ---------------------------------------------------------------------------------- */

static void fail(lld_states *s, int status)
{
    if (s->status == LLD_OK) s->status = status;
}

/* Make room for `more` items of `size` bytes. */
static bool room(lld_states *s, void *items, size_t n, size_t more, size_t *capacity, size_t size)
{
    if (n + more <= *capacity) return true;
    if ((n + more) * size > MAX_ARRAY_BYTES) {
        fail(s, lld_fail(LLD_ERR_INVALID, "the grammar's states take more than %d MiB",
                         MAX_ARRAY_BYTES >> 20));
        return false;
    }
    size_t wanted = *capacity == 0 ? 64 : 2 * *capacity;
    while (wanted < n + more) wanted *= 2;
    void **p = items;
    void *larger = realloc(*p, wanted * size);
    if (larger == NULL) {
        fail(s, lld_fail(LLD_ERR_MEMORY, "no memory for the states of a grammar"));
        return false;
    }
    *p = larger;
    *capacity = wanted;
    return true;
}

#define ROOM(s, array, more)                                                                       \
    room(s, &(s)->array, (s)->n_##array, more, &(s)->array##_capacity, sizeof *(s)->array)

/* ---- numbers --------------------------------------------------------------------------------- */

static uint32_t mix(uint32_t hash, uint32_t value)
{
    hash = (hash ^ value) * 0x9E3779B1u;
    return hash ^ hash >> 15;
}

static uint32_t hash_frame(const lld_frame *f)
{
    const uint32_t memory = mix((uint32_t)f->memory, (uint32_t)(f->memory >> 32));
    return mix(mix(mix(1, f->to), memory), f->below);
}

static uint32_t hash_way(const lld_way *w) { return mix(mix(2, w->state), w->stack); }

static uint32_t hash_set(const lld_way_set *set, const lld_way *ways)
{
    uint32_t hash = (uint32_t)set->accepts + 2 * (uint32_t)set->returned;
    for (uint32_t i = 0; i < set->count; i++) hash = mix(hash, hash_way(&ways[i]));
    return hash;
}

/* What an index is of: where a number belongs, and whether it stands for what is looked for, which is
 * the number behind the last one. */
typedef struct kind {
    uint32_t (*hash)(const lld_states *s, uint32_t number);
    bool (*same)(const lld_states *s, uint32_t number, uint32_t sought);
} kind;

static uint32_t hash_of_frame(const lld_states *s, uint32_t n) { return hash_frame(&s->frames[n]); }
static uint32_t hash_of_found(const lld_states *s, uint32_t n) { return hash_way(&s->found[n]); }
static uint32_t hash_of_set(const lld_states *s, uint32_t n)
{
    return hash_set(&s->sets[n], s->ways + s->sets[n].first);
}

static bool same_frame(const lld_states *s, uint32_t a, uint32_t b)
{
    const lld_frame *f = &s->frames[a], *g = &s->frames[b];
    return f->to == g->to && f->memory == g->memory && f->below == g->below;
}

static bool same_found(const lld_states *s, uint32_t a, uint32_t b)
{
    return s->found[a].state == s->found[b].state && s->found[a].stack == s->found[b].stack;
}

static bool same_set(const lld_states *s, uint32_t a, uint32_t b)
{
    const lld_way_set *x = &s->sets[a], *y = &s->sets[b];
    return x->count == y->count && x->accepts == y->accepts && x->returned == y->returned &&
           memcmp(s->ways + x->first, s->ways + y->first, x->count * sizeof *s->ways) == 0;
}

static const kind of_frames = {hash_of_frame, same_frame}, of_found = {hash_of_found, same_found},
                  of_sets = {hash_of_set, same_set};

static bool grow(lld_states *s, lld_index *index, kind k)
{
    const size_t capacity = index->capacity == 0 ? 64 : 2 * index->capacity;
    uint32_t *slots = calloc(capacity, sizeof *slots);
    if (slots == NULL) {
        fail(s, lld_fail(LLD_ERR_MEMORY, "no memory for the states of a grammar"));
        return false;
    }
    for (size_t i = 0; i < index->capacity; i++) {
        if (index->slots[i] == 0) continue;
        size_t at = k.hash(s, index->slots[i] - 1) & (capacity - 1);
        while (slots[at] != 0) at = (at + 1) & (capacity - 1);
        slots[at] = index->slots[i];
    }
    free(index->slots);
    index->slots = slots;
    index->capacity = capacity;
    return true;
}

/* The number that stands for the same as `sought`, which is behind the last one: another's, or its own,
 * which it has from then on. */
static uint32_t number_for(lld_states *s, lld_index *index, kind k, uint32_t sought)
{
    if (2 * index->n >= index->capacity && !grow(s, index, k)) return sought;
    size_t at = k.hash(s, sought) & (index->capacity - 1);
    for (; index->slots[at] != 0; at = (at + 1) & (index->capacity - 1))
        if (k.same(s, index->slots[at] - 1, sought)) return index->slots[at] - 1;
    index->slots[at] = sought + 1;
    index->n++;
    return sought;
}

static void clear(lld_index *index)
{
    index->n = 0;
    if (index->capacity > 0) memset(index->slots, 0, index->capacity * sizeof *index->slots);
}

/* The stack with one more frame. LLD_STACK_BOTTOM after a failure. */
static uint32_t push(lld_states *s, uint32_t to, uint64_t memory, uint32_t below)
{
    if (!ROOM(s, frames, 1)) return LLD_STACK_BOTTOM;
    const uint32_t sought = (uint32_t)s->n_frames;
    s->frames[sought] = (lld_frame){
        .memory = memory, .to = to, .below = below, .depth = s->frames[below].depth + 1};
    const uint32_t number = number_for(s, &s->frame_index, of_frames, sought);
    s->n_frames += number == sought;
    return number;
}

/* ---- the closure ----------------------------------------------------------------------------- */

static void find(lld_states *s, uint32_t state, uint32_t stack)
{
    if (s->status != LLD_OK) return;
    if (s->n_found >= MAX_WAYS || s->work_left == 0) {
        fail(s, lld_fail(LLD_ERR_INVALID,
                         "the grammar can go on in too many ways at once: it is too ambiguous"));
        return;
    }
    s->work_left--;
    if (!ROOM(s, found, 1)) return;
    const uint32_t sought = (uint32_t)s->n_found;
    s->found[sought] = (lld_way){.state = state, .stack = stack};
    s->n_found += number_for(s, &s->found_index, of_found, sought) == sought;
}

static bool is_unknown(const lld_states *s, uint32_t stack)
{
    return stack != LLD_STACK_BOTTOM && s->frames[stack].to == unknown_frame;
}

/* Return: to where the frame says, or to the end of the text. */
static void leave(lld_states *s, uint32_t stack, lld_way_set *set)
{
    if (stack == LLD_STACK_BOTTOM)
        set->accepts = true;
    else
        find(s, s->frames[stack].to, s->frames[stack].below);
}

/* Whether a return is all that follows in a state: then a call from there needs no frame. */
static bool only_returns(const lld_grammar *g, uint32_t state)
{
    const uint32_t first = g->first_edge[state];
    return g->first_edge[state + 1] == first + 1 && g->edges[first].kind == LLD_EDGE_RETURN &&
           g->edges[first].value == 0;
}

static void call(lld_states *s, const lld_edge *e, uint32_t stack)
{
    if (only_returns(s->grammar, e->value) && s->grammar->bounds[e->target] == 0) {
        find(s, e->target, stack);
        return;
    }
    if (s->frames[stack].depth >= MAX_DEPTH) return; /* no text nests as deep */
    const uint32_t called = push(s, e->value, 0, stack);
    if (s->status == LLD_OK) find(s, e->target, called);
}

/* Go on with another memory of the frame on top. */
static void remember(lld_states *s, const lld_edge *e, const lld_frame *f, uint64_t memory)
{
    const uint32_t stack = push(s, f->to, memory, f->below);
    if (s->status == LLD_OK) find(s, e->target, stack);
}

static void follow(lld_states *s, const lld_edge *e, uint32_t stack, lld_way_set *set)
{
    const lld_frame f = s->frames[stack];
    const uint64_t bit = (uint64_t)1 << e->value % 64;
    switch (e->kind) {
    case LLD_EDGE_EMPTY:
        find(s, e->target, stack);
        break;
    case LLD_EDGE_CALL:
        call(s, e, stack);
        break;
    case LLD_EDGE_RETURN:
        if (f.memory >= e->value) leave(s, stack, set);
        break;
    case LLD_EDGE_BELOW:
        if (f.memory < e->value) find(s, e->target, stack);
        break;
    case LLD_EDGE_NEXT:
        remember(s, e, &f, f.memory < e->value ? f.memory + 1 : f.memory);
        break;
    case LLD_EDGE_TAKE:
        if (!(f.memory & bit)) remember(s, e, &f, f.memory | bit);
        break;
    case LLD_EDGE_HAVE:
        if (f.memory & bit) find(s, e->target, stack);
        break;
    case LLD_EDGE_LACK:
        if (!(f.memory & bit)) find(s, e->target, stack);
        break;
    case LLD_EDGE_END:
        set->accepts = true;
        break;
    default:
        break; /* takes a byte */
    }
}

/* The same on an unknown frame: its loop may make a few more rounds; what else its memory says is not
 * known, and what depends on that counts as a return. */
static void follow_on_unknown(lld_states *s, const lld_edge *e, uint32_t stack, lld_way_set *set)
{
    const lld_frame f = s->frames[stack];
    switch (e->kind) {
    case LLD_EDGE_EMPTY:
        find(s, e->target, stack);
        break;
    case LLD_EDGE_CALL:
        call(s, e, stack);
        break;
    case LLD_EDGE_NEXT:
        remember(s, e, &f, f.memory < LLD_UNKNOWN_ROUNDS ? f.memory + 1 : f.memory);
        break;
    case LLD_EDGE_BELOW:
        if (f.memory < LLD_UNKNOWN_ROUNDS)
            find(s, e->target, stack);
        else
            set->returned = true;
        break;
    case LLD_EDGE_BYTES:
        break;
    case LLD_EDGE_END:
        set->accepts = true;
        break;
    default:
        set->returned = true;
    }
}

static int compare_ways(const void *a, const void *b)
{
    const lld_way *x = a, *y = b;
    if (x->state != y->state) return x->state < y->state ? -1 : 1;
    return x->stack < y->stack ? -1 : x->stack > y->stack;
}

/* The number of a set whose ways are at the end of s->ways; they are taken back when it has one. */
static uint32_t number_of(lld_states *s, lld_way_set set)
{
    if (!ROOM(s, sets, 1)) return LLD_STATE_DEAD;
    const uint32_t sought = (uint32_t)s->n_sets;
    s->sets[sought] = set;
    const uint32_t number = number_for(s, &s->set_index, of_sets, sought);
    if (number == sought)
        s->n_sets++;
    else
        s->n_ways = set.first;
    return s->status == LLD_OK ? number : LLD_STATE_DEAD;
}

/* The number of the set that s->found leads to; found is empty again afterwards. */
static uint32_t close_found(lld_states *s)
{
    const lld_grammar *g = s->grammar;
    lld_way_set set = {.first = (uint32_t)s->n_ways};
    for (size_t i = 0; i < s->n_found && s->status == LLD_OK; i++) {
        const lld_way w = s->found[i];
        const bool unknown = is_unknown(s, w.stack);
        for (uint32_t e = g->first_edge[w.state]; e < g->first_edge[w.state + 1]; e++) {
            if (unknown)
                follow_on_unknown(s, &g->edges[e], w.stack, &set);
            else
                follow(s, &g->edges[e], w.stack, &set);
        }
        if (!lld_grammar_takes_bytes(g, w.state) || !ROOM(s, ways, 1)) continue;
        s->ways[s->n_ways++] = w;
    }
    s->n_found = 0;
    clear(&s->found_index);
    set.count = (uint32_t)(s->n_ways - set.first);
    if (s->status != LLD_OK) return LLD_STATE_DEAD;
    if (set.count == 0 && !set.accepts && !set.returned) return LLD_STATE_DEAD;
    qsort(s->ways + set.first, set.count, sizeof *s->ways, compare_ways);
    return number_of(s, set);
}

/* ---- the functions of states.h --------------------------------------------------------------- */

static void begin(lld_states *s)
{
    s->n_frames = s->n_ways = s->n_sets = s->n_next = 0;
    if (!ROOM(s, frames, 1) || !ROOM(s, sets, 2) || !ROOM(s, ways, 1)) return;
    s->frames[s->n_frames++] = (lld_frame){0};
    s->sets[s->n_sets++] = (lld_way_set){0}; /* LLD_STATE_UNKNOWN */
    s->sets[s->n_sets++] = (lld_way_set){0}; /* LLD_STATE_DEAD */
}

void lld_states_init(lld_states *states, const lld_grammar *grammar)
{
    *states = (lld_states){.grammar = grammar, .work_left = LLD_MOST_WORK};
    begin(states);
}

static void free_index(lld_index *index)
{
    free(index->slots);
    *index = (lld_index){0};
}

void lld_states_free(lld_states *states)
{
    free(states->frames);
    free(states->ways);
    free(states->sets);
    free(states->next);
    free(states->found);
    free_index(&states->frame_index);
    free_index(&states->set_index);
    free_index(&states->found_index);
    *states = (lld_states){0};
}

size_t lld_states_bytes(const lld_states *s)
{
    return s->n_frames * sizeof *s->frames + s->n_ways * sizeof *s->ways +
           s->n_sets * sizeof *s->sets + s->n_next * sizeof *s->next +
           (s->frame_index.capacity + s->set_index.capacity) * sizeof *s->frame_index.slots;
}

uint32_t lld_states_start(lld_states *states)
{
    find(states, states->grammar->start, LLD_STACK_BOTTOM);
    return states->status == LLD_OK ? close_found(states) : LLD_STATE_DEAD;
}

uint32_t lld_states_on_unknown(lld_states *states, uint32_t grammar_state, uint32_t rounds)
{
    const uint32_t stack = push(states, unknown_frame, rounds, LLD_STACK_BOTTOM);
    find(states, grammar_state, stack);
    return states->status == LLD_OK ? close_found(states) : LLD_STATE_DEAD;
}

static uint32_t step(lld_states *s, uint32_t state, uint8_t byte)
{
    const lld_grammar *g = s->grammar;
    const lld_way_set set = s->sets[state];
    for (uint32_t i = set.first; i < set.first + set.count; i++) {
        const lld_way w = s->ways[i];
        for (uint32_t e = g->first_edge[w.state]; e < g->first_edge[w.state + 1]; e++)
            if (g->edges[e].kind == LLD_EDGE_BYTES && g->edges[e].low <= byte &&
                byte <= g->edges[e].high)
                find(s, g->edges[e].target, w.stack);
    }
    return s->n_found > 0 ? close_found(s) : LLD_STATE_DEAD;
}

uint32_t lld_states_step(lld_states *s, uint32_t state, uint8_t byte)
{
    const uint8_t class = s->grammar->class_of[byte];
    if (s->status != LLD_OK) return LLD_STATE_DEAD;
    if (s->sets[state].next == 0) {
        if (!ROOM(s, next, s->grammar->n_classes)) return LLD_STATE_DEAD;
        memset(s->next + s->n_next, 0, s->grammar->n_classes * sizeof *s->next);
        s->sets[state].next = (uint32_t)s->n_next + 1;
        s->n_next += s->grammar->n_classes;
    }
    uint32_t after = s->next[s->sets[state].next - 1 + class];
    if (after == LLD_STATE_UNKNOWN) {
        after = step(s, state, byte);
        s->next[s->sets[state].next - 1 + class] = after;
    }
    return after;
}

/* The ways of a set, with their stacks written out, outlive the numbers. */
typedef struct kept_way {
    uint32_t state, n_frames;
    lld_frame *frames; /* (n_frames) the top one first */
} kept_way;

static bool keep_way(const lld_states *s, lld_way w, kept_way *kept)
{
    *kept = (kept_way){.state = w.state, .n_frames = s->frames[w.stack].depth};
    kept->frames = malloc((kept->n_frames + 1) * sizeof *kept->frames);
    if (kept->frames == NULL) return false;
    for (uint32_t i = 0; i < kept->n_frames; i++, w.stack = s->frames[w.stack].below)
        kept->frames[i] = s->frames[w.stack];
    return true;
}

static void find_kept(lld_states *s, const kept_way *kept)
{
    uint32_t stack = LLD_STACK_BOTTOM;
    for (uint32_t i = kept->n_frames; i-- > 0 && s->status == LLD_OK;)
        stack = push(s, kept->frames[i].to, kept->frames[i].memory, stack);
    find(s, kept->state, stack);
}

uint32_t lld_states_reset(lld_states *s, uint32_t keep)
{
    const lld_way_set set = s->sets[keep];
    if (keep == LLD_STATE_DEAD || s->status != LLD_OK) return LLD_STATE_DEAD;
    kept_way *kept = calloc(set.count + 1, sizeof *kept);
    bool done = kept != NULL;
    for (uint32_t i = 0; i < set.count && done; i++)
        done = keep_way(s, s->ways[set.first + i], &kept[i]);
    if (done) {
        clear(&s->frame_index);
        clear(&s->set_index);
        begin(s);
        for (uint32_t i = 0; i < set.count; i++) find_kept(s, &kept[i]);
    } else {
        fail(s, lld_fail(LLD_ERR_MEMORY, "no memory for the states of a grammar"));
    }
    for (uint32_t i = 0; kept != NULL && i < set.count; i++) free(kept[i].frames);
    free(kept);
    if (!done) return LLD_STATE_DEAD;
    lld_way_set again = {.first = (uint32_t)s->n_ways, .accepts = set.accepts};
    for (size_t i = 0; i < s->n_found && ROOM(s, ways, 1); i++) s->ways[s->n_ways++] = s->found[i];
    s->n_found = 0;
    clear(&s->found_index);
    again.count = (uint32_t)(s->n_ways - again.first);
    qsort(s->ways + again.first, again.count, sizeof *s->ways, compare_ways);
    return s->status == LLD_OK ? number_of(s, again) : LLD_STATE_DEAD;
}
