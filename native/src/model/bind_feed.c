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

/* What is used of the experts' matrices for a token: of the others nothing is read. */
static void leave_unused(lld_binder *b, const lld_matrix *all)
{
    const lld_expert_sizes *e = &b->model->config.experts;
    if (all->data != NULL)
        b->model->streamed_bytes -= all->n_rows / e->n * all->row_bytes * (e->n - e->n_used);
}

static void bind_shared(lld_binder *b, lld_expert_weights *w)
{
    const lld_config *c = &b->model->config;
    const uint64_t n = c->experts.shared_hidden_dim;
    if (n == 0) return;
    w->shared.gate = lld_bind_matrix(b, "ffn_gate_shexp.weight", LLD_REQUIRED, n, c->dim);
    w->shared.up = lld_bind_matrix(b, "ffn_up_shexp.weight", LLD_REQUIRED, n, c->dim);
    w->shared.down = lld_bind_matrix(b, "ffn_down_shexp.weight", LLD_REQUIRED, c->dim, n);
    if (c->architecture->facts.experts.gates_shared)
        w->shared_gate = lld_bind_vector(b, "ffn_gate_inp_shexp.weight", LLD_REQUIRED, c->dim);
}

/* Of the router, and of each expert's matrices. */
static void bind_mixture_biases(lld_binder *b, lld_expert_weights *w)
{
    const lld_config *c = &b->model->config;
    const uint64_t n = c->experts.n, hidden = c->experts.hidden_dim;
    if (!c->architecture->facts.experts.has_biases) return;
    w->router_bias = lld_bind_vector(b, "ffn_gate_inp.bias", LLD_REQUIRED, n);
    const float *gate = lld_bind_table(b, "ffn_gate_exps.bias", LLD_REQUIRED, n, hidden);
    const float *up = lld_bind_table(b, "ffn_up_exps.bias", LLD_REQUIRED, n, hidden);
    const float *down = lld_bind_table(b, "ffn_down_exps.bias", LLD_REQUIRED, n, c->dim);
    for (uint64_t i = 0; i < n && b->status == LLD_OK; i++) {
        w->experts[i].gate_bias = gate + i * hidden;
        w->experts[i].up_bias = up + i * hidden;
        w->experts[i].down_bias = down + i * c->dim;
    }
}

/* What a mixture has beside a dense feed-forward, and the scale of each expert. */
static void bind_beside_dense(lld_binder *b, lld_expert_weights *w)
{
    const lld_config *c = &b->model->config;
    if (!c->architecture->facts.experts.beside_dense) return;
    w->router_norm.weight = lld_bind_vector(b, "ffn_gate_inp.scale", LLD_REQUIRED, c->dim);
    w->norm = lld_bind_norm(b, "pre_ffw_norm_2");
    w->gated_post_norm = lld_bind_norm(b, "post_ffw_norm_1");
    w->post_norm = lld_bind_norm(b, "post_ffw_norm_2");
    w->scales = lld_bind_vector(b, "ffn_down_exps.scale", LLD_REQUIRED, c->experts.n);
}

void lld_bind_mixture(lld_binder *b, lld_expert_weights *w, lld_gated_weights *experts)
{
    const lld_config *c = &b->model->config;
    const uint64_t n = c->experts.n, hidden = c->experts.hidden_dim;
    w->experts = experts;
    w->router = lld_bind_matrix(b, "ffn_gate_inp.weight", LLD_REQUIRED, n, c->dim);
    w->choice_bias = lld_bind_vector(b, "exp_probs_b.bias", LLD_OPTIONAL, n);
    /* the rows of gate and of up of each expert, in one tensor or in two */
    lld_matrix gate =
        lld_bind_matrices(b, "ffn_gate_up_exps.weight", LLD_OPTIONAL, n, 2 * hidden, c->dim);
    lld_matrix up = gate;
    const bool fused = gate.data != NULL;
    if (!fused) {
        gate = lld_bind_matrices(b, "ffn_gate_exps.weight", LLD_REQUIRED, n, hidden, c->dim);
        up = lld_bind_matrices(b, "ffn_up_exps.weight", LLD_REQUIRED, n, hidden, c->dim);
        leave_unused(b, &up);
    }
    const lld_matrix down =
        lld_bind_matrices(b, "ffn_down_exps.weight", LLD_REQUIRED, n, c->dim, hidden);
    leave_unused(b, &gate);
    leave_unused(b, &down);
    const uint64_t step = fused ? 2 * hidden : hidden, behind = fused ? hidden : 0;
    for (uint64_t i = 0; i < n; i++) {
        experts[i].gate = lld_matrix_rows(&gate, i * step, hidden);
        experts[i].up = lld_matrix_rows(&up, i * step + behind, hidden);
        experts[i].down = lld_matrix_rows(&down, i * c->dim, c->dim);
    }
    bind_mixture_biases(b, w);
    bind_beside_dense(b, w);
    bind_shared(b, w);
}
