/* info.c - what a model says of itself: lld_model_info. */
#include <stdio.h>
#include <string.h>

#include "model/model.h"

void lld_model_get_info(const lld_model *model, lld_model_info *out)
{
    const lld_config *c = &model->config;
    uint64_t kv_values = 0, kv_groups = 0; /* of a token */
    for (uint32_t i = 0; i < lld_bound_layers(c); i++) {
        const lld_layer_sizes *s = &c->layers[i];
        if (s->kv_layer != i) continue;
        kv_values += 2ull * s->n_kv_heads * s->head_dim;
        kv_groups += 2ull * s->n_kv_heads * ((s->head_dim + 31) / 32);
    }
    memset(out, 0, sizeof *out);
    snprintf(out->architecture, sizeof out->architecture, "%s", c->architecture->name);
    out->n_layers = c->n_layers;
    out->dim = c->dim;
    out->hidden_dim = c->hidden_dim;
    out->n_heads = c->n_heads;
    out->n_kv_heads = c->n_kv_heads;
    out->head_dim = c->head_dim;
    out->vocab_size = model->vocab_size;
    out->n_ctx_train = c->n_ctx_train;
    out->file_bytes = lld_file_bytes(model->file);
    out->weight_bytes = model->weight_bytes;
    out->streamed_bytes = model->streamed_bytes;
    out->kv_bytes_per_token_f16 = kv_values * 2;
    out->kv_bytes_per_token_q8_0 = kv_values + kv_groups * 2;
    out->kv_bytes_per_token_q4_0 = kv_values / 2 + kv_groups * 2;
    out->is_encoder = c->architecture->facts.is_encoder;
    out->n_rank_scores = (uint32_t)model->rank.output.n_rows;
    out->n_guess_layers = c->n_guess_layers;
    out->n_experts = c->experts.n;
    out->n_experts_used = c->experts.n_used;
    out->state_bytes = model->state_floats * sizeof(float);
}
