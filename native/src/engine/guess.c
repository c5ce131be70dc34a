/* guess.c - the layer that guesses tokens (lld_guess_weights in model.h), as a draft inside of the model.
 *
 * At position p it joins token p with what the model left for token p - 1, behind its last norm. So all
 * that it has at p follows from the tokens up to p, and a block can be shared and kept as ever: its keys
 * and values of a row lie in the row's block, and are stored behind each forward, when what the model left
 * for the rows before is there. For the first row of a run that is in the state which the run begins with.
 * A guess of the token behind a drawn one runs the layer at the drawn one's position, one row; its own
 * result stands for what the model will leave there, in the next guess.
 *
 * Position 0 has no token before it: its keys are stored, and no row sees them. */
#include <string.h>

#include "engine/layer.h"

static const lld_layer *guess_layer(const lld_forward *f)
{
    return &f->model->layers[f->model->config.n_layers];
}

static float *state_of(const lld_forward *f, uint32_t slot)
{
    return f->states->memory + slot * f->states->slot_floats + f->model->guess.state_offset;
}

/* What was left for the token before a row's: (dim). */
static void take_left(const lld_forward *f, size_t row, float *left)
{
    const lld_model *m = f->model;
    const size_t dim = m->config.dim;
    const lld_batch_run *run = &f->batch.runs[f->batch.row_run[row]];
    if (f->guess_rows != NULL)
        memcpy(left, f->scratch.left + f->guess_rows[row] * dim, dim * sizeof *left);
    else if (f->batch.positions[row] == 0)
        memset(left, 0, dim * sizeof *left);
    else if (row > run->first_row || run->continues)
        lld_norm_row(f, &m->output_norm, left, f->main_x + (row - 1) * dim);
    else
        memcpy(left, state_of(f, run->state_in), dim * sizeof *left);
}

/* An lld_make_row_fn: (2 * dim). */
static void make_joined_row(lld_forward *f, size_t row, const lld_source *s, float *values)
{
    const lld_guess_weights *g = &f->model->guess;
    const lld_config *c = &f->model->config;
    const size_t dim = s->n_cols / 2;
    lld_dequantize_row(g->embedding.type,
                       g->embedding.data + (size_t)f->batch.tokens[row] * g->embedding.row_bytes,
                       values, dim);
    for (size_t i = 0; c->embedding_scale != 1.0f && i < dim; i++) values[i] *= c->embedding_scale;
    lld_norm_row(f, &g->token_norm, values, values);
    take_left(f, row, values + dim);
    lld_norm_row(f, &g->hidden_norm, values + dim, values + dim);
}

static void join_phase(lld_forward *f, unsigned thread)
{
    const lld_matrix *join = &f->model->guess.join;
    const lld_product products[] = {{.matrix = join, .out = f->scratch.x}};
    const lld_source s = {.make_row = make_joined_row,
                          .n_rows = f->batch.n_rows,
                          .n_cols = join->n_cols,
                          .kinds = LLD_ACT_BIT(join->act),
                          .fine = join->fine,
                          .store = f->scratch.projected,
                          .layer = guess_layer(f),
                          .name = LLD_IMPORTANCE_INPUTS};
    lld_products_run(f, thread, products, 1, lld_input_make(f, thread, &s));
    lld_pool_barrier(f->pool);
}

/* Leave what the model made of the last row of each run, in its order where runs continue each other. */
static void leave_states(const lld_forward *f, const lld_batch_chain *chain)
{
    const lld_model *m = f->model;
    for (uint32_t i = 0; i < chain->n_runs; i++) {
        const lld_batch_run *run = &f->batch.runs[chain->first_run + i];
        const size_t last = run->first_row + run->n_rows - 1;
        lld_norm_row(f, &m->output_norm, state_of(f, run->state_out),
                     f->main_x + last * m->config.dim);
    }
}

static void store_thread(void *argument, unsigned thread)
{
    lld_forward *f = argument;
    const size_t dim = f->model->config.dim, n_chains = f->batch.n_chains,
                 n_units = n_chains + f->batch.n_kept;
    join_phase(f, thread);
    lld_attention_store(f, thread, guess_layer(f));
    for (size_t unit; (unit = lld_pool_next(f->pool, thread, n_units)) < n_units;) {
        if (unit < n_chains) {
            leave_states(f, &f->batch.chains[unit]);
            continue;
        }
        const size_t k = unit - n_chains;
        lld_norm_row(f, &f->model->output_norm, f->scratch.left + k * dim,
                     f->main_x + f->batch.kept[k] * dim);
    }
}

static void guess_thread(void *argument, unsigned thread)
{
    lld_forward *f = argument;
    const lld_guess_weights *g = &f->model->guess;
    const size_t dim = f->model->config.dim, n_rows = f->batch.n_rows;
    for (size_t row; (row = lld_pool_next(f->pool, thread, n_rows)) < n_rows;) lld_rope_row(f, row);
    lld_pool_barrier(f->pool);
    join_phase(f, thread);
    lld_layer_run(f, thread, guess_layer(f));
    lld_pool_barrier(f->pool);
    lld_logits_run(f, thread, &g->output, &g->norm);
    lld_pool_barrier(f->pool);
    for (size_t row; (row = lld_pool_next(f->pool, thread, n_rows)) < n_rows;)
        lld_norm_row(f, &g->norm, f->scratch.left + row * dim, f->scratch.x + row * dim);
}

/* Run all threads with x of the layer in place of the model's, from weights where they lie. */
static void run(lld_forward *f, void (*thread)(void *, unsigned))
{
    float *const x = f->scratch.x;
    f->reading = (lld_reading){0};
    f->main_x = x;
    f->scratch.x = f->scratch.guess_x;
    lld_pool_run(f->pool, thread, f);
    f->scratch.x = x;
}

void lld_guess_store(lld_forward *f)
{
    f->guess_rows = NULL;
    run(f, store_thread);
}

void lld_guess_run(lld_forward *f)
{
    lld_attention_plan(&f->attention, f->batch.runs, f->batch.n_runs, f->batch.n_rows);
    f->stop = 0;
    run(f, guess_thread);
}
