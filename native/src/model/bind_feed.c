/* bind_feed.c - see bind.h: the tensors of the part of a layer in which each token is alone. */
#include "model/bind.h"

void lld_bind_gated(lld_binder *b, lld_gated_weights *w)
{
    const lld_config *c = &b->model->config;
    const lld_gate gate = c->architecture->facts.gate;
    const uint64_t n = c->layers[b->layer].hidden_dim, n_up = gate == LLD_GATE_FUSED ? 2 * n : n;
    if (gate == LLD_GATE_SPLIT) {
        w->gate = lld_bind_matrix(b, "ffn_gate.weight", LLD_REQUIRED, n, c->dim);
        w->gate_bias = lld_bind_vector(b, "ffn_gate.bias", LLD_OPTIONAL, n);
    }
    w->up = lld_bind_matrix(b, "ffn_up.weight", LLD_REQUIRED, n_up, c->dim);
    w->up_bias = lld_bind_vector(b, "ffn_up.bias", LLD_OPTIONAL, n_up);
    if (gate == LLD_GATE_FUSED) {
        const lld_matrix both = w->up;
        w->gate = lld_matrix_rows(&both, 0, n);
        w->up = lld_matrix_rows(&both, n, n);
        w->gate_bias = w->up_bias;
        if (w->up_bias != NULL) w->up_bias += n;
    } else if (gate == LLD_GATE_NONE) {
        w->gate = w->up;
        w->gate_bias = w->up_bias;
        w->up = (lld_matrix){0};
        w->up_bias = NULL;
    }
    w->down = lld_bind_matrix(b, "ffn_down.weight", LLD_REQUIRED, c->dim, n);
    w->down_bias = lld_bind_vector(b, "ffn_down.bias", LLD_OPTIONAL, c->dim);
}
