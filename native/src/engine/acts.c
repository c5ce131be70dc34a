/* acts.c - see acts.h. */
#include "engine/acts.h"

#include <string.h>

static size_t align64(size_t n) { return (n + 63) & ~(size_t)63; }

void *lld_arena_alloc(lld_arena *arena, size_t n, size_t element_bytes)
{
    size_t at = arena->used;
    arena->used = align64(at + n * element_bytes);
    return arena->base == NULL ? NULL : arena->base + at;
}

void lld_acts_alloc(lld_arena *arena, lld_act_kinds kinds, size_t n_rows, size_t n_cols,
                    lld_acts forms[LLD_ACT_COUNT])
{
    for (lld_act_kind kind = 0; kind < LLD_ACT_COUNT; kind++) {
        lld_acts form = {.n_rows = n_rows, .n_cols = n_cols, .y_stride = align64(n_cols)};
        if ((kinds & LLD_ACT_BIT(kind)) != 0 && kind != LLD_ACT_F32)
            form.y = lld_arena_alloc(arena, n_rows * form.y_stride, sizeof *form.y);
        if ((kinds & LLD_ACT_BIT(kind)) != 0 && kind == LLD_ACT_Q8) {
            size_t n_blocks = n_rows * (n_cols / LLD_QK);
            form.d = lld_arena_alloc(arena, n_blocks, sizeof *form.d);
            form.s = lld_arena_alloc(arena, n_blocks, sizeof *form.s);
            form.sum = lld_arena_alloc(arena, n_blocks, sizeof *form.sum);
        }
        if ((kinds & LLD_ACT_BIT(kind)) != 0 && kind == LLD_ACT_Q8K) {
            form.d = lld_arena_alloc(arena, n_rows * (n_cols / LLD_QK_K), sizeof *form.d);
            form.sum16 = lld_arena_alloc(arena, n_rows * (n_cols / 16), sizeof *form.sum16);
        }
        forms[kind] = form;
    }
}

lld_acts lld_acts_rows(const lld_acts *x, size_t first, size_t n_rows)
{
    lld_acts rows = *x;
    size_t per_block = x->sum16 != NULL ? LLD_QK_K : LLD_QK;
    rows.n_rows = n_rows;
    if (x->f32 != NULL) rows.f32 = x->f32 + first * x->n_cols;
    if (x->y != NULL) rows.y = x->y + first * x->y_stride;
    if (x->d != NULL) rows.d = x->d + first * (x->n_cols / per_block);
    if (x->s != NULL) rows.s = x->s + first * (x->n_cols / LLD_QK);
    if (x->sum != NULL) rows.sum = x->sum + first * (x->n_cols / LLD_QK);
    if (x->sum16 != NULL) rows.sum16 = x->sum16 + first * (x->n_cols / 16);
    return rows;
}

void lld_acts_copy_row(lld_act_kind kind, lld_acts *out, size_t to, const lld_acts *x, size_t from)
{
    const lld_acts a = lld_acts_rows(out, to, 1), b = lld_acts_rows(x, from, 1);
    if (kind == LLD_ACT_F32) return;
    memcpy(a.y, b.y, x->n_cols);
    if (kind == LLD_ACT_Q8) {
        const size_t n_blocks = x->n_cols / LLD_QK;
        memcpy(a.d, b.d, n_blocks * sizeof *a.d);
        memcpy(a.s, b.s, n_blocks * sizeof *a.s);
        memcpy(a.sum, b.sum, n_blocks * sizeof *a.sum);
    } else {
        memcpy(a.d, b.d, x->n_cols / LLD_QK_K * sizeof *a.d);
        memcpy(a.sum16, b.sum16, x->n_cols / 16 * sizeof *a.sum16);
    }
}

void lld_acts_quantize(const lld_kernels *kernels, lld_act_kind kind, lld_acts *form, size_t row,
                       size_t first_col, const float *values, size_t n)
{
    lld_acts part = *form; /* the same strides, shifted columns */
    if (kind == LLD_ACT_F32) return;
    part.y += first_col;
    if (kind == LLD_ACT_Q8) {
        part.d += first_col / LLD_QK;
        part.s += first_col / LLD_QK;
        part.sum += first_col / LLD_QK;
        kernels->quantize_q8(values, n, &part, row);
    } else {
        part.d += first_col / LLD_QK_K;
        part.sum16 += first_col / 16;
        kernels->quantize_q8k(values, n, &part, row);
    }
}

void lld_acts_rest(lld_act_kind kind, const lld_acts *form, size_t row, size_t first_col,
                   const float *values, size_t n, float *rest)
{
    size_t block = kind == LLD_ACT_Q8K ? LLD_QK_K : LLD_QK;
    const int8_t *y = form->y + row * form->y_stride + first_col;
    const float *d = form->d + row * (form->n_cols / block) + first_col / block;
    for (size_t b = 0; b < n / block; b++)
        for (size_t i = b * block; i < (b + 1) * block; i++)
            rest[i] = values[i] - d[b] * (float)y[i];
}
