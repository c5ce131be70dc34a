/* architecture.c - see architecture.h. Sources of the rows: the families' papers and code, named in
 * tests/reference/families.py. */
#include "model/architecture.h"

#include <stdio.h>
#include <string.h>

#include "base/status.h"

#define PRE_NORMS                                                                                  \
    {                                                                                              \
        .before_mixer = "attn_norm", .before_feed = "ffn_norm"                                     \
    }
#define POST_NORMS                                                                                 \
    {                                                                                              \
        .after_mixer = "post_attention_norm", .after_feed = "post_ffw_norm"                        \
    }

#define LATE_FEED_NORM                                                                             \
    {                                                                                              \
        .before_mixer = "attn_norm", .before_feed = "post_attention_norm"                          \
    }
#define SUM_NORMS                                                                                  \
    {                                                                                              \
        .after_mixer = "attn_output_norm", .after_feed = "layer_output_norm"                       \
    }
#define ONE_NORM                                                                                   \
    {                                                                                              \
        .before_mixer = "attn_norm"                                                                \
    }
#define FOUR_NORMS                                                                                 \
    {                                                                                              \
        .before_mixer = "attn_norm", .after_mixer = "post_attention_norm",                         \
        .before_feed = "ffn_norm", .after_feed = "post_ffw_norm"                                   \
    }
#define GEMMA .activation = LLD_GELU, .scales_embedding = true

static const lld_architecture architectures[] = {
    /* name     rope pairs       q,k,v bias     q,k norm          norms, facts */
    {"llama", /* Mixtral is one with experts */
     LLD_ROPE_NORM,
     LLD_OPTIONAL,
     LLD_QK_NORM_NONE,
     PRE_NORMS,
     {.experts = {.need = LLD_OPTIONAL, .norms_weights = true}}},
    {"qwen2", LLD_ROPE_NEOX, LLD_REQUIRED, LLD_QK_NORM_NONE, PRE_NORMS, {0}},
    {"qwen3", LLD_ROPE_NEOX, LLD_OPTIONAL, LLD_QK_NORM_HEAD, PRE_NORMS, {0}},
    {"qwen2moe",
     LLD_ROPE_NEOX,
     LLD_REQUIRED,
     LLD_QK_NORM_NONE,
     PRE_NORMS,
     {.experts = {.need = LLD_REQUIRED, .gates_shared = true}}},
    {"qwen3moe",
     LLD_ROPE_NEOX,
     LLD_OPTIONAL,
     LLD_QK_NORM_HEAD,
     PRE_NORMS,
     {.experts = {.need = LLD_REQUIRED, .norms_weights = true}}},
    /* the text of a model that also sees: its positions in height and width are those in time */
    {"qwen2vl", LLD_ROPE_NEOX, LLD_REQUIRED, LLD_QK_NORM_NONE, PRE_NORMS, {0}},
    {"qwen3vl", LLD_ROPE_NEOX, LLD_OPTIONAL, LLD_QK_NORM_HEAD, PRE_NORMS, {0}},
    {"qwen3vlmoe",
     LLD_ROPE_NEOX,
     LLD_OPTIONAL,
     LLD_QK_NORM_HEAD,
     PRE_NORMS,
     {.experts = {.need = LLD_REQUIRED, .norms_weights = true}}},
    {"ernie4_5", LLD_ROPE_NORM, LLD_OPTIONAL, LLD_QK_NORM_NONE, PRE_NORMS, {0}},
    {"internlm2", LLD_ROPE_NORM, LLD_OPTIONAL, LLD_QK_NORM_NONE, PRE_NORMS, {0}},
    {"mistral3",
     LLD_ROPE_NORM,
     LLD_OPTIONAL,
     LLD_QK_NORM_NONE,
     PRE_NORMS,
     {.scales_late_queries = true}},
    {"smollm3", LLD_ROPE_NORM, LLD_OPTIONAL, LLD_QK_NORM_NONE, PRE_NORMS, {.unrotated_period = 4}},
    {"granite",
     LLD_ROPE_NORM,
     LLD_OPTIONAL,
     LLD_QK_NORM_NONE,
     PRE_NORMS,
     {.scales = LLD_OPTIONAL, .logit_scale = LLD_LOGITS_DIVIDED, .has_rope_switch = true}},
    {"granitemoe",
     LLD_ROPE_NORM,
     LLD_OPTIONAL,
     LLD_QK_NORM_NONE,
     PRE_NORMS,
     {.scales = LLD_OPTIONAL,
      .logit_scale = LLD_LOGITS_DIVIDED,
      .experts = {.need = LLD_REQUIRED, .norms_weights = true}}},
    {"minicpm",
     LLD_ROPE_NORM,
     LLD_OPTIONAL,
     LLD_QK_NORM_NONE,
     PRE_NORMS,
     {.scales = LLD_REQUIRED, .logit_scale = LLD_LOGITS_DIVIDED}},
    {"seed_oss", LLD_ROPE_NEOX, LLD_OPTIONAL, LLD_QK_NORM_NONE, LATE_FEED_NORM, {0}},
    {"hunyuan-dense",
     LLD_ROPE_NEOX,
     LLD_OPTIONAL,
     LLD_QK_NORM_HEAD,
     PRE_NORMS,
     {.rotates_before_norm = true}},
    {"exaone4",
     LLD_ROPE_NEOX,
     LLD_OPTIONAL,
     LLD_QK_NORM_HEAD,
     POST_NORMS,
     {.window_period = 4, .rotates_local_only = true}},
    {"arcee",
     LLD_ROPE_NORM,
     LLD_OPTIONAL,
     LLD_QK_NORM_NONE,
     PRE_NORMS,
     {.activation = LLD_RELU_SQUARED, .gate = LLD_GATE_NONE}},
    {"phi3",
     LLD_ROPE_NEOX,
     LLD_OPTIONAL,
     LLD_QK_NORM_NONE,
     PRE_NORMS,
     {.gate = LLD_GATE_FUSED, .window_period = LLD_ALL_LOCAL}},
    {"phi2",
     LLD_ROPE_NEOX,
     LLD_OPTIONAL,
     LLD_QK_NORM_NONE,
     ONE_NORM,
     {.norm = LLD_LAYER_NORM, .activation = LLD_GELU, .gate = LLD_GATE_NONE}},
    {"stablelm", /* converters write true where the file says nothing */
     LLD_ROPE_NEOX,
     LLD_OPTIONAL,
     LLD_QK_NORM_NONE,
     PRE_NORMS,
     {.norm = LLD_LAYER_NORM, .parallel_key = LLD_OPTIONAL}},
    {"starcoder2",
     LLD_ROPE_NEOX,
     LLD_OPTIONAL,
     LLD_QK_NORM_NONE,
     PRE_NORMS,
     {.norm = LLD_LAYER_NORM, .activation = LLD_GELU, .gate = LLD_GATE_NONE}},
    {"gptneox",
     LLD_ROPE_NEOX,
     LLD_OPTIONAL,
     LLD_QK_NORM_NONE,
     PRE_NORMS,
     {.norm = LLD_LAYER_NORM,
      .activation = LLD_GELU_ERF,
      .gate = LLD_GATE_NONE,
      .parallel_key = LLD_REQUIRED}},
    {"command-r",
     LLD_ROPE_NORM,
     LLD_OPTIONAL,
     LLD_QK_NORM_NONE,
     ONE_NORM,
     {.norm = LLD_LAYER_NORM_PLAIN, .logit_scale = LLD_LOGITS_MULTIPLIED}},
    {"cohere2",
     LLD_ROPE_NORM,
     LLD_OPTIONAL,
     LLD_QK_NORM_NONE,
     ONE_NORM,
     {.norm = LLD_LAYER_NORM_PLAIN,
      .logit_scale = LLD_LOGITS_MULTIPLIED,
      .window_period = 4,
      .window_default = 4096,
      .rotates_local_only = true}},
    {"olmo2", /* OLMo 3 is one with windows */
     LLD_ROPE_NEOX,
     LLD_OPTIONAL,
     LLD_QK_NORM_ROW,
     POST_NORMS,
     {.window_period = 4, .leaves_local_unscaled = true}},
    {"olmoe",
     LLD_ROPE_NEOX,
     LLD_OPTIONAL,
     LLD_QK_NORM_ROW,
     PRE_NORMS,
     {.experts = {.need = LLD_REQUIRED}}},
    {"gpt-oss",
     LLD_ROPE_NEOX,
     LLD_REQUIRED,
     LLD_QK_NORM_NONE,
     LATE_FEED_NORM,
     {.has_sinks = true,
      .experts = {.need = LLD_REQUIRED, .has_biases = true, .gating = LLD_GATING_SOFTMAX_OF_CHOSEN},
      .activation = LLD_SWIGLU_CLAMPED,
      .window_period = 2,
      .window_default = 128,
      .splits_yarn_pairs = true}},
    {"qwen35",
     LLD_ROPE_NEOX,
     LLD_OPTIONAL,
     LLD_QK_NORM_HEAD,
     LATE_FEED_NORM,
     {.has_delta_net = true, .gates_attention = true}},
    {"qwen35moe",
     LLD_ROPE_NEOX,
     LLD_OPTIONAL,
     LLD_QK_NORM_HEAD,
     LATE_FEED_NORM,
     {.has_delta_net = true,
      .gates_attention = true,
      .experts = {.need = LLD_REQUIRED, .norms_weights = true, .gates_shared = true}}},
    {"granitehybrid",
     LLD_ROPE_NORM,
     LLD_OPTIONAL,
     LLD_QK_NORM_NONE,
     PRE_NORMS,
     {.state_space = LLD_SSM_INSTEAD,
      .experts = {.need = LLD_OPTIONAL, .norms_weights = true},
      .scales = LLD_OPTIONAL,
      .logit_scale = LLD_LOGITS_DIVIDED,
      .has_rope_switch = true}},
    {"falcon-h1", /* its multipliers are in the weights */
     LLD_ROPE_NEOX,
     LLD_OPTIONAL,
     LLD_QK_NORM_NONE,
     PRE_NORMS,
     {.state_space = LLD_SSM_BESIDE}},
    {"mamba2",
     LLD_ROPE_NORM,
     LLD_OPTIONAL,
     LLD_QK_NORM_NONE,
     ONE_NORM,
     {.state_space = LLD_SSM_ALONE}},
    {"lfm2",
     LLD_ROPE_NEOX,
     LLD_OPTIONAL,
     LLD_QK_NORM_HEAD,
     PRE_NORMS,
     {.convolves = true, .output_norm = "token_embd_norm"}},
    {"lfm2moe",
     LLD_ROPE_NEOX,
     LLD_OPTIONAL,
     LLD_QK_NORM_HEAD,
     PRE_NORMS,
     {.convolves = true,
      .output_norm = "token_embd_norm",
      .experts = {.need = LLD_REQUIRED, .norms_weights = true}}},
    {"bert",
     LLD_ROPE_NEOX,
     LLD_OPTIONAL,
     LLD_QK_NORM_NONE,
     SUM_NORMS,
     {.is_encoder = true,
      .has_positions = true,
      .norms_sums = true,
      .norm = LLD_LAYER_NORM,
      .activation = LLD_GELU_ERF,
      .gate = LLD_GATE_NONE}},
    {"nomic-bert",
     LLD_ROPE_NEOX,
     LLD_OPTIONAL,
     LLD_QK_NORM_NONE,
     SUM_NORMS,
     {.is_encoder = true, .norms_sums = true, .norm = LLD_LAYER_NORM}},
    {"gemma", LLD_ROPE_NEOX, LLD_OPTIONAL, LLD_QK_NORM_NONE, PRE_NORMS, {GEMMA}},
    {"gemma2",
     LLD_ROPE_NEOX,
     LLD_OPTIONAL,
     LLD_QK_NORM_NONE,
     FOUR_NORMS,
     {GEMMA, .window_period = 2, .window_default = 4096, .caps_logits = true,
      .attention_softcap = 50.0f, .logits_softcap = 30.0f, .wide_query_layers = 46}},
    {"gemma3",
     LLD_ROPE_NEOX,
     LLD_OPTIONAL,
     LLD_QK_NORM_HEAD,
     FOUR_NORMS,
     {GEMMA, .window_period = 6, .local_rope_base = 10000.0f, .caps_logits = true,
      .wide_query_layers = 62}},
    {"gemma4",
     LLD_ROPE_NEOX,
     LLD_OPTIONAL,
     LLD_QK_NORM_HEAD,
     FOUR_NORMS,
     {GEMMA, .window_period = 6, .local_rope_base = 10000.0f, .sizes_local_heads = true,
      .shares_kv = true, .norms_values = true, .plain_queries = true, .has_layer_inputs = true,
      .caps_logits = true, .logits_softcap = 30.0f,
      .experts = {.need = LLD_OPTIONAL, .norms_weights = true, .beside_dense = true}}},
};

int lld_architecture_find(const lld_gguf *gguf, const lld_architecture **out)
{
    const char *name = NULL;
    size_t length = 0;
    bool found = false;
    int status = lld_gguf_read_string(gguf, "general.architecture", &name, &length, &found);
    if (status != LLD_OK) return status;
    if (!found) return lld_fail(LLD_ERR_CORRUPT, "metadata key 'general.architecture' is missing");
    for (size_t i = 0; i < sizeof architectures / sizeof *architectures; i++) {
        if (strlen(architectures[i].name) == length &&
            memcmp(name, architectures[i].name, length) == 0) {
            *out = &architectures[i];
            return LLD_OK;
        }
    }
    char known[1024] = "";
    for (size_t i = 0; i < sizeof architectures / sizeof *architectures; i++)
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i == 0 ? "" : ", ",
                 architectures[i].name);
    return lld_fail(LLD_ERR_UNSUPPORTED, "architecture '%.*s' is not supported (%s are)",
                    (int)(length > 64 ? 64 : length), name, known);
}
