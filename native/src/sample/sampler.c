/* sampler.c - one sequence's sampler: its life, and what it is told. How it draws is in draw.c. */
#include "sample/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "constraint/token_trie.h"
#include "sample/parameters.h"

/* ---- life ------------------------------------------------------------------------------------ */

/* Tokens of a window; last_n < 0 is the whole context. */
static size_t window_capacity(bool is_on, int32_t last_n, uint32_t n_ctx)
{
    if (!is_on) return 0;
    return last_n < 0 || (uint32_t)last_n > n_ctx ? n_ctx : (size_t)last_n;
}

static bool allocate_windows(lld_sampler *s, uint32_t n_ctx)
{
    const lld_sampling *p = &s->sampling;
    bool penalties =
        p->repeat_penalty != 1 || p->presence_penalty != 0 || p->frequency_penalty != 0;
    s->penalized.capacity = window_capacity(penalties, p->repeat_last_n, n_ctx);
    s->repeated.capacity = window_capacity(p->dry_multiplier > 0, p->dry_penalty_last_n, n_ctx);
    if (s->penalized.capacity + s->repeated.capacity == 0) return true;
    s->penalized.items = calloc(s->penalized.capacity + 1, sizeof *s->penalized.items);
    s->repeated.items = calloc(s->repeated.capacity + 1, sizeof *s->repeated.items);
    s->lengths = calloc(s->repeated.capacity + 1, sizeof *s->lengths);
    s->marks = calloc(s->vocab_size, sizeof *s->marks);
    return s->penalized.items && s->repeated.items && s->lengths && s->marks;
}

/* How many candidates a draw begins with: k, where nothing but top-k sees all of the vocabulary. */
static size_t first_candidates(const lld_sampler *s)
{
    size_t top_k = (size_t)s->sampling.top_k;
    if (s->sampling.mirostat > 0 || top_k == 0 || top_k > s->vocab_size) return s->vocab_size;
    for (size_t i = 0; i < s->n_order; i++) {
        switch (s->order[i]) {
        case LLD_SAMPLER_TOP_K:
            return top_k;
        case LLD_SAMPLER_PENALTIES:
        case LLD_SAMPLER_DRY:
            break;
        case LLD_SAMPLER_TOP_N_SIGMA:
            if (s->sampling.top_n_sigma == 0) break;
            return s->vocab_size;
        case LLD_SAMPLER_TEMPERATURE:
            if (s->sampling.dynatemp_range == 0) break;
            return s->vocab_size;
        default:
            return s->vocab_size;
        }
    }
    return s->vocab_size;
}

static bool allocate_candidates(lld_sampler *s)
{
    free(s->candidates.items);
    s->candidates = (lld_candidates){.capacity = first_candidates(s), .temperature = 1};
    if (s->sampling.temperature == 0) return true;
    s->candidates.items = calloc(s->candidates.capacity, sizeof *s->candidates.items);
    return s->candidates.items != NULL;
}

static bool allocate(lld_sampler *s, uint32_t n_ctx)
{
    s->logits = calloc(s->vocab_size, sizeof *s->logits);
    s->bias_tokens = calloc(s->n_bias + 1, sizeof *s->bias_tokens);
    s->bias_values = calloc(s->n_bias + 1, sizeof *s->bias_values);
    return s->logits && s->bias_tokens && s->bias_values && allocate_windows(s, n_ctx) &&
           allocate_candidates(s);
}

static int no_memory(uint32_t vocab_size)
{
    return lld_fail(LLD_ERR_MEMORY, "no memory for a sampler over %u tokens", vocab_size);
}

int lld_sampler_create(const lld_sampling *sampling, uint32_t vocab_size, uint32_t n_ctx,
                       const int32_t *bias_tokens, const float *bias_values, size_t n_bias,
                       uint64_t n_draws, lld_sampler **out)
{
    *out = NULL;
    if (vocab_size < 1 || vocab_size > INT32_MAX)
        return lld_fail(LLD_ERR_INVALID, "vocab_size is %u, must be in [1, 2^31-1]", vocab_size);
    if (n_ctx < 1) return lld_fail(LLD_ERR_INVALID, "n_ctx is 0, must be at least 1");
    if (lld_sampling_check(sampling) != LLD_OK ||
        lld_bias_check(bias_tokens, bias_values, n_bias, vocab_size) != LLD_OK)
        return LLD_ERR_INVALID;
    lld_sampler *s = calloc(1, sizeof *s);
    if (s != NULL) {
        s->sampling = *sampling;
        s->vocab_size = vocab_size;
        s->n_bias = n_bias;
        s->n_draws = n_draws;
        s->mu = sampling->mirostat > 0 ? 2.0 * sampling->mirostat_tau : 0;
        for (uint8_t kind = 0; kind < LLD_SAMPLER_KINDS; kind++) s->order[s->n_order++] = kind;
    }
    if (s == NULL || !allocate(s, n_ctx)) {
        lld_sampler_destroy(s);
        return no_memory(vocab_size);
    }
    if (n_bias > 0) {
        memcpy(s->bias_tokens, bias_tokens, n_bias * sizeof *bias_tokens);
        memcpy(s->bias_values, bias_values, n_bias * sizeof *bias_values);
    }
    *out = s;
    return LLD_OK;
}

uint64_t lld_sampler_bytes(uint32_t vocab_size, uint32_t n_ctx)
{
    const lld_sampler *s = NULL; /* for its types only */
    uint64_t a_token = sizeof *s->logits + sizeof *s->marks + sizeof *s->candidates.items;
    uint64_t a_place = 2 * sizeof *s->penalized.items + sizeof *s->lengths;
    return sizeof *s + vocab_size * a_token + (n_ctx + UINT64_C(1)) * a_place +
           sizeof *s->bias_tokens + sizeof *s->bias_values;
}

void lld_sampler_destroy(lld_sampler *sampler)
{
    if (sampler == NULL) return;
    free(sampler->logits);
    free(sampler->bias_tokens);
    free(sampler->bias_values);
    free(sampler->forbidden);
    free(sampler->penalized.items);
    free(sampler->repeated.items);
    free(sampler->lengths);
    free(sampler->marks);
    free(sampler->candidates.items);
    free(sampler);
}

/* ---- what it is told ------------------------------------------------------------------------- */

int lld_sampler_constrain(lld_sampler *sampler, lld_constraint *constraint)
{
    if (constraint != NULL && constraint->grammar->trie->vocab_size != sampler->vocab_size)
        return lld_fail(LLD_ERR_INVALID, "a sampler of %u tokens, a constraint of %u",
                        sampler->vocab_size, constraint->grammar->trie->vocab_size);
    sampler->constraint = constraint;
    return LLD_OK;
}

int lld_sampler_set_order(lld_sampler *sampler, const uint8_t *kinds, size_t n)
{
    if (lld_order_check(kinds, n) != LLD_OK) return LLD_ERR_INVALID;
    sampler->n_order = n;
    if (n > 0) memcpy(sampler->order, kinds, n);
    return allocate_candidates(sampler) ? LLD_OK : no_memory(sampler->vocab_size);
}

int lld_sampler_forbid(lld_sampler *sampler, const int32_t *tokens, size_t n, uint64_t first_draw)
{
    for (size_t i = 0; i < n; i++)
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= sampler->vocab_size)
            return lld_fail(LLD_ERR_INVALID, "forbidden token is %d, must be in [0, %u]", tokens[i],
                            sampler->vocab_size - 1);
    int32_t *copy = calloc(n + 1, sizeof *copy);
    if (copy == NULL) return no_memory(sampler->vocab_size);
    if (n > 0) memcpy(copy, tokens, n * sizeof *tokens);
    free(sampler->forbidden);
    sampler->forbidden = copy;
    sampler->n_forbidden = n;
    sampler->allowed_at = first_draw;
    return LLD_OK;
}

void lld_sampler_accept(lld_sampler *sampler, int32_t token, bool penalized)
{
    if (token < 0 || (uint32_t)token >= sampler->vocab_size) return;
    if (penalized) lld_window_push(&sampler->penalized, token);
    lld_window_push(&sampler->repeated, token);
}

void lld_sampler_break(lld_sampler *sampler) { lld_window_break(&sampler->repeated); }

double lld_sampler_mu(const lld_sampler *sampler) { return sampler->mu; }

int lld_sampler_set_mu(lld_sampler *sampler, double mu)
{
    if (!isfinite(mu)) return lld_fail(LLD_ERR_INVALID, "mu is %g, must be finite", mu);
    sampler->mu = mu;
    return LLD_OK;
}
