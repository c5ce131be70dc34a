/* log_probability.c - probabilities under the logits as the model gave them. */
#include <math.h>

#include "base/elementary.h"
#include "llamad_engine.h"
#include "sample/candidates.h"

enum { MOST_TOP_TOKENS = 64 };

void lld_log_probabilities(const float *logits, size_t vocab_size, const int32_t *tokens, size_t n,
                           double *out)
{
    float greatest = logits[0];
    for (size_t i = 1; i < vocab_size; i++) greatest = logits[i] > greatest ? logits[i] : greatest;
    double sum = 0;
    for (size_t i = 0; i < vocab_size; i++) sum += lld_exp((double)logits[i] - greatest);
    double log_sum = lld_log(sum);
    for (size_t i = 0; i < n; i++) out[i] = (double)logits[tokens[i]] - greatest - log_sum;
}

size_t lld_top_tokens(const float *logits, size_t vocab_size, size_t n, int32_t *tokens)
{
    lld_candidate items[MOST_TOP_TOKENS];
    lld_candidates c = {.items = items, .capacity = MOST_TOP_TOKENS, .temperature = 1};
    const lld_ranking best = {.by = LLD_BEST_FIRST};
    n = n < MOST_TOP_TOKENS ? n : MOST_TOP_TOKENS;
    if (n == 0) return 0;
    lld_candidates_fill(&c, n, logits, vocab_size);
    if (c.n > 0) lld_candidates_keep_first(&c, &best, c.n, INFINITY, false);
    for (size_t i = 0; i < c.n; i++) tokens[i] = c.items[i].token;
    return c.n;
}
