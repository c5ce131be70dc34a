/* matmul.h - what the NEON and the dotprod matmuls share: row groups, cells, the driver.
 *
 * Words: a row group is four weight rows, one per lane of every 128-bit result. A cell is one row
 * group times one, two or four activation rows ("columns"); it runs over the whole of K and stores
 * its outputs once. A short row group repeats its last row and a short cell its last column: the
 * surplus is computed and not stored, so every output comes from the same code and nothing beyond
 * the tensor's last byte is read.
 * Does not unpack weights: unpack.h does. */
#ifndef LLD_MATMUL_NEON_H
#define LLD_MATMUL_NEON_H

#if defined(__aarch64__)

#include <arm_neon.h>

#include "kernels/kernels.h"
#include "base/vecmath.h"

enum { LLD_PREFETCH_BYTES = 768 }; /* ahead on each of the four row streams */

typedef struct lld_row_group {
    const uint8_t *row[4];
    size_t n; /* rows to store, 1..4 */
} lld_row_group;

/* out[(col + c)*out_stride + r], r < w->n, c < n_cols <= the cell's width. out: the group's row
 * 0, column 0. */
typedef void (*lld_cell_fn)(float *out, size_t out_stride, const lld_row_group *w,
                            const lld_acts *x, size_t col, size_t n_cols);

typedef struct lld_cells {
    lld_cell_fn one, two, four; /* by width; four may be NULL where it does not pay */
} lld_cells;

LLD_INLINE lld_row_group lld_row_group_at(const uint8_t *w, size_t row_bytes, size_t row,
                                          size_t n_rows)
{
    lld_row_group group = {.n = n_rows - row < 4 ? n_rows - row : 4};
    for (size_t r = 0; r < 4; r++)
        group.row[r] = w + (row + (r < group.n ? r : group.n - 1)) * row_bytes;
    return group;
}

/* Index of the cell's column c, the last one repeated. */
LLD_INLINE size_t lld_cell_column(size_t col, size_t n_cols, size_t c)
{
    return col + (c < n_cols ? c : n_cols - 1);
}

LLD_INLINE void lld_store_rows(float *out, float32x4_t values, size_t n)
{
    if (n == 4) {
        vst1q_f32(out, values);
        return;
    }
    float lanes[4];
    vst1q_f32(lanes, values);
    for (size_t r = 0; r < n; r++) out[r] = lanes[r];
}

/* A hint only: the address may lie beyond the tensor, hence no pointer arithmetic. */
LLD_INLINE void lld_prefetch_rows(const lld_row_group *w, size_t offset)
{
    for (int r = 0; r < 4; r++)
        __builtin_prefetch((const void *)((uintptr_t)w->row[r] + offset + LLD_PREFETCH_BYTES), 0,
                           0);
}

/* The compiler must not hoist loads above this point: it would spill what it has no registers
 * for. */
LLD_INLINE void lld_keep_loads_below(void) { __asm__ volatile("" ::: "memory"); }

/* Walk rows and columns in cells, columns in tiles that stay in L2. */
void lld_neon_matmul(const lld_cells *cells, const lld_matmul *m);

/* Fill the entries of a table: formats of 32-element blocks, of 256-element blocks, plain
 * floats. */
void lld_neon_init_blocks(lld_kernels *table);
void lld_neon_init_k(lld_kernels *table);
void lld_neon_init_bits(lld_kernels *table);
void lld_neon_init_floats(lld_kernels *table);
void lld_neon_init_attn(lld_kernels *table);
void lld_neon_init_kv_q4(lld_kernels *table);
void lld_neon_init_state(lld_kernels *table);

/* The matmul function of a format, from its cells. */
#define LLD_NEON_MATMUL(name, ...)                                                                 \
    static void name##_matmul(const lld_matmul *m)                                                 \
    {                                                                                              \
        static const lld_cells cells = {__VA_ARGS__};                                              \
        lld_neon_matmul(&cells, m);                                                                \
    }

/* One cell of `width` columns, its body the inline function `body(format, width, ...)`. */
#define LLD_NEON_CELL(name, body, format, width)                                                   \
    static void name(float *out, size_t out_stride, const lld_row_group *w, const lld_acts *x,     \
                     size_t col, size_t n_cols)                                                    \
    {                                                                                              \
        body(format, width, out, out_stride, w, x, col, n_cols);                                   \
    }

#endif
#endif
