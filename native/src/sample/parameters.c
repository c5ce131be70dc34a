/* parameters.c - every number is checked against one table of ranges. */
#include "sample/parameters.h"

#include <stdbool.h>

#include "base/status.h"

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

int lld_sampling_check(const lld_sampling *s)
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
        {"mirostat", s->mirostat, 0, 2, false, false},
        {"mirostat_tau", s->mirostat_tau, 0, 100, false, false},
        {"mirostat_eta", s->mirostat_eta, 0, 10, false, false},
        {"dry_multiplier", s->dry_multiplier, 0, 100, false, false},
        {"dry_base", s->dry_base, 1, 100, false, false},
        {"dry_allowed_length", s->dry_allowed_length, 1, 1 << 20, false, false},
        {"dry_penalty_last_n", s->dry_penalty_last_n, -1, 1 << 20, false, false},
        {"xtc_probability", s->xtc_probability, 0, 1, false, false},
        {"xtc_threshold", s->xtc_threshold, 0, 1, true, false},
        {"top_n_sigma", s->top_n_sigma, 0, 100, false, false},
        {"dynatemp_range", s->dynatemp_range, 0, 100, false, false},
        {"dynatemp_exponent", s->dynatemp_exponent, 0, 100, true, false},
    };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (check_range(&ranges[i]) != LLD_OK) return LLD_ERR_INVALID;
    return LLD_OK;
}

int lld_bias_check(const int32_t *tokens, const float *values, size_t n, uint32_t vocab_size)
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

int lld_order_check(const uint8_t *kinds, size_t n)
{
    unsigned seen = 0;
    for (size_t i = 0; i < n; i++) {
        if (kinds[i] >= LLD_SAMPLER_KINDS)
            return lld_fail(LLD_ERR_INVALID, "samplers: %u is none", kinds[i]);
        if (seen >> kinds[i] & 1)
            return lld_fail(LLD_ERR_INVALID, "samplers: %u is there twice", kinds[i]);
        seen |= 1u << kinds[i];
    }
    return LLD_OK;
}
