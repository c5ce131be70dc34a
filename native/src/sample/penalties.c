/* penalties.c - repetition, frequency and presence penalty. */
#include <math.h>

#include "sample/window.h"

/* The repetition penalty of CTRL (Keskar et al. 2019, section 4.1), for negative logits the other
 * way round; then frequency and presence. */
static float penalized(const lld_sampling *p, double logit, int32_t count, double temperature)
{
    double x = logit > 0 ? logit / p->repeat_penalty : logit * p->repeat_penalty;
    double y = temperature * p->presence_penalty;
    return lld_finite_logit(x - (double)count * (temperature * p->frequency_penalty) - y);
}

/* A token's mark is the number of its occurrences. */
void lld_penalize(const lld_sampling *sampling, const lld_window *w, double temperature,
                  float *logits, int32_t *marks)
{
    for (size_t i = 0; i < w->n; i++) marks[w->items[i].token]++;
    for (size_t i = 0; i < w->n; i++) {
        int32_t token = w->items[i].token, count = marks[token];
        marks[token] = 0;
        if (count > 0 && isfinite(logits[token]))
            logits[token] = penalized(sampling, logits[token], count, temperature);
    }
}
