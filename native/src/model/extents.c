/* extents.c - see extents.h. Decides nothing about what is resident (Python's plan does). */
#include "model/extents.h"

#include <stdlib.h>

#include "base/status.h"

enum { ROOM_STEP = 256, NO_EXPERT = -1 };

static int add(lld_model *m, lld_extent extent)
{
    if (m->n_extents % ROOM_STEP == 0) {
        lld_extent *more = realloc(m->extents, (m->n_extents + ROOM_STEP) * sizeof *more);
        if (more == NULL) return lld_fail(LLD_ERR_MEMORY, "no memory for the table of extents");
        m->extents = more;
    }
    m->extents[m->n_extents++] = extent;
    return LLD_OK;
}

int lld_extents_add_vector(lld_model *m, const lld_tensor *t, int layer)
{
    return add(m, (lld_extent){.file_offset = t->file_offset,
                               .bytes = t->bytes,
                               .layer = layer,
                               .expert = NO_EXPERT,
                               .role = LLD_ROLE_VECTOR,
                               .n_rows = 1});
}

/* A model that is cut. */
typedef struct cutter {
    lld_model *model;
    size_t extent_bytes;
} cutter;

/* Rows of an extent of a matrix whose rows have row_bytes. */
static uint32_t extent_rows(const cutter *c, size_t row_bytes)
{
    size_t units = c->extent_bytes / (row_bytes * LLD_EXTENT_ROWS);
    return (uint32_t)((units == 0 ? 1 : units) * LLD_EXTENT_ROWS);
}

/* Cut n matrices of the same number of rows, which are used a piece of each in turns. */
static int cut_of_expert(const cutter *c, lld_matrix *const matrices[], uint32_t n, int layer,
                         lld_role role, int expert)
{
    lld_model *m = c->model;
    size_t row_bytes = 0;
    for (uint32_t i = 0; i < n; i++)
        if (matrices[i]->row_bytes > row_bytes) row_bytes = matrices[i]->row_bytes;
    const uint32_t rows = extent_rows(c, row_bytes);
    for (uint32_t i = 0; i < n; i++) {
        matrices[i]->first_extent = (uint32_t)m->n_extents + i;
        matrices[i]->extent_step = n;
        matrices[i]->extent_rows = rows;
    }
    int status = LLD_OK;
    for (size_t row = 0; row < matrices[0]->n_rows; row += rows)
        for (uint32_t i = 0; i < n && status == LLD_OK; i++) {
            const lld_matrix *x = matrices[i];
            const size_t left = x->n_rows - row, n_rows = left < rows ? left : rows;
            const uint8_t *data = x->data + row * x->row_bytes;
            status = add(m, (lld_extent){.file_offset = (uint64_t)(data - m->file->mapping.bytes),
                                         .bytes = n_rows * x->row_bytes,
                                         .layer = layer,
                                         .expert = expert,
                                         .role = role,
                                         .n_rows = (uint32_t)n_rows});
        }
    return status;
}

static int cut(const cutter *c, lld_matrix *const matrices[], uint32_t n, int layer, lld_role role)
{
    return cut_of_expert(c, matrices, n, layer, role, NO_EXPERT);
}

static int cut_gated(const cutter *c, lld_gated_weights *w, int index, lld_role role, int expert)
{
    lld_matrix *gate_up[] = {&w->gate, &w->up}, *down[] = {&w->down};
    int status = cut_of_expert(c, gate_up, w->up.data == NULL ? 1 : 2, index, role, expert);
    return status == LLD_OK ? cut_of_expert(c, down, 1, index, role, expert) : status;
}

static int cut_mixture(const cutter *c, int index)
{
    lld_expert_weights *w = &c->model->layers[index].mixture;
    lld_matrix *router[] = {&w->router};
    int status = cut(c, router, 1, index, LLD_ROLE_FEED);
    for (uint32_t i = 0; i < c->model->config.experts.n && status == LLD_OK; i++)
        status = cut_gated(c, &w->experts[i], index, LLD_ROLE_EXPERT, (int)i);
    if (status == LLD_OK && w->shared.gate.data != NULL)
        status = cut_gated(c, &w->shared, index, LLD_ROLE_FEED, NO_EXPERT);
    return status;
}

static int cut_layer(const cutter *c, int index)
{
    lld_layer *l = &c->model->layers[index];
    lld_matrix *mixer[LLD_MIXER_MATRICES];
    const uint32_t n_mixer = lld_mixer_matrices(l, mixer);
    int status = LLD_OK;
    for (uint32_t i = 0; i < n_mixer && status == LLD_OK; i++)
        status = cut(c, &mixer[i], 1, index, LLD_ROLE_ATTENTION);
    if (status == LLD_OK && l->gated.gate.data != NULL)
        status = cut_gated(c, &l->gated, index, LLD_ROLE_FEED, NO_EXPERT);
    if (status == LLD_OK && l->mixture.experts != NULL) status = cut_mixture(c, index);
    lld_matrix *input[] = {&l->input.gate, &l->input.proj};
    for (int i = 0; i < 2 && status == LLD_OK && input[i]->data != NULL; i++)
        status = cut(c, &input[i], 1, index, LLD_ROLE_FEED);
    return status;
}

/* The layer that guesses is outside of the order of a step: all of it stays. */
static int cut_guess_layer(const cutter *c, size_t first)
{
    lld_model *m = c->model;
    const int index = (int)m->config.n_layers;
    lld_matrix *join[] = {&m->guess.join}, *output[] = {&m->guess.output};
    int status = cut(c, join, 1, index, LLD_ROLE_VECTOR);
    if (status == LLD_OK) status = cut_layer(c, index);
    if (status == LLD_OK && m->guess.output.data != m->output.data)
        status = cut(c, output, 1, index, LLD_ROLE_VECTOR);
    for (size_t i = first; i < m->n_extents; i++) {
        m->extents[i].role = LLD_ROLE_VECTOR;
        m->extents[i].expert = NO_EXPERT;
    }
    return status;
}

int lld_extents_cut(lld_model *m, size_t extent_bytes)
{
    const cutter c = {.model = m, .extent_bytes = extent_bytes};
    lld_matrix *embedding[] = {&m->embedding}, *output[] = {&m->output},
               *layer_inputs[] = {&m->layer_input_proj};
    int status = m->config.n_guess_layers == 0 ? LLD_OK : cut_guess_layer(&c, m->n_extents);
    if (status == LLD_OK && m->embedding.data != m->output.data)
        status = cut(&c, embedding, 1, -1, LLD_ROLE_EMBEDDING);
    if (status == LLD_OK && m->layer_input_proj.data != NULL)
        status =
            cut(&c, layer_inputs, 1, 0, LLD_ROLE_ATTENTION); /* of the first layer, so to say */
    for (uint32_t i = 0; i < m->config.n_layers && status == LLD_OK; i++)
        status = cut_layer(&c, (int)i);
    if (status == LLD_OK && m->output.data != NULL)
        status = cut(&c, output, 1, -1, LLD_ROLE_OUTPUT);
    return status;
}

size_t lld_model_n_extents(const lld_model *model) { return model->n_extents; }

int lld_model_extent(const lld_model *model, size_t index, lld_extent *out)
{
    if (index >= model->n_extents)
        return lld_fail(LLD_ERR_INVALID, "extent %zu, model has %zu", index, model->n_extents);
    *out = model->extents[index];
    return LLD_OK;
}
