/* config.c - see config.h. Key names: GGUF specification, "Standardized key-value pairs". */
#include "model/config.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/elementary.h"
#include "base/status.h"
#include "model/unsupported.h"

enum {
    MAX_DIM = 1 << 17,
    MAX_HIDDEN = 1 << 19,
    MAX_HEADS = 1024,
    MAX_HEAD_DIM = 512,
    MAX_CTX = 1 << 30,
    KEY_BYTES = 96
};

/* Reads keys of one architecture: the first failure sticks, so a caller checks once. */
typedef struct {
    const lld_gguf *gguf;
    const char *prefix;
    int status;
} reader;

static const char *key_name(const reader *r, const char *suffix, char key[KEY_BYTES])
{
    snprintf(key, KEY_BYTES, "%s.%s", r->prefix, suffix);
    return key;
}

/* An integer in [low, high]; `fallback` < 0 says that the key is required. */
static uint32_t read_count(reader *r, const char *suffix, uint32_t low, uint32_t high,
                           int64_t fallback)
{
    char key[KEY_BYTES];
    uint32_t value = 0;
    bool found = false;
    if (r->status != LLD_OK) return 0;
    r->status = lld_gguf_read_u32(r->gguf, key_name(r, suffix, key), &value, &found);
    if (r->status != LLD_OK) return 0;
    if (!found) {
        if (fallback < 0)
            r->status = lld_fail(LLD_ERR_CORRUPT, "metadata key '%s' is missing", key);
        return fallback < 0 ? 0 : (uint32_t)fallback;
    }
    if (value < low || value > high)
        r->status = lld_fail(LLD_ERR_CORRUPT,
                             "metadata key '%s' is %" PRIu32 ", must be %" PRIu32 " to %" PRIu32,
                             key, value, low, high);
    return value;
}

/* A finite float in [low, high]; `fallback` NaN says that the key is required. */
static float read_float(reader *r, const char *suffix, float low, float high, float fallback)
{
    char key[KEY_BYTES];
    float value = fallback;
    bool found = false;
    if (r->status != LLD_OK) return 0.0f;
    r->status = lld_gguf_read_f32(r->gguf, key_name(r, suffix, key), &value, &found);
    if (r->status != LLD_OK) return 0.0f;
    if (!found && isnan(fallback))
        r->status = lld_fail(LLD_ERR_CORRUPT, "metadata key '%s' is missing", key);
    else if (!(value >= low && value <= high))
        r->status = lld_fail(LLD_ERR_CORRUPT, "metadata key '%s' is %g, must be %g to %g", key,
                             (double)value, (double)low, (double)high);
    return value;
}

static bool text_equals(const char *text, size_t length, const char *word)
{
    return strlen(word) == length && memcmp(text, word, length) == 0;
}

static void read_scaling_type(reader *r, lld_config *c)
{
    static const struct {
        const char *name;
        lld_rope_scaling scaling;
    } types[] = {
        {"none", LLD_SCALING_NONE},         {"linear", LLD_SCALING_LINEAR},
        {"yarn", LLD_SCALING_YARN},         {"llama3", LLD_SCALING_LLAMA3},
        {"longrope", LLD_SCALING_LONGROPE},
    };
    char key[KEY_BYTES];
    const char *name = NULL;
    size_t length = 0;
    bool found = false;
    if (r->status != LLD_OK) return;
    r->status = lld_gguf_read_string(r->gguf, key_name(r, "rope.scaling.type", key), &name, &length,
                                     &found);
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
static void read_yarn_magnitude(reader *r, lld_config *c)
{
    const bool has_multiplier = c->architecture->facts.scales_late_queries;
    const double growth = c->scaling_factor > 1.0f ? 0.1 * lld_log(c->scaling_factor) : 0.0;
    double multiplier = 0.0;
    if (has_multiplier)
        multiplier = read_float(r, "rope.scaling.yarn_log_multiplier", 0.0f, 1e3f, 0.0f);
    c->yarn_magnitude = (1.0 + growth) / (1.0 + multiplier * growth);
}

static void read_scaling(reader *r, lld_config *c)
{
    /* Files before rope.scaling.* carry only rope.scale_linear. A factor without a type is linear. */
    float old_factor = read_float(r, "rope.scale_linear", 1e-3f, 1e6f, 1.0f);
    c->scaling_factor = read_float(r, "rope.scaling.factor", 1e-3f, 1e6f, old_factor);
    c->scaling = c->scaling_factor != 1.0f ? LLD_SCALING_LINEAR : LLD_SCALING_NONE;
    read_scaling_type(r, c);
    c->scaling_original_ctx = read_count(r, "rope.scaling.original_context_length", 1, MAX_CTX,
                                         c->scaling == LLD_SCALING_LLAMA3 ? 8192 : c->n_ctx_train);
    c->rope_attention_factor = read_float(r, "rope.scaling.attn_factor", 1e-3f, 1e3f, 1.0f);
    c->yarn_beta_fast = read_float(r, "rope.scaling.yarn_beta_fast", 1e-3f, 1e6f, 32.0f);
    c->yarn_beta_slow = read_float(r, "rope.scaling.yarn_beta_slow", 1e-3f, 1e6f, 1.0f);
    read_yarn_magnitude(r, c);
    c->llama3_low_frequency = read_float(r, "rope.scaling.low_freq_factor", 1e-3f, 1e6f, 1.0f);
    c->llama3_high_frequency = read_float(r, "rope.scaling.high_freq_factor", 1e-3f, 1e6f, 4.0f);
    if (r->status == LLD_OK && c->scaling == LLD_SCALING_LLAMA3 &&
        !(c->llama3_high_frequency > c->llama3_low_frequency))
        r->status = lld_fail(
            LLD_ERR_CORRUPT,
            "metadata key '%s.rope.scaling.high_freq_factor' is %g, must exceed low_freq_factor %g",
            r->prefix, (double)c->llama3_high_frequency, (double)c->llama3_low_frequency);
}

/* A count of each layer, in [low, high]: an array, or one number for all of them. */
static void read_counts(reader *r, const char *suffix, uint32_t low, uint32_t high,
                        int64_t fallback, uint32_t n_layers, uint32_t counts[LLD_MAX_LAYERS])
{
    char key[KEY_BYTES];
    if (r->status != LLD_OK) return;
    const lld_kv *kv = lld_gguf_find(r->gguf, key_name(r, suffix, key));
    if (kv == NULL || kv->type != LLD_GGUF_ARRAY) {
        const uint32_t count = read_count(r, suffix, low, high, fallback);
        for (uint32_t i = 0; i < n_layers; i++) counts[i] = count;
        return;
    }
    if (kv->count != n_layers) {
        r->status = lld_fail(LLD_ERR_CORRUPT,
                             "metadata key '%s' has %" PRIu64 " elements, must be %" PRIu32
                             ", one for each layer",
                             key, kv->count, n_layers);
        return;
    }
    for (uint32_t i = 0; i < n_layers; i++) {
        double count = -1.0;
        if (!lld_gguf_number(kv, i, &count) || !(count >= low && count <= high) ||
            count != floor(count)) {
            r->status = lld_fail(LLD_ERR_CORRUPT,
                                 "metadata key '%s' is %g for layer %" PRIu32
                                 ", must be an integer, %" PRIu32 " to %" PRIu32,
                                 key, count, i, low, high);
            return;
        }
        counts[i] = (uint32_t)count;
    }
}

/* An even count in [2, high]; `fallback` as for read_count. */
static uint32_t read_even(reader *r, const char *suffix, uint32_t high, int64_t fallback)
{
    const uint32_t value = read_count(r, suffix, 2, high, fallback);
    if (r->status == LLD_OK && value % 2 != 0)
        r->status = lld_fail(LLD_ERR_CORRUPT, "metadata key '%s.%s' is %" PRIu32 ", must be even",
                             r->prefix, suffix, value);
    return value;
}

static void read_kv_heads(reader *r, lld_config *c)
{
    uint32_t counts[LLD_MAX_LAYERS];
    const uint32_t low = c->architecture->facts.convolves ? 0 : 1;
    read_counts(r, "attention.head_count_kv", low, MAX_HEADS, c->n_heads, c->n_layers, counts);
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
        c->conv_width = read_count(r, "shortconv.l_cache", 2, LLD_MAX_CONV_WIDTH, -1);
}

/* Which layers have the delta rule in place of attention: flags, or all but each so-and-so-many-th. */
static void read_delta_layers(reader *r, lld_config *c)
{
    char key[KEY_BYTES];
    const uint32_t n_all = c->n_layers + c->n_extra_layers;
    const uint32_t every = read_count(r, "full_attention_interval", 1, LLD_MAX_LAYERS, 4);
    uint32_t flags[LLD_MAX_LAYERS];
    for (uint32_t i = 0; i < n_all; i++) flags[i] = every == 0 || (i + 1) % every != 0;
    if (lld_gguf_find(r->gguf, key_name(r, "attention.recurrent_layers", key)) != NULL)
        read_counts(r, "attention.recurrent_layers", 0, 1, -1, n_all, flags);
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

/* Sizes of the gated delta rule. */
static void read_delta_net(reader *r, lld_config *c)
{
    enum { MAX_DIM_OF_STATE = 256, DIM_STEP = 8 };
    read_delta_layers(r, c);
    c->conv_width = read_count(r, "ssm.conv_kernel", 2, LLD_MAX_CONV_WIDTH, -1);
    c->delta_dim = read_count(r, "ssm.state_size", DIM_STEP, MAX_DIM_OF_STATE, -1);
    c->delta_k_heads = read_count(r, "ssm.group_count", 1, MAX_HEADS, -1);
    c->delta_v_heads = read_count(r, "ssm.time_step_rank", 1, MAX_HEADS, -1);
    const uint32_t inner = read_count(r, "ssm.inner_size", 1, MAX_HIDDEN, -1);
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

static void read_hidden_dims(reader *r, lld_config *c)
{
    uint32_t counts[LLD_MAX_LAYERS];
    read_counts(r, "feed_forward_length", 1, MAX_HIDDEN, -1, c->n_layers, counts);
    for (uint32_t i = 0; i < c->n_layers && r->status == LLD_OK; i++) {
        c->layers[i].hidden_dim = counts[i];
        if (counts[i] > c->hidden_dim) c->hidden_dim = counts[i];
    }
}

static void read_heads(reader *r, lld_config *c)
{
    c->n_heads = read_count(r, "attention.head_count", 1, MAX_HEADS, -1);
    if (r->status == LLD_OK) read_kv_heads(r, c);
    if (c->architecture->facts.has_delta_net) read_delta_net(r, c);
    if (r->status != LLD_OK) return;
    c->head_dim = read_count(r, "attention.key_length", 2, MAX_HEAD_DIM, c->dim / c->n_heads);
    uint32_t value_length = read_count(r, "attention.value_length", 2, MAX_HEAD_DIM, c->head_dim);
    if (r->status != LLD_OK) return;
    if (c->head_dim < 2 || c->head_dim > MAX_HEAD_DIM || c->head_dim % 2 != 0) {
        r->status = lld_fail(LLD_ERR_CORRUPT,
                             "head dimension is %" PRIu32 " (embedding_length %" PRIu32
                             ", head_count %" PRIu32 "), must be even, 2 to %d",
                             c->head_dim, c->dim, c->n_heads, (int)MAX_HEAD_DIM);
        return;
    }
    if (value_length != c->head_dim) {
        r->status = lld_fail(LLD_ERR_UNSUPPORTED,
                             "metadata key '%s.attention.value_length' is %" PRIu32
                             ", only key_length %" PRIu32 " is supported",
                             r->prefix, value_length, c->head_dim);
        return;
    }
    c->n_rot = read_even(r, "rope.dimension_count", c->head_dim, c->head_dim);
    c->local_n_rot = c->n_rot;
    for (uint32_t i = 0; i < c->n_layers; i++) {
        c->layers[i].head_dim = c->head_dim;
        c->layers[i].n_rot = c->n_rot;
    }
}

/* Which layers see a window: the family's period, another one, or a flag for each layer. */
static void read_window_pattern(reader *r, lld_config *c)
{
    char key[KEY_BYTES];
    uint32_t period = c->architecture->facts.window_period;
    const lld_kv *kv = lld_gguf_find(r->gguf, key_name(r, "attention.sliding_window_pattern", key));
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
    period = read_count(r, "attention.sliding_window_pattern", 1, LLD_MAX_LAYERS,
                        c->architecture->facts.sizes_local_heads ? -1 : (int64_t)period);
    for (uint32_t i = 0; i < c->n_layers && r->status == LLD_OK; i++)
        c->is_local[i] = i % period < period - 1;
}

/* Whether a layer's halves read the same row: the names of their norms say it, or a key. */
static void read_parallel(reader *r, lld_config *c)
{
    const lld_architecture *a = c->architecture;
    char key[KEY_BYTES];
    bool found = false;
    c->is_parallel = a->norms.before_mixer != NULL && a->norms.before_feed == NULL;
    if (a->facts.parallel_key != LLD_REQUIRED) return;
    r->status = lld_gguf_read_bool(r->gguf, key_name(r, "use_parallel_residual", key),
                                   &c->is_parallel, &found);
    if (r->status == LLD_OK && !found)
        r->status = lld_fail(LLD_ERR_CORRUPT, "metadata key '%s' is missing", key);
}

/* What embedding, halves, queries and logits are multiplied with. */
static void read_scales(reader *r, lld_config *c)
{
    const lld_family_facts *facts = &c->architecture->facts;
    const float low = 1e-6f, high = 1e6f, fallback = facts->scales == LLD_REQUIRED ? NAN : 1.0f;
    const uint32_t wide = facts->wide_query_layers;
    c->embedding_scale = facts->scales_embedding ? sqrtf((float)c->dim) : 1.0f;
    c->residual_scale = c->logits_scale = 1.0f;
    c->query_scale =
        (float)(1.0 / sqrt((double)(c->n_layers == wide ? c->dim / c->n_heads : c->head_dim)));
    if (facts->plain_queries) c->query_scale = 1.0f;
    if (facts->scales != LLD_ABSENT) {
        c->embedding_scale = read_float(r, "embedding_scale", low, high, fallback);
        c->residual_scale = read_float(r, "residual_scale", low, high, fallback);
        c->query_scale = read_float(r, "attention.scale", low, high, c->query_scale);
    }
    if (facts->scales_late_queries)
        c->late_query_scale = read_float(r, "attention.temperature_scale", 0.0f, 1e3f, 0.0f);
    if (facts->logit_scale == LLD_LOGITS_PLAIN) return;
    const float scale = read_float(r, "logit_scale", low, high, NAN);
    if (r->status != LLD_OK) return;
    c->logits_scale = facts->logit_scale == LLD_LOGITS_DIVIDED ? 1.0f / scale : scale;
}

static void read_softcaps(reader *r, lld_config *c)
{
    const lld_family_facts *facts = &c->architecture->facts;
    if (!facts->caps_logits) return;
    c->logits_softcap = read_float(r, "final_logit_softcapping", 0.0f, 1e6f, facts->logits_softcap);
    if (facts->attention_softcap > 0.0f)
        c->attention_softcap =
            read_float(r, "attn_logit_softcapping", 0.0f, 1e6f, facts->attention_softcap);
}

static void read_windows(reader *r, lld_config *c)
{
    const lld_family_facts *facts = &c->architecture->facts;
    if (facts->window_period == 0) return;
    const bool is_needed = facts->sizes_local_heads; /* without a window no layer would be local */
    c->window = read_count(r, "attention.sliding_window", is_needed, MAX_CTX,
                           is_needed ? -1 : (int64_t)facts->window_default);
    if (c->window == 0) return;
    if (facts->local_rope_base > 0.0f)
        c->local_rope_base =
            read_float(r, "rope.freq_base_swa", 1.0001f, 1e15f, facts->local_rope_base);
    else if (facts->leaves_local_unscaled)
        c->local_rope_base = read_float(r, "rope.freq_base_swa", 1.0001f, 1e15f, c->rope_base);
    if (r->status == LLD_OK) read_window_pattern(r, c);
}

/* Gemma 4: local layers have heads of another size than those that see all. */
static void read_local_heads(reader *r, lld_config *c)
{
    const uint32_t global_dim = c->head_dim;
    if (!c->architecture->facts.sizes_local_heads || r->status != LLD_OK) return;
    const uint32_t head_dim = read_even(r, "attention.key_length_swa", MAX_HEAD_DIM, global_dim);
    const uint32_t value_length =
        read_count(r, "attention.value_length_swa", 2, MAX_HEAD_DIM, head_dim);
    c->local_n_rot = read_even(r, "rope.dimension_count_swa", head_dim, head_dim);
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

/* Gemma 4: the last layers read the keys and values of the last layer of their kind before them. */
static void read_shared_kv(reader *r, lld_config *c)
{
    if (!c->architecture->facts.shares_kv) return;
    const uint32_t n_shared = read_count(r, "attention.shared_kv_layers", 0, c->n_layers - 1, 0);
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

/* Which layers leave queries and keys as they are. */
static void read_unrotated(reader *r, lld_config *c)
{
    char key[KEY_BYTES];
    const lld_family_facts *facts = &c->architecture->facts;
    const uint32_t period = facts->unrotated_period;
    bool rotates = true;
    if (facts->has_rope_switch && r->status == LLD_OK)
        r->status =
            lld_gguf_read_bool(r->gguf, key_name(r, "rope.scaling.finetuned", key), &rotates, NULL);
    for (uint32_t i = 0; i < c->n_layers && r->status == LLD_OK; i++)
        c->is_unrotated[i] = !rotates || (period > 0 && i % period == period - 1) ||
                             (facts->rotates_local_only && c->window > 0 && !c->is_local[i]);
}

int lld_config_read(const lld_gguf *gguf, lld_config *config)
{
    lld_config c = {0};
    int status = lld_config_check_whole(gguf);
    if (status == LLD_OK) status = lld_architecture_find(gguf, &c.architecture);
    if (status != LLD_OK) return status;

    reader r = {.gguf = gguf, .prefix = c.architecture->name, .status = LLD_OK};
    c.n_layers = read_count(&r, "block_count", 1, LLD_MAX_LAYERS, -1);
    if (c.architecture->facts.has_delta_net && r.status == LLD_OK) {
        c.n_extra_layers = read_count(&r, "nextn_predict_layers", 0, c.n_layers - 1, 0);
        c.n_layers -= c.n_extra_layers;
    }
    c.dim = read_count(&r, "embedding_length", 1, MAX_DIM, -1);
    read_hidden_dims(&r, &c);
    c.n_ctx_train = read_count(&r, "context_length", 1, MAX_CTX, -1);
    const bool has_rms = c.architecture->facts.norm == LLD_RMS_NORM;
    c.norm_epsilon = read_float(
        &r, has_rms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon", 1e-12f,
        1.0f, NAN);
    c.rope_base = read_float(&r, "rope.freq_base", 1.0001f, 1e15f, 10000.0f);
    if (r.status == LLD_OK) read_heads(&r, &c);
    if (r.status == LLD_OK) read_scaling(&r, &c);
    if (r.status == LLD_OK) read_parallel(&r, &c);
    if (r.status == LLD_OK) read_scales(&r, &c);
    if (r.status == LLD_OK) read_softcaps(&r, &c);
    if (r.status == LLD_OK) read_windows(&r, &c);
    if (r.status == LLD_OK) read_local_heads(&r, &c);
    if (r.status == LLD_OK) read_shared_kv(&r, &c);
    if (c.architecture->facts.has_layer_inputs)
        c.layer_input_dim = read_count(&r, "embedding_length_per_layer_input", 0, MAX_DIM, 0);
    if (r.status == LLD_OK) read_unrotated(&r, &c);
    if (r.status == LLD_OK) r.status = lld_config_check_unsupported(gguf, &c);
    if (r.status == LLD_OK) *config = c;
    return r.status;
}
