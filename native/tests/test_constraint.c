/* test_constraint.c - the tokens that a constraint allows are those that it accepts; bad grammars and
 * vocabularies are refused. What a grammar means is tested in tests/unit/constraint. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "llamad_engine.h"

#define EXPECT(condition) CHECK(condition, "last error: %s", lld_error_message())

enum { N_TOKENS = 300, MAX_TEXT = 8, STEPS = 60 };

/* Lists in brackets of "a", "b" and "c", each at most once in a list and in any order, and of digits,
 * at most three in a row, and of lists:
 *   0 -[-> 1, 1 calls 2, behind which 13 takes "]"; 2: a member, or 12: none; 3..5 behind a, b, c;
 *   6 -> 7 a comma, then 2 again; 8 calls 9, which counts digits; 14: a list. */
static const lld_edge edges[] = {
    {LLD_EDGE_BYTES, '[', '[', 1, 0},                               /* 0 */
    {LLD_EDGE_CALL, 0, 0, 2, 13},                                   /* 1 */
    {LLD_EDGE_TAKE, 0, 0, 3, 0},       {LLD_EDGE_TAKE, 0, 0, 4, 1}, /* 2 */
    {LLD_EDGE_TAKE, 0, 0, 5, 63},      {LLD_EDGE_CALL, 0, 0, 9, 6},
    {LLD_EDGE_CALL, 0, 0, 0, 6},       {LLD_EDGE_RETURN, 0, 0, 0, 0},
    {LLD_EDGE_BYTES, 'a', 'a', 6, 0},                                 /* 3 */
    {LLD_EDGE_BYTES, 'b', 'b', 6, 0},                                 /* 4 */
    {LLD_EDGE_BYTES, 'c', 'c', 6, 0},                                 /* 5 */
    {LLD_EDGE_EMPTY, 0, 0, 7, 0},      {LLD_EDGE_HAVE, 0, 0, 8, 0},   /* 6 */
    {LLD_EDGE_BYTES, ',', ',', 2, 0},                                 /* 7 */
    {LLD_EDGE_RETURN, 0, 0, 0, 0},                                    /* 8 */
    {LLD_EDGE_BELOW, 0, 0, 10, 3},     {LLD_EDGE_RETURN, 0, 0, 0, 1}, /* 9 */
    {LLD_EDGE_BYTES, '0', '9', 11, 0},                                /* 10 */
    {LLD_EDGE_NEXT, 0, 0, 9, 3},                                      /* 11 */
    {LLD_EDGE_RETURN, 0, 0, 0, 0},                                    /* 12 */
    {LLD_EDGE_BYTES, ']', ']', 14, 0},                                /* 13 */
    {LLD_EDGE_RETURN, 0, 0, 0, 0},                                    /* 14 */
};
static const uint32_t first_edge[] = {0, 1, 2, 8, 9, 10, 11, 13, 14, 15, 17, 18, 19, 20, 21, 22};
enum { N_STATES = sizeof first_edge / sizeof *first_edge - 1 };
static const uint32_t bounds[N_STATES] = {
    [2] = UINT32_MAX, [3] = UINT32_MAX, [4] = UINT32_MAX, [5] = UINT32_MAX, [6] = UINT32_MAX,
    [7] = UINT32_MAX, [8] = UINT32_MAX, [9] = 3,          [10] = 3,         [11] = 3};

static uint32_t next_random(uint32_t *state) { return *state = *state * 1664525u + 1013904223u; }

/* Token 0 ends an answer; the others are random texts of what the grammar knows, and one byte more. */
static lld_token_trie *make_trie(void)
{
    static const char alphabet[] = "[],abc0123x";
    uint8_t bytes[N_TOKENS * MAX_TEXT];
    uint32_t offsets[N_TOKENS + 1] = {0}, random = 7;
    for (uint32_t i = 1; i <= N_TOKENS; i++) {
        uint32_t n = i == 1 ? 0 : i < 2 + sizeof alphabet ? 1 : 1 + next_random(&random) % MAX_TEXT;
        offsets[i] = offsets[i - 1] + n;
        for (uint32_t k = offsets[i - 1]; k < offsets[i]; k++)
            bytes[k] =
                (uint8_t)alphabet[n == 1 && i < 2 + sizeof alphabet
                                      ? i - 2
                                      : (next_random(&random) >> 16) % (sizeof alphabet - 1)];
    }
    lld_token_trie *trie;
    EXPECT(lld_token_trie_create(bytes, offsets, N_TOKENS, &trie) == LLD_OK);
    return trie;
}

static lld_constraint *replay(lld_grammar *grammar, const int32_t *tokens, size_t n)
{
    const int32_t end = 0;
    lld_constraint *c;
    EXPECT(lld_constraint_create(grammar, &end, 1, &c) == LLD_OK);
    for (size_t i = 0; i < n; i++) EXPECT(lld_constraint_accept(c, tokens[i]) == LLD_OK);
    return c;
}

static void test_allowed_is_accepted(void)
{
    lld_token_trie *trie = make_trie();
    lld_grammar *grammar;
    EXPECT(lld_grammar_create(trie, edges, first_edge, bounds, N_STATES, 0, &grammar) == LLD_OK);
    for (uint32_t seed = 1; seed <= 3; seed++) {
        int32_t tokens[STEPS];
        uint32_t random = seed;
        for (size_t n = 0; n < STEPS; n++) {
            lld_constraint *c = replay(grammar, tokens, n);
            uint8_t allowed[N_TOKENS];
            int32_t possible[N_TOKENS];
            size_t n_possible = 0;
            EXPECT(lld_constraint_allowed(c, allowed) == LLD_OK);
            lld_constraint_destroy(c);
            for (int32_t token = 0; token < N_TOKENS; token++) {
                c = replay(grammar, tokens, n);
                const bool accepts = lld_constraint_accepts(c);
                const int status = lld_constraint_accept(c, token);
                EXPECT(status == (allowed[token] ? LLD_OK : LLD_ERR_INVALID));
                EXPECT(token != 0 || accepts == (status == LLD_OK));
                if (token > 0 && allowed[token]) possible[n_possible++] = token;
                lld_constraint_destroy(c);
            }
            if (n_possible == 0) break;
            tokens[n] = possible[(next_random(&random) >> 8) % n_possible];
        }
    }
    lld_grammar_destroy(grammar);
    lld_token_trie_destroy(trie);
}

static void test_what_is_refused(void)
{
    const uint8_t bytes[] = "ab";
    const uint32_t offsets[] = {0, 1, 2}, behind[] = {1, 1, 2}, backwards[] = {0, 2, 1};
    lld_token_trie *trie;
    EXPECT(lld_token_trie_create(bytes, behind, 2, &trie) == LLD_ERR_INVALID);
    EXPECT(lld_token_trie_create(bytes, backwards, 2, &trie) == LLD_ERR_INVALID);
    EXPECT(lld_token_trie_create(bytes, offsets, 0, &trie) == LLD_ERR_INVALID);
    EXPECT(lld_token_trie_create(bytes, offsets, 2, &trie) == LLD_OK);
    const lld_edge bad[] = {{LLD_EDGE_END + 1, 0, 0, 0, 0},
                            {LLD_EDGE_BYTES, 2, 1, 0, 0},
                            {LLD_EDGE_EMPTY, 0, 0, 1, 0},
                            {LLD_EDGE_CALL, 0, 0, 0, 1},
                            {LLD_EDGE_TAKE, 0, 0, 0, 64}};
    const uint32_t one[] = {0, 1}, none[] = {1, 1}, bound = 0;
    lld_grammar *grammar;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        EXPECT(lld_grammar_create(trie, &bad[i], one, &bound, 1, 0, &grammar) == LLD_ERR_INVALID);
    EXPECT(lld_grammar_create(trie, edges, none, &bound, 1, 0, &grammar) == LLD_ERR_INVALID);
    EXPECT(lld_grammar_create(trie, edges, one, &bound, 1, 1, &grammar) == LLD_ERR_INVALID);
    EXPECT(lld_grammar_create(trie, edges, one, &bound, 0, 0, &grammar) == LLD_ERR_INVALID);
    /* a state that calls itself for ever nests as deep as is allowed, and has no way */
    const lld_edge itself = {LLD_EDGE_CALL, 0, 0, 0, 0};
    EXPECT(lld_grammar_create(trie, &itself, one, &bound, 1, 0, &grammar) == LLD_OK);
    lld_constraint *c;
    const int32_t end = 2;
    EXPECT(lld_constraint_create(grammar, &end, 1, &c) == LLD_ERR_INVALID);
    uint8_t allowed[2];
    if (lld_constraint_create(grammar, NULL, 0, &c) == LLD_OK) {
        EXPECT(lld_constraint_allowed(c, allowed) == LLD_OK);
        EXPECT(!allowed[0] && !allowed[1]);
        lld_constraint_destroy(c);
    }
    lld_grammar_destroy(grammar);
    lld_token_trie_destroy(trie);
}

int main(void)
{
    test_allowed_is_accepted();
    test_what_is_refused();
    return check_result();
}
