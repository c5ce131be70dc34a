/* mirostat.c - both versions, in llama.cpp's reading of them. */
#include "sample/mirostat.h"

#include <math.h>

#include "base/elementary.h"
#include "sample/truncation.h"

enum { MOST_ESTIMATED = 100 }; /* m of the paper */

static const double LOG_2 = 0.693147180559945309417;

/* The exponent s of Zipf's law, p(rank i) ~ i^-s, by least squares over the first candidates. */
static double zipf_exponent(const lld_candidates *c)
{
    double product = 0, square = 0;
    for (size_t i = 0; i + 1 < c->n && i + 1 < MOST_ESTIMATED; i++) {
        double t = lld_log((double)(i + 2) / (double)(i + 1));
        double b = ((double)c->items[i].logit - c->items[i + 1].logit) / c->temperature;
        product += t * b;
        square += t * t;
    }
    return product / square;
}

/* How many candidates of a Zipf distribution over vocab_size tokens have the surprise mu. */
static size_t n_within(double s, double mu, size_t vocab_size)
{
    double epsilon = s - 1;
    double base =
        epsilon * lld_exp(mu * LOG_2) / (1 - lld_exp(-epsilon * lld_log((double)vocab_size)));
    double k = lld_exp(lld_log(base) / s);
    if (!(k >= 1)) return 1; /* also NaN */
    return k < (double)vocab_size ? (size_t)k : vocab_size;
}

void lld_mirostat_1(lld_candidates *c, double mu, size_t vocab_size)
{
    if (c->n < 2) return;
    lld_candidates first = *c; /* the best come to the front, all others stay behind them */
    const lld_ranking best = {.by = LLD_BEST_FIRST};
    lld_candidates_keep_first(&first, &best, MOST_ESTIMATED, INFINITY, false);
    double s = zipf_exponent(&first);
    lld_candidates_keep_top_k(c, n_within(s, mu, vocab_size));
}

void lld_mirostat_2(lld_candidates *c, double mu)
{
    /* surprise = log2(sum / weight) <= mu: logit >= greatest + T (log sum - mu log 2) */
    double log_sum = lld_log(lld_candidates_weigh(c)), greatest = lld_candidates_greatest(c);
    double least = greatest + c->temperature * (log_sum - mu * LOG_2);
    size_t n = 0;
    if (least > greatest) {
        lld_candidates_keep_top_k(c, 1);
        return;
    }
    for (size_t i = 0; i < c->n; i++)
        if (c->items[i].logit >= least) c->items[n++] = c->items[i];
    c->n = n;
}

double lld_mirostat_learn(const lld_candidates *c, size_t i, double mu, double tau, double eta)
{
    double sum = 0;
    for (size_t j = 0; j < c->n; j++) sum += c->items[j].weight;
    double surprise = lld_log(sum / c->items[i].weight) / LOG_2;
    return mu - eta * (surprise - tau);
}
