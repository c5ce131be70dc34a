/* adapter.h - low-rank adapters (LoRA, arXiv 2106.09685): what a file of them adds to a model's matrices.
 *
 * For the rows of a batch that ask for one, a product W x becomes W x + s B (A x), with s = alpha / rank
 * times the run's own scale. A x and B are multiplied in float, from the same x that is quantized for W,
 * with the chain of kernels.h, so a row's bits depend on its own adapter alone. Rows without one take no
 * further operation. The file is read whole at open, into memory of its own.
 * Functions that take `thread` run on all threads at once.
 */
#ifndef LLD_ADAPTER_H
#define LLD_ADAPTER_H

#include "engine/product.h"

enum { LLD_ADAPTER_RANK_MAX = 256 };

/* What an adapter adds to one matrix of the model. */
typedef struct lld_adapter_pair {
    const lld_matrix *matrix; /* of the model: (n_rows, n_cols) */
    lld_matrix a;             /* (rank, n_cols) */
    lld_matrix b;             /* (n_rows, rank) */
    float scale;              /* alpha / rank; 1 where the file has no alpha */
} lld_adapter_pair;

/* Memory that a forward needs where rows have adapters of at most max_rank, in an arena of its own; sets
 * scratch.low_rank, and scratch.hidden where it has none. */
void lld_adapter_scratch_alloc(lld_arena *arena, lld_forward *forward, uint32_t max_rank);

/* Whether the runs may use their adapters: of this model, within max_rank, with a finite scale. */
int lld_adapter_check_runs(const lld_model *model, uint32_t max_rank, const lld_run *runs,
                           size_t n_runs);

/* Whether row `row` of the batch has an adapter. */
bool lld_row_is_adapted(const lld_forward *forward, size_t row);

/* A phase before the products of an input with matrices[0 .. n-1], n <= LLD_PHASE_PRODUCTS_MAX: s A x of
 * the rows that have an adapter of them. A barrier follows, unless there is none. */
void lld_adapter_project(lld_forward *forward, unsigned thread, const lld_matrix *const *matrices,
                         size_t n, const lld_input *input);

/* Add B (s A x) to a tile of the product with matrices[index], where its rows have an adapter. */
void lld_adapter_add(lld_forward *forward, unsigned thread, const lld_matrix *matrix, size_t index,
                     const lld_input *input, const lld_tile *tile);

#endif
