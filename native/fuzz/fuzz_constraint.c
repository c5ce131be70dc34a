/* fuzz_constraint.c - libFuzzer target of the constraint: a grammar's edges and a vocabulary out of the
 * input, then a walk of tokens, with the mask before each one. What the mask allows is what the
 * automaton takes, tried token by token without local masks; that is required of grammars without
 * counters, because what counters promise is up to who makes the edges.
 *
 * Input: n_states, start, n_edges, n_tokens; for each state the number of its edges and its bound;
 * for each edge kind, low, high, target, value; for each token its length and its bytes; what is left
 * chooses the tokens of the walk. All are bytes; a bound or value of 255 means UINT32_MAX.
 * Seeds: grammars/, written by make_corpus.py. */
#include <stdlib.h>
#include <string.h>

#include "constraint/constraint.h"

enum { MAX_STATES = 255, MAX_EDGES = 255, MAX_TOKENS = 16, MAX_TEXT = 256, MAX_WALK = 12 };

typedef struct reader {
    const uint8_t *next, *end;
} reader;

static uint8_t read_byte(reader *r) { return r->next < r->end ? *r->next++ : 0; }

static uint32_t read_number(reader *r)
{
    const uint8_t byte = read_byte(r);
    return byte == 255 ? UINT32_MAX : byte;
}

static void require(int condition)
{
    if (!condition) abort();
}

typedef struct input {
    lld_edge edges[MAX_EDGES + 1];
    uint32_t first_edge[MAX_STATES + 2], bounds[MAX_STATES + 1], n_states, start;
    uint8_t text[MAX_TEXT];
    uint32_t offsets[MAX_TOKENS + 2], n_tokens;
    bool counts; /* some edge looks at a frame's memory */
} input;

static void read_grammar(reader *r, input *in)
{
    in->n_states = read_byte(r);
    in->start = read_byte(r);
    const uint32_t n_edges = read_byte(r);
    in->n_tokens = read_byte(r) % (MAX_TOKENS + 1);
    for (uint32_t q = 0; q < in->n_states; q++) {
        const uint32_t left = n_edges - in->first_edge[q], n = read_byte(r);
        in->first_edge[q + 1] = in->first_edge[q] + (n < left ? n : left);
        in->bounds[q] = read_number(r);
        if (in->bounds[q] != 0) in->counts = true;
    }
    for (uint32_t i = 0; i < n_edges; i++) {
        lld_edge *e = &in->edges[i];
        e->kind = read_byte(r);
        e->low = read_byte(r);
        e->high = read_byte(r);
        e->target = read_byte(r);
        e->value = read_number(r);
        if ((e->kind > LLD_EDGE_RETURN && e->kind != LLD_EDGE_END) ||
            (e->kind == LLD_EDGE_RETURN && e->value != 0))
            in->counts = true;
    }
}

static void read_vocabulary(reader *r, input *in)
{
    uint32_t used = 0;
    for (uint32_t t = 0; t < in->n_tokens; t++) {
        for (uint32_t n = read_byte(r); n > 0 && used < MAX_TEXT && r->next < r->end; n--)
            in->text[used++] = read_byte(r);
        in->offsets[t + 1] = used;
    }
}

/* Whether the automaton takes a token behind others; *sound: no limit was met. */
static bool takes(lld_grammar *g, const int32_t *before, size_t n, int32_t token, bool *sound)
{
    lld_constraint *c = NULL;
    *sound = lld_constraint_create(g, NULL, 0, &c) == LLD_OK;
    for (size_t i = 0; i < n && *sound; i++) *sound = lld_constraint_accept(c, before[i]) == LLD_OK;
    const bool taken = *sound && lld_constraint_accept(c, token) == LLD_OK;
    *sound = *sound && c->states.status == LLD_OK;
    lld_constraint_destroy(c);
    return taken;
}

static void check_mask(lld_grammar *g, const input *in, const uint8_t *allowed,
                       const int32_t *before, size_t n)
{
    for (uint32_t t = 0; t < in->n_tokens; t++) {
        bool sound = false;
        const bool taken = takes(g, before, n, (int32_t)t, &sound);
        require(!sound || taken == (allowed[t] != 0));
    }
}

static void walk(lld_grammar *g, const input *in, reader *r)
{
    const int32_t end_token = (int32_t)in->n_tokens - 1;
    const size_t n_end = read_byte(r) % 2;
    uint8_t allowed[MAX_TOKENS] = {0}, forced[16];
    int32_t before[MAX_WALK];
    lld_constraint *c = NULL;
    if (lld_constraint_create(g, &end_token, n_end, &c) != LLD_OK) return;
    for (size_t n = 0; n < MAX_WALK && r->next < r->end; n++) {
        const int status = lld_constraint_allowed(c, allowed);
        const size_t n_forced = lld_constraint_forced(c, forced, sizeof forced);
        require(n_forced <= sizeof forced);
        if (n < 3 && status == LLD_OK && !in->counts && n_end == 0 && c->states.status == LLD_OK)
            check_mask(g, in, allowed, before, n);
        for (uint32_t t = 0; t < in->n_tokens && n_forced > 0 && status == LLD_OK && !in->counts;
             t++)
            require(!allowed[t] || c->states.status != LLD_OK ||
                    in->text[in->offsets[t]] == forced[0]);
        before[n] = read_byte(r) % (int32_t)in->n_tokens;
        if (lld_constraint_accept(c, before[n]) != LLD_OK) break;
    }
    lld_constraint_accepts(c);
    lld_constraint_destroy(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input in = {0};
    reader r = {.next = data, .end = data + size};
    read_grammar(&r, &in);
    read_vocabulary(&r, &in);
    lld_token_trie *trie = NULL;
    lld_grammar *grammar = NULL;
    if (lld_token_trie_create(in.text, in.offsets, in.n_tokens, &trie) != LLD_OK) return 0;
    if (lld_grammar_create(trie, in.edges, in.first_edge, in.bounds, in.n_states, in.start,
                           &grammar) == LLD_OK)
        walk(grammar, &in, &r);
    lld_grammar_destroy(grammar);
    lld_token_trie_destroy(trie);
    return 0;
}
