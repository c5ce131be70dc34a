/* token_trie.c - sorts the tokens by their bytes, and makes the tree of what neighbours share. */
#include "constraint/token_trie.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"

enum { MAX_TOKEN_BYTES = 4096, MAX_TEXT_BYTES = 1 << 28 };

static const uint8_t *text_of(const lld_token_trie *t, int32_t token, size_t *n)
{
    *n = t->offsets[token + 1] - t->offsets[token];
    return t->bytes + t->offsets[token];
}

static int compare(const void *a, const void *b, void *context)
{
    const lld_token_trie *t = context;
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    size_t n, m;
    const uint8_t *p = text_of(t, x, &n), *q = text_of(t, y, &m);
    const int order = memcmp(p, q, n < m ? n : m);
    if (order != 0) return order;
    if (n != m) return n < m ? -1 : 1;
    return x < y ? -1 : 1;
}

/* Bytes that the texts of two tokens share at their beginning. */
static size_t shared(const lld_token_trie *t, int32_t a, int32_t b)
{
    size_t n, m, i = 0;
    const uint8_t *p = text_of(t, a, &n), *q = text_of(t, b, &m);
    while (i < n && i < m && p[i] == q[i]) i++;
    return i;
}

static size_t count_nodes(const lld_token_trie *t)
{
    size_t n_nodes = 0;
    for (uint32_t i = 0; i < t->n_sorted; i++) {
        size_t n;
        text_of(t, t->sorted[i], &n);
        n_nodes += n - (i > 0 ? shared(t, t->sorted[i - 1], t->sorted[i]) : 0);
    }
    return n_nodes;
}

/* open: (max_depth + 1) node of each depth whose subtree has not ended. */
static void make_nodes(lld_token_trie *t, uint32_t *open)
{
    size_t depth = 0;
    for (uint32_t i = 0; i < t->n_sorted; i++) {
        size_t n;
        const uint8_t *text = text_of(t, t->sorted[i], &n);
        const size_t common = i > 0 ? shared(t, t->sorted[i - 1], t->sorted[i]) : 0;
        for (; depth > common; depth--) t->nodes[open[depth]].end = t->n_nodes;
        for (; depth < n; depth++) {
            open[depth + 1] = t->n_nodes;
            t->nodes[t->n_nodes++] =
                (lld_trie_node){.first = i, .depth = (uint16_t)(depth + 1), .byte = text[depth]};
        }
    }
    for (; depth > 0; depth--) t->nodes[open[depth]].end = t->n_nodes;
    t->nodes[t->n_nodes] = (lld_trie_node){.end = t->n_nodes, .first = t->n_sorted};
}

static int check_offsets(const uint32_t *offsets, uint32_t vocab_size)
{
    if (vocab_size < 1 || vocab_size > INT32_MAX)
        return lld_fail(LLD_ERR_INVALID, "vocab_size is %u, must be in [1, 2^31-1]", vocab_size);
    if (offsets[0] != 0)
        return lld_fail(LLD_ERR_INVALID, "the first token begins at %u", offsets[0]);
    for (uint32_t i = 0; i < vocab_size; i++)
        if (offsets[i + 1] < offsets[i] || offsets[i + 1] - offsets[i] > MAX_TOKEN_BYTES ||
            offsets[i + 1] > MAX_TEXT_BYTES)
            return lld_fail(LLD_ERR_INVALID,
                            "token %u has bytes %u to %u, at most %d of a token and %d in all", i,
                            offsets[i], offsets[i + 1], MAX_TOKEN_BYTES, MAX_TEXT_BYTES);
    return LLD_OK;
}

static bool build(lld_token_trie *t, const uint8_t *bytes, const uint32_t *offsets)
{
    t->bytes = malloc(offsets[t->vocab_size] + 1);
    t->offsets = malloc((t->vocab_size + 1) * sizeof *t->offsets);
    t->sorted = malloc(t->vocab_size * sizeof *t->sorted);
    if (!t->bytes || !t->offsets || !t->sorted) return false;
    memcpy(t->bytes, bytes, offsets[t->vocab_size]);
    memcpy(t->offsets, offsets, (t->vocab_size + 1) * sizeof *offsets);
    for (uint32_t i = 0; i < t->vocab_size; i++) {
        const uint32_t n = offsets[i + 1] - offsets[i];
        if (n > 0) t->sorted[t->n_sorted++] = (int32_t)i;
        if (n > t->max_depth) t->max_depth = n;
    }
    qsort_r(t->sorted, t->n_sorted, sizeof *t->sorted, compare, t);
    uint32_t *open = malloc((t->max_depth + 1) * sizeof *open);
    t->nodes = malloc((count_nodes(t) + 1) * sizeof *t->nodes);
    const bool done = open != NULL && t->nodes != NULL;
    if (done) make_nodes(t, open);
    free(open);
    return done;
}

int lld_token_trie_create(const uint8_t *bytes, const uint32_t *offsets, uint32_t vocab_size,
                          lld_token_trie **out)
{
    *out = NULL;
    if (check_offsets(offsets, vocab_size) != LLD_OK) return LLD_ERR_INVALID;
    lld_token_trie *t = calloc(1, sizeof *t);
    if (t != NULL) t->vocab_size = vocab_size;
    if (t == NULL || !build(t, bytes, offsets)) {
        lld_token_trie_destroy(t);
        return lld_fail(LLD_ERR_MEMORY, "no memory for the texts of %u tokens", vocab_size);
    }
    *out = t;
    return LLD_OK;
}

void lld_token_trie_destroy(lld_token_trie *trie)
{
    if (trie == NULL) return;
    free(trie->nodes);
    free(trie->sorted);
    free(trie->bytes);
    free(trie->offsets);
    free(trie);
}

uint64_t lld_token_trie_bytes(const lld_token_trie *t)
{
    return sizeof *t + (t->n_nodes + 1) * sizeof *t->nodes + t->n_sorted * sizeof *t->sorted +
           t->offsets[t->vocab_size] + (t->vocab_size + 1) * sizeof *t->offsets;
}

const uint8_t *lld_trie_path(const lld_token_trie *trie, uint32_t node)
{
    return trie->bytes + trie->offsets[trie->sorted[trie->nodes[node].first]];
}
