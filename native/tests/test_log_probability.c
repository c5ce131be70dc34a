/* test_log_probability.c - probabilities under unmodified logits, and the likeliest tokens. */
#include <math.h>

#include "check.h"
#include "llamad_engine.h"

static const float five[5] = {-2.3025851f, -0.9162907f, -2.9957323f, -1.2039728f, -1.8971200f};

static void test_log_probabilities_are_of_the_unmodified_logits(void)
{
    const int32_t all[5] = {4, 3, 2, 1, 0};
    const double expected[5] = {0.15, 0.3, 0.05, 0.4, 0.1};
    double out[5];
    lld_log_probabilities(five, 5, all, 5, out);
    for (int i = 0; i < 5; i++)
        CHECK(fabs(out[i] - log(expected[i])) < 1e-6, "token %d: %g", all[i], out[i]);
    const float shifted[4] = {1000, 1000, -INFINITY, 999};
    lld_log_probabilities(shifted, 4, all + 2, 3, out);
    CHECK(out[0] == -INFINITY && out[1] == out[2], "large logits and minus infinity");
    CHECK(fabs(out[1] + log(2 + exp(-1))) < 1e-12, "large logits: %g", out[1]);
}

static void test_likeliest_tokens_are_in_order_and_ties_by_id(void)
{
    const float logits[7] = {1, 3, -INFINITY, 3, 5, 1, 3};
    const int32_t expected[7] = {4, 1, 3, 6, 0, 5, 2};
    for (size_t n = 0; n <= 7; n++) {
        int32_t tokens[8] = {-7, -7, -7, -7, -7, -7, -7, -7};
        lld_likeliest_tokens(logits, 7, tokens, n);
        for (size_t i = 0; i < 8; i++)
            CHECK(tokens[i] == (i < n ? expected[i] : -7), "%zu of %zu: %d", i, n, tokens[i]);
    }
}

int main(void)
{
    test_log_probabilities_are_of_the_unmodified_logits();
    test_likeliest_tokens_are_in_order_and_ties_by_id();
    return check_result();
}
