/* sampler.c - parameters, penalty window and random numbers of one sequence; draws its next token.
 * The filters over the vocabulary are in candidates.c. */
#include "sample/sampler.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/elementary.h"
#include "base/status.h"
#include "constraint/token_trie.h"

/* ---- random numbers -------------------------------------------------------------------------- */

/* The output function of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
 * generators", figure 16). */
static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* Counter-based (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"): number i needs
 * no state but i. The seed is mixed first, so that seeds near each other share no stretch. */
double lld_sampler_random(uint64_t seed, uint64_t index)
{
    const uint64_t gamma = 0x9E3779B97F4A7C15u;
    uint64_t bits = mix(mix(seed + gamma) + (index + 1) * gamma);
    return (double)(bits >> 11) * 0x1p-53;
}

/* ---- parameters ------------------------------------------------------------------------------ */

typedef struct range {
    const char *name;
    double value, low, high;
    bool low_open, high_open;
} range;

/* NaN fails every comparison and so is outside of every range. */
static int check_range(const range *r)
{
    bool above = r->low_open ? r->value > r->low : r->value >= r->low;
    bool below = r->high_open ? r->value < r->high : r->value <= r->high;
    if (above && below) return LLD_OK;
    return lld_fail(LLD_ERR_INVALID, "%s is %g, must be in %c%g, %g%c", r->name, r->value,
                    r->low_open ? '(' : '[', r->low, r->high, r->high_open ? ')' : ']');
}

static int check_sampling(const lld_sampling *s)
{
    const range ranges[] = {
        {"temperature", s->temperature, 0, 100, false, false},
        {"top_k", s->top_k, 0, INT32_MAX, false, false},
        {"top_p", s->top_p, 0, 1, true, false},
        {"min_p", s->min_p, 0, 1, false, true},
        {"typical_p", s->typical_p, 0, 1, true, false},
        {"repeat_penalty", s->repeat_penalty, 0, 100, true, false},
        {"repeat_last_n", s->repeat_last_n, -1, 1 << 20, false, false},
        {"presence_penalty", s->presence_penalty, -2, 2, false, false},
        {"frequency_penalty", s->frequency_penalty, -2, 2, false, false},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (check_range(&ranges[i]) != LLD_OK) return LLD_ERR_INVALID;
    return LLD_OK;
}

static int check_bias(const int32_t *tokens, const float *values, size_t n, uint32_t vocab_size)
{
    for (size_t i = 0; i < n; i++) {
        if (tokens[i] < 0 || (uint32_t)tokens[i] >= vocab_size)
            return lld_fail(LLD_ERR_INVALID, "logit_bias token is %d, must be in [0, %u]",
                            tokens[i], vocab_size - 1);
        if (!(values[i] >= -100 && values[i] <= 100))
            return lld_fail(LLD_ERR_INVALID, "logit_bias of token %d is %g, must be in [-100, 100]",
                            tokens[i], (double)values[i]);
    }
    return LLD_OK;
}

/* ---- life ------------------------------------------------------------------------------------ */

static size_t window_capacity(const lld_sampling *s, uint32_t n_ctx)
{
    if (s->repeat_penalty == 1 && s->presence_penalty == 0 && s->frequency_penalty == 0) return 0;
    return s->repeat_last_n < 0 || (uint32_t)s->repeat_last_n > n_ctx ? n_ctx
                                                                      : (size_t)s->repeat_last_n;
}

static bool allocate(lld_sampler *s, uint32_t n_ctx)
{
    s->logits = calloc(s->vocab_size, sizeof *s->logits);
    s->bias_tokens = calloc(s->n_bias + 1, sizeof *s->bias_tokens);
    s->bias_values = calloc(s->n_bias + 1, sizeof *s->bias_values);
    if (!s->logits || !s->bias_tokens || !s->bias_values) return false;
    if ((s->window.capacity = window_capacity(&s->sampling, n_ctx)) > 0) {
        s->window.tokens = calloc(s->window.capacity, sizeof *s->window.tokens);
        s->window.counts = calloc(s->vocab_size, sizeof *s->window.counts);
        if (!s->window.tokens || !s->window.counts) return false;
    }
    if (s->sampling.temperature == 0) return true;
    size_t top_k = (size_t)s->sampling.top_k;
    s->candidates.capacity = top_k > 0 && top_k < s->vocab_size ? top_k : s->vocab_size;
    s->candidates.items = calloc(s->candidates.capacity, sizeof *s->candidates.items);
    return s->candidates.items != NULL;
}

int lld_sampler_create(const lld_sampling *sampling, uint32_t vocab_size, uint32_t n_ctx,
                       const int32_t *bias_tokens, const float *bias_values, size_t n_bias,
                       uint64_t n_draws, lld_sampler **out)
{
    *out = NULL;
    if (vocab_size < 1 || vocab_size > INT32_MAX)
        return lld_fail(LLD_ERR_INVALID, "vocab_size is %u, must be in [1, 2^31-1]", vocab_size);
    if (n_ctx < 1) return lld_fail(LLD_ERR_INVALID, "n_ctx is 0, must be at least 1");
    if (check_sampling(sampling) != LLD_OK ||
        check_bias(bias_tokens, bias_values, n_bias, vocab_size) != LLD_OK)
        return LLD_ERR_INVALID;
    lld_sampler *s = calloc(1, sizeof *s);
    if (s != NULL) {
        s->sampling = *sampling;
        s->vocab_size = vocab_size;
        s->n_bias = n_bias;
        s->n_draws = n_draws;
    }
    if (s == NULL || !allocate(s, n_ctx)) {
        lld_sampler_destroy(s);
        return lld_fail(LLD_ERR_MEMORY, "no memory for a sampler over %u tokens", vocab_size);
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
    uint64_t a_token = sizeof *s->logits + sizeof *s->window.counts + sizeof *s->candidates.items;
    return sizeof *s + vocab_size * a_token + (uint64_t)n_ctx * sizeof *s->window.tokens +
           sizeof *s->bias_tokens + sizeof *s->bias_values;
}

void lld_sampler_destroy(lld_sampler *sampler)
{
    if (sampler == NULL) return;
    free(sampler->logits);
    free(sampler->bias_tokens);
    free(sampler->bias_values);
    free(sampler->window.tokens);
    free(sampler->window.counts);
    free(sampler->candidates.items);
    free(sampler);
}

int lld_sampler_constrain(lld_sampler *sampler, lld_constraint *constraint)
{
    if (constraint != NULL && constraint->grammar->trie->vocab_size != sampler->vocab_size)
        return lld_fail(LLD_ERR_INVALID, "a sampler of %u tokens, a constraint of %u",
                        sampler->vocab_size, constraint->grammar->trie->vocab_size);
    sampler->constraint = constraint;
    return LLD_OK;
}

/* ---- one token ------------------------------------------------------------------------------- */

void lld_sampler_accept(lld_sampler *sampler, int32_t token)
{
    lld_window *w = &sampler->window;
    if (w->capacity == 0 || token < 0 || (uint32_t)token >= sampler->vocab_size) return;
    if (w->n == w->capacity)
        w->counts[w->tokens[w->next]]--;
    else
        w->n++;
    w->tokens[w->next] = token;
    w->counts[token]++;
    w->next = (w->next + 1) % w->capacity;
}

static int check_logits(const float *logits, size_t n)
{
    size_t n_finite = 0, n_broken = 0;
    for (size_t i = 0; i < n; i++) {
        n_finite += (size_t)(fabsf(logits[i]) <= FLT_MAX);
        n_broken += (size_t) !(logits[i] <= FLT_MAX); /* NaN or plus infinity */
    }
    if (n_broken > 0)
        return lld_fail(LLD_ERR_NUMERIC, "%zu of %zu logits are NaN or infinite", n_broken, n);
    if (n_finite == 0) return lld_fail(LLD_ERR_NUMERIC, "all of %zu logits are minus infinity", n);
    return LLD_OK;
}

/* A finite logit stays finite, minus infinity stays what it is. */
static float limit(double logit)
{
    return logit > FLT_MAX ? FLT_MAX : logit < -FLT_MAX ? -FLT_MAX : (float)logit;
}

static void apply_bias(lld_sampler *s)
{
    for (size_t i = 0; i < s->n_bias; i++) {
        float *logit = &s->logits[s->bias_tokens[i]];
        if (isfinite(*logit)) *logit = limit((double)*logit + s->bias_values[i]);
    }
}

/* The repetition penalty of CTRL (Keskar et al. 2019, section 4.1), for negative logits the other
 * way round; then frequency and presence. */
static float penalized(const lld_sampling *p, double logit, int32_t count)
{
    double x = logit > 0 ? logit / p->repeat_penalty : logit * p->repeat_penalty;
    return limit(x - (double)count * p->frequency_penalty - p->presence_penalty);
}

/* Each token of the window once: a count is negative from its first to its last visit. */
static void apply_penalties(lld_sampler *s)
{
    lld_window *w = &s->window;
    for (size_t i = 0; i < w->n; i++) {
        int32_t token = w->tokens[i], count = w->counts[token];
        if (count < 0) continue;
        w->counts[token] = -count;
        if (isfinite(s->logits[token]))
            s->logits[token] = penalized(&s->sampling, s->logits[token], count);
    }
    for (size_t i = 0; i < w->n; i++) w->counts[w->tokens[i]] = abs(w->counts[w->tokens[i]]);
}

static int apply_constraint(lld_sampler *s)
{
    int status = LLD_OK;
    if (s->constraint == NULL) return LLD_OK;
    const uint64_t *mask = lld_constraint_mask(s->constraint, &status);
    size_t n_finite = 0;
    for (size_t i = 0; i < s->vocab_size && status == LLD_OK; i++) {
        if (!(mask[i / 64] >> i % 64 & 1)) s->logits[i] = -INFINITY;
        n_finite += isfinite(s->logits[i]) != 0;
    }
    if (status == LLD_OK && n_finite == 0)
        return lld_fail(LLD_ERR_INVALID, "no token goes on with the answer within its grammar");
    return status;
}

static int32_t greatest(const float *logits, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++) best = logits[i] > logits[best] ? i : best;
    return (int32_t)best;
}

static int32_t draw(lld_sampler *s)
{
    const lld_sampling *p = &s->sampling;
    lld_candidates *c = &s->candidates;
    lld_candidates_fill(c, s->logits, s->vocab_size);
    if (p->typical_p < 1) lld_candidates_keep_typical(c, p->typical_p);
    if (p->top_p < 1) lld_candidates_keep_top_p(c, p->top_p);
    if (p->min_p > 0) lld_candidates_keep_min_p(c, p->min_p);
    return lld_candidates_draw(c, p->temperature, lld_sampler_random(p->seed, s->n_draws++));
}

int lld_sampler_sample(lld_sampler *sampler, const float *logits, int32_t *token, float *logprob)
{
    int status = check_logits(logits, sampler->vocab_size);
    if (status != LLD_OK) return status;
    memcpy(sampler->logits, logits, sampler->vocab_size * sizeof *logits);
    apply_bias(sampler);
    apply_penalties(sampler);
    if ((status = apply_constraint(sampler)) != LLD_OK) return status;
    *token = sampler->sampling.temperature == 0 ? greatest(sampler->logits, sampler->vocab_size)
                                                : draw(sampler);
    lld_sampler_accept(sampler, *token);
    if (sampler->constraint != NULL &&
        (status = lld_constraint_accept(sampler->constraint, *token)) != LLD_OK)
        return status;
    if (logprob != NULL) *logprob = (float)lld_log_probability(logits, sampler->vocab_size, *token);
    return LLD_OK;
}

double lld_log_probability(const float *logits, size_t vocab_size, int32_t token)
{
    float most = logits[greatest(logits, vocab_size)];
    double sum = 0;
    for (size_t i = 0; i < vocab_size; i++) sum += lld_exp((double)logits[i] - most);
    return (double)logits[token] - most - lld_log(sum);
}
