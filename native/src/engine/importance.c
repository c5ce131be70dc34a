/* importance.c - see importance.h. */
#include "engine/importance.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "model/model.h"
#include "base/status.h"
#include "base/threads.h"

struct lld_importance {
    const lld_model *model;
    uint32_t n_threads, n_layers;
    size_t n_cols[LLD_IMPORTANCE_INPUTS];    /* of the layer that has most */
    size_t first_sum[LLD_IMPORTANCE_INPUTS]; /* of an input within its layer */
    size_t layer_sums, thread_sums, thread_rows;
    double *sums;   /* (n_threads, n_layers * layer_sums + output) */
    uint64_t *rows; /* (n_threads, n_layers, LLD_IMPORTANCE_INPUTS) */
};

int lld_importance_create(const lld_model *model, uint32_t n_threads, lld_importance **out)
{
    const lld_config *c = &model->config;
    if (n_threads < 1 || n_threads > LLD_MAX_THREADS)
        return lld_fail(LLD_ERR_INVALID, "n_threads is %" PRIu32 ", must be 1 to %d", n_threads,
                        (int)LLD_MAX_THREADS);
    if (c->has_states)
        return lld_fail(LLD_ERR_UNSUPPORTED,
                        "importance is measured where every layer attends, not all of '%s' do",
                        c->architecture->name);
    if (c->experts.n > 0)
        return lld_fail(LLD_ERR_UNSUPPORTED,
                        "importance is measured of models without experts, '%s' has %" PRIu32,
                        c->architecture->name, c->experts.n);
    lld_importance *m = calloc(1, sizeof *m);
    if (m == NULL) return lld_fail(LLD_ERR_MEMORY, "no memory for the importance");
    m->model = model;
    m->n_threads = n_threads;
    m->n_layers = c->n_layers;
    m->n_cols[LLD_IMPORTANCE_QKV] = c->dim;
    m->n_cols[LLD_IMPORTANCE_ATTN_OUTPUT] = (size_t)c->n_heads * c->head_dim;
    m->n_cols[LLD_IMPORTANCE_GATE_UP] = c->dim;
    m->n_cols[LLD_IMPORTANCE_DOWN] = c->hidden_dim;
    m->n_cols[LLD_IMPORTANCE_OUTPUT] = c->dim;
    for (int i = 0; i < LLD_IMPORTANCE_OUTPUT; i++) {
        m->first_sum[i] = m->layer_sums;
        m->layer_sums += m->n_cols[i];
    }
    m->first_sum[LLD_IMPORTANCE_OUTPUT] = m->n_layers * m->layer_sums;
    m->thread_sums = m->first_sum[LLD_IMPORTANCE_OUTPUT] + m->n_cols[LLD_IMPORTANCE_OUTPUT];
    m->thread_rows = (size_t)m->n_layers * LLD_IMPORTANCE_INPUTS;
    m->sums = calloc(n_threads * m->thread_sums, sizeof *m->sums);
    m->rows = calloc(n_threads * m->thread_rows, sizeof *m->rows);
    if (m->sums == NULL || m->rows == NULL) {
        size_t bytes = n_threads * m->thread_sums * sizeof *m->sums;
        lld_importance_destroy(m);
        return lld_fail(LLD_ERR_MEMORY, "no memory for %zu bytes of importance", bytes);
    }
    *out = m;
    return LLD_OK;
}

void lld_importance_destroy(lld_importance *importance)
{
    if (importance == NULL) return;
    free(importance->sums);
    free(importance->rows);
    free(importance);
}

uint32_t lld_importance_threads(const lld_importance *importance) { return importance->n_threads; }

int lld_importance_fits(const lld_importance *importance, const lld_model *model)
{
    return importance->model == model;
}

/* Where the sums of an input lie within a thread's. */
static size_t place(const lld_importance *m, uint32_t layer, lld_importance_input input)
{
    return layer * m->layer_sums + m->first_sum[input];
}

void lld_importance_add(lld_importance *m, unsigned thread, uint32_t layer,
                        lld_importance_input input, size_t first_col, const float *values, size_t n)
{
    if (m == NULL || input == LLD_IMPORTANCE_INPUTS) return;
    double *sums = m->sums + thread * m->thread_sums + place(m, layer, input) + first_col;
    for (size_t i = 0; i < n; i++) sums[i] += (double)values[i] * values[i];
    if (first_col == 0)
        m->rows[thread * m->thread_rows + (size_t)layer * LLD_IMPORTANCE_INPUTS + input]++;
}

size_t lld_importance_cols(const lld_importance *importance, uint32_t layer,
                           lld_importance_input input)
{
    const lld_config *c = &importance->model->config;
    if ((unsigned)input >= LLD_IMPORTANCE_INPUTS || layer >= c->n_layers) return 0;
    if (input == LLD_IMPORTANCE_ATTN_OUTPUT) return (size_t)c->n_heads * c->layers[layer].head_dim;
    if (input == LLD_IMPORTANCE_DOWN) return c->layers[layer].hidden_dim;
    return importance->n_cols[input];
}

int lld_importance_read(const lld_importance *m, uint32_t layer, lld_importance_input input,
                        double *sums, size_t n_cols, uint64_t *n_rows)
{
    uint32_t n_layers = input == LLD_IMPORTANCE_OUTPUT ? 1 : m->n_layers;
    if ((unsigned)input >= LLD_IMPORTANCE_INPUTS || layer >= n_layers)
        return lld_fail(LLD_ERR_INVALID, "layer %" PRIu32 " has no input %d", layer, (int)input);
    if (n_cols != lld_importance_cols(m, layer, input))
        return lld_fail(LLD_ERR_INVALID, "n_cols is %zu, the input has %zu", n_cols,
                        lld_importance_cols(m, layer, input));
    memset(sums, 0, n_cols * sizeof *sums);
    *n_rows = 0;
    for (uint32_t t = 0; t < m->n_threads; t++) {
        const double *of_thread = m->sums + t * m->thread_sums + place(m, layer, input);
        for (size_t i = 0; i < n_cols; i++) sums[i] += of_thread[i];
        *n_rows += m->rows[t * m->thread_rows + (size_t)layer * LLD_IMPORTANCE_INPUTS + input];
    }
    return LLD_OK;
}
