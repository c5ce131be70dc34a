/* token_trie.h - the texts of a vocabulary as a prefix tree, in depth-first order, so that a walk
 * goes forward through memory and leaves a subtree out by one jump. Immutable. */
#ifndef LLD_TOKEN_TRIE_H
#define LLD_TOKEN_TRIE_H

#include <stddef.h>
#include <stdint.h>

#include "llamad_engine.h"

typedef struct lld_trie_node {
    uint32_t end;   /* the node behind this one's subtree */
    uint32_t first; /* in `sorted`: the tokens whose text ends here, up to the next node's first */
    uint16_t depth; /* bytes of the text, this one's included: >= 1 */
    uint8_t byte;   /* the last of them */
} lld_trie_node;

struct lld_token_trie {
    lld_trie_node *nodes; /* (n_nodes + 1); the last one only ends those before */
    uint32_t n_nodes;
    int32_t *sorted; /* (n_sorted) tokens that have a text, by their bytes */
    uint32_t n_sorted;
    uint8_t *bytes;    /* texts of all tokens, one behind the other */
    uint32_t *offsets; /* (vocab_size + 1) where they lie */
    uint32_t vocab_size;
    uint32_t max_depth; /* bytes of the longest text */
};

/* The texts that begin as `node` does share its path: return it, node's depth bytes. */
const uint8_t *lld_trie_path(const lld_token_trie *trie, uint32_t node);

#endif
