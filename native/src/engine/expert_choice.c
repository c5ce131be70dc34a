/* expert_choice.c - see expert_choice.h. */
#include "engine/expert_choice.h"

#include <math.h>

#include "base/vecmath.h"

enum { WORD_BITS = 64 };
static const float least_sum = 6.103515625e-5f; /* of weights that are divided by it */

/* In families whose router has a norm of its own. */
static bool norms_apart(const lld_layer *l) { return l->mixture.router_norm.weight != NULL; }

const lld_norm *lld_expert_choice_norm(const lld_layer *l)
{
    return norms_apart(l) ? &l->mixture.router_norm : &l->feed_norm;
}

lld_product lld_expert_choice_router(const lld_forward *f, const lld_layer *l, size_t row)
{
    const lld_matrix *router = &l->mixture.router;
    return (lld_product){.matrix = router,
                         .bias = l->mixture.router_bias,
                         .scale = norms_apart(l) ? 1.0f / sqrtf((float)f->model->config.dim) : 1.0f,
                         .out = f->scratch.routing.logits + row * router->n_rows};
}

/* What is chosen by. */
static void to_probabilities(const lld_kernels *kernels, lld_gating gating, float *x, size_t n)
{
    if (gating == LLD_GATING_SOFTMAX_OF_CHOSEN) return; /* the choice is that of the logits */
    if (gating == LLD_GATING_SIGMOID) {
        for (size_t i = 0; i < n; i++) x[i] = 1.0f / (1.0f + lld_expf(-x[i]));
        return;
    }
    float most = x[0], sum = 0.0f;
    for (size_t i = 1; i < n; i++) most = x[i] > most ? x[i] : most;
    kernels->exp_below(x, n, most);
    for (size_t i = 0; i < n; i++) sum += x[i];
    for (size_t i = 0; i < n; i++) x[i] /= sum;
}

/* The expert of the highest score that was not taken; whatever the scores, there is one. */
static uint32_t best_left(const float *p, const float *bias, uint32_t n, const uint64_t *taken)
{
    uint32_t best = n;
    float best_score = 0.0f;
    for (uint32_t i = 0; i < n; i++) {
        if ((taken[i / WORD_BITS] >> i % WORD_BITS & 1) != 0) continue;
        const float score = bias == NULL ? p[i] : p[i] + bias[i];
        if (best < n && !(score > best_score)) continue;
        best = i;
        best_score = score;
    }
    return best;
}

void lld_expert_choice_make(lld_forward *f, const lld_expert_weights *w, size_t row)
{
    const lld_expert_sizes *e = &f->model->config.experts;
    lld_routing *r = &f->scratch.routing;
    float *p = r->logits + row * e->n, *weights = r->weights + row * e->n_used, sum = 0.0f;
    uint32_t *chosen = r->chosen + row * e->n_used;
    uint64_t taken[LLD_MAX_EXPERTS / WORD_BITS] = {0};
    to_probabilities(f->kernels, e->gating, p, e->n);
    for (uint32_t rank = 0; rank < e->n_used; rank++) {
        const uint32_t best = best_left(p, w->choice_bias, e->n, taken);
        taken[best / WORD_BITS] |= (uint64_t)1 << best % WORD_BITS;
        chosen[rank] = best;
        sum += weights[rank] = p[best];
    }
    if (e->gating == LLD_GATING_SOFTMAX_OF_CHOSEN)
        to_probabilities(f->kernels, LLD_GATING_SOFTMAX, weights, e->n_used);
    for (uint32_t rank = 0; rank < e->n_used; rank++) {
        if (e->norms_weights) weights[rank] /= sum > least_sum ? sum : least_sum;
        weights[rank] *= e->weights_scale;
        if (w->scales != NULL) weights[rank] *= w->scales[chosen[rank]];
    }
}
