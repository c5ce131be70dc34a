/* kernels.h - the dispatch table of numeric kernels, and the arithmetic each of them must perform.
 *
 * The table is filled with the generic C first, then overridden by the instruction sets that the
 * CPU flags allow (kernels.c). Every kernel of every instruction set returns THE SAME BITS as the
 * generic one: integers are exact inside a block, and every float result is one fixed chain of
 * IEEE operations (fma where it says fma, single rounding), whatever the rows, the columns, the
 * chunking or the thread. So a test compares for equality, and an answer does not depend on the
 * batch it was computed in nor on the machine.
 *
 * The chains, for one output (weight row w, activation row x), acc from 0.0f, blocks in order:
 *   Q4_0 Q5_0 Q8_0 IQ4_NL MXFP4
 *                           acc = fma(dw*dx, (float)isum, acc)
 *                           isum = sum((q - offset) * y), exact int32
 *   Q4_1 Q5_1               acc = fma(dw*dx, (float)isum, acc); acc = fma(mw, s, acc)
 *                           isum = sum(q * y)
 *   Q3_K Q6_K IQ4_XS IQ2_*  acc = fma(dw*dx, (float)isum, acc)
 *   IQ3_*                   isum = sum(scale_j * sum((q - offset) * y)), per 256; of IQ2_* and IQ3_*
 *                           dw, scale_j and q are those of unpack.h
 *   Q2_K Q4_K Q5_K          acc = fma(dw*dx, (float)isum, acc)
 *                           acc = fma(-(dmin*dx), (float)msum, acc)
 *                           isum = sum(scale_j * sum(q * y)), msum = sum(min_j * sum_j(y)), per 256
 *   Q1_0 Q2_0               as Q4_0 for each 32 weights; dw is that of their block of 128 or 64
 *   F32 F16 BF16            8 lanes: lane[k % 8] = fma(w[k], x[k], lane[k % 8]) for k in order;
 *                           then lld_reduce8: a[i]=l[i]+l[i+4]; b[i]=a[i]+a[i+2]; acc = b[0]+b[1]
 * dw, mw, dmin: f16 fields converted to float32 (MXFP4: a power of two); products in float32 before the fma.
 *
 * Activation quantization (y int8, |y| <= 127):
 *   amax = max|x| over the block of 32 (Q8) or 256 (Q8K).
 *   amax < 1e-30f: d = 0 and all y = 0.   amax not finite, or any x NaN: d = NaN and all y = 0.
 *   else d = amax / 127.0f, y = round_to_nearest_even(x * (127.0f / amax)).
 */
#ifndef LLD_KERNELS_H
#define LLD_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#include "format/format.h"

/* What form of activations a weight type is multiplied with. */
typedef enum lld_act_kind { LLD_ACT_F32, LLD_ACT_Q8, LLD_ACT_Q8K, LLD_ACT_COUNT } lld_act_kind;

/* A matrix of activations, rows = tokens. n_cols = K, a multiple of 32 (Q8) or 256 (Q8K). Rows of y
 * are 64-byte aligned when y_stride is a multiple of 64; kernels may not rely on more than 4. */
typedef struct lld_acts {
    size_t n_rows, n_cols;
    const float *f32; /* F32: (n_rows, n_cols) */
    int8_t *y;        /* Q8, Q8K: (n_rows, y_stride) */
    size_t y_stride;  /* bytes, >= n_cols */
    float *d;         /* Q8: (n_rows, n_cols/32); Q8K: (n_rows, n_cols/256) */
    int32_t *sum;     /* Q8: (n_rows, n_cols/32), sum of the block's y */
    float *s;         /* Q8: (n_rows, n_cols/32), d * (float)sum */
    int16_t *sum16;   /* Q8K: (n_rows, n_cols/16), sum of 16 y */
} lld_acts;

lld_act_kind lld_type_act_kind(uint32_t type);

/* out[c*out_stride + r] = dot(w row r, x row c), for r < n_rows, c < x->n_rows. n_rows may be
 * anything >= 1; multiples of 16 are fast. */
typedef struct lld_matmul {
    float *out; /* (x->n_rows, out_stride) */
    size_t out_stride;
    const uint8_t *w; /* (n_rows, row_bytes), in the GGUF layout */
    size_t row_bytes, n_rows;
    const lld_acts *x;
    const uint8_t
        *next;     /* weights that will be read after these: fetched ahead; NULL: those behind */
    void *scratch; /* lld_kernels_scratch_bytes(K), 64-byte aligned, the calling thread's alone */
} lld_matmul;

typedef void (*lld_matmul_fn)(const lld_matmul *m);

enum {
    LLD_KV_BLOCK = 32,   /* tokens in one KV block */
    LLD_KV_MAX_DIM = 512 /* elements of a head, at most */
};

/* Queries and the keys of one KV block; its layout is at kv_store below. */
typedef struct lld_attn_scores {
    float *scores;  /* (n_q, score_stride), 32 of a row are written */
    const float *q; /* (n_q, q_stride), head_dim of a row are read */
    size_t score_stride, q_stride, n_q, head_dim;
    const void *k;      /* (head_dim, 32) f16 or int8 */
    const uint16_t *kd; /* (ceil(head_dim/32), 32) of q8_0; NULL: f16 */
} lld_attn_scores;

/* Probabilities of n_tokens tokens, and their values in one KV block. */
typedef struct lld_attn_values {
    float *acc;     /* (n_q, acc_stride), head_dim of a row are added to */
    const float *p; /* (n_q, p_stride), n_tokens of a row are read */
    size_t acc_stride, p_stride, n_q, head_dim, n_tokens;
    const void *v;      /* (32, head_dim) f16 or int8 */
    const uint16_t *vd; /* (32, ceil(head_dim/32)) of q8_0; NULL: f16 */
} lld_attn_values;

/* One token of a layer's state, in one head. */
typedef struct lld_state_step {
    float *state;       /* (n_rows, n_cols): row i for k[i] and q[i], column j for v[j] */
    const float *q, *k; /* (n_rows) */
    const float *v;     /* (n_cols) */
    float *out;         /* (n_cols) */
    float decay;
    float beta; /* of delta_step */
    size_t n_rows;
    size_t n_cols; /* a multiple of 8 */
} lld_state_step;

typedef struct lld_kernels {
    const char *name; /* "generic", "avx2", "neon", "dotprod" */

    lld_matmul_fn matmul[LLD_TYPE_COUNT]; /* NULL for unsupported ids */

    /* Quantize x: (n) into row `row` of `acts` (y, d, sum, s / sum16). Rows are found by
     * acts->y_stride and acts->n_cols; n <= n_cols may be less, when the pointers of acts are
     * shifted to a part of the columns. */
    void (*quantize_q8)(const float *x, size_t n, lld_acts *acts, size_t row);
    void (*quantize_q8k)(const float *x, size_t n, lld_acts *acts, size_t row);

    /* out = (x * r) * w, r = 1/sqrt(ss/n + eps), ss = lane[k % 8] = fma(x, x, lane), lld_reduce8.
     * out may be x. (n) each. */
    void (*rmsnorm)(float *out, const float *x, const float *w, size_t n, float eps);
    /* gate = (gate / (1 + exp(-gate))) * up, with lld_expf. (n) each. */
    void (*silu_mul)(float *gate, const float *up, size_t n);
    /* GELU by tanh: t = fma(g*g, 0.07135481f, 1.5957691f); gate = (g / (1 + exp(-(g*t)))) * up, with
     * lld_expf. (n) each. */
    void (*gelu_mul)(float *gate, const float *up, size_t n);
    /* GELU by the error function (arXiv 1606.08415; Abramowitz and Stegun, 7.1.26: within 1.5e-7 g):
     * x = |g| * sqrt(1/2), t = 1 / (1 + 0.3275911f * x), p = its polynomial of degree 5 by Horner, no
     * fma, tail = (0.5f * p) * exp(-(x*x)); gate = (g * (g < 0 ? tail : 1 - tail)) * up, with lld_expf.
     * (n) each. */
    void (*gelu_erf_mul)(float *gate, const float *up, size_t n);
    /* gpt-oss's (OpenAI, gpt_oss/torch/model.py, swiglu), both bounded: g = min(gate, 7),
     * u = max(-7, min(up, 7)), gate = (g / (1 + exp(-1.702f * g))) * (u + 1), with lld_expf; a NaN stays
     * one. (n) each. */
    void (*swiglu_clamped_mul)(float *gate, const float *up, size_t n);
    /* x = x / (1 + exp(-gate)), with lld_expf. (n) each. */
    void (*sigmoid_mul)(float *x, const float *gate, size_t n);
    /* x = exp(x - most), with lld_expf. (n) */
    void (*exp_below)(float *x, size_t n, float most);
    /* x = limit * tanh(x / limit): e = exp(x * (2/limit)), x = limit * ((e-1) / (e+1)), with lld_expf;
     * a NaN stays one. (n) */
    void (*softcap)(float *x, size_t n, float limit);
    /* S[i][j] = fma(k[i], e_j, S[i][j] * decay); out[j] = fma(S[i][j], q[i], out[j]) for i in order.
     * scan_step: e_j = v[j]. delta_step: e_j = (v[j] - sum_j) * beta,
     * sum_j = fma(S[i][j] * decay, k[i], sum_j) for i in order, of S as it was. */
    void (*delta_step)(const lld_state_step *s);
    void (*scan_step)(const lld_state_step *s);
    /* x = x + y. (n) each. */
    void (*add)(float *x, const float *y, size_t n);

    /* Rotate one head's vector x in place by cos_sin: (n_rot/2) pairs (cos, sin).
     * a, b -> a*cos - b*sin, a*sin + b*cos as fma(a, cos, -(b*sin)), fma(a, sin, b*cos).
     * norm: pairs (2i, 2i+1); neox: (i, i+n_rot/2). */
    void (*rope_norm)(float *x, const float *cos_sin, size_t n_rot);
    void (*rope_neox)(float *x, const float *cos_sin, size_t n_rot);

    /* KV block of one layer and one kv head, 32 tokens:
     *   f16:  k: (head_dim, 32) f16, transposed so that a lane is a token; v: (32, head_dim) f16
     *   q8_0: k: (head_dim, 32) int8, kd: (ceil(head_dim/32), 32) f16;
     *         v: (32, head_dim) int8, vd: (32, ceil(head_dim/32)) f16
     *   q4_0: k: (head_dim/2, 32) bytes, element 2i in the low nibble and 2i+1 in the high one;
     *         v: (32, head_dim/2) bytes, element i and i + head_dim/2; kd, vd as q8_0. head_dim is even.
     * A q8_0 group is 32 consecutive dims of one token (the last may be shorter), quantized with
     * amax/127 as above, the scale rounded to f16 after y was computed. f16 stores clamp to
     * +-65504; a NaN stays one. q4_0 (the rounding of ggml's format of that name): d = f16(x / -8) of
     * the group's first x of the largest magnitude, clamped as f16 stores are; a nibble is
     * round_to_nearest_even(clamp(x * (1/d), -8, 7)) + 8, and 8 where d is 0 or NaN; d = NaN where any
     * x is not finite. */
    void (*kv_store_f16)(uint16_t *k_block, uint16_t *v_block, size_t slot, const float *k,
                         const float *v, size_t head_dim);
    void (*kv_store_q8)(int8_t *k_block, uint16_t *kd, int8_t *v_block, uint16_t *vd, size_t slot,
                        const float *k, const float *v, size_t head_dim);
    void (*kv_store_q4)(uint8_t *k_block, uint16_t *kd, uint8_t *v_block, uint16_t *vd, size_t slot,
                        const float *k, const float *v, size_t head_dim);
    /* Nibbles minus 8 as int8, in q8_0's layout: of each `run` bytes the low ones, then the high ones,
     * to out: (2 * n_bytes). run: 32 for keys, head_dim/2 for values; divides n_bytes. */
    void (*kv_unpack_q4)(int8_t *out, const uint8_t *packed, size_t n_bytes, size_t run);

    /* The orthonormal Walsh-Hadamard transform, its own inverse, of x: (n) in place, cut into the
     * largest power of two that fits, then that of the rest, ...: for h = 1, 2, 4, ... below the block,
     * x[i], x[i+h] = x[i] + x[i+h], x[i] - x[i+h] where i has no bit h; then x = x * (float)(1/sqrt(block)). */
    void (*hadamard)(float *x, size_t n);

    /* Scores of n_q queries against the 32 tokens of a block: scores[i*score_stride + j], all 32
     * lanes written.
     *   f16:  acc_j = fma(q[d], k[d][j], acc_j) for d in order.
     *   q8_0: per group of 32 dims t_j = fma(q[d], (float)k[d][j], t_j) from 0;
     *         acc_j = fma(t_j, kd[g][j], acc_j).
     * q already carries 1/sqrt(head_dim). */
    void (*attn_scores_f16)(const lld_attn_scores *s);
    void (*attn_scores_q8)(const lld_attn_scores *s);

    /* Softmax numerators of one chunk in place: m = max(scores[0..n)), p = lld_expf(score - m),
     * zeros from n up to the next multiple of 32. *sum: lane[j % 8] += p[j] for j in order (padded
     * zeros included), then lld_reduce8. n >= 1; scores has room for the padding. Returns m. */
    float (*attn_softmax)(float *scores, size_t n, float *sum);

    /* acc[i*acc_stride + d] = fma(p[i*p_stride + j], v[j][d], acc) for j = 0..n_tokens-1 in order;
     * q8_0: the factor is p * vd[j][d/32] rounded once, times (float)v. */
    void (*attn_values_f16)(const lld_attn_values *v);
    void (*attn_values_q8)(const lld_attn_values *v);
} lld_kernels;

/* The table for a flag word of cpu.h. The pointer is static and never changes. */
const lld_kernels *lld_kernels_get(uint32_t cpu_flags);

/* Bytes of scratch a matmul over rows of K elements may use (16 unpacked rows and their scales). */
size_t lld_kernels_scratch_bytes(size_t k);

/* Each instruction set's file overrides what it implements; absent on other architectures. */
void lld_kernels_init_generic(lld_kernels *table);
void lld_kernels_init_avx2(lld_kernels *table);
void lld_kernels_init_neon(lld_kernels *table);
void lld_kernels_init_dotprod(lld_kernels *table);

#endif
