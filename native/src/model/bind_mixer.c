/* bind_mixer.c - see bind.h: the tensors of the part of a layer in which tokens see each other. */
#include "model/bind.h"

/* Queries, keys and values are three tensors, or the rows of one, in that order. */
static void bind_qkv(lld_binder *b, lld_attention_weights *w)
{
    const lld_config *c = &b->model->config;
    const lld_need bias = c->architecture->qkv_bias;
    const lld_layer_sizes *s = &c->layers[b->layer];
    const uint64_t n_q = (uint64_t)c->n_heads * s->head_dim,
                   n_kv = (uint64_t)s->n_kv_heads * s->head_dim;
    const lld_matrix fused =
        lld_bind_matrix(b, "attn_qkv.weight", LLD_OPTIONAL, n_q + 2 * n_kv, c->dim);
    if (fused.data != NULL) {
        const float *biases = lld_bind_vector(b, "attn_qkv.bias", bias, n_q + 2 * n_kv);
        w->wq = lld_matrix_rows(&fused, 0, n_q);
        w->wk = lld_matrix_rows(&fused, n_q, n_kv);
        w->wv = lld_matrix_rows(&fused, n_q + n_kv, n_kv);
        w->bq = biases;
        w->bk = biases == NULL ? NULL : biases + n_q;
        w->bv = biases == NULL ? NULL : biases + n_q + n_kv;
        return;
    }
    const lld_need values = c->architecture->facts.norms_values ? LLD_OPTIONAL : LLD_REQUIRED;
    const bool gated = c->architecture->facts.gates_attention;
    w->wq = lld_bind_matrix(b, "attn_q.weight", LLD_REQUIRED, gated ? 2 * n_q : n_q, c->dim);
    w->bq = lld_bind_vector(b, "attn_q.bias", bias, n_q);
    if (s->kv_layer != (uint32_t)b->layer) {
        lld_bind_unused(b, "attn_k.weight");
        lld_bind_unused(b, "attn_v.weight");
        return;
    }
    w->wk = lld_bind_matrix(b, "attn_k.weight", LLD_REQUIRED, n_kv, c->dim);
    w->wv = lld_bind_matrix(b, "attn_v.weight", values, n_kv, c->dim);
    w->bk = lld_bind_vector(b, "attn_k.bias", bias, n_kv);
    w->bv = lld_bind_vector(b, "attn_v.bias", bias, n_kv);
}

void lld_bind_attention(lld_binder *b, lld_attention_weights *w)
{
    const lld_config *c = &b->model->config;
    const lld_architecture *a = c->architecture;
    const lld_layer_sizes *s = &c->layers[b->layer];
    uint64_t n_q = (uint64_t)c->n_heads * s->head_dim, n_kv = (uint64_t)s->n_kv_heads * s->head_dim;

    const bool has_kv = s->kv_layer == (uint32_t)b->layer;
    bind_qkv(b, w);
    w->wv.fine = has_kv;
    w->wk.fine = has_kv && w->wv.data == NULL; /* it makes the values, too */
    if (a->qk_norm != LLD_QK_NORM_NONE) {
        bool row = a->qk_norm == LLD_QK_NORM_ROW;
        w->q_norm = lld_bind_vector(b, "attn_q_norm.weight", LLD_REQUIRED, row ? n_q : s->head_dim);
        if (!has_kv) lld_bind_unused(b, "attn_k_norm.weight");
        if (has_kv)
            w->k_norm =
                lld_bind_vector(b, "attn_k_norm.weight", LLD_REQUIRED, row ? n_kv : s->head_dim);
    }
    w->wo = lld_bind_matrix(b, "attn_output.weight", LLD_REQUIRED, c->dim, n_q);
    w->bo = lld_bind_vector(b, "attn_output.bias", LLD_OPTIONAL, c->dim);
    if (a->facts.has_sinks)
        w->sinks = lld_bind_vector(b, "attn_sinks.weight", LLD_REQUIRED, c->n_heads);
}

void lld_bind_convolution(lld_binder *b, lld_layer *layer)
{
    const lld_config *c = &b->model->config;
    lld_convolution_weights *w = &layer->convolution;
    w->in = lld_bind_matrix(b, "shortconv.in_proj.weight", LLD_REQUIRED, 3ull * c->dim, c->dim);
    w->conv = lld_bind_table(b, "shortconv.conv.weight", LLD_REQUIRED, c->dim, c->conv_width);
    w->out = lld_bind_matrix(b, "shortconv.out_proj.weight", LLD_REQUIRED, c->dim, c->dim);
    w->out.fine = true;
    layer->state_offset = lld_bind_state(b, (size_t)(c->conv_width - 1) * c->dim);
}

void lld_bind_delta_net(lld_binder *b, lld_layer *layer)
{
    const lld_config *c = &b->model->config;
    lld_delta_weights *w = &layer->delta;
    const uint64_t n_v = (uint64_t)c->delta_v_heads * c->delta_dim,
                   n_channels = lld_delta_channels(c);
    w->qkv = lld_bind_matrix(b, "attn_qkv.weight", LLD_REQUIRED, n_channels, c->dim);
    w->gate = lld_bind_matrix(b, "attn_gate.weight", LLD_REQUIRED, n_v, c->dim);
    w->beta = lld_bind_matrix(b, "ssm_beta.weight", LLD_REQUIRED, c->delta_v_heads, c->dim);
    w->alpha = lld_bind_matrix(b, "ssm_alpha.weight", LLD_REQUIRED, c->delta_v_heads, c->dim);
    w->conv = lld_bind_table(b, "ssm_conv1d.weight", LLD_REQUIRED, n_channels, c->conv_width);
    w->dt_bias = lld_bind_vector(b, "ssm_dt.bias", LLD_REQUIRED, c->delta_v_heads);
    w->a = lld_bind_vector(b, "ssm_a", LLD_REQUIRED, c->delta_v_heads);
    w->norm = lld_bind_vector(b, "ssm_norm.weight", LLD_REQUIRED, c->delta_dim);
    w->out = lld_bind_matrix(b, "ssm_out.weight", LLD_REQUIRED, c->dim, n_v);
    w->out.fine = true;
    layer->state_offset =
        lld_bind_state(b, (size_t)(c->conv_width - 1) * n_channels + n_v * c->delta_dim);
}

void lld_bind_state_space(lld_binder *b, lld_layer *layer)
{
    const lld_config *c = &b->model->config;
    lld_state_space_weights *w = &layer->state_space;
    const uint64_t inner = lld_ssm_inner(c), n_channels = lld_ssm_channels(c);
    w->in = lld_bind_matrix(b, "ssm_in.weight", LLD_REQUIRED, lld_ssm_projected(c), c->dim);
    w->conv = lld_bind_table(b, "ssm_conv1d.weight", LLD_REQUIRED, n_channels, c->conv_width);
    w->conv_bias = lld_bind_vector(b, "ssm_conv1d.bias", LLD_OPTIONAL, n_channels);
    w->dt_bias = lld_bind_vector(b, "ssm_dt.bias", LLD_REQUIRED, c->ssm_heads);
    w->a = lld_bind_table(b, "ssm_a", LLD_REQUIRED, c->ssm_heads, 1);
    w->d = lld_bind_table(b, "ssm_d", LLD_REQUIRED, c->ssm_heads, 1);
    w->norm =
        lld_bind_table(b, "ssm_norm.weight", LLD_OPTIONAL, c->ssm_groups, inner / c->ssm_groups);
    w->out = lld_bind_matrix(b, "ssm_out.weight", LLD_REQUIRED, c->dim, inner);
    w->out.fine = true;
    layer->state_offset =
        lld_bind_state(b, (size_t)(c->conv_width - 1) * n_channels + inner * c->ssm_state);
}

uint32_t lld_mixer_matrices(lld_layer *l, lld_matrix *matrices[LLD_MIXER_MATRICES])
{
    lld_matrix *const all[LLD_MIXER_MATRICES] = {
        &l->attention.wq,    &l->attention.wk, &l->attention.wv,   &l->convolution.in,
        &l->convolution.out, &l->delta.qkv,    &l->delta.gate,     &l->delta.beta,
        &l->delta.alpha,     &l->delta.out,    &l->state_space.in, &l->attention.wo,
        &l->state_space.out};
    uint32_t n = 0;
    for (int i = 0; i < LLD_MIXER_MATRICES; i++)
        if (all[i]->data != NULL) matrices[n++] = all[i];
    return n;
}
