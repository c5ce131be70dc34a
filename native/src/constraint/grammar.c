/* grammar.c - checks the edges of a grammar and sorts the bytes into classes. */
#include "constraint/grammar.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"

enum { MAX_STATES = 1 << 20, MAX_EDGES = 1 << 22 };
enum { MASK_BYTES = 8 << 20, STATE_BYTES = 4 << 20 }; /* kept, where nobody says */

static int check_edge(const lld_edge *e, size_t i, uint32_t n_states)
{
    if (e->kind > LLD_EDGE_END)
        return lld_fail(LLD_ERR_INVALID, "grammar edge %zu has kind %u", i, e->kind);
    if (e->kind == LLD_EDGE_BYTES && e->low > e->high)
        return lld_fail(LLD_ERR_INVALID, "grammar edge %zu takes bytes %u..%u", i, e->low, e->high);
    if (e->kind != LLD_EDGE_RETURN && e->kind != LLD_EDGE_END && e->target >= n_states)
        return lld_fail(LLD_ERR_INVALID, "grammar edge %zu leads to state %u of %u", i, e->target,
                        n_states);
    if (e->kind == LLD_EDGE_CALL && e->value >= n_states)
        return lld_fail(LLD_ERR_INVALID, "grammar edge %zu returns to state %u of %u", i, e->value,
                        n_states);
    if (e->kind >= LLD_EDGE_TAKE && e->kind <= LLD_EDGE_LACK && e->value >= 64)
        return lld_fail(LLD_ERR_INVALID, "grammar edge %zu is for member %u, at most 63", i,
                        e->value);
    return LLD_OK;
}

static int check(const lld_edge *edges, const uint32_t *first_edge, uint32_t n_states,
                 uint32_t start)
{
    if (n_states < 1 || n_states > MAX_STATES)
        return lld_fail(LLD_ERR_INVALID, "a grammar of %u states, must be in [1, %d]", n_states,
                        MAX_STATES);
    if (start >= n_states)
        return lld_fail(LLD_ERR_INVALID, "grammar starts in state %u of %u", start, n_states);
    for (uint32_t q = 0; q < n_states; q++)
        if (first_edge[q] > first_edge[q + 1] || first_edge[q + 1] > MAX_EDGES)
            return lld_fail(LLD_ERR_INVALID, "grammar state %u has edges %u..%u, at most %d", q,
                            first_edge[q], first_edge[q + 1], MAX_EDGES);
    if (first_edge[0] != 0) return lld_fail(LLD_ERR_INVALID, "grammar state 0 has no first edge");
    for (size_t i = 0; i < first_edge[n_states]; i++)
        if (check_edge(&edges[i], i, n_states) != LLD_OK) return LLD_ERR_INVALID;
    return LLD_OK;
}

/* A new class begins at each byte where an edge begins, and behind each where one ends. Classes are
 * runs of bytes: bytes of two runs with the same edges are two classes, which costs little. */
static void classify(lld_grammar *g)
{
    bool begins[257] = {[0] = true};
    for (uint32_t i = 0; i < g->first_edge[g->n_states]; i++)
        if (g->edges[i].kind == LLD_EDGE_BYTES)
            begins[g->edges[i].low] = begins[g->edges[i].high + 1] = true;
    for (unsigned byte = 0; byte < 256; byte++) {
        g->n_classes += begins[byte];
        g->class_of[byte] = (uint8_t)(g->n_classes - 1);
    }
}

int lld_grammar_create(const lld_token_trie *trie, const lld_edge *edges,
                       const uint32_t *first_edge, const uint32_t *bounds, uint32_t n_states,
                       uint32_t start, lld_grammar **out)
{
    *out = NULL;
    if (check(edges, first_edge, n_states, start) != LLD_OK) return LLD_ERR_INVALID;
    const size_t n_edges = first_edge[n_states];
    lld_grammar *g = calloc(1, sizeof *g);
    if (g != NULL) {
        g->edges = malloc((n_edges + 1) * sizeof *g->edges);
        g->first_edge = malloc((n_states + 1) * sizeof *g->first_edge);
        g->bounds = malloc(n_states * sizeof *g->bounds);
        g->mask_of = calloc(n_states, sizeof *g->mask_of);
    }
    if (g == NULL || !g->edges || !g->first_edge || !g->bounds || !g->mask_of) {
        lld_grammar_destroy(g);
        return lld_fail(LLD_ERR_MEMORY, "no memory for a grammar of %u states", n_states);
    }
    memcpy(g->edges, edges, n_edges * sizeof *edges);
    memcpy(g->first_edge, first_edge, (n_states + 1) * sizeof *first_edge);
    memcpy(g->bounds, bounds, n_states * sizeof *bounds);
    g->trie = trie;
    g->n_states = n_states;
    g->start = start;
    lld_grammar_bound(g, MASK_BYTES, STATE_BYTES);
    classify(g);
    *out = g;
    return LLD_OK;
}

void lld_grammar_bound(lld_grammar *grammar, uint64_t mask_bytes, uint64_t state_bytes)
{
    grammar->most_mask_bytes = mask_bytes;
    grammar->most_state_bytes = state_bytes;
}

void lld_grammar_destroy(lld_grammar *grammar)
{
    if (grammar == NULL) return;
    for (size_t i = 0; i < grammar->n_masks; i++) {
        free(grammar->masks[i].bits);
        free(grammar->masks[i].tokens);
        free(grammar->masks[i].roots);
    }
    free(grammar->masks);
    free(grammar->mask_of);
    free(grammar->mask_before);
    free(grammar->edges);
    free(grammar->first_edge);
    free(grammar->bounds);
    free(grammar);
}

bool lld_grammar_takes_bytes(const lld_grammar *grammar, uint32_t state)
{
    for (uint32_t i = grammar->first_edge[state]; i < grammar->first_edge[state + 1]; i++)
        if (grammar->edges[i].kind == LLD_EDGE_BYTES) return true;
    return false;
}
