/* truncation.c - the filters. */
#include "sample/truncation.h"

#include <math.h>

#include "base/elementary.h"

static const lld_ranking best = {.by = LLD_BEST_FIRST};

void lld_candidates_keep_top_k(lld_candidates *c, size_t k)
{
    if (k < c->n) lld_candidates_keep_first(c, &best, k, INFINITY, false);
}

void lld_candidates_keep_typical(lld_candidates *c, double p)
{
    double sum = lld_candidates_weigh(c), mean_logit = 0;
    for (size_t i = 0; i < c->n; i++) mean_logit += c->items[i].weight / sum * c->items[i].logit;
    /* surprise = log Z - logit and entropy = log Z - mean logit (all divided by the temperature):
     * they differ by mean - logit */
    const lld_ranking typical = {.by = LLD_TYPICAL_FIRST, .center = mean_logit};
    lld_candidates_keep_first(c, &typical, c->n, p * sum, true);
}

void lld_candidates_keep_top_p(lld_candidates *c, double p)
{
    double sum = lld_candidates_weigh(c);
    lld_candidates_keep_first(c, &best, c->n, p * sum, false);
}

static void keep_from(lld_candidates *c, double least_logit)
{
    size_t n = 0;
    for (size_t i = 0; i < c->n; i++)
        if (c->items[i].logit >= least_logit) c->items[n++] = c->items[i];
    c->n = n;
}

void lld_candidates_keep_min_p(lld_candidates *c, double min_p)
{
    keep_from(c, lld_candidates_greatest(c) + c->temperature * lld_log(min_p));
}

void lld_candidates_keep_top_n_sigma(lld_candidates *c, double n)
{
    double mean = 0, squares = 0;
    for (size_t i = 0; i < c->n; i++) mean += c->items[i].logit;
    mean /= (double)c->n;
    for (size_t i = 0; i < c->n; i++) {
        double off = c->items[i].logit - mean;
        squares += off * off;
    }
    keep_from(c, lld_candidates_greatest(c) - n * sqrt(squares / (double)c->n));
}

static bool better(const lld_candidate *a, const lld_candidate *b)
{
    return a->logit != b->logit ? a->logit > b->logit : a->token < b->token;
}

void lld_candidates_exclude_top(lld_candidates *c, double threshold)
{
    double least = threshold * lld_candidates_weigh(c);
    const lld_candidate *last = NULL; /* of those that reach it, in the order of probability */
    for (size_t i = 0; i < c->n; i++)
        if (c->items[i].weight >= least && (last == NULL || better(last, &c->items[i])))
            last = &c->items[i];
    if (last == NULL) return;
    const lld_candidate kept = *last;
    size_t n = 0;
    for (size_t i = 0; i < c->n; i++)
        if (!better(&c->items[i], &kept)) c->items[n++] = c->items[i];
    c->n = n;
}

double lld_candidates_dynamic_temperature(lld_candidates *c, double low, double high,
                                          double exponent)
{
    double sum = lld_candidates_weigh(c), entropy = 0;
    for (size_t i = 0; i < c->n; i++) {
        double p = c->items[i].weight / sum;
        if (p > 0) entropy -= p * lld_log(p);
    }
    double even = c->n > 1 && entropy > 0 ? entropy / lld_log((double)c->n) : 0;
    return low + (high - low) * (even > 0 ? lld_exp(exponent * lld_log(even)) : 0);
}
