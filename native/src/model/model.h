/* model.h - the weights of a model, as they lie in the mapped file, with every shape.
 *
 * A matrix is (n_rows, n_cols) with the columns contiguous: a row is one output's weights, in the
 * GGUF block layout, never copied. Vectors are float32; where the file holds them in half precision
 * they are converted once into memory that the model owns.
 */
#ifndef LLD_MODEL_H
#define LLD_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/config.h"
#include "gguf/file.h"
#include "kernels/kernels.h"
#include "llamad_engine.h"

typedef struct lld_matrix {
    const uint8_t *data; /* n_rows * row_bytes */
    size_t n_rows, n_cols, row_bytes;
    uint32_t type;    /* enum lld_type */
    lld_act_kind act; /* the form of activations it is multiplied with */
    bool fine;        /* its activations are quantized in two levels, see forward.h */
    /* Row r lies in extent first_extent + r / extent_rows * extent_step of the model. */
    uint32_t first_extent, extent_step, extent_rows;
} lld_matrix;

/* A norm: of the architecture's kind, or none. */
typedef struct lld_norm {
    const float *weight; /* (dim), or NULL: there is no norm */
    const float *bias;   /* (dim) or NULL */
} lld_norm;

/* What a layer mixes its tokens with. */
typedef enum lld_mixer_kind {
    LLD_MIXER_ATTENTION,
    LLD_MIXER_CONVOLUTION,
    LLD_MIXER_DELTA_NET,
    LLD_MIXER_STATE_SPACE,
    LLD_MIXER_ATTENTION_AND_STATE_SPACE /* both read the normed row, and both are added */
} lld_mixer_kind;
/* What a layer does with each token for itself. */
typedef enum lld_feed_kind {
    LLD_FEED_GATED,
    LLD_FEED_EXPERTS,
    LLD_FEED_GATED_AND_EXPERTS, /* beside each other */
    LLD_FEED_NONE
} lld_feed_kind;

typedef struct lld_attention_weights {
    lld_matrix wq;       /* (n_heads * head_dim, dim) */
    lld_matrix wk;       /* (n_kv_heads * head_dim, dim), or data NULL: another layer's are read */
    lld_matrix wv;       /* (n_kv_heads * head_dim, dim), or data NULL: values are wk's, too */
    const float *bq;     /* (n_heads * head_dim) or NULL */
    const float *bk;     /* (n_kv_heads * head_dim) or NULL */
    const float *bv;     /* (n_kv_heads * head_dim) or NULL */
    const float *q_norm; /* (head_dim), or (n_heads * head_dim), or NULL */
    const float *k_norm; /* (head_dim), or (n_kv_heads * head_dim), or NULL */
    const float *sinks;  /* (n_heads): scores in each softmax that have no value; or NULL */
    lld_matrix wo;       /* (dim, n_heads * head_dim) */
    const float *bo;     /* (dim) or NULL */
} lld_attention_weights;

/* LFM2's short convolution (Liquid AI, arXiv 2511.23404): out(c * conv(b * x)), (b, c, x) = in(x). */
typedef struct lld_convolution_weights {
    lld_matrix in;     /* (3 * dim, dim): rows of b, of c, of x */
    const float *conv; /* (dim, conv_width), the last of a row for the token itself */
    lld_matrix out;    /* (dim, dim) */
} lld_convolution_weights;

/* Gated DeltaNet (arXiv 2412.06464) as in Qwen3.5; dims: delta_dim a head. */
typedef struct lld_delta_weights {
    lld_matrix qkv;    /* (channels, dim): rows of q and k, (delta_k_heads) heads each, and of v */
    lld_matrix gate;   /* (delta_v_heads * delta_dim, dim) */
    lld_matrix beta;   /* (delta_v_heads, dim) */
    lld_matrix alpha;  /* (delta_v_heads, dim) */
    const float *conv; /* (channels, conv_width), the last of a row for the token itself */
    const float *dt_bias; /* (delta_v_heads) */
    const float *a;       /* (delta_v_heads) <= 0 */
    const float *norm;    /* (delta_dim) */
    lld_matrix out;       /* (dim, delta_v_heads * delta_dim) */
} lld_delta_weights;

/* Mamba-2 (arXiv 2405.21060): out(norm(silu(z) * (scan + d * x))), z, (x, B, C), dt = in(row), where x, B
 * and C of a token went through a convolution and silu. inner: ssm_heads * ssm_head_dim. */
typedef struct lld_state_space_weights {
    lld_matrix in;          /* (2 * inner + 2 * ssm_groups * ssm_state + ssm_heads, dim) */
    const float *conv;      /* (channels, conv_width), the last of a row for the token itself */
    const float *conv_bias; /* (channels) or NULL */
    const float *dt_bias;   /* (ssm_heads) */
    const float *a;         /* (ssm_heads) <= 0 */
    const float *d;         /* (ssm_heads) */
    const float *norm;      /* (ssm_groups, inner / ssm_groups) or NULL; each group is normed */
    lld_matrix out;         /* (dim, inner) */
} lld_state_space_weights;

typedef struct lld_gated_weights {
    lld_matrix gate;        /* (hidden_dim, dim); the file's ffn_up where there is no gate */
    lld_matrix up;          /* (hidden_dim, dim), or data NULL: act(gate(x)) alone */
    lld_matrix down;        /* (dim, hidden_dim) */
    const float *gate_bias; /* (hidden_dim) or NULL */
    const float *up_bias;   /* (hidden_dim) or NULL */
    const float *down_bias; /* (dim) or NULL */
} lld_gated_weights;

/* A mixture of experts (arXiv 2401.04088): a router chooses n_used of n gated feed-forwards for each row. */
typedef struct lld_expert_weights {
    lld_matrix router;        /* (n, dim) */
    const float *router_bias; /* (n) or NULL */
    const float
        *choice_bias; /* (n) added to what the choice looks at, not to the weights; or NULL */
    lld_gated_weights *experts; /* (n), of matrices that lie one behind the other */
    lld_gated_weights shared;   /* what all rows go through, or gate.data NULL */
    const float *shared_gate; /* (dim): its weight is the sigmoid of this times the row; or NULL */
    const float *scales;      /* (n) of what each makes, or NULL */
    /* Beside a dense feed-forward; else they have no weights. Before the router, which then divides by
     * sqrt(dim), and before the experts; behind the dense one, and behind them. */
    lld_norm router_norm, norm, gated_post_norm, post_norm;
} lld_expert_weights;

/* What a token gives a layer beside the residual stream (Gemma 4's per-layer embeddings): behind the
 * feed-forward, x = x + norm(proj(act(gate(x)) * input)). */
typedef struct lld_layer_input_weights {
    lld_matrix gate; /* (layer_input_dim, dim), or data NULL: there is none */
    lld_matrix proj; /* (dim, layer_input_dim) */
    lld_norm norm;
} lld_layer_input_weights;

/* x = x + norm(mixer(norm(x))); x = x + norm(feed(norm(x))), or where config.is_parallel
 * x = x + mixer(norm(x)) + feed(norm(x)). Each layer has its own kinds; of the weights only
 * those of its kinds are bound. */
typedef struct lld_layer {
    lld_mixer_kind mixer;
    lld_feed_kind feed;
    lld_layer_sizes sizes;
    uint32_t window;     /* tokens that attention sees, its own included; 0: all */
    size_t state_offset; /* floats: where its state begins in a slot, of a layer that has one */
    int rope; /* which of the model's RoPE tables: 0, or 1, the local layers' own; -1: none */
    lld_norm mixer_norm, mixer_post_norm, feed_norm, feed_post_norm;
    lld_attention_weights attention;
    lld_convolution_weights convolution;
    lld_delta_weights delta;
    lld_state_space_weights state_space;
    lld_gated_weights gated;
    lld_expert_weights mixture;
    lld_layer_input_weights input;
    const float *output_scale; /* (1) of x behind everything else, or NULL */
} lld_layer;

/* A layer that guesses tokens (DeepSeek-V3, arXiv 2412.19437, section 2.2, as Qwen3.5 has it): of a token
 * and what the model left for the token before it, behind the model's last norm,
 *   x = layer(join([token_norm(embedding), hidden_norm(left)]))
 * is what the model might leave for the token; norm(x) gives the logits, and stands for it in the next
 * guess. `layer` is the model's layers[n_layers], which attends. */
typedef struct lld_guess_weights {
    lld_matrix join; /* (dim, 2 * dim), or data NULL: nothing guesses */
    lld_norm token_norm, hidden_norm;
    lld_norm norm;                /* the model's last one where the layer has none */
    lld_matrix embedding, output; /* the model's where the layer has none */
    size_t state_offset; /* floats: where a slot has what was left for its last token: (dim) */
} lld_guess_weights;

/* What ranks a text by one row (a cross-encoder, arXiv 1901.04085): output(tanh(dense(row))). Read where it
 * lies, once a text. */
typedef struct lld_rank_weights {
    lld_matrix dense;  /* (dim, dim), or data NULL: output(row) */
    lld_matrix output; /* (scores, dim), or data NULL: the model does not rank */
    const float *dense_bias, *output_bias; /* or NULL */
} lld_rank_weights;

enum { LLD_MIXER_MATRICES = 13 }; /* of all kinds of mixers together */

/* The matrices that a layer's mixer has, in the order in which a step reads them; returns how many. */
uint32_t lld_mixer_matrices(lld_layer *layer, lld_matrix *matrices[LLD_MIXER_MATRICES]);

typedef struct lld_residency_state lld_residency_state;

struct lld_model {
    lld_file *file;
    lld_config config;
    uint32_t vocab_size;
    lld_matrix embedding; /* (vocab_size, dim) */
    lld_matrix output;    /* (vocab_size, dim); the embedding where the file has no output.weight;
                           * data NULL in an encoder */
    const float *output_bias; /* (vocab_size) or NULL */
    lld_norm output_norm;
    lld_rank_weights rank;
    /* What the embedding of an encoder has beside tokens. */
    lld_matrix positions; /* (n_ctx_train, dim), or data NULL: positions are in RoPE */
    lld_matrix types;     /* (n_types, dim): of which all tokens have the first, or data NULL */
    lld_norm embedding_norm;
    /* Where layers have inputs, of all layers: their part by token, read by rows where they lie, and
     * the projection of the embedded token with the norm of each layer's part. */
    lld_matrix layer_input_table;  /* (vocab_size, n_layers * layer_input_dim), or data NULL */
    lld_matrix layer_input_proj;   /* (n_layers * layer_input_dim, dim) */
    const float *layer_input_norm; /* (layer_input_dim) */
    const float *rope_factors;     /* (n_rot / 2) divisors of the RoPE frequencies, or NULL */
    /* LongRoPE (arXiv 2402.13753): divisors for contexts up to scaling_original_ctx, and for longer
     * ones; (n_rot / 2) each, or NULL */
    const float *rope_factors_short, *rope_factors_long;
    lld_layer *layers;          /* (n_layers), and the one that guesses */
    lld_gated_weights *experts; /* (layers with some, experts.n): those of all layers */
    lld_guess_weights guess;
    size_t state_floats; /* of all layers that have a state, for one sequence */
    lld_extent *extents; /* (n_extents), see extents.h */
    size_t n_extents;
    lld_residency_state *residency; /* what of them is in memory, see residency.h */
    bool is_copied;                 /* into huge pages, which hide the file's */
    float *converted;               /* vectors that were not float32 in the file */
    size_t converted_used;          /* floats */
    uint64_t weight_bytes;          /* of all tensors above */
    uint64_t streamed_bytes;        /* of those, read for each decoded token */
};

#endif
