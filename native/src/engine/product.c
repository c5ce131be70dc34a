/* product.c - see product.h. */
#include "engine/product.h"

#include <string.h>

#include "engine/adapter.h"

enum {
    CHUNK_BYTES = 64 << 10, /* of weights that one unit reads, about */
    CHUNK_ROWS_STEP = 16
};

bool lld_is_first_token(const lld_forward *f, const uint32_t *batch_rows, size_t row)
{
    return f->batch.positions[batch_rows == NULL ? row : batch_rows[row]] == 0;
}

void lld_input_quantize(const lld_forward *f, unsigned thread, lld_act_kind kind, lld_input *input,
                        const lld_row_part *part)
{
    const size_t row = part->row, first_col = part->first_col, n = part->n;
    float *rest = f->scratch.threads[thread].rest;
    lld_acts_quantize(f->kernels, kind, &input->forms[kind], row, first_col, part->values, n);
    if (!part->fine || kind == LLD_ACT_F32) return;
    lld_acts_rest(kind, &input->forms[kind], row, first_col, part->values, n, rest);
    lld_acts_quantize(f->kernels, kind, &input->fine[kind], row, first_col, rest, n);
}

/* Give an input the shape (n_rows, n_cols) within the room it was given. */
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
    s->make_row(f, row, s, values);
    if (s->n_rows > 1 || thread == 0) /* each thread makes a single row, one counts it */
        lld_importance_add(f->importance, thread, (uint32_t)(s->layer - f->model->layers), s->name,
                           0, values, s->n_cols);
    const lld_row_part part = {.row = row,
                               .n = s->n_cols,
                               .values = values,
                               .fine = s->fine || lld_is_first_token(f, s->batch_rows, row)};
    for (lld_act_kind kind = 0; kind < LLD_ACT_COUNT; kind++)
        if ((s->kinds & LLD_ACT_BIT(kind)) != 0) lld_input_quantize(f, thread, kind, input, &part);
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
        t->input.batch_rows = s->batch_rows;
        t->input.pair = true;
        make_input_row(f, thread, s, &t->input, 0, t->row);
        return &t->input;
    }
    t->input = f->scratch.input;
    t->input.batch_rows = s->batch_rows;
    lld_input_shape(&t->input, s->n_rows, s->n_cols, s->store);
    for (size_t row; (row = lld_pool_next(f->pool, thread, s->n_rows)) < s->n_rows;)
        make_input_row(f, thread, s, &t->input, row, s->store + row * s->n_cols);
    lld_pool_barrier(f->pool);
    return &t->input;
}

size_t lld_chunk_rows(const lld_forward *f, const lld_matrix *m)
{
    size_t by_bytes = CHUNK_BYTES / m->row_bytes, by_threads = m->n_rows / (4 * f->n_threads);
    size_t rows = lld_min_size(lld_min_size(by_bytes, by_threads), LLD_CHUNK_ROWS_MAX) /
                  CHUNK_ROWS_STEP * CHUNK_ROWS_STEP;
    return rows == 0 ? CHUNK_ROWS_STEP : rows;
}

/* Weight rows of a tile, where they are in memory. */
typedef struct weight_rows {
    const lld_matrix *matrix;
    const uint8_t *data; /* of the tile's first row */
} weight_rows;

/* The tile's weight rows times all rows of x, to its out. */
static void multiply(lld_forward *f, unsigned thread, const weight_rows *w, const lld_tile *t,
                     const lld_acts *x)
{
    const lld_matrix *m = w->matrix;
    const lld_matmul product = {.out = t->out,
                                .out_stride = t->out_stride,
                                .w = w->data,
                                .row_bytes = m->row_bytes,
                                .n_rows = t->n_rows,
                                .x = x,
                                .next = t->next,
                                .scratch = f->scratch.threads[thread].matmul};
    f->kernels->matmul[m->type](&product);
}

/* The tile's weight rows times rows of the second level, into the thread's correction. */
static const float *fine_product(lld_forward *f, unsigned thread, const weight_rows *w,
                                 const lld_tile *t, const lld_acts *rest)
{
    lld_tile correction = *t;
    correction.out = f->scratch.threads[thread].correction;
    correction.out_stride = t->n_rows;
    multiply(f, thread, w, &correction, rest);
    return correction.out;
}

/* Add a row of it to the tile's. */
static void add_fine(lld_forward *f, const lld_tile *t, size_t row, const float *correction)
{
    f->kernels->add(t->out + (row - t->first_col) * t->out_stride, correction, t->n_rows);
}

/* Add the second level of some rows, in one product. */
static void add_fine_rows(lld_forward *f, unsigned thread, const weight_rows *w, const lld_tile *t,
                          const lld_acts *fine, const size_t *rows, size_t n)
{
    lld_acts gathered = lld_acts_rows(fine, rows[0], 1);
    if (n > 1) {
        gathered = f->scratch.threads[thread].first_tokens[w->matrix->act];
        gathered.n_rows = n;
        gathered.n_cols = fine->n_cols;
        for (size_t i = 0; i < n; i++)
            lld_acts_copy_row(w->matrix->act, &gathered, i, fine, rows[i]);
    }
    const float *correction = fine_product(f, thread, w, t, &gathered);
    for (size_t i = 0; i < n; i++) add_fine(f, t, rows[i], correction + i * t->n_rows);
}

/* Add the second level of the first tokens of texts among the tile's rows. */
static void add_first_tokens(lld_forward *f, unsigned thread, const weight_rows *w,
                             const lld_input *input, const lld_tile *t, const lld_acts *fine)
{
    const size_t most = lld_max_size(1, f->scratch.n_first_tokens);
    size_t rows[LLD_FIRST_TOKENS], n = 0;
    for (size_t row = t->first_col; row < t->first_col + t->n_cols; row++) {
        if (lld_is_first_token(f, input->batch_rows, row)) rows[n++] = row;
        if (n == most) {
            add_fine_rows(f, thread, w, t, fine, rows, n);
            n = 0;
        }
    }
    if (n > 0) add_fine_rows(f, thread, w, t, fine, rows, n);
}

/* A tile whose weight rows are in memory. */
static void multiply_rows(lld_forward *f, unsigned thread, const weight_rows *w,
                          const lld_input *input, const lld_tile *t)
{
    const lld_matrix *m = w->matrix;
    const lld_acts *forms = &input->forms[m->act], *fine = &input->fine[m->act];
    if (input->pair && m->act != LLD_ACT_F32 &&
        (m->fine || lld_is_first_token(f, input->batch_rows, 0))) {
        lld_tile both = *t; /* the weights are read once for both levels */
        lld_acts levels = lld_acts_rows(forms, 0, 2);
        both.out = f->scratch.threads[thread].correction;
        both.out_stride = t->n_rows;
        multiply(f, thread, w, &both, &levels);
        for (size_t r = 0; r < t->n_rows; r++) t->out[r] = both.out[r] + both.out[t->n_rows + r];
        return;
    }
    const lld_acts x = lld_acts_rows(forms, t->first_col, t->n_cols);
    multiply(f, thread, w, t, &x);
    if (m->act == LLD_ACT_F32) return;
    if (!m->fine) {
        add_first_tokens(f, thread, w, input, t, fine);
        return;
    }
    const lld_acts rest = lld_acts_rows(fine, t->first_col, t->n_cols);
    const float *correction = fine_product(f, thread, w, t, &rest);
    for (size_t c = 0; c < t->n_cols; c++)
        add_fine(f, t, t->first_col + c, correction + c * t->n_rows);
}

void lld_multiply_tile(lld_forward *f, unsigned thread, const lld_matrix *m, const lld_input *input,
                       const lld_tile *t)
{
    weight_rows w = {.matrix = m, .data = m->data + t->first_row * m->row_bytes};
    if (f->reading.stream == NULL) {
        multiply_rows(f, thread, &w, input, t);
        return;
    }
    const size_t end = t->first_row + t->n_rows;
    lld_tile part = *t;
    for (; part.first_row < end; part.first_row += part.n_rows) {
        const size_t index = part.first_row / m->extent_rows, first = index * m->extent_rows;
        const size_t extent = m->first_extent + index * m->extent_step;
        const bool streams = lld_stream_has(f->reading.stream, extent);
        const uint8_t *data = m->data + first * m->row_bytes;
        if (streams && (data = lld_stream_take(f->reading.stream, extent)) == NULL) return;
        part.next = NULL;
        part.n_rows = lld_min_size(first + m->extent_rows, end) - part.first_row;
        part.out = t->out + (part.first_row - t->first_row);
        w.data = data + (part.first_row - first) * m->row_bytes;
        multiply_rows(f, thread, &w, input, &part);
        if (streams && lld_stream_give_back(f->reading.stream, extent, part.n_rows * part.n_cols))
            atomic_fetch_add_explicit(f->progress, 1, memory_order_relaxed);
    }
}

size_t lld_product_next(lld_forward *f, unsigned thread, size_t n_units)
{
    return f->reading.stream == NULL && f->reading.experts == NULL
               ? lld_pool_next(f->pool, thread, n_units)
               : lld_pool_next_in_order(f->pool, n_units);
}

/* index: of the product in its phase. */
static void product_unit(lld_forward *f, unsigned thread, const lld_product *p, size_t index,
                         const lld_input *input, size_t first_row, size_t n_rows, size_t first_col)
{
    const lld_matrix *m = p->matrix;
    const lld_tile t = {.first_row = first_row,
                        .n_rows = n_rows,
                        .first_col = first_col,
                        .n_cols = lld_min_size(LLD_TILE_COLS, input->forms[0].n_rows - first_col),
                        .out = p->out + first_col * m->n_rows + first_row,
                        .out_stride = m->n_rows};
    lld_multiply_tile(f, thread, m, input, &t);
    lld_adapter_add(f, thread, m, index, input, &t);
    for (size_t c = 0; c < t.n_cols; c++) {
        float *out = t.out + c * m->n_rows;
        if (p->bias != NULL) f->kernels->add(out, p->bias + first_row, n_rows);
        if (p->addend != NULL)
            f->kernels->add(out, p->addend + (first_col + c) * m->n_rows + first_row, n_rows);
        if (p->scale != 0.0f && p->scale != 1.0f)
            for (size_t i = 0; i < n_rows; i++) out[i] *= p->scale;
        if (p->residual != NULL)
            f->kernels->add(p->residual + (first_col + c) * m->n_rows + first_row, out, n_rows);
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
    const lld_matrix *matrices[LLD_PHASE_PRODUCTS_MAX];
    for (size_t i = 0; i < n_products; i++) {
        matrices[i] = products[i].matrix;
        rows[i] = lld_chunk_rows(f, products[i].matrix);
        n_units += lld_divide_up(products[i].matrix->n_rows, rows[i]) * n_tiles;
        ends[i] = n_units;
    }
    lld_adapter_project(f, thread, matrices, n_products, input);
    for (size_t unit; (unit = lld_product_next(f, thread, n_units)) < n_units;) {
        size_t i = 0;
        while (unit >= ends[i]) i++;
        size_t within = i == 0 ? unit : unit - ends[i - 1], first_row = within / n_tiles * rows[i];
        product_unit(f, thread, &products[i], i, input, first_row,
                     lld_min_size(rows[i], products[i].matrix->n_rows - first_row),
                     within % n_tiles * LLD_TILE_COLS);
        if (products[i].counted && thread == 0)
            atomic_fetch_add_explicit(f->progress, 1, memory_order_relaxed);
    }
}
