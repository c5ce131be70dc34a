/* layer.h - one layer of a forward: a mixer and a feed-forward, of the kinds that the model was bound
 * with; forward.h lists their phases. A kind is a function here and a file of its own.
 * Functions that take `thread` run on all threads at once. */
#ifndef LLD_LAYER_H
#define LLD_LAYER_H

#include "engine/product.h"

/* Run a layer. No barrier follows its last phase: the caller's does. */
void lld_layer_run(lld_forward *forward, unsigned thread, const lld_layer *layer);

/* The kinds. They leave their result in work and, unless a norm follows, add it to the residual stream x;
 * no barrier follows their last phase. Where the halves are parallel, the mixer leaves it in mixed, and
 * the feed adds both. */
void lld_mixer_attention(lld_forward *forward, unsigned thread, const lld_layer *layer);
void lld_mixer_convolution(lld_forward *forward, unsigned thread, const lld_layer *layer);
void lld_mixer_delta_net(lld_forward *forward, unsigned thread, const lld_layer *layer);
void lld_mixer_state_space(lld_forward *forward, unsigned thread, const lld_layer *layer);
void lld_mixer_attention_and_state_space(lld_forward *forward, unsigned thread,
                                         const lld_layer *layer);
void lld_feed_gated(lld_forward *forward, unsigned thread, const lld_layer *layer);
void lld_feed_experts(lld_forward *forward, unsigned thread, const lld_layer *layer);
void lld_feed_gated_and_experts(lld_forward *forward, unsigned thread, const lld_layer *layer);

/* The hidden values of one gated feed-forward, which its down matrix multiplies. */
typedef struct lld_hidden {
    const lld_gated_weights *weights;
    lld_input *values;               /* (n_rows, hidden_dim) */
    float *store;                    /* (n_rows, hidden_dim), where the down matrix takes float32,
                                      * and of rows with an adapter */
    const uint8_t *next;             /* weights that are read after these, or NULL */
    bool may_adapt;                  /* rows are those of the batch, and adapters apply */
    lld_importance_input importance; /* LLD_IMPORTANCE_INPUTS: none */
    uint32_t layer, expert;          /* expert: of LLD_IMPORTANCE_EXPERTS_DOWN */
} lld_hidden;

/* act(gate(x)) * up(x) of a tile of both matrices, quantized for down, into the rows of `hidden` from
 * first_row on. */
void lld_hidden_unit(lld_forward *forward, unsigned thread, const lld_hidden *hidden,
                     const lld_input *input, lld_tile *tile, size_t first_row);

/* The parts of lld_mixer_attention, for a mixer that does more: its last phase, and those before. */
void lld_attention_mix(lld_forward *forward, unsigned thread, const lld_layer *layer);
void lld_attention_output(lld_forward *forward, unsigned thread, const lld_layer *layer);
/* Of it, what the cache needs alone: no queries, and nothing in attended. A barrier follows. */
void lld_attention_store(lld_forward *forward, unsigned thread, const lld_layer *layer);

/* What lld_convolve_rows convolves. */
typedef struct lld_convolved {
    float *rows; /* (n_rows, stride), of which (n_rows, n_channels) */
    size_t stride, n_channels;
    const float *weights; /* (n_channels, conv_width) */
    const float *bias;    /* (n_channels) or NULL */
} lld_convolved;

/* A phase: rows = silu(convolution(rows) + bias). A barrier follows. */
void lld_convolve_rows(lld_forward *forward, unsigned thread, const lld_layer *layer,
                       const lld_convolved *convolved);

/* What a mixer made of its tokens, and the matrix that brings it back to the residual stream. */
typedef struct lld_mixer_result {
    const lld_matrix *matrix;
    const float *bias; /* (dim) or NULL */
    lld_make_row_fn make_row;
} lld_mixer_result;

/* The last phase of a mixer. */
void lld_mixer_output(lld_forward *forward, unsigned thread, const lld_layer *layer,
                      const lld_mixer_result *result);

/* An lld_make_row_fn: row `row` of what a mixer left in attended. */
void lld_mixed_row(lld_forward *forward, size_t row, const lld_source *source, float *values);

/* An lld_make_row_fn: row `row` of the residual stream, normalized if the source has a norm. */
void lld_normed_row(lld_forward *forward, size_t row, const lld_source *source, float *values);

/* out = norm(x), (dim) each, by the family's kind of norm; out may be x. */
void lld_norm_row(const lld_forward *forward, const lld_norm *norm, float *out, const float *x);

/* gate = act(gate) * up with the family's activation, (n) each. */
void lld_activate(const lld_forward *forward, float *gate, const float *up, size_t n);

/* Inputs of layers, in families that have them; else they do nothing (layer_input.c). Ask for the
 * rows of the table that a step reads; make all layers' inputs from the embedded tokens; add a
 * layer's to the residual stream, which leaves the addend in work for the layer's last norm. */
void lld_layer_inputs_ahead(const lld_forward *forward);
void lld_layer_inputs_make(lld_forward *forward, unsigned thread);
void lld_layer_input_add(lld_forward *forward, unsigned thread, const lld_layer *layer);

static inline uint32_t lld_layer_index(const lld_forward *f, const lld_layer *layer)
{
    return (uint32_t)(layer - f->model->layers);
}

/* Whether a layer is the one that guesses: its rows see no position 0, for nothing is before that token. */
static inline bool lld_is_guess_layer(const lld_forward *f, const lld_layer *layer)
{
    return lld_layer_index(f, layer) >= f->model->config.n_layers;
}

#endif
