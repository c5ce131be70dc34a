/* expert_guess.c - see expert_guess.h. */
#include "engine/expert_guess.h"

#include "engine/expert_choice.h"
#include "engine/layer.h"

enum { GUESS_ROW = 1 }; /* of scratch.routing, behind the only row */

/* The layer whose choice is guessed; NULL: none. The same for all threads. */
static const lld_layer *guessed_layer(const lld_forward *f, const lld_layer *l)
{
    if (f->batch.n_rows != 1 || f->reading.experts == NULL || f->reading.stream != NULL)
        return NULL;
    if (lld_layer_index(f, l) + 1 >= f->model->config.n_layers) return NULL;
    if (l[1].mixture.experts == NULL || !lld_expert_store_guesses(f->reading.experts)) return NULL;
    return l + 1;
}

void lld_expert_guess_run(lld_forward *f, unsigned thread, const lld_layer *l)
{
    const lld_layer *next = guessed_layer(f, l);
    if (next == NULL) return;
    const lld_source s = {.make_row = lld_normed_row,
                          .norm = lld_expert_choice_norm(next),
                          .n_rows = 1,
                          .n_cols = f->model->config.dim,
                          .kinds = LLD_ACT_BIT(next->mixture.router.act),
                          .store = f->scratch.work,
                          .layer = next,
                          .name = LLD_IMPORTANCE_INPUTS};
    const lld_product router = lld_expert_choice_router(f, next, GUESS_ROW);
    lld_products_run(f, thread, &router, 1, lld_input_make(f, thread, &s));
    lld_pool_barrier(f->pool);
}

void lld_expert_guess_tell(lld_forward *f, const lld_layer *l)
{
    const lld_layer *next = guessed_layer(f, l);
    if (next == NULL) return;
    const uint32_t n_used = f->model->config.experts.n_used;
    lld_expert_choice_make(f, &next->mixture, GUESS_ROW);
    lld_expert_store_guess(f->reading.experts, lld_layer_index(f, next),
                           f->scratch.routing.chosen + GUESS_ROW * n_used, n_used);
}
