/* config.h - the hyperparameters of a model.
 * Read once from the metadata and checked there; everything after trusts them. Owns no tensor. */
#ifndef LLD_CONFIG_H
#define LLD_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "model/architecture.h"

typedef enum lld_rope_scaling {
    LLD_SCALING_NONE,
    LLD_SCALING_LINEAR,
    LLD_SCALING_YARN,
    LLD_SCALING_LLAMA3,
    LLD_SCALING_LONGROPE /* by factors that the file has as tensors */
} lld_rope_scaling;

enum { LLD_MAX_LAYERS = 1024, LLD_MAX_HEAD_DIM = 512, LLD_MAX_CONV_WIDTH = 8 };

enum { LLD_MAX_EXPERTS = 1024 };

/* Of layers whose feed-forward is a mixture of experts; n 0: there are none. */
typedef struct lld_expert_sizes {
    uint32_t n, n_used;         /* of a layer; chosen for a row, <= n */
    uint32_t n_dense_layers;    /* the first layers, which have none */
    uint32_t hidden_dim;        /* of one */
    uint32_t shared_hidden_dim; /* of the one that all rows go through; 0: there is none */
    lld_gating gating;
    bool norms_weights;
    float weights_scale;
} lld_expert_sizes;

/* What may differ from layer to layer. */
typedef struct lld_layer_sizes {
    uint32_t n_kv_heads; /* divides n_heads; 0: the layer has no attention */
    uint32_t head_dim;   /* even; 0 where no layer of the model attends */
    uint32_t n_rot;      /* even, <= head_dim: elements of a head that RoPE rotates */
    uint32_t hidden_dim; /* 0: the layer has no feed */
    uint32_t kv_layer;   /* whose keys and values it reads: its own, or those of an earlier layer */
} lld_layer_sizes;

typedef struct lld_config {
    const lld_architecture *architecture;
    uint32_t n_layers, dim;
    uint32_t n_heads;                          /* 0: no layer attends */
    uint32_t hidden_dim, n_kv_heads, head_dim; /* the largest of all layers */
    uint32_t n_rot, local_n_rot;               /* of layers that see all, and of the others */
    uint32_t layer_input_dim;                  /* values that a token gives each layer; 0: none */
    lld_layer_sizes layers[LLD_MAX_LAYERS];    /* (n_layers) */
    uint32_t n_ctx_train;
    float norm_epsilon;
    bool is_parallel; /* x + mixer(norm(x)) + feed(norm(x)), and not one after the other */
    float rope_base;
    lld_rope_scaling scaling;
    float scaling_factor;          /* context extension, > 0 */
    uint32_t scaling_original_ctx; /* tokens */
    float rope_attention_factor;   /* of cos and sin, whatever the scaling */
    float yarn_beta_fast, yarn_beta_slow;
    double yarn_magnitude; /* of cos and sin, beside rope_attention_factor */
    float llama3_low_frequency, llama3_high_frequency;
    float embedding_scale;  /* 1: none */
    float residual_scale;   /* of what mixer and feed add; 1: none */
    float logits_scale;     /* 1: none */
    float query_scale;      /* 1/sqrt(head_dim), or what the family has */
    float late_query_scale; /* queries times 1 + scale * ln(1 + position / scaling_original_ctx) */
    float attention_softcap, logits_softcap; /* 0: none */
    uint32_t window;                         /* tokens that a local layer sees, its own included */
    float local_rope_base;                   /* of local layers; 0: rope_base, scaled as theirs */
    bool is_local[LLD_MAX_LAYERS];           /* sees a window only */
    bool is_unrotated[LLD_MAX_LAYERS];       /* has no RoPE */
    uint32_t n_extra_layers;                 /* behind n_layers in the file: they guess tokens */
    uint32_t n_guess_layers;                 /* of those, what is used: 0 or 1, layers[n_layers] */
    uint32_t delta_k_heads, delta_v_heads,
        delta_dim; /* of the delta rule; heads of k divide those of v */
    /* of a state space: heads, groups of heads that share their input and output maps, numbers of a
     * head's state for each of its elements, elements of a head (a multiple of 8) */
    uint32_t ssm_heads, ssm_groups, ssm_state, ssm_head_dim;
    lld_expert_sizes experts;
    bool has_states;     /* of layers that mix by other means than attention */
    uint32_t conv_width; /* tokens that a convolution sees, the last its own; 0: none convolves */
} lld_config;

/* What the convolution of the delta rule runs over: q and k, then v. */
static inline uint32_t lld_delta_channels(const lld_config *c)
{
    return (2 * c->delta_k_heads + c->delta_v_heads) * c->delta_dim;
}

/* Of a state space: elements of all heads; what its convolution runs over, those and the maps B and C of
 * each group; and rows of its input matrix, a gate for each element, the channels, a step for each head. */
static inline size_t lld_ssm_inner(const lld_config *c)
{
    return (size_t)c->ssm_heads * c->ssm_head_dim;
}
static inline size_t lld_ssm_channels(const lld_config *c)
{
    return lld_ssm_inner(c) + 2 * (size_t)c->ssm_groups * c->ssm_state;
}
static inline size_t lld_ssm_projected(const lld_config *c)
{
    return lld_ssm_inner(c) + lld_ssm_channels(c) + c->ssm_heads;
}

/* Whether a layer's feed-forward is a mixture of experts. */
static inline bool lld_has_experts(const lld_config *c, uint32_t layer)
{
    return c->experts.n > 0 && layer >= c->experts.n_dense_layers;
}

/* Layers that have weights and room in the KV cache. */
static inline uint32_t lld_bound_layers(const lld_config *c)
{
    return c->n_layers + c->n_guess_layers;
}

/* Use the first layer that guesses tokens (nextn_predict_layers): one that attends, of the sizes of the
 * model's. */
void lld_config_use_guess_layer(lld_config *config);

/* Fill config from the metadata, or name the key that is missing, of the wrong type or out of
 * range. */
int lld_config_read(const lld_gguf *gguf, lld_config *config);

#endif
