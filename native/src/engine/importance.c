/* importance.c - see importance.h. */
#include "engine/importance.h"

#include <inttypes.h>
#include <pthread.h>
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

    /* of experts; memory that nothing is added to is never touched */
    pthread_mutex_t mutex;
    double *expert_sums;   /* (n_layers, n_experts, dim + hidden_dim) */
    uint64_t *expert_rows; /* (n_layers, n_experts, 2): of gate and up, of down */
};

static bool is_of_experts(lld_importance_input input)
{
    return input == LLD_IMPORTANCE_EXPERTS_GATE_UP || input == LLD_IMPORTANCE_EXPERTS_DOWN;
}

/* Columns of the matrix that brings back what the mixer of a layer made. */
static size_t mixed_cols(const lld_model *model, uint32_t layer)
{
    const lld_layer *l = &model->layers[layer];
    switch (l->mixer) {
    case LLD_MIXER_CONVOLUTION:
        return l->convolution.out.n_cols;
    case LLD_MIXER_DELTA_NET:
        return l->delta.out.n_cols;
    case LLD_MIXER_STATE_SPACE:
        return l->state_space.out.n_cols;
    default:
        return (size_t)model->config.n_heads * model->config.layers[layer].head_dim;
    }
}

/* Sums of one expert. */
static size_t expert_cols(const lld_config *c) { return c->dim + (size_t)c->experts.hidden_dim; }

int lld_importance_create(const lld_model *model, uint32_t n_threads, lld_importance **out)
{
    const lld_config *c = &model->config;
    if (n_threads < 1 || n_threads > LLD_MAX_THREADS)
        return lld_fail(LLD_ERR_INVALID, "n_threads is %" PRIu32 ", must be 1 to %d", n_threads,
                        (int)LLD_MAX_THREADS);
    for (uint32_t i = 0; i < c->n_layers; i++)
        if (model->layers[i].mixer == LLD_MIXER_ATTENTION_AND_STATE_SPACE)
            return lld_fail(
                LLD_ERR_UNSUPPORTED,
                "importance is measured where a layer has one mixer, in '%s' it has two",
                c->architecture->name);
    lld_importance *m = calloc(1, sizeof *m);
    if (m == NULL) return lld_fail(LLD_ERR_MEMORY, "no memory for the importance");
    pthread_mutex_init(&m->mutex, NULL);
    m->model = model;
    m->n_threads = n_threads;
    m->n_layers = c->n_layers;
    m->n_cols[LLD_IMPORTANCE_QKV] = c->dim;
    for (uint32_t i = 0; i < c->n_layers; i++) {
        const size_t n = mixed_cols(model, i);
        if (n > m->n_cols[LLD_IMPORTANCE_ATTN_OUTPUT]) m->n_cols[LLD_IMPORTANCE_ATTN_OUTPUT] = n;
    }
    m->n_cols[LLD_IMPORTANCE_GATE_UP] = c->dim;
    m->n_cols[LLD_IMPORTANCE_DOWN] = c->hidden_dim;
    m->n_cols[LLD_IMPORTANCE_OUTPUT] = c->dim;
    for (int i = 0; i < LLD_IMPORTANCE_OUTPUT; i++) { /* of experts: no columns here */
        m->first_sum[i] = m->layer_sums;
        m->layer_sums += m->n_cols[i];
    }
    m->first_sum[LLD_IMPORTANCE_OUTPUT] = m->n_layers * m->layer_sums;
    m->thread_sums = m->first_sum[LLD_IMPORTANCE_OUTPUT] + m->n_cols[LLD_IMPORTANCE_OUTPUT];
    m->thread_rows = (size_t)m->n_layers * LLD_IMPORTANCE_INPUTS;
    m->sums = calloc(n_threads * m->thread_sums, sizeof *m->sums);
    m->rows = calloc(n_threads * m->thread_rows, sizeof *m->rows);
    const size_t n_experts = (size_t)m->n_layers * c->experts.n,
                 n_sums = n_experts * expert_cols(c) + 1;
    m->expert_sums = calloc(n_sums, sizeof *m->expert_sums);
    m->expert_rows = calloc(n_experts + 1, 2 * sizeof *m->expert_rows);
    if (m->sums == NULL || m->rows == NULL || m->expert_sums == NULL || m->expert_rows == NULL) {
        size_t bytes = (n_threads * m->thread_sums + n_sums) * sizeof *m->sums;
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
    free(importance->expert_sums);
    free(importance->expert_rows);
    pthread_mutex_destroy(&importance->mutex);
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
    if (m == NULL || input == LLD_IMPORTANCE_INPUTS || layer >= m->n_layers) return;
    double *sums = m->sums + thread * m->thread_sums + place(m, layer, input) + first_col;
    for (size_t i = 0; i < n; i++) sums[i] += (double)values[i] * values[i];
    if (first_col == 0)
        m->rows[thread * m->thread_rows + (size_t)layer * LLD_IMPORTANCE_INPUTS + input]++;
}

/* The sums and rows of an expert's input. */
typedef struct expert_place {
    double *sums; /* (n_cols) */
    uint64_t *rows;
} expert_place;

static expert_place place_of_expert(const lld_importance *m, uint32_t layer,
                                    lld_importance_input input, uint32_t expert)
{
    const lld_config *c = &m->model->config;
    const size_t i = (size_t)layer * c->experts.n + expert;
    const bool is_down = input == LLD_IMPORTANCE_EXPERTS_DOWN;
    return (expert_place){.sums = m->expert_sums + i * expert_cols(c) + (is_down ? c->dim : 0),
                          .rows = m->expert_rows + 2 * i + is_down};
}

void lld_importance_add_expert(lld_importance *m, uint32_t layer, lld_importance_input input,
                               uint32_t expert, size_t first_col, const float *values, size_t n)
{
    if (m == NULL || layer >= m->n_layers) return;
    const expert_place place = place_of_expert(m, layer, input, expert);
    double *sums = place.sums + first_col;
    pthread_mutex_lock(&m->mutex);
    for (size_t i = 0; i < n; i++) sums[i] += (double)values[i] * values[i];
    if (first_col == 0) ++*place.rows;
    pthread_mutex_unlock(&m->mutex);
}

/* ---- reading ----------------------------------------------------------------------------------- */

uint32_t lld_importance_matrices(const lld_importance *m, uint32_t layer,
                                 lld_importance_input input)
{
    const lld_config *c = &m->model->config;
    if (is_of_experts(input) && layer < c->n_layers && lld_has_experts(c, layer))
        return c->experts.n;
    return lld_importance_cols(m, layer, input) != 0 ? 1 : 0;
}

size_t lld_importance_cols(const lld_importance *importance, uint32_t layer,
                           lld_importance_input input)
{
    const lld_config *c = &importance->model->config;
    if ((unsigned)input >= LLD_IMPORTANCE_INPUTS || layer >= c->n_layers) return 0;
    const bool has_experts = lld_has_experts(c, layer);
    switch (input) {
    case LLD_IMPORTANCE_ATTN_OUTPUT:
        return mixed_cols(importance->model, layer);
    case LLD_IMPORTANCE_DOWN:
        return has_experts && !c->architecture->facts.experts.beside_dense
                   ? c->experts.shared_hidden_dim
                   : c->layers[layer].hidden_dim;
    case LLD_IMPORTANCE_EXPERTS_GATE_UP:
        return has_experts ? c->dim : 0;
    case LLD_IMPORTANCE_EXPERTS_DOWN:
        return has_experts ? c->experts.hidden_dim : 0;
    case LLD_IMPORTANCE_OUTPUT:
        return layer == 0 ? c->dim : 0;
    default:
        return c->dim;
    }
}

int lld_importance_read(const lld_importance *m, uint32_t layer, lld_importance_input input,
                        uint32_t matrix, double *sums, size_t n_cols, uint64_t *n_rows)
{
    if (matrix >= lld_importance_matrices(m, layer, input))
        return lld_fail(LLD_ERR_INVALID, "layer %" PRIu32 " has no input %d of matrix %" PRIu32,
                        layer, (int)input, matrix);
    if (n_cols != lld_importance_cols(m, layer, input))
        return lld_fail(LLD_ERR_INVALID, "n_cols is %zu, the input has %zu", n_cols,
                        lld_importance_cols(m, layer, input));
    if (is_of_experts(input)) {
        const expert_place of_expert = place_of_expert(m, layer, input, matrix);
        memcpy(sums, of_expert.sums, n_cols * sizeof *sums);
        *n_rows = *of_expert.rows;
        return LLD_OK;
    }
    memset(sums, 0, n_cols * sizeof *sums);
    *n_rows = 0;
    for (uint32_t t = 0; t < m->n_threads; t++) {
        const double *of_thread = m->sums + t * m->thread_sums + place(m, layer, input);
        for (size_t i = 0; i < n_cols; i++) sums[i] += of_thread[i];
        *n_rows += m->rows[t * m->thread_rows + (size_t)layer * LLD_IMPORTANCE_INPUTS + input];
    }
    return LLD_OK;
}
