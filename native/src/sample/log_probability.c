/* log_probability.c - probabilities under the logits as the model gave them. */
#include <assert.h>

#include "base/elementary.h"
#include "llamad_engine.h"

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

void lld_likeliest_tokens(const float *logits, size_t vocab_size, int32_t *tokens, size_t n)
{
    assert(n <= vocab_size);
    size_t found = 0;
    for (size_t i = 0; i < vocab_size && n > 0; i++) {
        if (found == n && !(logits[i] > logits[tokens[n - 1]])) continue;
        size_t at = found < n ? found++ : n - 1;
        for (; at > 0 && logits[i] > logits[tokens[at - 1]]; at--) tokens[at] = tokens[at - 1];
        tokens[at] = (int32_t)i;
    }
}
