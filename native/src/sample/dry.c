/* dry.c - DRY: how long a repetition each token would lengthen, and what that costs. */
#include <math.h>

#include "base/elementary.h"
#include "sample/window.h"

/* e^88.7 is the greatest power that a float holds: longer repetitions cost no more. */
static const double MAX_LOG = 88.7;

/* Tokens since the last breaker. */
static size_t unbroken(const lld_window *w)
{
    size_t n = 0;
    while (n < w->n && !lld_window_at(w, n)->breaks) n++;
    return n;
}

/* lengths[i], 1 <= i < n: how many tokens up to the i-th last one are the same as those up to the
 * last one. The Z algorithm (Gusfield 1997, "Algorithms on Strings", section 1.4): [left, right) is
 * the match found so far that reaches farthest back, so no token is compared twice. */
static void repeated_lengths(const lld_window *w, uint32_t *lengths)
{
    for (size_t i = 1, left = 0, right = 0; i < w->n; i++) {
        size_t n = i < right ? lengths[i - left] : 0;
        if (n > 0 && i + n > right) n = right - i;
        while (i + n < w->n && lld_window_at(w, n)->token == lld_window_at(w, i + n)->token) n++;
        lengths[i] = (uint32_t)n;
        if (i + n > right) left = i, right = i + n;
    }
}

static double cost(const lld_sampling *p, int32_t length)
{
    double exponent = length - p->dry_allowed_length, log_base = lld_log(p->dry_base);
    double most = log_base > 1e-6 ? floor(MAX_LOG / log_base) : 0;
    if (most > 0 && exponent > most) exponent = most;
    return p->dry_multiplier * lld_pow(p->dry_base, exponent);
}

/* A token's mark is the longest repetition that it would lengthen. */
void lld_dry(const lld_sampling *sampling, const lld_window *w, double temperature, float *logits,
             int32_t *marks, uint32_t *lengths)
{
    int32_t limit = (int32_t)unbroken(w);
    if (limit < sampling->dry_allowed_length) return;
    repeated_lengths(w, lengths);
    for (size_t i = 1; i < w->n; i++) {
        const lld_recent *next = lld_window_at(w, i - 1);
        int32_t length = lengths[i] < (uint32_t)limit ? (int32_t)lengths[i] : limit;
        if (length >= sampling->dry_allowed_length && !next->breaks && length > marks[next->token])
            marks[next->token] = length;
    }
    for (size_t i = 0; i < w->n; i++) {
        int32_t token = w->items[i].token, length = marks[token];
        marks[token] = 0;
        if (length > 0 && isfinite(logits[token]))
            logits[token] = lld_finite_logit(logits[token] - temperature * cost(sampling, length));
    }
}
