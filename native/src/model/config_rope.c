/* config_rope.c - see config_parts.h: how RoPE is scaled, and which layers have none. */
#include "model/config_parts.h"

#include <inttypes.h>
#include <string.h>

#include "base/elementary.h"
#include "base/status.h"

static bool text_equals(const char *text, size_t length, const char *word)
{
    return strlen(word) == length && memcmp(text, word, length) == 0;
}

static void read_scaling_type(lld_keys *r, lld_config *c)
{
    static const struct {
        const char *name;
        lld_rope_scaling scaling;
    } types[] = {
        {"none", LLD_SCALING_NONE},         {"linear", LLD_SCALING_LINEAR},
        {"yarn", LLD_SCALING_YARN},         {"llama3", LLD_SCALING_LLAMA3},
        {"longrope", LLD_SCALING_LONGROPE},
    };
    char key[LLD_KEY_BYTES];
    const char *name = NULL;
    size_t length = 0;
    bool found = false;
    if (r->status != LLD_OK) return;
    r->status = lld_gguf_read_string(r->gguf, lld_keys_name(r, "rope.scaling.type", key), &name,
                                     &length, &found);
    if (r->status != LLD_OK || !found) return;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        if (text_equals(name, length, types[i].name)) {
            c->scaling = types[i].scaling;
            return;
        }
    }
    r->status =
        lld_fail(LLD_ERR_UNSUPPORTED,
                 "metadata key '%s' is '%.*s', supported are none, linear, yarn, llama3, longrope",
                 key, (int)(length > 64 ? 64 : length), name);
}

/* YaRN's mscale (arXiv 2309.00071, eq. 22), over that of its log multiplier (DeepSeek-V2's code). */
static void read_yarn_magnitude(lld_keys *r, lld_config *c)
{
    const bool has_multiplier = c->architecture->facts.scales_late_queries;
    const double growth = c->scaling_factor > 1.0f ? 0.1 * lld_log(c->scaling_factor) : 0.0;
    double multiplier = 0.0;
    if (has_multiplier)
        multiplier = lld_keys_float(r, "rope.scaling.yarn_log_multiplier", 0.0f, 1e3f, 0.0f);
    c->yarn_magnitude = (1.0 + growth) / (1.0 + multiplier * growth);
}

void lld_config_read_scaling(lld_keys *r, lld_config *c)
{
    /* Files before rope.scaling.* carry only rope.scale_linear. A factor without a type is linear. */
    float old_factor = lld_keys_float(r, "rope.scale_linear", 1e-3f, 1e6f, 1.0f);
    c->scaling_factor = lld_keys_float(r, "rope.scaling.factor", 1e-3f, 1e6f, old_factor);
    c->scaling = c->scaling_factor != 1.0f ? LLD_SCALING_LINEAR : LLD_SCALING_NONE;
    read_scaling_type(r, c);
    c->scaling_original_ctx =
        lld_keys_count(r, "rope.scaling.original_context_length", 1, LLD_MAX_CTX,
                       c->scaling == LLD_SCALING_LLAMA3 ? 8192 : c->n_ctx_train);
    c->rope_attention_factor = lld_keys_float(r, "rope.scaling.attn_factor", 1e-3f, 1e3f, 1.0f);
    c->yarn_beta_fast = lld_keys_float(r, "rope.scaling.yarn_beta_fast", 1e-3f, 1e6f, 32.0f);
    c->yarn_beta_slow = lld_keys_float(r, "rope.scaling.yarn_beta_slow", 1e-3f, 1e6f, 1.0f);
    read_yarn_magnitude(r, c);
    c->llama3_low_frequency = lld_keys_float(r, "rope.scaling.low_freq_factor", 1e-3f, 1e6f, 1.0f);
    c->llama3_high_frequency =
        lld_keys_float(r, "rope.scaling.high_freq_factor", 1e-3f, 1e6f, 4.0f);
    if (r->status == LLD_OK && c->scaling == LLD_SCALING_LLAMA3 &&
        !(c->llama3_high_frequency > c->llama3_low_frequency))
        r->status = lld_fail(
            LLD_ERR_CORRUPT,
            "metadata key '%s.rope.scaling.high_freq_factor' is %g, must exceed low_freq_factor %g",
            r->prefix, (double)c->llama3_high_frequency, (double)c->llama3_low_frequency);
}

void lld_config_read_unrotated(lld_keys *r, lld_config *c)
{
    char key[LLD_KEY_BYTES];
    const lld_family_facts *facts = &c->architecture->facts;
    const uint32_t period = facts->unrotated_period;
    bool rotates = !facts->has_positions;
    if (facts->has_rope_switch && r->status == LLD_OK)
        r->status = lld_gguf_read_bool(r->gguf, lld_keys_name(r, "rope.scaling.finetuned", key),
                                       &rotates, NULL);
    for (uint32_t i = 0; i < c->n_layers && r->status == LLD_OK; i++)
        c->is_unrotated[i] = !rotates || (period > 0 && i % period == period - 1) ||
                             (facts->rotates_local_only && c->window > 0 && !c->is_local[i]);
}
