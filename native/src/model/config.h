/* config.h - the hyperparameters of a model, and what each architecture does with them.
 * Read once from the metadata and checked there; everything after trusts them. Owns no tensor. */
#ifndef LLD_CONFIG_H
#define LLD_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "gguf/gguf.h"

typedef enum lld_rope_pairs {                /* which elements of a head RoPE rotates together */
                              LLD_ROPE_NORM, /* 2i and 2i+1, as in the RoFormer paper */
                              LLD_ROPE_NEOX  /* i and i + n_rot/2, as in GPT-NeoX */
} lld_rope_pairs;

typedef enum lld_need { LLD_ABSENT, LLD_OPTIONAL, LLD_REQUIRED } lld_need;

typedef enum lld_qk_norm { /* RMSNorm of queries and keys before RoPE */
                           LLD_QK_NORM_NONE,
                           LLD_QK_NORM_HEAD, /* of each head: weights (head_dim) */
                           LLD_QK_NORM_ROW /* of all heads together: weights (n_heads * head_dim) */
} lld_qk_norm;

/* Tensors blk.N.NAME.weight of a layer's norms; NULL: there is none. One name means different things in
 * different families. */
typedef struct lld_norm_names {
    const char *before_mixer, *after_mixer, *before_feed, *after_feed;
} lld_norm_names;

typedef enum lld_activation { /* of the feed-forward's gate */
                              LLD_SILU,
                              LLD_GELU /* by tanh */
} lld_activation;

/* What sets one family apart that the others do without; all zero: nothing. */
typedef struct lld_family_facts {
    lld_activation activation;
    bool scales_embedding; /* by sqrt(dim) */
    uint32_t
        window_period; /* layer N sees a window, but where N % period is period - 1; 0: all see all */
    uint32_t
        window_default; /* tokens, where the file has no attention.sliding_window; 0: no windows */
    float local_rope_base; /* of layers with a window, never scaled; 0: that of the others */
    bool caps_logits;      /* final_logit_softcapping is obeyed */
    float attention_softcap, logits_softcap; /* where the file has no keys; 0: none */
    uint32_t wide_query_layers; /* the model of so many layers divides by sqrt(dim / n_heads) */
} lld_family_facts;

/* One family of models: a row of the table in config.c. */
typedef struct lld_architecture {
    const char *name; /* general.architecture, and the prefix of its keys */
    lld_rope_pairs rope;
    lld_need qkv_bias;   /* blk.N.attn_{q,k,v}.bias; every other matrix may have one */
    lld_qk_norm qk_norm; /* blk.N.attn_{q,k}_norm.weight */
    lld_norm_names norms;
    lld_family_facts facts;
} lld_architecture;

typedef enum lld_rope_scaling {
    LLD_SCALING_NONE,
    LLD_SCALING_LINEAR,
    LLD_SCALING_YARN,
    LLD_SCALING_LLAMA3
} lld_rope_scaling;

enum { LLD_MAX_LAYERS = 1024 };

typedef struct lld_config {
    const lld_architecture *architecture;
    uint32_t n_layers, dim, hidden_dim;
    uint32_t n_heads, n_kv_heads; /* n_kv_heads divides n_heads */
    uint32_t head_dim;            /* even */
    uint32_t n_rot;               /* even, <= head_dim: elements of a head that RoPE rotates */
    uint32_t n_ctx_train;
    float norm_epsilon;
    float rope_base;
    lld_rope_scaling scaling;
    float scaling_factor;          /* context extension, > 0 */
    uint32_t scaling_original_ctx; /* tokens */
    float rope_attention_factor;   /* of cos and sin, whatever the scaling */
    float yarn_beta_fast, yarn_beta_slow;
    float llama3_low_frequency, llama3_high_frequency;
    float embedding_scale;                   /* 1: none */
    float query_scale;                       /* 1/sqrt(head_dim), or what the family has */
    float attention_softcap, logits_softcap; /* 0: none */
    uint32_t window;                         /* tokens that a local layer sees, its own included */
    float local_rope_base;                   /* of local layers; 0: rope_base, scaled as theirs */
    bool is_local[LLD_MAX_LAYERS];           /* sees a window only */
} lld_config;

/* Fill config from the metadata, or name the key that is missing, of the wrong type or out of
 * range. */
int lld_config_read(const lld_gguf *gguf, lld_config *config);

#endif
