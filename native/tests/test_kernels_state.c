/* test_kernels_state.c - the kernels on states: generic C against the formulas in double, and every set
 * against generic, bit for bit: state and output, some tokens long. */
#include "kernels/kernels.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "check.h"
#include "kernel_check.h"

enum { MAX_ROWS = 128, MAX_COLS = 128, N_STEPS = 3 };

static const lld_kernels *tables[MAX_TABLES];
static size_t n_tables;
static guarded state_buffer, v_buffer, out_buffer;

static void run(const lld_kernels *table, const lld_state_step *step, bool corrects)
{
    for (int i = 0; i < N_STEPS; i++) {
        if (corrects)
            table->delta_step(step);
        else
            table->scan_step(step);
    }
}

/* Column j of a state that began as `start`, and the output of the last step. */
static double exact_output(const lld_state_step *s, const float *start, size_t j, bool corrects)
{
    double column[MAX_ROWS], out = 0.0;
    for (size_t i = 0; i < s->n_rows; i++) column[i] = (double)start[i * s->n_cols + j];
    for (int t = 0; t < N_STEPS; t++) {
        double e = (double)s->v[j], sum = 0.0;
        for (size_t i = 0; i < s->n_rows; i++) {
            column[i] *= (double)s->decay;
            sum += column[i] * (double)s->k[i];
        }
        if (corrects) e = (e - sum) * (double)s->beta;
        out = 0.0;
        for (size_t i = 0; i < s->n_rows; i++) {
            column[i] += (double)s->k[i] * e;
            out += column[i] * (double)s->q[i];
        }
    }
    return out;
}

static void test_step(size_t n_rows, size_t n_cols, bool corrects, uint64_t seed)
{
    static float start[MAX_ROWS * MAX_COLS], wanted[MAX_ROWS * MAX_COLS];
    const size_t n = n_rows * n_cols;
    float q[MAX_ROWS], k[MAX_ROWS], wanted_out[MAX_COLS];
    float *state = guarded_tail(state_buffer, n * sizeof *state),
          *v = guarded_tail(v_buffer, n_cols * sizeof *v),
          *out = guarded_tail(out_buffer, n_cols * sizeof *out);
    const char *name = corrects ? "delta_step" : "scan_step";
    lld_state_step step = {
        .q = q, .k = k, .v = v, .decay = 0.9f, .beta = 0.4f, .n_rows = n_rows, .n_cols = n_cols};
    random_vector(start, n, 1.0f, &seed);
    random_vector(q, n_rows, 0.3f, &seed);
    random_vector(k, n_rows, 0.3f, &seed);
    random_vector(v, n_cols, 0.3f, &seed);
    step.state = memcpy(wanted, start, n * sizeof *start);
    step.out = wanted_out;
    run(tables[0], &step, corrects);
    for (size_t t = 0; t < n_tables; t++) {
        step.state = memcpy(state, start, n * sizeof *start);
        step.out = out;
        run(tables[t], &step, corrects);
        CHECK(first_difference(wanted, state, n) == n, "%s: state of %s, (%zu, %zu)",
              tables[t]->name, name, n_rows, n_cols);
        CHECK(first_difference(wanted_out, out, n_cols) == n_cols, "%s: out of %s, (%zu, %zu)",
              tables[t]->name, name, n_rows, n_cols);
    }
    for (size_t j = 0; j < n_cols; j++) {
        const double exact = exact_output(&step, start, j, corrects);
        CHECK(fabs((double)wanted_out[j] - exact) < 1e-4, "%s of (%zu, %zu): [%zu] = %g, wanted %g",
              name, n_rows, n_cols, j, (double)wanted_out[j], exact);
    }
}

int main(void)
{
    static const size_t rows[] = {8, 16, 24, 40, 64, 128}, cols[] = {8, 16, 24, 40, 64, 128};
    n_tables = machine_tables(tables);
    state_buffer = guarded_create(MAX_ROWS * MAX_COLS * sizeof(float));
    v_buffer = guarded_create(MAX_COLS * sizeof(float));
    out_buffer = guarded_create(MAX_COLS * sizeof(float));
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
        for (size_t c = 0; c < sizeof cols / sizeof *cols; c++)
            for (int corrects = 0; corrects < 2; corrects++)
                test_step(rows[r], cols[c], corrects != 0, 12 + r * 16 + c);
    return check_result();
}
