/* product.h - the matrix products of a phase: their input, quantized in the forms and levels they need,
 * and the units in which threads compute them. Which products a phase has is its mixer's or feed's.
 * Functions that take `thread` run on all threads at once. */
#ifndef LLD_PRODUCT_H
#define LLD_PRODUCT_H

#include "engine/forward.h"

enum {
    LLD_TILE_COLS = 128,       /* rows of the batch that one unit takes */
    LLD_CHUNK_ROWS_MAX = 256,  /* rows of a matrix that one unit takes */
    LLD_PHASE_PRODUCTS_MAX = 4 /* products of one phase */
};

/* One matrix product of a phase: out[row] = (matrix * x[row] + bias + addend[row]) * scale, added to
 * `residual` if there is one. matrix * x: with what the row's adapter adds (adapter.h). */
typedef struct lld_product {
    const lld_matrix *matrix;
    const float *bias;   /* (n_rows) or NULL */
    const float *addend; /* (batch, n_rows) or NULL */
    float scale;         /* 0: as 1 */
    float *out;          /* (batch, n_rows) */
    float *residual;     /* (batch, n_rows) or NULL */
    bool counted;        /* its chunks are progress, beside the layers */
} lld_product;

typedef struct lld_source lld_source;

/* Makes one row of a product's input: values: (n_cols). */
typedef void (*lld_make_row_fn)(lld_forward *f, size_t row, const lld_source *s, float *values);

/* What a phase multiplies: how a row is made, and what the products need of it. */
struct lld_source {
    lld_make_row_fn make_row;
    const lld_norm *norm; /* for make_row, or NULL */
    size_t n_rows, n_cols;
    const uint32_t *batch_rows; /* as in lld_input */
    lld_act_kinds kinds;
    bool fine;    /* every row in two levels; else only those at position 0 */
    float *store; /* (n_rows, n_cols) float32, for rows that threads share */
    const lld_layer *layer;
    lld_importance_input name; /* of the input, in its layer; LLD_IMPORTANCE_INPUTS: none */
};

/* Make the input of a phase. One row: each thread its own, no barrier. More: threads share the rows,
 * then meet. */
const lld_input *lld_input_make(lld_forward *forward, unsigned thread, const lld_source *source);

/* Give an input the shape (n_rows, n_cols) within the room it was given. f32: (n_rows, n_cols)
 * or NULL. */
void lld_input_shape(lld_input *input, size_t n_rows, size_t n_cols, const float *f32);

/* Whether a row of an input is the first token of its sequence, which has two levels everywhere.
 * batch_rows: as in lld_input. */
bool lld_is_first_token(const lld_forward *forward, const uint32_t *batch_rows, size_t row);

/* Rows of a matrix that one unit takes. */
size_t lld_chunk_rows(const lld_forward *forward, const lld_matrix *m);

/* Columns [first_col, first_col + n) of one row of an input. */
typedef struct lld_row_part {
    size_t row, first_col, n;
    const float *values; /* (n) */
    bool fine;           /* in two levels */
} lld_row_part;

/* Quantize a part of a row. */
void lld_input_quantize(const lld_forward *forward, unsigned thread, lld_act_kind kind,
                        lld_input *input, const lld_row_part *part);

/* Rows [first_row, first_row + n_rows) of a matrix times rows [first_col, first_col + n_cols) of an
 * input. */
typedef struct lld_tile {
    size_t first_row, n_rows, first_col, n_cols;
    float *out; /* (n_cols, out_stride) */
    size_t out_stride;
    const uint8_t *next; /* weights that this thread reads next, or NULL: the rows behind */
} lld_tile;

/* Where a row is in memory; NULL behind the last one. */
static inline const uint8_t *lld_matrix_row(const lld_matrix *m, size_t row)
{
    return row < m->n_rows ? m->data + row * m->row_bytes : NULL;
}

/* out[c][r] = row first_row + r of m times row first_col + c of the input, in two levels where there
 * are two. Waits for rows that stream; where the step was stopped meanwhile, `out` stays as it is. */
void lld_multiply_tile(lld_forward *forward, unsigned thread, const lld_matrix *m,
                       const lld_input *input, const lld_tile *tile);

/* The next unit of a phase that multiplies, as lld_pool_next. Where weights stream, units are taken in
 * their order by all threads together, because that is the order in which the weights come. */
size_t lld_product_next(lld_forward *forward, unsigned thread, size_t n_units);

/* Compute the products of one phase; threads take units: a chunk of a matrix's rows by a tile of the
 * input's rows. */
void lld_products_run(lld_forward *forward, unsigned thread, const lld_product *products,
                      size_t n_products, const lld_input *input);

static inline size_t lld_min_size(size_t a, size_t b) { return a < b ? a : b; }
static inline size_t lld_max_size(size_t a, size_t b) { return a > b ? a : b; }
static inline size_t lld_divide_up(size_t n, size_t by) { return (n + by - 1) / by; }

#endif
