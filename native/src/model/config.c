/* config.c - see config.h. Key names: GGUF specification, "Standardized key-value pairs". */
#include "model/config.h"

#include <math.h>

#include "base/status.h"
#include "model/config_parts.h"
#include "model/unsupported.h"

/* Whether a layer's halves read the same row: the names of their norms say it, or a key. */
static void read_parallel(lld_keys *r, lld_config *c)
{
    const lld_architecture *a = c->architecture;
    char key[LLD_KEY_BYTES];
    bool found = false;
    c->is_parallel = a->norms.before_mixer != NULL && a->norms.before_feed == NULL &&
                     a->facts.state_space != LLD_SSM_ALONE;
    if (a->facts.parallel_key != LLD_REQUIRED) return;
    r->status = lld_gguf_read_bool(r->gguf, lld_keys_name(r, "use_parallel_residual", key),
                                   &c->is_parallel, &found);
    if (r->status == LLD_OK && !found)
        r->status = lld_fail(LLD_ERR_CORRUPT, "metadata key '%s' is missing", key);
}

/* What embedding, halves, queries and logits are multiplied with. */
static void read_scales(lld_keys *r, lld_config *c)
{
    const lld_family_facts *facts = &c->architecture->facts;
    const float low = 1e-6f, high = 1e6f, fallback = facts->scales == LLD_REQUIRED ? NAN : 1.0f;
    const uint32_t wide = facts->wide_query_layers;
    c->embedding_scale = facts->scales_embedding ? sqrtf((float)c->dim) : 1.0f;
    c->residual_scale = c->logits_scale = 1.0f;
    c->query_scale =
        (float)(1.0 / sqrt((double)(c->n_layers == wide ? c->dim / c->n_heads : c->head_dim)));
    if (facts->plain_queries || c->n_heads == 0) c->query_scale = 1.0f;
    if (facts->scales != LLD_ABSENT) {
        c->embedding_scale = lld_keys_float(r, "embedding_scale", low, high, fallback);
        c->residual_scale = lld_keys_float(r, "residual_scale", low, high, fallback);
        c->query_scale = lld_keys_float(r, "attention.scale", low, high, c->query_scale);
    }
    if (facts->scales_late_queries)
        c->late_query_scale = lld_keys_float(r, "attention.temperature_scale", 0.0f, 1e3f, 0.0f);
    if (facts->logit_scale == LLD_LOGITS_PLAIN) return;
    const float scale = lld_keys_float(r, "logit_scale", low, high, NAN);
    if (r->status != LLD_OK) return;
    c->logits_scale = facts->logit_scale == LLD_LOGITS_DIVIDED ? 1.0f / scale : scale;
}

static void read_softcaps(lld_keys *r, lld_config *c)
{
    const lld_family_facts *facts = &c->architecture->facts;
    if (!facts->caps_logits) return;
    c->logits_softcap =
        lld_keys_float(r, "final_logit_softcapping", 0.0f, 1e6f, facts->logits_softcap);
    if (facts->attention_softcap > 0.0f)
        c->attention_softcap =
            lld_keys_float(r, "attn_logit_softcapping", 0.0f, 1e6f, facts->attention_softcap);
}

void lld_config_use_guess_layer(lld_config *c)
{
    const uint32_t guessing = c->n_layers;
    uint32_t attending = 0;
    while (c->layers[attending].n_kv_heads == 0) attending++; /* one does */
    c->layers[guessing] = c->layers[attending];
    c->layers[guessing].kv_layer = guessing;
    c->n_guess_layers = 1;
}

int lld_config_read(const lld_gguf *gguf, lld_config *config)
{
    lld_config c = {0};
    int status = lld_config_check_whole(gguf);
    if (status == LLD_OK) status = lld_architecture_find(gguf, &c.architecture);
    if (status != LLD_OK) return status;

    lld_keys r = {.gguf = gguf, .prefix = c.architecture->name, .status = LLD_OK};
    c.n_layers = lld_keys_count(&r, "block_count", 1, LLD_MAX_LAYERS, -1);
    if (c.architecture->facts.has_delta_net && r.status == LLD_OK) {
        c.n_extra_layers = lld_keys_count(&r, "nextn_predict_layers", 0, c.n_layers - 1, 0);
        c.n_layers -= c.n_extra_layers;
    }
    c.dim = lld_keys_count(&r, "embedding_length", 1, LLD_MAX_DIM, -1);
    lld_config_read_hidden_dims(&r, &c);
    if (r.status == LLD_OK) lld_config_read_experts(&r, &c);
    c.n_ctx_train = lld_keys_count(&r, "context_length", 1, LLD_MAX_CTX, -1);
    const bool has_rms = c.architecture->facts.norm == LLD_RMS_NORM;
    c.norm_epsilon = lld_keys_float(
        &r, has_rms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon", 1e-12f,
        1.0f, NAN);
    c.rope_base = lld_keys_float(&r, "rope.freq_base", 1.0001f, 1e15f, 10000.0f);
    if (r.status == LLD_OK) lld_config_read_heads(&r, &c);
    if (r.status == LLD_OK) lld_config_read_scaling(&r, &c);
    if (r.status == LLD_OK) read_parallel(&r, &c);
    if (r.status == LLD_OK) read_scales(&r, &c);
    if (r.status == LLD_OK) read_softcaps(&r, &c);
    if (r.status == LLD_OK) lld_config_read_windows(&r, &c);
    if (r.status == LLD_OK) lld_config_read_local_heads(&r, &c);
    if (r.status == LLD_OK) lld_config_read_shared_kv(&r, &c);
    if (c.architecture->facts.has_layer_inputs)
        c.layer_input_dim =
            lld_keys_count(&r, "embedding_length_per_layer_input", 0, LLD_MAX_DIM, 0);
    if (r.status == LLD_OK) lld_config_read_unrotated(&r, &c);
    if (r.status == LLD_OK) r.status = lld_config_check_unsupported(gguf, &c);
    if (r.status == LLD_OK) *config = c;
    return r.status;
}
