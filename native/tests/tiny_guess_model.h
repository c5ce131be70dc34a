/* tiny_guess_model.h - a small Qwen3.5 as a GGUF file: a layer with a state, one that attends, and the
 * layer that guesses tokens (guess.c). */
#ifndef TINY_GUESS_MODEL_H
#define TINY_GUESS_MODEL_H

#include "tiny_model.h"

enum { TINY_DELTA_DIM = 16, TINY_DELTA_K_HEADS = 2, TINY_DELTA_V_HEADS = 4, TINY_HEAD_DIM = 16 };

/* Write the model to `path`, with Q8_0 or F32 matrices. */
static inline void tiny_guess_model_write(const char *path, bool quantized)
{
    enum {
        Q = TINY_HEADS * TINY_HEAD_DIM,
        KV = TINY_KV_HEADS * TINY_HEAD_DIM,
        V = TINY_DELTA_V_HEADS * TINY_DELTA_DIM,
        CHANNELS = 2 * TINY_DELTA_K_HEADS * TINY_DELTA_DIM + V,
        CONV_WIDTH = 4
    };
    static const tiny_tensor delta[] = {
        {"attn_norm.weight", TINY_DIM, 1, 1, false},
        {"attn_qkv.weight", TINY_DIM, CHANNELS, 0, false},
        {"attn_gate.weight", TINY_DIM, V, 0, false},
        {"ssm_beta.weight", TINY_DIM, TINY_DELTA_V_HEADS, 0, false},
        {"ssm_alpha.weight", TINY_DIM, TINY_DELTA_V_HEADS, 0, false},
        {"ssm_conv1d.weight", CONV_WIDTH, CHANNELS, 0, true},
        {"ssm_dt.bias", TINY_DELTA_V_HEADS, 1, 0.1f, false},
        {"ssm_a", TINY_DELTA_V_HEADS, 1, -0.3f, false},
        {"ssm_norm.weight", TINY_DELTA_DIM, 1, 1, false},
        {"ssm_out.weight", V, TINY_DIM, 0, false},
        {"post_attention_norm.weight", TINY_DIM, 1, 1, false},
    };
    static const tiny_tensor attention[] = {
        {"attn_norm.weight", TINY_DIM, 1, 1, false},
        {"attn_q.weight", TINY_DIM, 2 * Q, 0, false}, /* and a gate for each head */
        {"attn_k.weight", TINY_DIM, KV, 0, false},
        {"attn_v.weight", TINY_DIM, KV, 0, false},
        {"attn_q_norm.weight", TINY_HEAD_DIM, 1, 1, false},
        {"attn_k_norm.weight", TINY_HEAD_DIM, 1, 1, false},
        {"attn_output.weight", Q, TINY_DIM, 0, false},
        {"post_attention_norm.weight", TINY_DIM, 1, 1, false},
    };
    static const tiny_tensor guess[] = {
        {"nextn.eh_proj.weight", 2 * TINY_DIM, TINY_DIM, 0, false},
        {"nextn.enorm.weight", TINY_DIM, 1, 1, false},
        {"nextn.hnorm.weight", TINY_DIM, 1, 1, false},
        {"nextn.shared_head_norm.weight", TINY_DIM, 1, 1, false},
    };
    static const tiny_key keys[] = {
        {"block_count", 3, 0},
        {"nextn_predict_layers", 1, 0},
        {"full_attention_interval", 2, 0},
        {"embedding_length", TINY_DIM, 0},
        {"feed_forward_length", TINY_HIDDEN, 0},
        {"context_length", TINY_CTX, 0},
        {"attention.head_count", TINY_HEADS, 0},
        {"attention.head_count_kv", TINY_KV_HEADS, 0},
        {"attention.key_length", TINY_HEAD_DIM, 0},
        {"attention.value_length", TINY_HEAD_DIM, 0},
        {"attention.layer_norm_rms_epsilon", 0, 1e-5f},
        {"rope.dimension_count", TINY_HEAD_DIM / 2, 0},
        {"rope.freq_base", 0, 10000.0f},
        {"ssm.conv_kernel", CONV_WIDTH, 0},
        {"ssm.state_size", TINY_DELTA_DIM, 0},
        {"ssm.group_count", TINY_DELTA_K_HEADS, 0},
        {"ssm.time_step_rank", TINY_DELTA_V_HEADS, 0},
        {"ssm.inner_size", V, 0},
    };
    tiny_table table = {.n = 0};
    TINY_ADD(&table, -1, tiny_outer);
    TINY_ADD(&table, 0, delta);
    TINY_ADD(&table, 0, tiny_feed);
    for (int layer = 1; layer < 3; layer++) {
        TINY_ADD(&table, layer, attention);
        TINY_ADD(&table, layer, tiny_feed);
    }
    TINY_ADD(&table, 2, guess);
    tiny_write(path, quantized, "qwen35", keys, sizeof keys / sizeof *keys, &table);
}

#endif
