/* llamad_sampling.h - what draws a token from logits, and what an answer must look like: the other half
 * of the public interface, under the rules of llamad_engine.h, which includes it.
 */
#ifndef LLAMAD_SAMPLING_H
#define LLAMAD_SAMPLING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

/* cffi: begin */

/* ---- sampler --------------------------------------------------------------------------------- */

typedef struct lld_sampler lld_sampler; /* parameters, random state, last tokens of a sequence */

typedef struct lld_sampling {
    float temperature;          /* [0, 100], 0 = greedy */
    int32_t top_k;              /* 0 = off */
    float top_p;                /* (0, 1], 1 = off */
    float min_p;                /* [0, 1), 0 = off */
    float typical_p;            /* (0, 1], 1 = off */
    float repeat_penalty;       /* (0, 100], 1 = off */
    int32_t repeat_last_n;      /* window of the three penalties in tokens: 0 = off, -1 = all */
    float presence_penalty;     /* [-2, 2], 0 = off */
    float frequency_penalty;    /* [-2, 2], 0 = off */
    int32_t mirostat;           /* version 1 or 2 instead of the filters; 0 = off */
    float mirostat_tau;         /* [0, 100] bits */
    float mirostat_eta;         /* [0, 10] */
    float dry_multiplier;       /* [0, 100], 0 = off */
    float dry_base;             /* [1, 100] */
    int32_t dry_allowed_length; /* tokens that may repeat at no cost */
    int32_t dry_penalty_last_n; /* window of DRY in tokens: 0 = off, -1 = all */
    float xtc_probability;      /* [0, 1], 0 = off */
    float xtc_threshold;        /* (0, 1] */
    float top_n_sigma;          /* [0, 100], 0 = off */
    float dynatemp_range;       /* [0, 100], 0 = off */
    float dynatemp_exponent;    /* (0, 100] */
    uint64_t seed;
} lld_sampling;

/* What may be put into an order, in the default one. */
enum lld_sampler_kind {
    LLD_SAMPLER_PENALTIES,
    LLD_SAMPLER_DRY,
    LLD_SAMPLER_TOP_N_SIGMA,
    LLD_SAMPLER_TOP_K,
    LLD_SAMPLER_TYPICAL_P,
    LLD_SAMPLER_TOP_P,
    LLD_SAMPLER_MIN_P,
    LLD_SAMPLER_XTC,
    LLD_SAMPLER_TEMPERATURE,
    LLD_SAMPLER_KINDS /* how many there are */
};

/* n_draws: tokens that were drawn before: a sampler made anew with them and given the tokens so far
 * (lld_sampler_accept), and with mirostat its mu, goes on as the one that drew them. */
int lld_sampler_create(const lld_sampling *sampling, uint32_t vocab_size, uint32_t n_ctx,
                       const int32_t *bias_tokens, const float *bias_values, size_t n_bias,
                       uint64_t n_draws, lld_sampler **out);
void lld_sampler_destroy(lld_sampler *sampler);

/* The most bytes that a sampler takes, but for 8 for each biased and 4 for each forbidden token. */
uint64_t lld_sampler_bytes(uint32_t vocab_size, uint32_t n_ctx);

/* Before the first draw: the order of n samplers (lld_sampler_kind), each once; others are off. */
int lld_sampler_set_order(lld_sampler *sampler, const uint8_t *kinds, size_t n);

/* Before the first draw: draw none of n tokens before draw number first_draw, unless nothing else may
 * be drawn. LLD_ERR_INVALID for a token outside the vocabulary. */
int lld_sampler_forbid(lld_sampler *sampler, const int32_t *tokens, size_t n, uint64_t first_draw);

/* Let DRY, and the penalties where `penalized`, count a token as recent; a draw does so itself. */
void lld_sampler_accept(lld_sampler *sampler, int32_t token, bool penalized);

/* The newest token ends a sequence breaker of DRY. */
void lld_sampler_break(lld_sampler *sampler);

/* What mirostat learned so far; 0 without it. Setting it is LLD_ERR_INVALID when it is not finite. */
double lld_sampler_mu(const lld_sampler *sampler);
int lld_sampler_set_mu(lld_sampler *sampler, double mu);

/* Draw the next token from logits: (vocab_size) float32, left unchanged. Draw i of a seed is the
 * same whatever else runs. LLD_ERR_NUMERIC when no logit is finite or one is NaN. */
int lld_sampler_sample(lld_sampler *sampler, const float *logits, int32_t *token);

/* out: (n) natural log-probabilities, in double, of n tokens under logits: (vocab_size) float32. */
void lld_log_probabilities(const float *logits, size_t vocab_size, const int32_t *tokens, size_t n,
                           double *out);

/* tokens: (n) the n <= vocab_size likeliest tokens under such logits, likeliest first; of those that
 * are equally likely the lower ids. */
void lld_likeliest_tokens(const float *logits, size_t vocab_size, int32_t *tokens, size_t n);

/* ---- constraint ------------------------------------------------------------------------------ */

typedef struct lld_token_trie lld_token_trie; /* the texts of a vocabulary */
typedef struct lld_grammar lld_grammar;       /* a language, over the tokens of a vocabulary */
typedef struct lld_constraint lld_constraint; /* where one answer is in a grammar */

/* Token i has the text bytes[offsets[i]] .. bytes[offsets[i + 1] - 1]: (vocab_size + 1) offsets, from
 * 0 on, at most 4096 bytes a token. A token without text is never allowed. */
int lld_token_trie_create(const uint8_t *bytes, const uint32_t *offsets, uint32_t vocab_size,
                          lld_token_trie **out);
uint64_t lld_token_trie_bytes(const lld_token_trie *trie); /* of memory that it takes */
void lld_token_trie_destroy(lld_token_trie *trie);         /* after the grammars that use it */

typedef enum lld_edge_kind {
    LLD_EDGE_BYTES = 0,  /* to target with a byte low..high */
    LLD_EDGE_EMPTY = 1,  /* to target */
    LLD_EDGE_CALL = 2,   /* to target with a new frame; its return leads to state value */
    LLD_EDGE_RETURN = 3, /* to where the frame's call says, when its loop made value rounds */
    LLD_EDGE_BELOW = 4,  /* to target, when the frame's loop made fewer than value rounds */
    LLD_EDGE_NEXT = 5,   /* to target, and the frame's loop made one more round; counted to value */
    LLD_EDGE_TAKE = 6,   /* to target, when member value (0..63) was not taken in this frame yet */
    LLD_EDGE_HAVE = 7,   /* to target, when it was */
    LLD_EDGE_LACK = 8,   /* to target, when it was not */
    LLD_EDGE_END = 9     /* the text may end here, whatever frames there are */
} lld_edge_kind;

typedef struct lld_edge {
    uint8_t kind, low, high;
    uint32_t target, value;
} lld_edge;

/* The pushdown automaton that begins in state `start` without frames and accepts where it returns
 * then. State q has the edges first_edge[q] .. first_edge[q + 1] - 1: (n_states + 1) numbers.
 * bounds: (n_states) most rounds of the loop that the state's frame counts; 0: it counts none;
 * UINT32_MAX: no limit. No state may reach itself by calls and empty edges. */
int lld_grammar_create(const lld_token_trie *trie, const lld_edge *edges,
                       const uint32_t *first_edge, const uint32_t *bounds, uint32_t n_states,
                       uint32_t start, lld_grammar **out);
void lld_grammar_destroy(lld_grammar *grammar); /* after the constraints that use it */

/* What was found out is forgotten beyond so many bytes, and found out again: token masks, and states
 * of each of its constraints. Before there are constraints. At first 8 MiB and 4 MiB. */
void lld_grammar_bound(lld_grammar *grammar, uint64_t mask_bytes, uint64_t state_bytes);

/* end_tokens: allowed where the grammar accepts, and nowhere else. */
int lld_constraint_create(lld_grammar *grammar, const int32_t *end_tokens, size_t n_end_tokens,
                          lld_constraint **out);
void lld_constraint_destroy(lld_constraint *constraint);

/* Go on by one token. LLD_ERR_INVALID, and nothing has changed, when the grammar does not have it
 * here, or can go on in too many ways. */
int lld_constraint_accept(lld_constraint *constraint, int32_t token);
/* Whether the answer may end here; whether it does, because nothing may follow. */
bool lld_constraint_accepts(const lld_constraint *constraint);
bool lld_constraint_complete(const lld_constraint *constraint);

/* allowed: (vocab_size) 1 for a token that may come next, else 0. */
int lld_constraint_allowed(lld_constraint *constraint, uint8_t *allowed);

/* The bytes that must come next, whatever the model says, and these as tokens, each the longest that
 * fits: a guess, for a model may cut them otherwise. Return how many, at most `capacity`. */
size_t lld_constraint_forced(lld_constraint *constraint, uint8_t *bytes, size_t capacity);
size_t lld_constraint_forced_tokens(lld_constraint *constraint, int32_t *tokens, size_t capacity);

/* From now on draw only what the constraint allows, and let it go on by each token drawn; NULL ends
 * it. The constraint must live as long. A draw fails with LLD_ERR_INVALID when no token is allowed. */
int lld_sampler_constrain(lld_sampler *sampler, lld_constraint *constraint);

/* cffi: end */

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#endif
