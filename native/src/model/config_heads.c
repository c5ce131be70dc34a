/* config_heads.c - see config_parts.h: how wide layers are, and how many heads they have. */
#include "model/config_parts.h"

#include <inttypes.h>

#include "base/status.h"

/* Whether layers without KV heads are layers without attention. */
static bool may_lack_heads(const lld_family_facts *facts)
{
    return facts->convolves || facts->state_space == LLD_SSM_INSTEAD;
}

static void read_kv_heads(lld_keys *r, lld_config *c)
{
    uint32_t counts[LLD_MAX_LAYERS];
    const uint32_t low = may_lack_heads(&c->architecture->facts) ? 0 : 1;
    lld_keys_counts(r, "attention.head_count_kv", low, LLD_MAX_HEADS, c->n_heads, c->n_layers,
                    counts);
    for (uint32_t i = 0; i < c->n_layers && r->status == LLD_OK; i++) {
        if (counts[i] > 0 && c->n_heads % counts[i] != 0)
            r->status = lld_fail(LLD_ERR_CORRUPT,
                                 "metadata key '%s.attention.head_count_kv' is %" PRIu32
                                 ", must divide head_count %" PRIu32,
                                 r->prefix, counts[i], c->n_heads);
        c->layers[i].n_kv_heads = counts[i];
        c->layers[i].kv_layer = i;
        if (counts[i] > c->n_kv_heads) c->n_kv_heads = counts[i];
        c->has_states = c->has_states || counts[i] == 0;
    }
    if (r->status == LLD_OK && c->n_kv_heads == 0)
        r->status = lld_fail(
            LLD_ERR_UNSUPPORTED,
            "metadata key '%s.attention.head_count_kv' is 0, one layer must attend", r->prefix);
    if (c->has_states && c->architecture->facts.convolves)
        c->conv_width = lld_keys_count(r, "shortconv.l_cache", 2, LLD_MAX_CONV_WIDTH, -1);
}

void lld_config_read_hidden_dims(lld_keys *r, lld_config *c)
{
    uint32_t counts[LLD_MAX_LAYERS];
    if (c->architecture->facts.state_space == LLD_SSM_ALONE) /* converters write 0 */
        lld_keys_counts(r, "feed_forward_length", 0, 0, 0, c->n_layers, counts);
    else
        lld_keys_counts(r, "feed_forward_length", 1, LLD_MAX_HIDDEN, -1, c->n_layers, counts);
    for (uint32_t i = 0; i < c->n_layers && r->status == LLD_OK; i++) {
        c->layers[i].hidden_dim = counts[i];
        if (counts[i] > c->hidden_dim) c->hidden_dim = counts[i];
    }
}

/* Of a model in which no layer attends; converters write 0 heads. */
static void read_no_heads(lld_keys *r, lld_config *c)
{
    uint32_t none[LLD_MAX_LAYERS];
    lld_keys_count(r, "attention.head_count", 0, 0, 0);
    lld_keys_counts(r, "attention.head_count_kv", 0, 0, 0, c->n_layers, none);
    for (uint32_t i = 0; i < c->n_layers; i++) c->layers[i].kv_layer = i;
    c->has_states = true;
    lld_config_read_state_space(r, c);
}

void lld_config_read_heads(lld_keys *r, lld_config *c)
{
    if (c->architecture->facts.state_space == LLD_SSM_ALONE) {
        read_no_heads(r, c);
        return;
    }
    c->n_heads = lld_keys_count(r, "attention.head_count", 1, LLD_MAX_HEADS, -1);
    if (r->status == LLD_OK) read_kv_heads(r, c);
    if (c->architecture->facts.has_delta_net) lld_config_read_delta_net(r, c);
    if (c->architecture->facts.state_space != LLD_SSM_ABSENT) lld_config_read_state_space(r, c);
    if (r->status != LLD_OK) return;
    c->head_dim =
        lld_keys_count(r, "attention.key_length", 2, LLD_MAX_HEAD_DIM, c->dim / c->n_heads);
    uint32_t value_length =
        lld_keys_count(r, "attention.value_length", 2, LLD_MAX_HEAD_DIM, c->head_dim);
    if (r->status != LLD_OK) return;
    if (c->head_dim < 2 || c->head_dim > LLD_MAX_HEAD_DIM || c->head_dim % 2 != 0) {
        r->status = lld_fail(LLD_ERR_CORRUPT,
                             "head dimension is %" PRIu32 " (metadata key"
                             " '%s.attention.key_length', else embedding_length %" PRIu32
                             " / head_count %" PRIu32 "), must be even, 2 to %d",
                             c->head_dim, r->prefix, c->dim, c->n_heads, (int)LLD_MAX_HEAD_DIM);
        return;
    }
    if (value_length != c->head_dim) {
        r->status = lld_fail(LLD_ERR_UNSUPPORTED,
                             "metadata key '%s.attention.value_length' is %" PRIu32
                             ", only key_length %" PRIu32 " is supported",
                             r->prefix, value_length, c->head_dim);
        return;
    }
    c->n_rot = lld_keys_even(r, "rope.dimension_count", c->head_dim, c->head_dim);
    c->local_n_rot = c->n_rot;
    for (uint32_t i = 0; i < c->n_layers; i++) {
        c->layers[i].head_dim = c->head_dim;
        c->layers[i].n_rot = c->n_rot;
    }
}

void lld_config_read_local_heads(lld_keys *r, lld_config *c)
{
    const uint32_t global_dim = c->head_dim;
    if (!c->architecture->facts.sizes_local_heads || r->status != LLD_OK) return;
    const uint32_t head_dim =
        lld_keys_even(r, "attention.key_length_swa", LLD_MAX_HEAD_DIM, global_dim);
    const uint32_t value_length =
        lld_keys_count(r, "attention.value_length_swa", 2, LLD_MAX_HEAD_DIM, head_dim);
    c->local_n_rot = lld_keys_even(r, "rope.dimension_count_swa", head_dim, head_dim);
    if (r->status != LLD_OK) return;
    if (value_length != head_dim) {
        r->status = lld_fail(LLD_ERR_UNSUPPORTED,
                             "metadata key '%s.attention.value_length_swa' is %" PRIu32
                             ", only key_length_swa %" PRIu32 " is supported",
                             r->prefix, value_length, head_dim);
        return;
    }
    for (uint32_t i = 0; i < c->n_layers; i++) {
        if (!c->is_local[i]) continue;
        c->layers[i].head_dim = head_dim;
        c->layers[i].n_rot = c->local_n_rot;
    }
    if (head_dim > c->head_dim) c->head_dim = head_dim;
}

void lld_config_read_shared_kv(lld_keys *r, lld_config *c)
{
    if (!c->architecture->facts.shares_kv) return;
    const uint32_t n_shared =
        lld_keys_count(r, "attention.shared_kv_layers", 0, c->n_layers - 1, 0);
    if (r->status != LLD_OK) return;
    const uint32_t n_own = c->n_layers - n_shared;
    for (uint32_t i = n_own; i < c->n_layers; i++) {
        uint32_t source = n_own;
        while (source > 0 && c->is_local[source - 1] != c->is_local[i]) source--;
        if (source == 0) {
            r->status = lld_fail(LLD_ERR_CORRUPT,
                                 "metadata key '%s.attention.shared_kv_layers' is %" PRIu32
                                 ": no layer of the kind of layer %" PRIu32 " is before them",
                                 r->prefix, n_shared, i);
            return;
        }
        if (c->layers[source - 1].n_kv_heads != c->layers[i].n_kv_heads) {
            r->status =
                lld_fail(LLD_ERR_CORRUPT,
                         "metadata key '%s.attention.head_count_kv' is %" PRIu32
                         " for layer %" PRIu32 ", which reads the %" PRIu32 " of layer %" PRIu32,
                         r->prefix, c->layers[i].n_kv_heads, i, c->layers[source - 1].n_kv_heads,
                         source - 1);
            return;
        }
        c->layers[i].kv_layer = source - 1;
    }
}
