/* config_states.c - see config_parts.h: layers that keep a state in place of keys and values. */
#include "model/config_parts.h"

#include <inttypes.h>

#include "base/status.h"

/* Which layers have the delta rule in place of attention: flags, or all but each so-and-so-many-th. */
static void read_delta_layers(lld_keys *r, lld_config *c)
{
    char key[LLD_KEY_BYTES];
    const uint32_t n_all = c->n_layers + c->n_extra_layers;
    const uint32_t every = lld_keys_count(r, "full_attention_interval", 1, LLD_MAX_LAYERS, 4);
    uint32_t flags[LLD_MAX_LAYERS];
    for (uint32_t i = 0; i < n_all; i++) flags[i] = every == 0 || (i + 1) % every != 0;
    if (lld_gguf_find(r->gguf, lld_keys_name(r, "attention.recurrent_layers", key)) != NULL)
        lld_keys_counts(r, "attention.recurrent_layers", 0, 1, -1, n_all, flags);
    c->n_kv_heads = 0;
    for (uint32_t i = 0; i < c->n_layers && r->status == LLD_OK; i++) {
        if (flags[i] != 0) c->layers[i].n_kv_heads = 0;
        c->has_states = c->has_states || flags[i] != 0;
        if (c->layers[i].n_kv_heads > c->n_kv_heads) c->n_kv_heads = c->layers[i].n_kv_heads;
    }
    if (r->status == LLD_OK && c->n_kv_heads == 0)
        r->status = lld_fail(LLD_ERR_UNSUPPORTED,
                             "metadata key '%s.full_attention_interval' is %" PRIu32
                             ", one of %" PRIu32 " layers must attend",
                             r->prefix, every, c->n_layers);
}

void lld_config_read_delta_net(lld_keys *r, lld_config *c)
{
    enum { MAX_DIM_OF_STATE = 256, DIM_STEP = 8 };
    read_delta_layers(r, c);
    c->conv_width = lld_keys_count(r, "ssm.conv_kernel", 2, LLD_MAX_CONV_WIDTH, -1);
    c->delta_dim = lld_keys_count(r, "ssm.state_size", DIM_STEP, MAX_DIM_OF_STATE, -1);
    c->delta_k_heads = lld_keys_count(r, "ssm.group_count", 1, LLD_MAX_HEADS, -1);
    c->delta_v_heads = lld_keys_count(r, "ssm.time_step_rank", 1, LLD_MAX_HEADS, -1);
    const uint32_t inner = lld_keys_count(r, "ssm.inner_size", 1, LLD_MAX_HIDDEN, -1);
    if (r->status != LLD_OK) return;
    if (c->delta_dim % DIM_STEP != 0)
        r->status = lld_fail(LLD_ERR_UNSUPPORTED,
                             "metadata key '%s.ssm.state_size' is %" PRIu32
                             ", only multiples of %d are supported",
                             r->prefix, c->delta_dim, (int)DIM_STEP);
    else if (c->delta_v_heads % c->delta_k_heads != 0)
        r->status = lld_fail(LLD_ERR_CORRUPT,
                             "metadata key '%s.ssm.group_count' is %" PRIu32
                             ", must divide ssm.time_step_rank %" PRIu32,
                             r->prefix, c->delta_k_heads, c->delta_v_heads);
    else if (inner != c->delta_v_heads * c->delta_dim)
        r->status = lld_fail(LLD_ERR_CORRUPT,
                             "metadata key '%s.ssm.inner_size' is %" PRIu32
                             ", must be time_step_rank %" PRIu32 " times state_size %" PRIu32,
                             r->prefix, inner, c->delta_v_heads, c->delta_dim);
}

void lld_config_read_state_space(lld_keys *r, lld_config *c)
{
    enum { MAX_STATE = 1024, DIM_STEP = 8 };
    c->conv_width = lld_keys_count(r, "ssm.conv_kernel", 2, LLD_MAX_CONV_WIDTH, -1);
    c->ssm_state = lld_keys_count(r, "ssm.state_size", 1, MAX_STATE, -1);
    c->ssm_groups = lld_keys_count(r, "ssm.group_count", 1, LLD_MAX_HEADS, -1);
    c->ssm_heads = lld_keys_count(r, "ssm.time_step_rank", 1, LLD_MAX_HEADS, -1);
    const uint32_t inner = lld_keys_count(r, "ssm.inner_size", 1, LLD_MAX_HIDDEN, -1);
    if (r->status != LLD_OK) return;
    c->ssm_head_dim = inner / c->ssm_heads;
    if (c->ssm_heads % c->ssm_groups != 0)
        r->status = lld_fail(LLD_ERR_CORRUPT,
                             "metadata key '%s.ssm.group_count' is %" PRIu32
                             ", must divide ssm.time_step_rank %" PRIu32,
                             r->prefix, c->ssm_groups, c->ssm_heads);
    else if (inner != c->ssm_heads * c->ssm_head_dim || c->ssm_head_dim % DIM_STEP != 0 ||
             c->ssm_head_dim == 0 || c->ssm_head_dim > LLD_MAX_HEAD_DIM)
        r->status = lld_fail(LLD_ERR_UNSUPPORTED,
                             "metadata key '%s.ssm.inner_size' is %" PRIu32
                             ", must be time_step_rank %" PRIu32 " times a multiple of %d up to %d",
                             r->prefix, inner, c->ssm_heads, (int)DIM_STEP, (int)LLD_MAX_HEAD_DIM);
    c->has_states = c->has_states || c->architecture->facts.state_space == LLD_SSM_BESIDE;
}
