/* bind.h - finds the tensors of a file by name and checks their shapes. The first failure sticks: what
 * comes after it does nothing, so a caller checks once. A tensor that nothing bound is refused at the
 * end by its name. */
#ifndef LLD_BIND_H
#define LLD_BIND_H

#include "model/model.h"

enum { LLD_NAME_BYTES = 64 };

typedef struct lld_binder {
    lld_model *model;
    const lld_gguf *gguf;
    bool *bound; /* (gguf->n_tensors) */
    int layer;   /* -1: a tensor of the whole model; else names begin with blk.N. */
    int status;
} lld_binder;

/* The tensor, or NULL; its whole name in `name`. */
const lld_tensor *lld_bind_find(lld_binder *b, const char *suffix, lld_need need,
                                char name[LLD_NAME_BYTES]);
lld_matrix lld_bind_matrix(lld_binder *b, const char *suffix, lld_need need, uint64_t n_rows,
                           uint64_t n_cols);
/* A tensor (n, n_rows, n_cols): that many matrices one behind the other, returned as one of all rows. */
lld_matrix lld_bind_matrices(lld_binder *b, const char *suffix, lld_need need, uint64_t n,
                             uint64_t n_rows, uint64_t n_cols);
/* As float32: (n), and (n_rows, n_cols) of a matrix of which every element is used as it is. */
const float *lld_bind_vector(lld_binder *b, const char *suffix, lld_need need, uint64_t n);
const float *lld_bind_table(lld_binder *b, const char *suffix, lld_need need, uint64_t n_rows,
                            uint64_t n_cols);
/* A norm by the family's name of it, which is NULL where the family has none. */
lld_norm lld_bind_norm(lld_binder *b, const char *name);
/* A tensor that may be there and that nothing reads. */
void lld_bind_unused(lld_binder *b, const char *suffix);
/* Of a bound table one row is read for a token, not the matrix. */
void lld_bind_by_row(lld_model *m, const lld_matrix *table);
/* Give the layer that is bound room in a state slot, behind the layers before it; returns where. */
size_t lld_bind_state(lld_binder *b, size_t n_floats);
/* Rows [first, first + n_rows) of a matrix. */
lld_matrix lld_matrix_rows(const lld_matrix *m, uint64_t first, uint64_t n_rows);

/* What the layer that guesses has beside those of others; the model's output is bound. Of a file that
 * has none of it, nothing (bind_guess.c). */
void lld_bind_guess(lld_binder *b);
bool lld_bind_has_guess(const lld_gguf *gguf, const lld_config *config);

/* What the kinds of mixers and feeds need, of the layer b->layer (bind_mixer.c, bind_feed.c). */
void lld_bind_attention(lld_binder *b, lld_attention_weights *w);
void lld_bind_convolution(lld_binder *b, lld_layer *layer);
void lld_bind_delta_net(lld_binder *b, lld_layer *layer);
void lld_bind_state_space(lld_binder *b, lld_layer *layer);
void lld_bind_gated(lld_binder *b, lld_gated_weights *w);
/* The experts of the layer: (config.experts.n), which are filled. */
void lld_bind_mixture(lld_binder *b, lld_expert_weights *w, lld_gated_weights *experts);

#endif
