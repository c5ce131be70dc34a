/* architecture.h - what each family of models does: a row of facts, found by its name.
 * The numbers of one model are config.h's. Nothing outside asks for a family's name. */
#ifndef LLD_ARCHITECTURE_H
#define LLD_ARCHITECTURE_H

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

typedef enum lld_norm_kind {
    LLD_RMS_NORM,        /* arXiv 1910.07467 */
    LLD_LAYER_NORM,      /* arXiv 1607.06450, with blk.N.NAME.bias */
    LLD_LAYER_NORM_PLAIN /* without */
} lld_norm_kind;

/* Tensors blk.N.NAME.weight of a layer's norms; NULL: there is none. One name means different things in
 * different families. A mixer with a norm before it and a feed without read the same row, in parallel:
 * x + mixer(norm(x)) + feed(norm(x)). */
typedef struct lld_norm_names {
    const char *before_mixer, *after_mixer, *before_feed, *after_feed;
} lld_norm_names;

typedef enum lld_activation { /* of the feed-forward's gate */
                              LLD_SILU,
                              LLD_GELU,     /* by tanh */
                              LLD_GELU_ERF, /* as it is defined */
                              LLD_RELU_SQUARED,
                              LLD_SWIGLU_CLAMPED /* silu whose slope is 1.702, of gates up to 7,
                                                  * times up + 1, of -7 to 7 (gpt-oss) */
} lld_activation;

typedef enum lld_gating { /* what the router's logits become, by the key's value */
                          LLD_GATING_SOFTMAX = 1,
                          LLD_GATING_SIGMOID = 2,
                          LLD_GATING_SOFTMAX_OF_CHOSEN = 3
} lld_gating;

typedef enum lld_gate { /* where the gate of a feed-forward, act(gate(x)) * up(x), lies */
                        LLD_GATE_SPLIT, /* blk.N.ffn_gate.weight */
                        LLD_GATE_FUSED, /* the first half of the rows of blk.N.ffn_up.weight */
                        LLD_GATE_NONE   /* there is none: act(up(x)) */
} lld_gate;

enum { LLD_ALL_LOCAL = UINT16_MAX }; /* a window_period: every layer sees a window */

typedef enum lld_logit_scale { /* what the key logit_scale, which is required then, does to logits */
                               LLD_LOGITS_PLAIN,
                               LLD_LOGITS_DIVIDED,
                               LLD_LOGITS_MULTIPLIED
} lld_logit_scale;

/* Which layers mix by a state space (Mamba-2), of the sizes in ssm.*; others attend. */
typedef enum lld_state_space {
    LLD_SSM_ABSENT,
    LLD_SSM_INSTEAD, /* layers without KV heads */
    LLD_SSM_BESIDE,  /* all of them, beside their attention */
    LLD_SSM_ALONE    /* all of them, and no layer attends or has a feed */
} lld_state_space;

/* Which layers' feed-forward is a mixture of experts, of the sizes in expert_*; others are dense. */
typedef struct lld_expert_facts {
    lld_need need;      /* OPTIONAL: where the file has an expert_count */
    bool norms_weights; /* weights of the chosen sum to 1, where expert_weights_norm does not say */
    bool gates_shared;  /* what all rows go through is weighted by sigmoid(ffn_gate_inp_shexp) */
    bool
        beside_dense; /* and each layer has a dense one, too; both, and the router, have own norms */
    bool has_biases;  /* of the router and of all matrices of experts */
    lld_gating gating; /* the only one; 0: expert_gating_func says */
} lld_expert_facts;

/* What sets one family apart that the others do without; all zero: nothing. */
typedef struct lld_family_facts {
    bool has_delta_net; /* layers but for some mix by the gated delta rule, and keys say by ssm.* */
    bool gates_attention; /* attn_q has a gate behind each head's query */
    bool has_sinks;       /* attn_sinks.weight: a score for each head that no token has */
    lld_state_space state_space;
    lld_expert_facts experts;
    bool
        is_encoder; /* every token sees the whole text, and there are vectors at the end, no logits;
                      * types and a norm belong to the embedding */
    bool has_positions; /* position_embd.weight, a row for each position; no RoPE */
    bool norms_sums;    /* the norm behind a half is of x + half */
    bool convolves; /* layers without KV heads mix by a short convolution, of shortconv.l_cache */
    const char *output_norm; /* tensor NAME.weight of the last norm; NULL: output_norm */
    lld_norm_kind norm;
    lld_activation activation;
    lld_gate gate;
    lld_need parallel_key; /* use_parallel_residual; where it is optional it means nothing */
    bool scales_embedding; /* by sqrt(dim) */
    lld_need scales;       /* embedding_scale, residual_scale; attention.scale may be there, too */
    lld_logit_scale logit_scale;
    uint32_t
        window_period; /* layer N sees a window, but where N % period is period - 1; 0: all see all */
    uint32_t
        window_default; /* tokens, where the file has no attention.sliding_window; 0: no windows */
    float local_rope_base;      /* of layers with a window, never scaled; 0: that of the others */
    bool leaves_local_unscaled; /* rope.scaling is for layers that see all */
    bool splits_yarn_pairs;     /* YaRN's ramp begins and ends between pairs, too */
    bool rotates_local_only;    /* layers that see all have no RoPE, where there are others */
    uint32_t unrotated_period; /* layer N has no RoPE where N % period is period - 1; 0: all have */
    bool has_rope_switch;      /* rope.scaling.finetuned false: no layer has RoPE */
    bool scales_late_queries;  /* attention.temperature_scale, and YaRN's log multiplier */
    bool rotates_before_norm;  /* RoPE, then the norm of queries and keys */
    bool sizes_local_heads; /* attention.key_length_swa, rope.dimension_count_swa: of local layers;
                             * every layer is named in attention.sliding_window_pattern */
    bool shares_kv;         /* attention.shared_kv_layers: the last layers read an earlier one's */
    bool
        norms_values; /* RMSNorm of each value head, without weights; without attn_v values are keys */
    bool plain_queries;    /* times 1, whatever head_dim is */
    bool has_layer_inputs; /* embedding_length_per_layer_input, see lld_layer_input_weights */
    bool caps_logits;      /* final_logit_softcapping is obeyed */
    float attention_softcap, logits_softcap; /* where the file has no keys; 0: none */
    uint32_t wide_query_layers; /* the model of so many layers divides by sqrt(dim / n_heads) */
} lld_family_facts;

/* One family of models: a row of the table in architecture.c. */
typedef struct lld_architecture {
    const char *name; /* general.architecture, and the prefix of its keys */
    lld_rope_pairs rope;
    lld_need qkv_bias;   /* blk.N.attn_{q,k,v}.bias; every other matrix may have one */
    lld_qk_norm qk_norm; /* blk.N.attn_{q,k}_norm.weight */
    lld_norm_names norms;
    lld_family_facts facts;
} lld_architecture;

/* The row that general.architecture names. LLD_ERR_CORRUPT without the key, LLD_ERR_UNSUPPORTED where
 * there is no such row. */
int lld_architecture_find(const lld_gguf *gguf, const lld_architecture **out);

#endif
