/* config_experts.c - sizes of mixtures of experts. Keys: GGUF specification and llama.cpp's list. */
#include "model/config_parts.h"

#include <inttypes.h>

#include "base/status.h"

/* The width of each layer's feed-forward, of one expert where it has no other. */
static void set_hidden_dims(lld_config *c)
{
    const lld_expert_sizes *e = &c->experts;
    c->hidden_dim = e->hidden_dim > e->shared_hidden_dim ? e->hidden_dim : e->shared_hidden_dim;
    for (uint32_t i = 0; i < c->n_layers; i++) {
        lld_layer_sizes *sizes = &c->layers[i];
        if (lld_has_experts(c, i) && !c->architecture->facts.experts.beside_dense)
            sizes->hidden_dim = e->hidden_dim;
        if (sizes->hidden_dim > c->hidden_dim) c->hidden_dim = sizes->hidden_dim;
    }
}

static void read_weighting(lld_keys *r, lld_config *c)
{
    lld_expert_sizes *e = &c->experts;
    char key[LLD_KEY_BYTES];
    bool found = false;
    const lld_gating only = c->architecture->facts.experts.gating,
                     first = only != 0 ? only : LLD_GATING_SOFTMAX,
                     last = only != 0 ? only : LLD_GATING_SIGMOID;
    e->gating = (lld_gating)lld_keys_count(r, "expert_gating_func", first, last, first);
    e->norms_weights = c->architecture->facts.experts.norms_weights;
    if (r->status == LLD_OK)
        r->status = lld_gguf_read_bool(r->gguf, lld_keys_name(r, "expert_weights_norm", key),
                                       &e->norms_weights, &found);
    e->weights_scale = lld_keys_float(r, "expert_weights_scale", 0.0f, 1e6f, 1.0f);
    if (e->weights_scale == 0.0f) e->weights_scale = 1.0f; /* converters' "none" */
}

void lld_config_read_experts(lld_keys *r, lld_config *c)
{
    const lld_need need = c->architecture->facts.experts.need;
    lld_expert_sizes *e = &c->experts;
    if (need == LLD_ABSENT) return; /* the keys are refused */
    e->n = lld_keys_count(r, "expert_count", need == LLD_REQUIRED, LLD_MAX_EXPERTS,
                          need == LLD_REQUIRED ? -1 : 0);
    if (r->status != LLD_OK || e->n == 0) return;
    e->n_used = lld_keys_count(r, "expert_used_count", 1, e->n, -1);
    e->n_dense_layers = lld_keys_count(r, "leading_dense_block_count", 0, c->n_layers, 0);
    e->hidden_dim =
        lld_keys_count(r, "expert_feed_forward_length", 1, LLD_MAX_HIDDEN, c->hidden_dim);
    e->shared_hidden_dim =
        lld_keys_count(r, "expert_shared_feed_forward_length", 0, LLD_MAX_HIDDEN,
                       c->architecture->facts.experts.gates_shared ? c->hidden_dim : 0);
    read_weighting(r, c);
    if (r->status == LLD_OK) set_hidden_dims(c);
}
