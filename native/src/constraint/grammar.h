/* grammar.h - a context-free language over bytes as a pushdown automaton: states with edges, and
 * calls that put a frame on a stack. Its edges do not change; what is found out about its states and a
 * vocabulary is kept with it. The edge kinds are lld_edge_kind's in
 * llamad_engine.h; who makes edges of a grammar text is not known here. */
#ifndef LLD_GRAMMAR_H
#define LLD_GRAMMAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "llamad_engine.h"

/* What holds in a state of the grammar whatever lies below its frame: the tokens that are allowed,
 * and the subtrees of the trie for which that must be looked up. */
typedef struct lld_local_mask {
    uint32_t state, rounds; /* rounds: that the state's loop may still make, at least */
    uint64_t *bits;         /* (vocab_size / 64, rounded up), or NULL: */
    int32_t *tokens;        /* (n_tokens) */
    uint32_t n_tokens;
    uint32_t *roots; /* (n_roots) nodes of the trie, ascending, none below another */
    uint32_t n_roots;
} lld_local_mask;

struct lld_grammar {
    const lld_token_trie *trie;
    lld_edge *edges;      /* (n_edges), by the state they leave */
    uint32_t *first_edge; /* (n_states + 1): state q has edges first_edge[q] .. first_edge[q + 1] */
    uint32_t *bounds;     /* (n_states) rounds of the loop that q is in; 0: in none;
                             UINT32_MAX: without limit */
    uint32_t n_states, start;
    uint8_t class_of[256]; /* bytes of one class lie on the same edges */
    uint32_t n_classes;
    lld_local_mask *masks; /* (n_masks) made so far */
    uint32_t *mask_of;     /* (n_states) number of a state's newest mask, plus 1; 0: none */
    uint32_t *mask_before; /* (n_masks) likewise, of the mask of the same state made before */
    size_t n_masks, masks_capacity, masks_bytes;
    uint64_t most_mask_bytes; /* beyond, all masks are made again */
    uint64_t
        most_state_bytes; /* of a constraint; beyond, states are forgotten between two tokens */
};

/* Whether a state is of use between two bytes: whether an edge that takes a byte leaves it. */
bool lld_grammar_takes_bytes(const lld_grammar *grammar, uint32_t state);

#endif
