/* test_sampler.c - what each parameter does to the distribution, ties, windows and refusals. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "check.h"
#include "sample/random.h"
#include "sample/sampler.h"

enum { MAX_VOCAB = 2048 };

static lld_sampling neutral(void)
{
    return (lld_sampling){.temperature = 1,
                          .top_p = 1,
                          .typical_p = 1,
                          .repeat_penalty = 1,
                          .repeat_last_n = 64,
                          .mirostat_tau = 5,
                          .mirostat_eta = 0.1f,
                          .dry_base = 1.75f,
                          .dry_allowed_length = 2,
                          .dry_penalty_last_n = -1,
                          .xtc_threshold = 0.1f,
                          .dynatemp_exponent = 1,
                          .seed = 7};
}

static lld_sampler *create(lld_sampling sampling, uint32_t vocab_size)
{
    lld_sampler *s = NULL;
    int status = lld_sampler_create(&sampling, vocab_size, 4096, NULL, NULL, 0, 0, &s);
    CHECK(status == LLD_OK, "%s", lld_error_message());
    return s;
}

static int32_t sample(lld_sampler *s, const float *logits)
{
    int32_t token = -1;
    int status = lld_sampler_sample(s, logits, &token);
    CHECK(status == LLD_OK, "%s", lld_error_message());
    return token;
}

static int32_t sample_once(lld_sampling sampling, uint32_t vocab_size, const float *logits)
{
    lld_sampler *s = create(sampling, vocab_size);
    int32_t token = sample(s, logits);
    lld_sampler_destroy(s);
    return token;
}

/* Draw many tokens and compare with probabilities: (n). Pearson's statistic over n outcomes has
 * mean n - 1 and variance 2 (n - 1); five deviations above the mean is the bound. Outcomes of
 * probability 0 must never be drawn. */
static void check_distribution(const char *name, lld_sampling sampling, const float *logits,
                               const double *probabilities, size_t n)
{
    enum { DRAWS = 20000 };
    long counts[64] = {0};
    lld_sampler *s = create(sampling, (uint32_t)n);
    for (int i = 0; i < DRAWS; i++) counts[sample(s, logits)]++;
    lld_sampler_destroy(s);
    double statistic = 0;
    for (size_t i = 0; i < n; i++) {
        double expected = DRAWS * probabilities[i];
        if (expected == 0)
            CHECK(counts[i] == 0, "%s: token %zu was drawn %ld times", name, i, counts[i]);
        else
            statistic += (counts[i] - expected) * (counts[i] - expected) / expected;
    }
    double bound = (double)n - 1 + 5 * sqrt(2 * ((double)n - 1));
    CHECK(statistic < bound, "%s: chi-square %g, bound %g", name, statistic, bound);
}

/* Softmax of the kept logits at a temperature; kept: (n) of 0 and 1. */
static void softmax(const float *logits, const int *kept, size_t n, double temperature, double *out)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += out[i] = kept[i] ? exp(logits[i] / temperature) : 0;
    for (size_t i = 0; i < n; i++) out[i] /= sum;
}

/* Probabilities 0.4, 0.3, 0.15, 0.1, 0.05, not in token order. */
static const float five[5] = {-2.3025851f, -0.9162907f, -2.9957323f, -1.2039728f, -1.8971200f};

/* k0..k4: which of the five tokens stay. */
static void check_kept(const char *name, lld_sampling sampling, int k0, int k1, int k2, int k3,
                       int k4)
{
    const int kept[5] = {k0, k1, k2, k3, k4};
    double probabilities[5];
    softmax(five, kept, 5, sampling.temperature, probabilities);
    check_distribution(name, sampling, five, probabilities, 5);
}

static void test_filters_keep_what_their_papers_say(void)
{
    lld_sampling s = neutral();
    check_kept("no filter", s, 1, 1, 1, 1, 1);
    s.temperature = 0.5f;
    check_kept("temperature 0.5", s, 1, 1, 1, 1, 1);
    s.temperature = 3;
    check_kept("temperature 3", s, 1, 1, 1, 1, 1);

    s = neutral(), s.top_k = 2;
    check_kept("top_k 2", s, 0, 1, 0, 1, 0);
    s.top_k = 1000;
    check_kept("top_k over the vocabulary", s, 1, 1, 1, 1, 1);

    s = neutral(), s.top_p = 0.69f;
    check_kept("top_p 0.69", s, 0, 1, 0, 1, 0);
    s.top_p = 0.71f;
    check_kept("top_p 0.71", s, 0, 1, 0, 1, 1);
    s.top_p = FLT_MIN;
    check_kept("top_p tiny", s, 0, 1, 0, 0, 0);

    s = neutral(), s.min_p = 0.3f; /* 0.3 of 0.4: 0.12 */
    check_kept("min_p 0.3", s, 0, 1, 0, 1, 1);
    s.min_p = 0.99f;
    check_kept("min_p 0.99", s, 0, 1, 0, 0, 0);

    /* Entropy 1.3921; surprises 2.30 0.92 3.00 1.20 1.90: nearest are tokens 3, 1, 4, 0, 2. */
    s = neutral(), s.typical_p = 0.2f;
    check_kept("typical_p 0.2", s, 0, 0, 0, 1, 0);
    s.typical_p = 0.69f;
    check_kept("typical_p 0.69", s, 0, 1, 0, 1, 0);
    s.typical_p = 0.71f;
    check_kept("typical_p 0.71", s, 0, 1, 0, 1, 1);
}

static void test_filters_see_the_distribution_before_temperature(void)
{
    lld_sampling s = neutral();
    s.temperature = 4; /* after temperature 0.69 of the mass would be four tokens */
    s.top_p = 0.69f;
    check_kept("top_p with temperature", s, 0, 1, 0, 1, 0);
    s.top_p = 1, s.min_p = 0.3f;
    check_kept("min_p with temperature", s, 0, 1, 0, 1, 1);
}

static void test_filters_renormalize_in_order(void)
{
    lld_sampling s = neutral();
    s.top_k = 3; /* 0.4 0.3 0.15 become 0.47 0.35 0.18: 0.8 needs two of them, of all three */
    s.top_p = 0.8f;
    check_kept("top_k, then top_p", s, 0, 1, 0, 1, 0);
}

static void test_greedy_takes_the_lowest_of_equal_tokens(void)
{
    lld_sampling s = neutral();
    s.temperature = 0;
    const float tied[6] = {1, 3, 2, 3, 3, -INFINITY}, first_infinite[2] = {-INFINITY, -5};
    CHECK(sample_once(s, 6, tied) == 1, "tie");
    CHECK(sample_once(s, 2, first_infinite) == 1, "minus infinity");
    s = neutral(), s.top_k = 1;
    CHECK(sample_once(s, 6, tied) == 1, "top_k 1 of a tie");
    s.top_k = 2;
    const double two[6] = {0, 0.5, 0, 0.5, 0, 0};
    check_distribution("top_k 2 of a tie of 3", s, tied, two, 6);
}

static void test_top_k_selects_from_a_large_vocabulary(void)
{
    static float logits[MAX_VOCAB];
    static double probabilities[64];
    uint64_t state = 3;
    for (int i = 0; i < MAX_VOCAB; i++)
        logits[i] = (float)(check_random(&state) % 1000) * -0.01f - 1;
    for (int i = 0; i < 64; i++)
        logits[(i * 1237 + 11) % MAX_VOCAB] = (float)i * 0.01f; /* the 64 best, strewn about */
    lld_candidate items[64];
    lld_candidates c = {.items = items, .capacity = 64};
    lld_candidates_fill(&c, 64, logits, MAX_VOCAB);
    CHECK(c.n == 64, "%zu", c.n);
    memset(probabilities, 0, sizeof probabilities);
    for (size_t i = 0; i < c.n; i++) {
        int rank = (int)(c.items[i].logit * 100 + 0.5f);
        CHECK(rank >= 0 && rank < 64 && c.items[i].token == (rank * 1237 + 11) % MAX_VOCAB,
              "token %d", c.items[i].token);
        probabilities[rank & 63]++;
    }
    for (int i = 0; i < 64; i++)
        CHECK(probabilities[i] == 1, "rank %d selected %g times", i, probabilities[i]);
}

static void test_nucleus_of_equal_tokens_is_the_lowest_ones(void)
{
    float logits[40] = {0};
    double probabilities[40] = {0};
    for (int i = 0; i < 10; i++) probabilities[i] = 0.1;
    lld_sampling s = neutral();
    s.top_p = 0.249f; /* 9.96 of 40 */
    check_distribution("top_p of equal tokens", s, logits, probabilities, 40);
    s = neutral(), s.typical_p = 0.249f;
    check_distribution("typical_p of equal tokens", s, logits, probabilities, 40);
}

static void test_minus_infinity_is_never_drawn(void)
{
    const float logits[4] = {-INFINITY, 0, -INFINITY, 0};
    const double probabilities[4] = {0, 0.5, 0, 0.5};
    lld_sampling s = neutral();
    check_distribution("minus infinity", s, logits, probabilities, 4);
    s.top_k = 4, s.top_p = 0.999f, s.typical_p = 0.999f, s.min_p = 0.001f;
    check_distribution("minus infinity through all filters", s, logits, probabilities, 4);
}

static void test_extremes_stay_finite(void)
{
    const float one = -3, huge[3] = {FLT_MAX, -FLT_MAX, 0};
    lld_sampling s = neutral();
    CHECK(sample_once(s, 1, &one) == 0, "vocabulary of one");
    s.typical_p = 0.5f, s.top_p = 0.5f, s.min_p = 0.5f, s.top_k = 1;
    CHECK(sample_once(s, 1, &one) == 0, "vocabulary of one, all filters");
    s.top_k = 0;
    CHECK(sample_once(s, 3, huge) == 0, "greatest floats");
    s = neutral(), s.temperature = FLT_MIN;
    CHECK(sample_once(s, 5, five) == 1, "least temperature");
    s.temperature = 100;
    check_kept("greatest temperature", s, 1, 1, 1, 1, 1);
}

/* Greedy over logits 2.0, 1.9, -1.0 after `prompt` entered the window. */
static int32_t greedy_after(lld_sampling s, const int32_t *prompt, size_t n, const float *logits)
{
    s.temperature = 0;
    lld_sampler *sampler = create(s, 3);
    for (size_t i = 0; i < n; i++) lld_sampler_accept(sampler, prompt[i], true);
    int32_t token = sample(sampler, logits);
    lld_sampler_destroy(sampler);
    return token;
}

static void test_penalties_act_inside_their_window(void)
{
    const float logits[3] = {2.0f, 1.9f, -1.0f}, negative[3] = {-2.0f, -2.1f, -9.0f};
    const int32_t prompt[3] = {0, 2, 2};
    lld_sampling s = neutral();
    s.repeat_penalty = 1.2f;
    s.repeat_last_n = 3;
    CHECK(greedy_after(s, prompt, 3, logits) == 1, "window of 3 holds token 0");
    CHECK(greedy_after(s, prompt, 3, negative) == 1, "negative logits are multiplied");
    s.repeat_last_n = 2;
    CHECK(greedy_after(s, prompt, 3, logits) == 0, "window of 2 has dropped token 0");
    s.repeat_last_n = 0;
    CHECK(greedy_after(s, prompt, 3, logits) == 0, "window of 0 is off");
    s.repeat_last_n = -1;
    CHECK(greedy_after(s, prompt, 3, logits) == 1, "window of -1 is everything");
    s = neutral(), s.presence_penalty = 0.2f;
    CHECK(greedy_after(s, prompt, 3, logits) == 1, "presence");
    s.presence_penalty = 0.05f;
    CHECK(greedy_after(s, prompt, 3, logits) == 0, "presence too small");
}

static void test_frequency_counts_and_presence_does_not(void)
{
    const float logits[3] = {2.0f, 1.9f, -1.0f};
    const int32_t once[1] = {0}, thrice[3] = {0, 0, 0};
    lld_sampling s = neutral();
    s.frequency_penalty = 0.05f;
    CHECK(greedy_after(s, once, 1, logits) == 0, "0.05 < 0.1");
    CHECK(greedy_after(s, thrice, 3, logits) == 1, "0.15 > 0.1");
    s.frequency_penalty = 0, s.presence_penalty = 0.05f;
    CHECK(greedy_after(s, thrice, 3, logits) == 0, "presence counts once");
    s.presence_penalty = -2;
    const int32_t last[1] = {2};
    const float close[3] = {1, 0, -0.5f};
    CHECK(greedy_after(s, last, 1, close) == 2, "negative presence favours");
}

static void test_sampled_tokens_enter_the_window(void)
{
    const float logits[3] = {2.0f, 1.9f, 1.8f};
    lld_sampling sampling = neutral();
    sampling.temperature = 0, sampling.presence_penalty = 0.5f;
    sampling.repeat_last_n = 2;
    lld_sampler *s = create(sampling, 3);
    const int32_t expected[6] = {0, 1, 2, 0, 1, 2};
    for (int i = 0; i < 6; i++) CHECK(sample(s, logits) == expected[i], "token %d", i);
    lld_sampler_destroy(s);
}

static void test_tokens_outside_the_vocabulary_do_not_enter_the_window(void)
{
    const int32_t strange[3] = {-1, 3, INT32_MAX};
    const float logits[3] = {2.0f, 1.9f, -1.0f};
    lld_sampling s = neutral();
    s.repeat_penalty = 1.5f;
    CHECK(greedy_after(s, strange, 3, logits) == 0, "strange tokens");
}

static void test_bias_moves_a_token(void)
{
    const float logits[3] = {0, 0, -INFINITY};
    const int32_t tokens[3] = {0, 1, 2};
    const float values[3] = {-100, 1.5f, 100};
    lld_sampling sampling = neutral();
    lld_sampler *s = NULL;
    CHECK(lld_sampler_create(&sampling, 3, 8, tokens, values, 3, 0, &s) == LLD_OK, "create");
    for (int i = 0; i < 100; i++) CHECK(sample(s, logits) == 1, "draw %d", i);
    lld_sampler_destroy(s);
}

static void test_the_same_seed_draws_the_same_tokens(void)
{
    float logits[64];
    uint64_t state = 1;
    for (int i = 0; i < 64; i++) logits[i] = (float)(check_random(&state) % 100) * 0.02f;
    lld_sampling sampling = neutral();
    lld_sampler *a = create(sampling, 64), *b = create(sampling, 64);
    sampling.seed = 8;
    lld_sampler *other = create(sampling, 64);
    int differing = 0;
    for (int i = 0; i < 200; i++) {
        int32_t token = sample(a, logits);
        CHECK(token == sample(b, logits), "draw %d", i);
        differing += token != sample(other, logits);
    }
    CHECK(differing > 150, "seeds 7 and 8 differ in %d of 200 draws", differing);
    lld_sampler_destroy(a);
    lld_sampler_destroy(b);
    lld_sampler_destroy(other);
}

/* At every point of 200 draws, a sampler that begins there goes on as the one that came so far. */
static void test_a_sampler_made_anew_goes_on_as_the_old_one(void)
{
    enum { N = 200, AHEAD = 5, VOCAB = 64 };
    float logits[VOCAB];
    uint64_t state = 1;
    for (int i = 0; i < VOCAB; i++) logits[i] = (float)(check_random(&state) % 100) * 0.02f;
    lld_sampling sampling = neutral();
    sampling.repeat_penalty = 1.2f, sampling.frequency_penalty = 0.3f, sampling.top_k = 40;
    sampling.repeat_last_n = 16;
    int32_t tokens[N];
    lld_sampler *s = create(sampling, VOCAB);
    for (int i = 0; i < N; i++) tokens[i] = sample(s, logits);
    lld_sampler_destroy(s);
    for (int from = 0; from + AHEAD <= N; from++) {
        int status = lld_sampler_create(&sampling, VOCAB, 4096, NULL, NULL, 0, (uint64_t)from, &s);
        CHECK(status == LLD_OK, "%s", lld_error_message());
        for (int i = 0; i < from; i++) lld_sampler_accept(s, tokens[i], true);
        for (int i = from; i < from + AHEAD; i++)
            CHECK(sample(s, logits) == tokens[i], "draw %d of a sampler made at %d", i, from);
        lld_sampler_destroy(s);
    }
}

static void test_random_numbers_are_uniform_and_independent_of_near_seeds(void)
{
    enum { N = 4096 };
    double mean = 0, product = 0;
    for (uint64_t i = 0; i < N; i++) {
        double u = lld_random(5, LLD_RANDOM_DRAW, i);
        CHECK(u >= 0 && u < 1, "%g", u);
        mean += u;
        product += (u - 0.5) * (lld_random(6, LLD_RANDOM_DRAW, i) - 0.5);
    }
    /* Standard deviations: sqrt(1/12/N) = 0.0045 and sqrt(1/144/N) = 0.0013; bound five of them. */
    CHECK(fabs(mean / N - 0.5) < 0.0226, "mean %g", mean / N);
    CHECK(fabs(product / N) < 0.0066, "covariance of seeds 5 and 6: %g", product / N);
}

static void check_numeric(const char *name, const float *logits)
{
    lld_sampler *s = create(neutral(), 3);
    int32_t token = -7;
    int status = lld_sampler_sample(s, logits, &token);
    CHECK(status == LLD_ERR_NUMERIC && token == -7, "%s", name);
    lld_sampler_destroy(s);
}

static void test_broken_logits_are_refused(void)
{
    check_numeric("NaN", (const float[3]){0, NAN, 0});
    check_numeric("plus infinity", (const float[3]){0, INFINITY, 0});
    check_numeric("nothing finite", (const float[3]){-INFINITY, -INFINITY, -INFINITY});
}

static void check_refused(lld_sampling sampling, const char *name)
{
    lld_sampler *s = NULL;
    int status = lld_sampler_create(&sampling, 8, 8, NULL, NULL, 0, 0, &s);
    CHECK(status == LLD_ERR_INVALID && s == NULL, "%s was accepted", name);
    CHECK(strncmp(lld_error_message(), name, strlen(name)) == 0, "'%s' names no %s",
          lld_error_message(), name);
    lld_sampler_destroy(s);
}

#define REFUSE(field, bad)                                                                         \
    do {                                                                                           \
        lld_sampling sampling = neutral();                                                         \
        sampling.field = bad;                                                                      \
        check_refused(sampling, #field);                                                           \
    } while (0)

static void test_parameters_outside_their_range_are_refused(void)
{
    REFUSE(temperature, -0.1f);
    REFUSE(temperature, NAN);
    REFUSE(temperature, 100.1f);
    REFUSE(temperature, INFINITY);
    REFUSE(top_k, -1);
    REFUSE(top_p, 0);
    REFUSE(top_p, 1.01f);
    REFUSE(top_p, NAN);
    REFUSE(min_p, 1);
    REFUSE(min_p, -0.1f);
    REFUSE(min_p, NAN);
    REFUSE(typical_p, 0);
    REFUSE(typical_p, INFINITY);
    REFUSE(repeat_penalty, 0);
    REFUSE(repeat_penalty, 100.1f);
    REFUSE(repeat_penalty, INFINITY);
    REFUSE(repeat_penalty, NAN);
    REFUSE(repeat_last_n, -2);
    REFUSE(repeat_last_n, (1 << 20) + 1);
    REFUSE(presence_penalty, 2.1f);
    REFUSE(presence_penalty, NAN);
    REFUSE(frequency_penalty, -2.1f);
    REFUSE(frequency_penalty, -INFINITY);
    REFUSE(mirostat, 3);
    REFUSE(mirostat_tau, -1);
    REFUSE(mirostat_eta, NAN);
    REFUSE(dry_multiplier, -0.1f);
    REFUSE(dry_base, 0.9f);
    REFUSE(dry_allowed_length, 0);
    REFUSE(dry_penalty_last_n, -2);
    REFUSE(xtc_probability, 1.1f);
    REFUSE(xtc_threshold, 0);
    REFUSE(top_n_sigma, -1);
    REFUSE(dynatemp_range, INFINITY);
    REFUSE(dynatemp_exponent, 0);
}

static void check_bias_refused(int32_t token, float value, const char *expected)
{
    lld_sampling sampling = neutral();
    lld_sampler *s = NULL;
    CHECK(lld_sampler_create(&sampling, 8, 8, &token, &value, 1, 0, &s) == LLD_ERR_INVALID, "%s",
          expected);
    CHECK(strcmp(lld_error_message(), expected) == 0, "'%s'", lld_error_message());
    lld_sampler_destroy(s);
}

static void test_a_bad_bias_is_refused(void)
{
    check_bias_refused(8, 1, "logit_bias token is 8, must be in [0, 7]");
    check_bias_refused(-1, 1, "logit_bias token is -1, must be in [0, 7]");
    check_bias_refused(3, 101, "logit_bias of token 3 is 101, must be in [-100, 100]");
    check_bias_refused(3, -INFINITY, "logit_bias of token 3 is -inf, must be in [-100, 100]");
    check_bias_refused(3, NAN, "logit_bias of token 3 is nan, must be in [-100, 100]");
}

int main(void)
{
    test_filters_keep_what_their_papers_say();
    test_filters_see_the_distribution_before_temperature();
    test_filters_renormalize_in_order();
    test_greedy_takes_the_lowest_of_equal_tokens();
    test_top_k_selects_from_a_large_vocabulary();
    test_nucleus_of_equal_tokens_is_the_lowest_ones();
    test_minus_infinity_is_never_drawn();
    test_extremes_stay_finite();
    test_penalties_act_inside_their_window();
    test_frequency_counts_and_presence_does_not();
    test_sampled_tokens_enter_the_window();
    test_tokens_outside_the_vocabulary_do_not_enter_the_window();
    test_bias_moves_a_token();
    test_the_same_seed_draws_the_same_tokens();
    test_a_sampler_made_anew_goes_on_as_the_old_one();
    test_random_numbers_are_uniform_and_independent_of_near_seeds();
    test_broken_logits_are_refused();
    test_parameters_outside_their_range_are_refused();
    test_a_bad_bias_is_refused();
    return check_result();
}
