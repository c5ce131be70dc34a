/* constraint.c - the mask of the tokens that may come next.
 *
 * A token may come when the automaton takes its bytes. To try all of them takes milliseconds where
 * a string may hold almost anything, so that is done once for a state of the grammar
 * (local_mask.c). What then has to be looked up in each place are the tokens that leave the state's
 * rule, as a quotation mark does that ends a string: a few subtrees of the trie. */
#include "constraint/constraint.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "constraint/local_mask.h"
#include "constraint/token_trie.h"

static size_t mask_words(const lld_constraint *c)
{
    return (c->grammar->trie->vocab_size + 63) / 64;
}

int lld_constraint_create(lld_grammar *grammar, const int32_t *end_tokens, size_t n_end_tokens,
                          lld_constraint **out)
{
    *out = NULL;
    for (size_t i = 0; i < n_end_tokens; i++)
        if (end_tokens[i] < 0 || (uint32_t)end_tokens[i] >= grammar->trie->vocab_size)
            return lld_fail(LLD_ERR_INVALID, "end token %d, must be in [0, %u]", end_tokens[i],
                            grammar->trie->vocab_size - 1);
    lld_constraint *c = calloc(1, sizeof *c);
    if (c != NULL) {
        c->grammar = grammar;
        c->mask = calloc(mask_words(c), sizeof *c->mask);
        c->at = calloc(grammar->trie->max_depth + 1, sizeof *c->at);
        c->end_tokens = calloc(n_end_tokens + 1, sizeof *c->end_tokens);
    }
    if (c == NULL || !c->mask || !c->at || !c->end_tokens) {
        lld_constraint_destroy(c);
        return lld_fail(LLD_ERR_MEMORY, "no memory for a constraint");
    }
    if (n_end_tokens > 0) memcpy(c->end_tokens, end_tokens, n_end_tokens * sizeof *end_tokens);
    c->n_end_tokens = n_end_tokens;
    lld_states_init(&c->states, grammar);
    c->state = lld_states_start(&c->states);
    const int status = c->states.status;
    if (status != LLD_OK) {
        lld_constraint_destroy(c);
        return status;
    }
    *out = c;
    return LLD_OK;
}

void lld_constraint_destroy(lld_constraint *constraint)
{
    if (constraint == NULL) return;
    lld_states_free(&constraint->states);
    free(constraint->mask);
    free(constraint->at);
    free(constraint->end_tokens);
    free(constraint);
}

static bool is_end(const lld_constraint *c, int32_t token)
{
    for (size_t i = 0; i < c->n_end_tokens; i++)
        if (c->end_tokens[i] == token) return true;
    return false;
}

bool lld_constraint_accepts(const lld_constraint *constraint)
{
    return constraint->states.sets[constraint->state].accepts;
}

bool lld_constraint_complete(const lld_constraint *constraint)
{
    const lld_way_set *set = &constraint->states.sets[constraint->state];
    return constraint->ended || (set->accepts && set->count == 0);
}

int lld_constraint_accept(lld_constraint *constraint, int32_t token)
{
    lld_constraint *c = constraint;
    const lld_token_trie *trie = c->grammar->trie;
    if (token < 0 || (uint32_t)token >= trie->vocab_size)
        return lld_fail(LLD_ERR_INVALID, "token %d, must be in [0, %u]", token,
                        trie->vocab_size - 1);
    const uint32_t begin = trie->offsets[token], end = trie->offsets[token + 1];
    c->states.work_left = LLD_MOST_WORK;
    uint32_t after = c->ended || begin == end ? LLD_STATE_DEAD : c->state;
    if (lld_states_bytes(&c->states) > c->grammar->most_state_bytes)
        after = c->state = lld_states_reset(&c->states, c->state);
    if (is_end(c, token)) {
        if (c->ended || !lld_constraint_accepts(c))
            return lld_fail(LLD_ERR_INVALID, "end token %d comes before the grammar's end", token);
        c->ended = true;
        return LLD_OK;
    }
    for (uint32_t i = begin; i < end && after != LLD_STATE_DEAD; i++)
        after = lld_states_step(&c->states, after, trie->bytes[i]);
    if (c->states.status != LLD_OK) return c->states.status;
    if (after == LLD_STATE_DEAD)
        return lld_fail(LLD_ERR_INVALID, "token %d is not in the grammar here", token);
    c->state = after;
    return LLD_OK;
}

/* ---- the mask -------------------------------------------------------------------------------- */

static void allow(lld_constraint *c, int32_t token)
{
    c->mask[token / 64] |= (uint64_t)1 << token % 64;
}

/* Allow what the automaton takes of the tokens of the nodes [node, end), a subtree or all. */
static void walk(lld_constraint *c, uint32_t node, uint32_t end)
{
    const lld_token_trie *trie = c->grammar->trie;
    const lld_trie_node *nodes = trie->nodes;
    while (node < end) {
        const lld_trie_node *n = &nodes[node];
        const uint32_t after = lld_states_step(&c->states, c->at[n->depth - 1], n->byte);
        if (after == LLD_STATE_DEAD) {
            node = n->end;
            continue;
        }
        c->at[n->depth] = after;
        for (uint32_t t = n->first; t < nodes[node + 1].first; t++) allow(c, trie->sorted[t]);
        node++;
    }
}

/* Walk the subtrees of a local mask. */
static void walk_roots(lld_constraint *c, const lld_local_mask *mask)
{
    const lld_token_trie *trie = c->grammar->trie;
    for (uint32_t i = 0; i < mask->n_roots; i++) {
        const lld_trie_node *root = &trie->nodes[mask->roots[i]];
        const uint8_t *path = lld_trie_path(trie, mask->roots[i]);
        bool alive = true;
        for (uint32_t d = 1; d < root->depth && alive; d++) {
            c->at[d] = lld_states_step(&c->states, c->at[d - 1], path[d - 1]);
            alive = c->at[d] != LLD_STATE_DEAD;
        }
        if (alive) walk(c, mask->roots[i], root->end);
    }
}

static void allow_local(lld_constraint *c, const lld_local_mask *mask)
{
    if (mask->bits != NULL)
        for (size_t i = 0; i < mask_words(c); i++) c->mask[i] |= mask->bits[i];
    for (uint32_t i = 0; i < mask->n_tokens; i++) allow(c, mask->tokens[i]);
}

/* Rounds that the loop of a way may still make. */
static uint32_t remaining_rounds(const lld_constraint *c, lld_way way)
{
    const uint32_t bound = c->grammar->bounds[way.state];
    if (bound == 0 || bound == UINT32_MAX) return UINT32_MAX;
    const uint64_t rounds = c->states.frames[way.stack].memory;
    return rounds < bound ? bound - (uint32_t)rounds : 0;
}

/* Add what one way allows; false: it has no local mask. */
static bool allow_way(lld_constraint *c, lld_way way, int *status)
{
    const uint32_t remaining = remaining_rounds(c, way);
    const lld_local_mask *mask =
        lld_local_mask_of(c->grammar, way.state, remaining, &c->states.work_left, status);
    if (mask == NULL) return false;
    allow_local(c, mask);
    walk_roots(c, mask);
    return true;
}

const uint64_t *lld_constraint_mask(lld_constraint *c, int *status)
{
    *status = c->states.status;
    c->states.work_left = LLD_MOST_WORK;
    memset(c->mask, 0, mask_words(c) * sizeof *c->mask);
    const lld_way_set set = c->states.sets[c->state];
    c->at[0] = c->state;
    bool local = !c->ended;
    for (uint32_t i = 0; i < set.count && local && *status == LLD_OK; i++)
        local = allow_way(c, c->states.ways[set.first + i], status);
    if (!local && !c->ended && *status == LLD_OK) walk(c, 0, c->grammar->trie->n_nodes);
    if (*status == LLD_OK) *status = c->states.status;
    for (size_t i = 0; i < c->n_end_tokens; i++) {
        const int32_t token = c->end_tokens[i];
        if (set.accepts && !c->ended)
            allow(c, token);
        else
            c->mask[token / 64] &= ~((uint64_t)1 << token % 64);
    }
    return *status == LLD_OK ? c->mask : NULL;
}

int lld_constraint_allowed(lld_constraint *constraint, uint8_t *allowed)
{
    int status;
    const uint64_t *mask = lld_constraint_mask(constraint, &status);
    for (uint32_t i = 0; mask != NULL && i < constraint->grammar->trie->vocab_size; i++)
        allowed[i] = mask[i / 64] >> i % 64 & 1;
    return status;
}

/* ---- what must follow ------------------------------------------------------------------------- */

/* The only byte that a state takes; -1: there is none, or more than one. */
static int only_byte(const lld_grammar *g, const lld_states *states, uint32_t state)
{
    const lld_way_set *set = &states->sets[state];
    int only = -1;
    if (set->accepts) return -1;
    for (uint32_t i = set->first; i < set->first + set->count; i++) {
        const uint32_t q = states->ways[i].state;
        for (uint32_t e = g->first_edge[q]; e < g->first_edge[q + 1]; e++) {
            const lld_edge *edge = &g->edges[e];
            if (edge->kind != LLD_EDGE_BYTES) continue;
            if (edge->low != edge->high || (only >= 0 && only != edge->low)) return -1;
            only = edge->low;
        }
    }
    return only;
}

size_t lld_constraint_forced(lld_constraint *constraint, uint8_t *bytes, size_t capacity)
{
    lld_constraint *c = constraint;
    size_t n = 0;
    uint32_t state = c->ended ? LLD_STATE_DEAD : c->state;
    while (n < capacity && state != LLD_STATE_DEAD) {
        const int byte = only_byte(c->grammar, &c->states, state);
        if (byte < 0) break;
        bytes[n++] = (uint8_t)byte;
        state = lld_states_step(&c->states, state, (uint8_t)byte);
    }
    return n;
}

/* The longest token whose text `bytes` begin with, and its length in *n; -1: there is none. */
static int32_t longest_token(const lld_token_trie *trie, const uint8_t *bytes, size_t n_bytes,
                             size_t *n)
{
    const lld_trie_node *nodes = trie->nodes;
    int32_t token = -1;
    uint32_t node = 0, end = trie->n_nodes;
    for (size_t depth = 0; depth < n_bytes; depth++) {
        while (node < end && nodes[node].byte != bytes[depth]) node = nodes[node].end;
        if (node == end) break;
        if (nodes[node].first < nodes[node + 1].first) {
            token = trie->sorted[nodes[node].first];
            *n = depth + 1;
        }
        end = nodes[node++].end;
    }
    return token;
}

size_t lld_constraint_forced_tokens(lld_constraint *constraint, int32_t *tokens, size_t capacity)
{
    uint8_t bytes[256];
    const size_t n_bytes = lld_constraint_forced(constraint, bytes, sizeof bytes);
    size_t n_tokens = 0;
    for (size_t at = 0, n = 0; at < n_bytes && n_tokens < capacity; at += n) {
        const int32_t token =
            longest_token(constraint->grammar->trie, bytes + at, n_bytes - at, &n);
        if (token < 0) break;
        tokens[n_tokens++] = token;
    }
    return n_tokens;
}
