/* states.h - the states of a grammar's automaton that one answer meets, made when they are met.
 *
 * The automaton is nondeterministic: after some bytes it may be in several ways at once. A way is a
 * state of the grammar and a stack of frames, where a call returns to. A set of ways is a state
 * here, and has a number; so has a stack, and what the same byte made of the same set before is
 * looked up (a lazy subset construction, with stacks shared as in Tomita's graph-structured stack,
 * 1986). Numbers are only good until lld_states_reset.
 *
 * A stack may stand on an unknown frame instead of on the bottom: then what lies below is not
 * known, and a set notes whether one of its ways has returned from there (constraint.c uses that to
 * find what holds whatever lies below). */
#ifndef LLD_STATES_H
#define LLD_STATES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "constraint/grammar.h"

#ifndef LLD_MOST_WORK            /* the fuzzer has fewer */
#define LLD_MOST_WORK (1u << 24) /* ways that may be found for one token: about half a second */
#endif

enum {
    LLD_STATE_UNKNOWN = 0, /* no number yet */
    LLD_STATE_DEAD = 1,    /* no way at all */
    LLD_STACK_BOTTOM = 0,  /* a return from here ends the text */
    LLD_UNKNOWN_ROUNDS =
        64 /* of the loop of an unknown frame, before it is unknown if it goes on */
};

typedef struct lld_frame {
    uint64_t memory; /* rounds that its loop has made, or a bit for each member that was taken */
    uint32_t to;     /* state that a return leads to; UINT32_MAX: an unknown frame */
    uint32_t below;  /* stack */
    uint32_t depth;  /* frames */
} lld_frame;

typedef struct lld_way {
    uint32_t state; /* takes bytes */
    uint32_t stack;
} lld_way;

typedef struct lld_way_set {
    uint32_t first, count; /* ways */
    uint32_t next;         /* first of its row of transitions, plus 1; 0: has none yet */
    bool accepts;          /* the text may end here */
    bool returned;         /* a way has returned from an unknown frame */
} lld_way_set;

/* A hash table of numbers; what they stand for lies elsewhere. */
typedef struct lld_index {
    uint32_t *slots; /* (capacity) number + 1; 0: free */
    size_t capacity, n;
} lld_index;

typedef struct lld_states {
    const lld_grammar *grammar;
    lld_frame *frames; /* (n_frames) by number of the stack; 0 is the bottom */
    lld_way *ways;     /* (n_ways) */
    lld_way_set *sets; /* (n_sets) by number of the state */
    uint32_t *next;    /* (n_next) rows of n_classes numbers of states */
    size_t n_frames, n_ways, n_sets, n_next;
    size_t frames_capacity, ways_capacity, sets_capacity, next_capacity;
    lld_index frame_index, set_index;
    lld_way *found; /* (found_capacity) ways of the closure that is made; found_index has them */
    size_t n_found, found_capacity;
    lld_index found_index;
    uint32_t work_left; /* ways that may still be found, before the grammar is too ambiguous */
    int status; /* LLD_OK until a limit was met or memory was short; then all sets are dead */
} lld_states;

void lld_states_init(lld_states *states, const lld_grammar *grammar);
void lld_states_free(lld_states *states);

/* Bytes in use. */
size_t lld_states_bytes(const lld_states *states);

/* The state of an empty text. */
uint32_t lld_states_start(lld_states *states);

/* The state of one way, on an unknown frame that has made `rounds` of LLD_UNKNOWN_ROUNDS. */
uint32_t lld_states_on_unknown(lld_states *states, uint32_t grammar_state, uint32_t rounds);

/* The state after one more byte; LLD_STATE_DEAD when no way takes it. */
uint32_t lld_states_step(lld_states *states, uint32_t state, uint8_t byte);

/* Forget every state but `keep`; return its new number. */
uint32_t lld_states_reset(lld_states *states, uint32_t keep);

#endif
