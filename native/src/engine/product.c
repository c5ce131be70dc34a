/* product.c - see product.h. */
#include "engine/product.h"

#include <string.h>

enum {
    CHUNK_BYTES = 64 << 10, /* of weights that one unit reads, about */
    CHUNK_ROWS_STEP = 16
};

/* Quantize columns [first_col, first_col + n) of a row; in two levels if `fine`. */
void lld_input_quantize(const lld_forward *f, unsigned thread, lld_act_kind kind, lld_input *input,
                        size_t row, size_t first_col, const float *values, size_t n, bool fine)
{
    float *rest = f->scratch.threads[thread].rest;
    lld_acts_quantize(f->kernels, kind, &input->forms[kind], row, first_col, values, n);
    if (!fine || kind == LLD_ACT_F32) return;
    lld_acts_rest(kind, &input->forms[kind], row, first_col, values, n, rest);
    lld_acts_quantize(f->kernels, kind, &input->fine[kind], row, first_col, rest, n);
}

/* Give an input the shape (n_rows, n_cols) within the room it was taken with. */
void lld_input_shape(lld_input *input, size_t n_rows, size_t n_cols, const float *f32)
{
    for (lld_act_kind kind = 0; kind < LLD_ACT_COUNT; kind++) {
        lld_acts *const levels[] = {&input->forms[kind], &input->fine[kind]};
        for (int i = 0; i < 2; i++) {
            levels[i]->n_rows = n_rows;
            levels[i]->n_cols = n_cols;
            levels[i]->f32 = f32;
        }
    }
}

static void make_input_row(lld_forward *f, unsigned thread, const lld_source *s, lld_input *input,
                           size_t row, float *values)
{
    s->make_row(f, row, s->weight, values);
    if (s->n_rows > 1 || thread == 0) /* each thread makes a single row, one counts it */
        lld_importance_add(f->importance, thread, (uint32_t)(s->layer - f->model->layers), s->name,
                           0, values, s->n_cols);
    for (lld_act_kind kind = 0; kind < LLD_ACT_COUNT; kind++)
        if ((s->kinds & LLD_ACT_BIT(kind)) != 0)
            lld_input_quantize(f, thread, kind, input, row, 0, values, s->n_cols,
                               s->fine || f->batch.positions[row] == 0);
}

/* One row: each thread its own, no barrier. More: threads share the rows, then meet. */
const lld_input *lld_input_make(lld_forward *f, unsigned thread, const lld_source *s)
{
    lld_thread_scratch *t = &f->scratch.threads[thread];
    if (s->n_rows == 1) {
        memcpy(t->input.forms, t->forms, sizeof t->forms);
        lld_input_shape(&t->input, 1, s->n_cols, t->row);
        for (lld_act_kind kind = 0; kind < LLD_ACT_COUNT; kind++)
            t->input.fine[kind] = lld_acts_rows(&t->input.forms[kind], 1, 1);
        t->input.pair = true;
        make_input_row(f, thread, s, &t->input, 0, t->row);
        return &t->input;
    }
    t->input = f->scratch.input;
    lld_input_shape(&t->input, s->n_rows, s->n_cols, s->store);
    for (size_t row; (row = lld_pool_next(f->pool, thread, s->n_rows)) < s->n_rows;)
        make_input_row(f, thread, s, &t->input, row, s->store + row * s->n_cols);
    lld_pool_barrier(f->pool);
    return &t->input;
}

static size_t chunk_rows(const lld_forward *f, const lld_matrix *m)
{
    size_t by_bytes = CHUNK_BYTES / m->row_bytes, by_threads = m->n_rows / (4 * f->n_threads);
    size_t rows = lld_min_size(lld_min_size(by_bytes, by_threads), LLD_CHUNK_ROWS_MAX) /
                  CHUNK_ROWS_STEP * CHUNK_ROWS_STEP;
    return rows == 0 ? CHUNK_ROWS_STEP : rows;
}

static void multiply(lld_forward *f, unsigned thread, const lld_matrix *m, size_t first_row,
                     size_t n_rows, const lld_acts *x, float *out, size_t out_stride)
{
    const lld_matmul product = {.out = out,
                                .out_stride = out_stride,
                                .w = m->data + first_row * m->row_bytes,
                                .row_bytes = m->row_bytes,
                                .n_rows = n_rows,
                                .x = x,
                                .scratch = f->scratch.threads[thread].matmul};
    f->kernels->matmul[m->type](&product);
}

/* Add the product of n rows of the second level to out: (n, out_stride). */
static void add_fine_product(lld_forward *f, unsigned thread, const lld_matrix *m, size_t first_row,
                             size_t n_rows, const lld_acts *fine, float *out, size_t out_stride)
{
    float *correction = f->scratch.threads[thread].correction;
    multiply(f, thread, m, first_row, n_rows, fine, correction, n_rows);
    for (size_t c = 0; c < fine->n_rows; c++)
        f->kernels->add(out + c * out_stride, correction + c * n_rows, n_rows);
}

/* out[c][r] = row first_row + r of m times row first_col + c of the input, r < n_rows, c < n_cols,
 * in two levels where there are two. out: (n_cols, out_stride). */
void lld_multiply_tile(lld_forward *f, unsigned thread, const lld_matrix *m, size_t first_row,
                       size_t n_rows, const lld_input *input, size_t first_col, size_t n_cols,
                       float *out, size_t out_stride)
{
    const lld_acts *forms = &input->forms[m->act], *fine = &input->fine[m->act];
    if (input->pair && m->act != LLD_ACT_F32 && (m->fine || f->batch.positions[0] == 0)) {
        float *both =
            f->scratch.threads[thread].correction; /* the weights are read once for both levels */
        lld_acts levels = lld_acts_rows(forms, 0, 2);
        multiply(f, thread, m, first_row, n_rows, &levels, both, n_rows);
        for (size_t r = 0; r < n_rows; r++) out[r] = both[r] + both[n_rows + r];
        return;
    }
    lld_acts rows = lld_acts_rows(forms, first_col, n_cols);
    multiply(f, thread, m, first_row, n_rows, &rows, out, out_stride);
    if (m->act == LLD_ACT_F32) return;
    if (m->fine) {
        lld_acts all = lld_acts_rows(fine, first_col, n_cols);
        add_fine_product(f, thread, m, first_row, n_rows, &all, out, out_stride);
        return;
    }
    for (size_t i = 0; i < f->batch.n_runs; i++) {
        size_t row = f->batch.runs[i].first_row;
        if (f->batch.runs[i].position != 0 || row < first_col || row >= first_col + n_cols)
            continue;
        lld_acts first = lld_acts_rows(fine, row, 1);
        add_fine_product(f, thread, m, first_row, n_rows, &first,
                         out + (row - first_col) * out_stride, out_stride);
    }
}

static void product_unit(lld_forward *f, unsigned thread, const lld_product *p,
                         const lld_input *input, size_t first_row, size_t n_rows, size_t first_col)
{
    const lld_matrix *m = p->matrix;
    size_t n_cols = lld_min_size(LLD_TILE_COLS, input->forms[0].n_rows - first_col);
    float *out = p->out + first_col * m->n_rows + first_row;
    lld_multiply_tile(f, thread, m, first_row, n_rows, input, first_col, n_cols, out, m->n_rows);
    for (size_t c = 0; c < n_cols; c++) {
        if (p->bias != NULL) f->kernels->add(out + c * m->n_rows, p->bias + first_row, n_rows);
        if (p->residual != NULL)
            f->kernels->add(p->residual + (first_col + c) * m->n_rows + first_row,
                            out + c * m->n_rows, n_rows);
    }
}

/* Compute the products of one phase; threads take units: a chunk of a matrix's rows by a tile of the
 * input's rows. */
void lld_products_run(lld_forward *f, unsigned thread, const lld_product *products,
                      size_t n_products, const lld_input *input)
{
    size_t n_tiles = lld_divide_up(input->forms[0].n_rows, LLD_TILE_COLS), n_units = 0;
    size_t rows[LLD_PHASE_PRODUCTS_MAX],
        ends[LLD_PHASE_PRODUCTS_MAX]; /* of a chunk; units up to and with product i */
    for (size_t i = 0; i < n_products; i++) {
        rows[i] = chunk_rows(f, products[i].matrix);
        n_units += lld_divide_up(products[i].matrix->n_rows, rows[i]) * n_tiles;
        ends[i] = n_units;
    }
    for (size_t unit; (unit = lld_pool_next(f->pool, thread, n_units)) < n_units;) {
        size_t i = 0;
        while (unit >= ends[i]) i++;
        size_t within = i == 0 ? unit : unit - ends[i - 1], first_row = within / n_tiles * rows[i];
        product_unit(f, thread, &products[i], input, first_row,
                     lld_min_size(rows[i], products[i].matrix->n_rows - first_row),
                     within % n_tiles * LLD_TILE_COLS);
    }
}
