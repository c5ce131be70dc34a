/* bind.c - see bind.h. */
#include "model/bind.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/status.h"
#include "model/extents.h"

static void tensor_name(const lld_binder *b, const char *suffix, char name[LLD_NAME_BYTES])
{
    if (b->layer < 0)
        snprintf(name, LLD_NAME_BYTES, "%s", suffix);
    else
        snprintf(name, LLD_NAME_BYTES, "blk.%d.%s", b->layer, suffix);
}

const lld_tensor *lld_bind_find(lld_binder *b, const char *suffix, lld_need need,
                                char name[LLD_NAME_BYTES])
{
    if (b->status != LLD_OK) return NULL;
    tensor_name(b, suffix, name);
    const lld_tensor *tensor = lld_gguf_find_tensor(b->gguf, name);
    if (tensor == NULL && need == LLD_REQUIRED)
        b->status = lld_fail(LLD_ERR_CORRUPT, "tensor '%s' is missing", name);
    if (tensor != NULL) b->bound[tensor - b->gguf->tensors] = true;
    return tensor;
}

/* n: matrices one behind the other; 1: the tensor is a matrix. */
static bool check_shape(lld_binder *b, const lld_tensor *t, const char *name, uint64_t n_cols,
                        uint64_t n_rows, uint64_t n)
{
    char third[32] = "";
    if (t->dims[0] == n_cols && t->dims[1] == n_rows && t->dims[2] == n && t->dims[3] == 1)
        return true;
    if (n != 1) snprintf(third, sizeof third, ", %" PRIu64, n);
    b->status =
        lld_fail(LLD_ERR_CORRUPT,
                 "tensor '%s' has shape (%" PRIu64 ", %" PRIu64 ", %" PRIu64 ", %" PRIu64
                 "), must be (%" PRIu64 ", %" PRIu64 "%s)",
                 name, t->dims[0], t->dims[1], t->dims[2], t->dims[3], n_cols, n_rows, third);
    return false;
}

lld_matrix lld_bind_matrices(lld_binder *b, const char *suffix, lld_need need, uint64_t n,
                             uint64_t n_rows, uint64_t n_cols)
{
    char name[LLD_NAME_BYTES];
    const lld_tensor *t = lld_bind_find(b, suffix, need, name);
    if (t == NULL || !check_shape(b, t, name, n_cols, n_rows, n)) return (lld_matrix){0};
    b->model->weight_bytes += t->bytes;
    b->model->streamed_bytes += t->bytes;
    return (lld_matrix){.data = t->data,
                        .n_rows = n * n_rows,
                        .n_cols = n_cols,
                        .row_bytes = lld_type_row_bytes(t->type, n_cols),
                        .type = t->type,
                        .act = lld_type_act_kind(t->type)};
}

lld_matrix lld_bind_matrix(lld_binder *b, const char *suffix, lld_need need, uint64_t n_rows,
                           uint64_t n_cols)
{
    return lld_bind_matrices(b, suffix, need, 1, n_rows, n_cols);
}

void lld_bind_by_row(lld_model *m, const lld_matrix *table)
{
    if (table->data != NULL) m->streamed_bytes -= (table->n_rows - 1) * table->row_bytes;
}

lld_matrix lld_matrix_rows(const lld_matrix *m, uint64_t first, uint64_t n_rows)
{
    lld_matrix view = *m;
    if (m->data == NULL) return view; /* a fault was noted */
    view.data += first * m->row_bytes;
    view.n_rows = n_rows;
    return view;
}

/* The n elements of a tensor as float32. */
static const float *bind_floats(lld_binder *b, const lld_tensor *t, const char *name, uint64_t n)
{
    b->model->weight_bytes += t->bytes;
    b->model->streamed_bytes += t->bytes;
    if (t->type == LLD_F32) {
        b->status = lld_extents_add_vector(b->model, t, b->layer);
        return (const float *)(const void *)t->data;
    }
    if (t->type != LLD_F16 && t->type != LLD_BF16) {
        b->status =
            lld_fail(LLD_ERR_UNSUPPORTED, "tensor '%s' has type %s, must be F32, F16 or BF16", name,
                     lld_type_name(t->type));
        return NULL;
    }
    float *copy = b->model->converted + b->model->converted_used;
    b->model->converted_used += n;
    lld_dequantize_row(t->type, t->data, copy, n);
    return copy;
}

const float *lld_bind_vector(lld_binder *b, const char *suffix, lld_need need, uint64_t n)
{
    char name[LLD_NAME_BYTES];
    if (need == LLD_ABSENT) return NULL;
    const lld_tensor *t = lld_bind_find(b, suffix, need, name);
    if (t == NULL || !check_shape(b, t, name, n, 1, 1)) return NULL;
    return bind_floats(b, t, name, n);
}

const float *lld_bind_table(lld_binder *b, const char *suffix, lld_need need, uint64_t n_rows,
                            uint64_t n_cols)
{
    char name[LLD_NAME_BYTES];
    const lld_tensor *t = lld_bind_find(b, suffix, need, name);
    if (t == NULL || !check_shape(b, t, name, n_cols, n_rows, 1)) return NULL;
    return bind_floats(b, t, name, n_rows * n_cols);
}

void lld_bind_unused(lld_binder *b, const char *suffix)
{
    char name[LLD_NAME_BYTES];
    lld_bind_find(b, suffix, LLD_OPTIONAL, name);
}

lld_norm lld_bind_norm(lld_binder *b, const char *name)
{
    const lld_config *c = &b->model->config;
    const lld_need bias = c->architecture->facts.norm == LLD_LAYER_NORM ? LLD_REQUIRED : LLD_ABSENT;
    char suffix[LLD_NAME_BYTES / 2], whole[LLD_NAME_BYTES];
    lld_norm norm = {0};
    if (name == NULL) return norm;
    tensor_name(b, name, whole); /* so converters name one of Falcon-H1's */
    const bool is_bare = lld_gguf_find_tensor(b->gguf, whole) != NULL;
    snprintf(suffix, sizeof suffix, is_bare ? "%s" : "%s.weight", name);
    norm.weight = lld_bind_vector(b, suffix, LLD_REQUIRED, c->dim);
    snprintf(suffix, sizeof suffix, "%s.bias", name);
    norm.bias = lld_bind_vector(b, suffix, bias, c->dim);
    return norm;
}

size_t lld_bind_state(lld_binder *b, size_t n_floats)
{
    const size_t offset = b->model->state_floats;
    b->model->state_floats += n_floats;
    return offset;
}
