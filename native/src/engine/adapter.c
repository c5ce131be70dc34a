/* adapter.c - see adapter.h: what adapters add to the products of a step. Files are adapter_file.c's. */
#include "engine/adapter_file.h"

#include <inttypes.h>
#include <math.h>

#include "base/status.h"

/* Rows of an input that are multiplied together where their adapter is the same: those of a piece. Pieces
 * begin at multiples of it, as tiles do, so s A x has the same place whoever asks for it. */
enum { PIECE_ROWS = 16 };

void lld_adapter_scratch_alloc(lld_arena *arena, lld_forward *f, uint32_t max_rank)
{
    const size_t rows = f->batch.n_batch;
    f->scratch.low_rank = lld_arena_alloc(arena, LLD_PHASE_PRODUCTS_MAX * rows * max_rank,
                                          sizeof *f->scratch.low_rank);
    f->scratch.max_rank = max_rank;
    if (!f->scratch.takes_hidden)
        f->scratch.hidden =
            lld_arena_alloc(arena, rows * f->model->config.hidden_dim, sizeof(float));
}

int lld_adapter_check_runs(const lld_model *model, uint32_t max_rank, const lld_run *runs,
                           size_t n_runs)
{
    for (size_t i = 0; i < n_runs; i++) {
        const lld_adapter *adapter = runs[i].adapter;
        if (adapter == NULL) continue;
        if (adapter->model != model)
            return lld_fail(LLD_ERR_INVALID, "run %zu: the adapter was opened for another model",
                            i);
        if (adapter->max_rank > max_rank)
            return lld_fail(LLD_ERR_INVALID,
                            "run %zu: the adapter has rank %" PRIu32
                            ", the engine has room for %" PRIu32,
                            i, adapter->max_rank, max_rank);
        if (!isfinite(runs[i].adapter_scale))
            return lld_fail(LLD_ERR_INVALID, "run %zu: the adapter's scale is not finite", i);
    }
    return LLD_OK;
}

/* The run of a row of an input. */
static const lld_batch_run *run_of(const lld_forward *f, const uint32_t *batch_rows, size_t row)
{
    return &f->batch.runs[f->batch.row_run[batch_rows == NULL ? row : batch_rows[row]]];
}

bool lld_row_is_adapted(const lld_forward *f, size_t row)
{
    return f->batch.is_adapted && run_of(f, NULL, row)->adapter != NULL;
}

/* How many rows of an input from `first` on have the adapter and scale of `first`, up to `end` and within
 * the piece. */
static size_t count_alike(const lld_forward *f, const lld_input *input, size_t first, size_t end)
{
    const lld_batch_run *run = run_of(f, input->batch_rows, first);
    const size_t piece_end = (first / PIECE_ROWS + 1) * PIECE_ROWS;
    size_t n = 1;
    for (end = lld_min_size(end, piece_end); first + n < end; n++) {
        const lld_batch_run *next = run_of(f, input->batch_rows, first + n);
        if (next->adapter != run->adapter || next->adapter_scale != run->adapter_scale) break;
    }
    return n;
}

/* Rows [first, first + n) of an input have one adapter; what it adds to a matrix, or NULL. */
static const lld_adapter_pair *pair_of(const lld_forward *f, const lld_input *input, size_t first,
                                       const lld_matrix *matrix)
{
    const lld_adapter *adapter = run_of(f, input->batch_rows, first)->adapter;
    return adapter == NULL ? NULL : lld_adapter_find(adapter, matrix);
}

/* Where s A x for product `index` of a phase begins, of the alike rows from `first` on: (n, rank). */
static float *low_rank_rows(const lld_forward *f, size_t index, size_t first)
{
    return f->scratch.low_rank + (index * f->batch.n_batch + first) * f->scratch.max_rank;
}

/* Rows [first_row, first_row + n_rows) of m times x: (n, m->n_cols) float32, to out: (n, n_rows). */
static void multiply(lld_forward *f, unsigned thread, const lld_matrix *m, const lld_tile *rows,
                     const float *x, float *out)
{
    const lld_acts acts = {.n_rows = rows->n_cols, .n_cols = m->n_cols, .f32 = x};
    const lld_matmul product = {.out = out,
                                .out_stride = rows->n_rows,
                                .w = m->data + rows->first_row * m->row_bytes,
                                .row_bytes = m->row_bytes,
                                .n_rows = rows->n_rows,
                                .x = &acts,
                                .scratch = f->scratch.threads[thread].matmul};
    f->kernels->matmul[m->type](&product);
}

/* s A x of rows [first, end) of an input for product `index`. */
static void project_rows(lld_forward *f, unsigned thread, const lld_matrix *matrix, size_t index,
                         const lld_input *input, size_t first, size_t end)
{
    const lld_acts *x = &input->forms[LLD_ACT_F32];
    for (size_t n; first < end; first += n) {
        n = count_alike(f, input, first, end);
        const lld_adapter_pair *pair = pair_of(f, input, first, matrix);
        if (pair == NULL) continue;
        const float scale = pair->scale * run_of(f, input->batch_rows, first)->adapter_scale;
        const lld_tile rows = {.n_rows = pair->a.n_rows, .n_cols = n};
        float *out = low_rank_rows(f, index, first);
        multiply(f, thread, &pair->a, &rows, x->f32 + first * x->n_cols, out);
        for (size_t i = 0; i < n * rows.n_rows; i++) out[i] *= scale;
    }
}

/* Whether a row of an input has an adapter of one of the matrices. All threads find the same. */
static bool any_pair(const lld_forward *f, const lld_matrix *const *matrices, size_t n_matrices,
                     const lld_input *input)
{
    const size_t n_rows = input->forms[0].n_rows;
    for (size_t row = 0; row < n_rows; row += count_alike(f, input, row, n_rows))
        for (size_t i = 0; i < n_matrices; i++)
            if (pair_of(f, input, row, matrices[i]) != NULL) return true;
    return false;
}

void lld_adapter_project(lld_forward *f, unsigned thread, const lld_matrix *const *matrices,
                         size_t n, const lld_input *input)
{
    if (!f->batch.is_adapted || !any_pair(f, matrices, n, input)) return;
    const size_t n_rows = input->forms[0].n_rows, n_pieces = lld_divide_up(n_rows, PIECE_ROWS),
                 n_units = n * n_pieces;
    for (size_t unit; (unit = lld_pool_next(f->pool, thread, n_units)) < n_units;) {
        const size_t index = unit / n_pieces, first = unit % n_pieces * PIECE_ROWS;
        project_rows(f, thread, matrices[index], index, input, first,
                     lld_min_size(first + PIECE_ROWS, n_rows));
    }
    lld_pool_barrier(f->pool);
}

void lld_adapter_add(lld_forward *f, unsigned thread, const lld_matrix *matrix, size_t index,
                     const lld_input *input, const lld_tile *t)
{
    if (!f->batch.is_adapted) return;
    float *addend = f->scratch.threads[thread].correction;
    const size_t end = t->first_col + t->n_cols;
    for (size_t first = t->first_col, n; first < end; first += n) {
        n = count_alike(f, input, first, end);
        const lld_adapter_pair *pair = pair_of(f, input, first, matrix);
        if (pair == NULL) continue;
        const lld_tile rows = {.first_row = t->first_row, .n_rows = t->n_rows, .n_cols = n};
        multiply(f, thread, &pair->b, &rows, low_rank_rows(f, index, first), addend);
        for (size_t i = 0; i < n; i++)
            f->kernels->add(t->out + (first + i - t->first_col) * t->out_stride,
                            addend + i * t->n_rows, t->n_rows);
    }
}
