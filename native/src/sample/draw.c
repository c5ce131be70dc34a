/* draw.c - the way from logits to a token.
 * What each step does is in window.h, truncation.h and mirostat.h. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "base/status.h"
#include "sample/mirostat.h"
#include "sample/random.h"
#include "sample/sampler.h"
#include "sample/truncation.h"

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

static void apply_bias(lld_sampler *s)
{
    for (size_t i = 0; i < s->n_bias; i++) {
        float *logit = &s->logits[s->bias_tokens[i]];
        if (isfinite(*logit)) *logit = lld_finite_logit((double)*logit + s->bias_values[i]);
    }
}

static size_t count_finite(const float *logits, size_t n)
{
    size_t n_finite = 0;
    for (size_t i = 0; i < n; i++) n_finite += isfinite(logits[i]) != 0;
    return n_finite;
}

static int apply_constraint(lld_sampler *s)
{
    int status = LLD_OK;
    if (s->constraint == NULL) return LLD_OK;
    const uint64_t *mask = lld_constraint_mask(s->constraint, &status);
    if (status != LLD_OK) return status;
    for (size_t i = 0; i < s->vocab_size; i++)
        if (!(mask[i / 64] >> i % 64 & 1)) s->logits[i] = -INFINITY;
    if (count_finite(s->logits, s->vocab_size) == 0)
        return lld_fail(LLD_ERR_INVALID, "no token goes on with the answer within its grammar");
    return LLD_OK;
}

/* Where nothing else is left, what is forbidden may be drawn: a constraint may want the end. */
static void apply_forbidden(lld_sampler *s)
{
    if (s->n_forbidden == 0 || s->n_draws >= s->allowed_at) return;
    size_t n_finite = count_finite(s->logits, s->vocab_size), n_gone = 0;
    for (size_t i = 0; i < s->n_forbidden; i++) n_gone += isfinite(s->logits[s->forbidden[i]]) != 0;
    if (n_gone >= n_finite) return;
    for (size_t i = 0; i < s->n_forbidden; i++) s->logits[s->forbidden[i]] = -INFINITY;
}

static int32_t greatest(const float *logits, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++) best = logits[i] > logits[best] ? i : best;
    return (int32_t)best;
}

/* Penalties and DRY, on the logits and on those candidates that there are. */
static void apply_penalty(lld_sampler *s, enum lld_sampler_kind kind)
{
    lld_candidates *c = &s->candidates;
    if (kind == LLD_SAMPLER_PENALTIES)
        lld_penalize(&s->sampling, &s->penalized, c->temperature, s->logits, s->marks);
    else
        lld_dry(&s->sampling, &s->repeated, c->temperature, s->logits, s->marks, s->lengths);
    for (size_t i = 0; i < c->n; i++) c->items[i].logit = s->logits[c->items[i].token];
}

static void fill(lld_sampler *s)
{
    if (s->candidates.n == 0)
        lld_candidates_fill(&s->candidates, s->candidates.capacity, s->logits, s->vocab_size);
}

static void apply_temperature(lld_sampler *s)
{
    const lld_sampling *p = &s->sampling;
    lld_candidates *c = &s->candidates;
    double temperature = p->temperature;
    if (p->dynatemp_range > 0 && p->mirostat == 0) {
        fill(s);
        double low = temperature - p->dynatemp_range, high = temperature + p->dynatemp_range;
        temperature =
            lld_candidates_dynamic_temperature(c, low > 0 ? low : 0, high, p->dynatemp_exponent);
    }
    if (temperature > 0)
        c->temperature = temperature;
    else
        lld_candidates_keep_top_k(c, 1);
}

static void exclude_top(lld_sampler *s)
{
    const lld_sampling *p = &s->sampling;
    if (lld_random(p->seed, LLD_RANDOM_XTC, s->n_draws) < p->xtc_probability)
        lld_candidates_exclude_top(&s->candidates, p->xtc_threshold);
}

static void apply_filter(lld_sampler *s, enum lld_sampler_kind kind)
{
    const lld_sampling *p = &s->sampling;
    lld_candidates *c = &s->candidates;
    fill(s);
    switch (kind) {
    case LLD_SAMPLER_TOP_N_SIGMA:
        lld_candidates_keep_top_n_sigma(c, p->top_n_sigma);
        break;
    case LLD_SAMPLER_TOP_K:
        lld_candidates_keep_top_k(c, (size_t)p->top_k);
        break;
    case LLD_SAMPLER_TYPICAL_P:
        lld_candidates_keep_typical(c, p->typical_p);
        break;
    case LLD_SAMPLER_TOP_P:
        lld_candidates_keep_top_p(c, p->top_p);
        break;
    case LLD_SAMPLER_MIN_P:
        lld_candidates_keep_min_p(c, p->min_p);
        break;
    default:
        exclude_top(s);
        break;
    }
}

static bool is_on(const lld_sampler *s, enum lld_sampler_kind kind)
{
    const lld_sampling *p = &s->sampling;
    bool filters = p->temperature > 0 && p->mirostat == 0;
    switch (kind) {
    case LLD_SAMPLER_PENALTIES:
        return s->penalized.n > 0;
    case LLD_SAMPLER_DRY:
        return s->repeated.n > 0;
    case LLD_SAMPLER_TOP_N_SIGMA:
        return filters && p->top_n_sigma > 0;
    case LLD_SAMPLER_TOP_K:
        return filters && p->top_k > 0;
    case LLD_SAMPLER_TYPICAL_P:
        return filters && p->typical_p < 1;
    case LLD_SAMPLER_TOP_P:
        return filters && p->top_p < 1;
    case LLD_SAMPLER_MIN_P:
        return filters && p->min_p > 0;
    case LLD_SAMPLER_XTC:
        return filters && p->xtc_probability > 0;
    default:
        return p->temperature > 0;
    }
}

static void apply_samplers(lld_sampler *s)
{
    s->candidates.n = 0;
    s->candidates.temperature = 1;
    for (size_t i = 0; i < s->n_order; i++) {
        enum lld_sampler_kind kind = (enum lld_sampler_kind)s->order[i];
        if (!is_on(s, kind)) continue;
        if (kind == LLD_SAMPLER_TEMPERATURE)
            apply_temperature(s);
        else if (kind == LLD_SAMPLER_PENALTIES || kind == LLD_SAMPLER_DRY)
            apply_penalty(s, kind);
        else
            apply_filter(s, kind);
    }
}

static int32_t draw(lld_sampler *s)
{
    const lld_sampling *p = &s->sampling;
    lld_candidates *c = &s->candidates;
    fill(s);
    if (p->mirostat == 1) lld_mirostat_1(c, s->mu, s->vocab_size);
    if (p->mirostat == 2) lld_mirostat_2(c, s->mu);
    size_t i = lld_candidates_draw(c, lld_random(p->seed, LLD_RANDOM_DRAW, s->n_draws));
    if (p->mirostat > 0) s->mu = lld_mirostat_learn(c, i, s->mu, p->mirostat_tau, p->mirostat_eta);
    return c->items[i].token;
}

int lld_sampler_sample(lld_sampler *sampler, const float *logits, int32_t *token)
{
    int status = check_logits(logits, sampler->vocab_size);
    if (status != LLD_OK) return status;
    memcpy(sampler->logits, logits, sampler->vocab_size * sizeof *logits);
    apply_bias(sampler);
    if ((status = apply_constraint(sampler)) != LLD_OK) return status;
    apply_forbidden(sampler);
    apply_samplers(sampler);
    *token = sampler->sampling.temperature == 0 ? greatest(sampler->logits, sampler->vocab_size)
                                                : draw(sampler);
    sampler->n_draws++;
    lld_sampler_accept(sampler, *token, true);
    if (sampler->constraint == NULL) return LLD_OK;
    return lld_constraint_accept(sampler->constraint, *token);
}
