/* candidates.c - selection without a full sort: a binary heap gives the best k of a vocabulary in
 * one scan, and the members of a nucleus one by one until their mass suffices. */
#include "sample/candidates.h"

#include <math.h>

#include "base/elementary.h"

/* A total order: no two candidates are equal, because tokens differ. */
static bool precedes(const lld_ranking *r, const lld_candidate *a, const lld_candidate *b)
{
    if (r->by == LLD_TYPICAL_FIRST) {
        double x = fabs(r->center - a->logit), y = fabs(r->center - b->logit);
        return x != y ? x < y : a->token < b->token;
    }
    bool better = a->logit != b->logit ? a->logit > b->logit : a->token < b->token;
    return better == (r->by == LLD_BEST_FIRST);
}

static void swap(lld_candidate *a, lld_candidate *b)
{
    lld_candidate t = *a;
    *a = *b;
    *b = t;
}

/* Restore the heap of n items below i: a parent precedes its children. */
static void sift_down(const lld_ranking *r, lld_candidate *items, size_t n, size_t i)
{
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && precedes(r, &items[child + 1], &items[child])) child++;
        if (precedes(r, &items[i], &items[child])) return;
        swap(&items[i], &items[child]);
    }
}

static void make_heap(const lld_ranking *r, lld_candidate *items, size_t n)
{
    for (size_t i = n / 2; i-- > 0;) sift_down(r, items, n, i);
}

void lld_candidates_fill(lld_candidates *c, size_t most, const float *logits, size_t vocab_size)
{
    const lld_ranking worst = {.by = LLD_WORST_FIRST};
    size_t token = 0;
    for (c->n = 0; token < vocab_size && c->n < most; token++)
        if (isfinite(logits[token]))
            c->items[c->n++] = (lld_candidate){.logit = logits[token], .token = (int32_t)token};
    if (token == vocab_size) return;
    make_heap(&worst, c->items, c->n);
    for (; token < vocab_size; token++) {
        if (!(logits[token] > c->items[0].logit)) /* equal: the lower token, which is in, stays */
            continue;
        c->items[0] = (lld_candidate){.logit = logits[token], .token = (int32_t)token};
        sift_down(&worst, c->items, c->n, 0);
    }
}

float lld_candidates_greatest(const lld_candidates *c)
{
    float greatest = c->items[0].logit;
    for (size_t i = 1; i < c->n; i++)
        greatest = c->items[i].logit > greatest ? c->items[i].logit : greatest;
    return greatest;
}

double lld_candidates_weigh(lld_candidates *c)
{
    double greatest = lld_candidates_greatest(c), sum = 0;
    for (size_t i = 0; i < c->n; i++) {
        c->items[i].weight = lld_exp(((double)c->items[i].logit - greatest) / c->temperature);
        sum += c->items[i].weight;
    }
    return sum;
}

void lld_candidates_keep_first(lld_candidates *c, const lld_ranking *r, size_t most, double mass,
                               bool beyond)
{
    lld_candidate *items = c->items;
    size_t left = c->n;
    double sum = 0;
    make_heap(r, items, left);
    do { /* taken ones gather at the end of the array, the first one last */
        sum += items[0].weight;
        swap(&items[0], &items[--left]);
        sift_down(r, items, left, 0);
    } while (left > 0 && c->n - left < most && (beyond ? sum <= mass : sum < mass));
    for (size_t i = 0, j = c->n - 1; i < j; i++, j--) swap(&items[i], &items[j]);
    c->n -= left;
}

size_t lld_candidates_draw(lld_candidates *c, double position)
{
    double target = position * lld_candidates_weigh(c), sum = 0;
    size_t chosen = 0;
    for (size_t i = 0; i < c->n; i++) {
        if (c->items[i].weight == 0) continue;
        chosen = i; /* also the answer when rounding leaves the target beyond the last sum */
        if ((sum += c->items[i].weight) > target) break;
    }
    return chosen;
}
