/* local_mask.c - makes and keeps the local masks of a grammar. */
#include "constraint/local_mask.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "constraint/states.h"
#include "constraint/token_trie.h"

enum { FEW_TOKENS = 64 }; /* a list below one in so many of the vocabulary */

/* The walk of the trie that makes a mask. */
typedef struct survey {
    const lld_token_trie *trie;
    lld_states states;
    uint32_t *at; /* (max_depth + 1) state after each byte of the path */
    int32_t *tokens;
    uint32_t n_tokens;
    uint32_t *roots;
    size_t n_roots, roots_capacity;
} survey;

static bool add_root(survey *s, uint32_t node)
{
    if (s->n_roots == s->roots_capacity) {
        const size_t capacity = s->roots_capacity == 0 ? 64 : 2 * s->roots_capacity;
        uint32_t *larger = realloc(s->roots, capacity * sizeof *larger);
        if (larger == NULL) return false;
        s->roots = larger;
        s->roots_capacity = capacity;
    }
    s->roots[s->n_roots++] = node;
    return true;
}

/* Below a node where a way returned, all has to be looked up: it is a root. Ways that did not return
 * go on: what they allow is allowed there, too. */
static bool look(survey *s)
{
    const lld_trie_node *nodes = s->trie->nodes;
    uint32_t root_end = 0;
    for (uint32_t i = 0; i < s->trie->n_nodes;) {
        const lld_trie_node *node = &nodes[i];
        const uint32_t after = lld_states_step(&s->states, s->at[node->depth - 1], node->byte);
        const lld_way_set *set = &s->states.sets[after];
        if (set->returned && i >= root_end) {
            if (!add_root(s, i)) return false;
            root_end = node->end;
        }
        if (set->count == 0 && !set->accepts) {
            i = node->end;
            continue;
        }
        s->at[node->depth] = after;
        for (uint32_t t = node->first; t < nodes[i + 1].first; t++)
            s->tokens[s->n_tokens++] = s->trie->sorted[t];
        i++;
    }
    return true;
}

static bool make_bits(const survey *s, lld_local_mask *mask)
{
    mask->bits = calloc((s->trie->vocab_size + 63) / 64, sizeof *mask->bits);
    if (mask->bits == NULL) return false;
    for (uint32_t i = 0; i < s->n_tokens; i++)
        mask->bits[s->tokens[i] / 64] |= (uint64_t)1 << s->tokens[i] % 64;
    return true;
}

static bool make_list(const survey *s, lld_local_mask *mask)
{
    mask->tokens = malloc((s->n_tokens + 1) * sizeof *mask->tokens);
    if (mask->tokens == NULL) return false;
    memcpy(mask->tokens, s->tokens, s->n_tokens * sizeof *s->tokens);
    mask->n_tokens = s->n_tokens;
    return true;
}

static int make(const lld_grammar *g, lld_local_mask *mask, uint32_t *work_left)
{
    const lld_token_trie *trie = g->trie;
    survey s = {.trie = trie};
    s.at = malloc((trie->max_depth + 1) * sizeof *s.at);
    s.tokens = malloc((trie->n_sorted + 1) * sizeof *s.tokens);
    lld_states_init(&s.states, g);
    s.states.work_left = *work_left;
    bool done = s.at != NULL && s.tokens != NULL;
    if (done) {
        s.at[0] = lld_states_on_unknown(&s.states, mask->state, LLD_UNKNOWN_ROUNDS - mask->rounds);
        done = look(&s);
    }
    const bool few = s.n_tokens < trie->vocab_size / FEW_TOKENS;
    done = done && s.states.status == LLD_OK && (few ? make_list(&s, mask) : make_bits(&s, mask));
    int status = s.states.status;
    if (!done && status == LLD_OK) status = lld_fail(LLD_ERR_MEMORY, "no memory for a token mask");
    mask->roots = s.roots;
    mask->n_roots = (uint32_t)s.n_roots;
    *work_left = s.states.work_left;
    lld_states_free(&s.states);
    free(s.at);
    free(s.tokens);
    return status;
}

static size_t bytes_of(const lld_grammar *g, const lld_local_mask *m)
{
    return sizeof *m + (m->bits != NULL ? g->trie->vocab_size / 8 : 0) +
           m->n_tokens * sizeof *m->tokens + m->n_roots * sizeof *m->roots;
}

static void forget(lld_local_mask *m)
{
    free(m->bits);
    free(m->tokens);
    free(m->roots);
}

static void forget_all(lld_grammar *g)
{
    for (size_t i = 0; i < g->n_masks; i++) forget(&g->masks[i]);
    memset(g->mask_of, 0, g->n_states * sizeof *g->mask_of);
    g->n_masks = g->masks_bytes = 0;
}

static bool room(lld_grammar *g)
{
    if (g->n_masks < g->masks_capacity) return true;
    const size_t capacity = g->masks_capacity == 0 ? 64 : 2 * g->masks_capacity;
    lld_local_mask *masks = realloc(g->masks, capacity * sizeof *masks);
    if (masks != NULL) g->masks = masks;
    uint32_t *before = realloc(g->mask_before, capacity * sizeof *before);
    if (before != NULL) g->mask_before = before;
    if (masks == NULL || before == NULL) return false;
    g->masks_capacity = capacity;
    return true;
}

const lld_local_mask *lld_local_mask_of(lld_grammar *g, uint32_t state, uint32_t remaining,
                                        uint32_t *work_left, int *status)
{
    static const uint32_t kept_rounds[] = {LLD_UNKNOWN_ROUNDS, 16, 4};
    lld_local_mask mask = {.state = state};
    for (size_t i = 0; i < sizeof kept_rounds / sizeof *kept_rounds && mask.rounds == 0; i++)
        if (kept_rounds[i] <= remaining) mask.rounds = kept_rounds[i];
    *status = LLD_OK;
    if (mask.rounds == 0) return NULL;
    for (uint32_t n = g->mask_of[state]; n != 0; n = g->mask_before[n - 1])
        if (g->masks[n - 1].rounds == mask.rounds) return &g->masks[n - 1];
    *status = make(g, &mask, work_left);
    if (*status == LLD_OK && g->masks_bytes + bytes_of(g, &mask) > g->most_mask_bytes)
        forget_all(g);
    if (*status == LLD_OK && !room(g))
        *status = lld_fail(LLD_ERR_MEMORY, "no memory for a token mask");
    if (*status != LLD_OK) {
        forget(&mask);
        return NULL;
    }
    g->masks_bytes += bytes_of(g, &mask);
    g->mask_before[g->n_masks] = g->mask_of[state];
    g->masks[g->n_masks++] = mask;
    g->mask_of[state] = (uint32_t)g->n_masks;
    return &g->masks[g->n_masks - 1];
}
