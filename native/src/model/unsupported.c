/* unsupported.c - see unsupported.h. Keys: llama.cpp's list of them (src/llama-arch.cpp), those that
 * change the computation of a decoder without tensors of their own. */
#include "model/unsupported.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/status.h"

enum { KEY_BYTES = 96 };

/* A key and the values that say "not used". Of an array every element must be one of them. */
typedef struct {
    const char *suffix; /* behind the architecture's prefix */
    double off, also_off;
} switch_key;

static const switch_key switches[] = {
    {"attention.causal", 1, 1},
    {"attention.clamp_kqv", 0, 0},
    {"attention.max_alibi_bias", 0, 0},
    {"attention.output_scale", 0, 1},
    {"attention.recurrent_layers", 0, 0},
    {"attention.rope_pattern", 1, 1},
    {"attention.shared_kv_layers", 0, 0},
    {"attention.temperature_length", 0, 0},
    {"attention.temperature_scale", 0, 0},
    {"attention.value_scale", 0, 1},
    {"attn_logit_softcapping", 0, 0},
    {"embedding_scale", 0, 1},
    {"expert_count", 0, 0},
    {"expert_group_count", 0, 1},
    {"expert_used_count", 0, 0},
    {"final_logit_softcapping", 0, 0},
    {"full_attention_interval", 0, 1},
    {"interleave_moe_layer_step", 0, 1},
    {"logit_scale", 0, 1},
    {"moe_every_n_layers", 0, 1},
    {"nextn_predict_layers", 0, 0},
    {"num_loops", 0, 1},
    {"rescale_every_n_layers", 0, 0},
    {"residual_scale", 0, 1},
    {"rope.scaling.alpha", 0, 1},
    {"rope.scaling.yarn_ext_factor", -1, 1},
    {"rope.scaling.yarn_log_multiplier", 0, 0},
    {"router_logit_softcapping", 0, 0},
    {"swin_norm", 0, 0},
    {"token_shift_count", 0, 0},
    {"use_parallel_residual", 0, 0},
};

/* A number is `wanted` if it differs by less than a float32 written as text and read back does. */
static bool is_near(double value, double wanted)
{
    return fabs(value - wanted) <= 1e-5 * fabs(wanted);
}

static int refuse_number(const char *key, double value)
{
    return lld_fail(LLD_ERR_UNSUPPORTED, "metadata key '%s' is %g, which is not supported", key,
                    value);
}

static int check_switch(const lld_kv *kv, const char *key, double off, double also_off)
{
    for (uint64_t i = 0; i < kv->count; i++) {
        double value;
        if (!lld_gguf_number(kv, i, &value))
            return lld_fail(LLD_ERR_CORRUPT, "metadata key '%s' is no number", key);
        if (!is_near(value, off) && !is_near(value, also_off)) return refuse_number(key, value);
    }
    return LLD_OK;
}

static const lld_kv *find(const lld_gguf *gguf, const lld_config *c, const char *suffix,
                          char key[KEY_BYTES])
{
    snprintf(key, KEY_BYTES, "%s.%s", c->architecture->name, suffix);
    return lld_gguf_find(gguf, key);
}

/* Keys that repeat what the engine computes anyway, or else ask for something different. */
static int check_repeated(const lld_gguf *gguf, lld_config *c)
{
    char key[KEY_BYTES];
    int status = LLD_OK;
    const lld_kv *kv = find(gguf, c, "attention.scale", key);
    if (kv != NULL) status = check_switch(kv, key, 0, (double)c->query_scale);
    if (status != LLD_OK) return status;

    kv = find(gguf, c, "rope.scaling.yarn_attn_factor", key);
    if (kv != NULL && c->scaling == LLD_SCALING_YARN)
        status = check_switch(kv, key, c->yarn_magnitude, c->yarn_magnitude);
    if (status != LLD_OK) return status;

    uint32_t window = 0;
    if (c->architecture->facts.window_period > 0) return status; /* windows are computed */
    find(gguf, c, "attention.sliding_window", key);
    status = lld_gguf_read_u32(gguf, key, &window, NULL);
    /* Within its window full attention is the same; but layers that slide may scale RoPE otherwise. */
    if (status == LLD_OK && window != 0 && window < c->n_ctx_train) {
        if (c->scaling != LLD_SCALING_NONE) return refuse_number(key, window);
        c->n_ctx_train = window;
    }
    return status;
}

bool lld_ranks(const lld_gguf *gguf, const lld_config *c)
{
    enum { POOLING_RANK = 4 };
    char key[KEY_BYTES];
    uint32_t pooling = 0;
    find(gguf, c, "pooling_type", key);
    return lld_gguf_read_u32(gguf, key, &pooling, NULL) == LLD_OK && pooling == POOLING_RANK;
}

/* Models that rank without the matrix for it, and feed-forwards with another activation. */
static int check_kinds(const lld_gguf *gguf, const lld_config *c)
{
    char key[KEY_BYTES];
    const char *name = NULL;
    size_t length = 0;
    uint32_t pooling = 0;
    bool found = false;
    find(gguf, c, "pooling_type", key);
    int status = lld_gguf_read_u32(gguf, key, &pooling, NULL);
    if (lld_ranks(gguf, c) && lld_gguf_find_tensor(gguf, "cls.output.weight") == NULL)
        return lld_fail(LLD_ERR_UNSUPPORTED,
                        "metadata key '%s' is %" PRIu32 ", but there is no cls.output.weight", key,
                        pooling);
    find(gguf, c, "hidden_activation", key);
    if (status == LLD_OK) status = lld_gguf_read_string(gguf, key, &name, &length, &found);
    static const char *const names[][2] = {[LLD_SILU] = {"silu", "silu"},
                                           [LLD_GELU] = {"gelu_pytorch_tanh", "gelu"},
                                           [LLD_GELU_ERF] = {"gelu", "gelu"},
                                           [LLD_RELU_SQUARED] = {"relu2", "relu2"},
                                           [LLD_SWIGLU_CLAMPED] = {"silu", "silu"}};
    const char *const *ours = names[c->architecture->facts.activation];
    if (status != LLD_OK || !found) return status;
    for (int i = 0; i < 2; i++)
        if (length == strlen(ours[i]) && memcmp(name, ours[i], length) == 0) return LLD_OK;
    return lld_fail(LLD_ERR_UNSUPPORTED, "metadata key '%s' is '%.*s', supported is %s", key,
                    (int)(length > 64 ? 64 : length), name, ours[0]);
}

/* Whether config.c has read the key, for families that obey it. */
static bool is_read(const lld_config *c, const char *suffix)
{
    const lld_family_facts *facts = &c->architecture->facts;
    const struct {
        const char *suffix;
        bool read;
    } obeyed[] = {
        {"attention.causal", facts->is_encoder}, /* and the family says what it is */
        {"attention.recurrent_layers", facts->has_delta_net},
        {"attention.shared_kv_layers", facts->shares_kv},
        {"attention.temperature_scale", facts->scales_late_queries},
        {"attn_logit_softcapping", facts->attention_softcap > 0.0f},
        {"embedding_scale", facts->scales != LLD_ABSENT},
        {"expert_count", c->experts.n > 0},
        {"expert_used_count", c->experts.n > 0},
        {"final_logit_softcapping", facts->caps_logits},
        {"full_attention_interval", facts->has_delta_net},
        {"nextn_predict_layers", facts->has_delta_net},
        {"logit_scale", facts->logit_scale != LLD_LOGITS_PLAIN},
        {"residual_scale", facts->scales != LLD_ABSENT},
        {"use_parallel_residual", facts->parallel_key != LLD_ABSENT || c->is_parallel},
        {"rope.scaling.yarn_log_multiplier", facts->scales_late_queries},
    };
    for (size_t i = 0; i < sizeof obeyed / sizeof *obeyed; i++)
        if (strcmp(suffix, obeyed[i].suffix) == 0) return obeyed[i].read;
    return false;
}

int lld_config_check_unsupported(const lld_gguf *gguf, lld_config *c)
{
    char key[KEY_BYTES];
    int status = LLD_OK;
    for (size_t i = 0; i < sizeof switches / sizeof *switches && status == LLD_OK; i++) {
        const lld_kv *kv = find(gguf, c, switches[i].suffix, key);
        if (is_read(c, switches[i].suffix)) continue;
        if (kv != NULL) status = check_switch(kv, key, switches[i].off, switches[i].also_off);
    }
    if (status == LLD_OK) status = check_repeated(gguf, c);
    if (status == LLD_OK) status = check_kinds(gguf, c);
    return status;
}

/* RoPE's angles, which old converters stored for each layer: they follow from the metadata. */
static bool is_derivable(const lld_tensor *t)
{
    static const char suffix[] = ".attn_rot_embd";
    const size_t n = sizeof suffix - 1;
    for (size_t i = 0; i + n <= t->name_length; i++)
        if (memcmp(t->name + i, suffix, n) == 0) return true;
    return false;
}

/* Whether a tensor is of a layer that only guesses tokens. */
static bool is_of_extra_layer(const lld_config *c, const lld_tensor *t)
{
    for (uint32_t i = c->n_layers; i < c->n_layers + c->n_extra_layers; i++) {
        char prefix[KEY_BYTES];
        const size_t n = (size_t)snprintf(prefix, sizeof prefix, "blk.%" PRIu32 ".", i);
        if (t->name_length > n && memcmp(t->name, prefix, n) == 0) return true;
    }
    return false;
}

bool lld_tensor_is_needless(const lld_config *c, const lld_tensor *t)
{
    return is_derivable(t) || is_of_extra_layer(c, t);
}

/* llama-gguf-split cuts a model into files; each has all metadata of the first, or next to none. */
int lld_config_check_whole(const lld_gguf *gguf)
{
    const char *type = "";
    size_t length = 0;
    uint32_t n_parts = 0;
    bool found = false;
    int status = lld_gguf_read_string(gguf, "general.type", &type, &length, NULL);
    if (status != LLD_OK) return status;
    if (length == strlen("adapter") && memcmp(type, "adapter", length) == 0)
        return lld_fail(LLD_ERR_UNSUPPORTED,
                        "is an adapter (LoRA) of a model, and no model itself");
    status = lld_gguf_read_u32(gguf, "split.count", &n_parts, &found);
    if (status != LLD_OK || !found || n_parts <= 1) return status;
    return lld_fail(LLD_ERR_UNSUPPORTED,
                    "is one of %" PRIu32 " parts of a model, which llama-gguf-split --merge joins",
                    n_parts);
}
