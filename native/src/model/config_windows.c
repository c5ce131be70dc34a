/* config_windows.c - see config_parts.h: which layers see a window. */
#include "model/config_parts.h"

#include <inttypes.h>

#include "base/status.h"

/* Which layers see a window: the family's period, another one, or a flag for each layer. */
static void read_window_pattern(lld_keys *r, lld_config *c)
{
    char key[LLD_KEY_BYTES];
    uint32_t period = c->architecture->facts.window_period;
    const lld_kv *kv =
        lld_gguf_find(r->gguf, lld_keys_name(r, "attention.sliding_window_pattern", key));
    if (kv != NULL && kv->type == LLD_GGUF_ARRAY) {
        for (uint32_t i = 0; i < c->n_layers; i++) {
            double flag = 0.0;
            if (kv->count != c->n_layers || !lld_gguf_number(kv, i, &flag)) {
                r->status = lld_fail(LLD_ERR_CORRUPT,
                                     "metadata key '%s' has %" PRIu64 " elements, must be %" PRIu32
                                     " flags, one for each layer",
                                     key, kv->count, c->n_layers);
                return;
            }
            c->is_local[i] = flag != 0.0;
        }
        return;
    }
    period = lld_keys_count(r, "attention.sliding_window_pattern", 1, LLD_MAX_LAYERS,
                            c->architecture->facts.sizes_local_heads ? -1 : (int64_t)period);
    for (uint32_t i = 0; i < c->n_layers && r->status == LLD_OK; i++)
        c->is_local[i] = i % period < period - 1;
}

void lld_config_read_windows(lld_keys *r, lld_config *c)
{
    const lld_family_facts *facts = &c->architecture->facts;
    if (facts->window_period == 0) return;
    const bool is_needed = facts->sizes_local_heads; /* without a window no layer would be local */
    c->window = lld_keys_count(r, "attention.sliding_window", is_needed, LLD_MAX_CTX,
                               is_needed ? -1 : (int64_t)facts->window_default);
    if (c->window == 0) return;
    if (facts->local_rope_base > 0.0f)
        c->local_rope_base =
            lld_keys_float(r, "rope.freq_base_swa", 1.0001f, 1e15f, facts->local_rope_base);
    else if (facts->leaves_local_unscaled)
        c->local_rope_base = lld_keys_float(r, "rope.freq_base_swa", 1.0001f, 1e15f, c->rope_base);
    if (r->status == LLD_OK) read_window_pattern(r, c);
}
