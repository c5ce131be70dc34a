/* acts.h - memory for activations: the arena that an engine's scratch lies in, and lld_acts in it.
 */
#ifndef LLD_ACTS_H
#define LLD_ACTS_H

#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"

/* A bump allocator used twice with the same calls: with base NULL it only adds up the size. */
typedef struct lld_arena {
    uint8_t *base;
    size_t used;
} lld_arena;

/* 64-byte aligned; NULL while the arena only counts. */
void *lld_arena_alloc(lld_arena *arena, size_t n, size_t element_bytes);

/* Set of lld_act_kind. */
typedef uint32_t lld_act_kinds;
#define LLD_ACT_BIT(kind) (1u << (kind))

/* Room for (n_rows, n_cols) in each quantized form of `kinds`, in forms[kind]; F32 needs no room
 * here. */
void lld_acts_alloc(lld_arena *arena, lld_act_kinds kinds, size_t n_rows, size_t n_cols,
                    lld_acts forms[LLD_ACT_COUNT]);

/* Copy row `from` of a quantized form to row `to` of another of the same kind and n_cols. */
void lld_acts_copy_row(lld_act_kind kind, lld_acts *out, size_t to, const lld_acts *x, size_t from);

/* Rows [first, first + n_rows) of x. */
lld_acts lld_acts_rows(const lld_acts *x, size_t first, size_t n_rows);

/* Put columns [first_col, first_col + n) of row `row` into the form `kind`, from values: (n)
 * float32. first_col and n are multiples of the form's block, unless the form is F32: then the
 * caller stores the values itself. */
void lld_acts_quantize(const lld_kernels *kernels, lld_act_kind kind, lld_acts *form, size_t row,
                       size_t first_col, const float *values, size_t n);

/* What a quantized form has lost of the same columns: rest: (n) float32, values - d * y. */
void lld_acts_rest(lld_act_kind kind, const lld_acts *form, size_t row, size_t first_col,
                   const float *values, size_t n, float *rest);

#endif
