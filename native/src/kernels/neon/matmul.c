/* matmul.c - the walk over rows and columns that all NEON matmuls share. Does no
 * arithmetic. */
#include "kernels/neon/matmul.h"

#if defined(__aarch64__)

/* Activations of one column tile: a quarter of the A72's shared L2, so that four threads working on
 * neighbouring rows find them there. */
enum { TILE_BYTES = 256 * 1024 };

static size_t tile_columns(const lld_acts *x)
{
    size_t element = x->y ? 1 : sizeof(float);
    size_t columns = TILE_BYTES / (x->n_cols * element + 1);
    return columns < 4 ? 4 : columns & ~(size_t)3;
}

static void row_group_times_tile(const lld_cells *cells, float *out, size_t out_stride,
                                 const lld_row_group *group, const lld_acts *x, size_t col,
                                 size_t end)
{
    while (col < end) {
        size_t left = end - col, width = left >= 3 && cells->four ? 4 : left >= 2 ? 2 : 1;
        lld_cell_fn cell = width == 4 ? cells->four : width == 2 ? cells->two : cells->one;
        size_t n = left < width ? left : width;
        cell(out, out_stride, group, x, col, n);
        col += n;
    }
}

void lld_neon_matmul(const lld_cells *cells, const lld_matmul *m)
{
    const lld_acts *x = m->x;
    size_t tile = tile_columns(x);
    for (size_t col = 0; col < x->n_rows; col += tile) {
        size_t end = x->n_rows - col < tile ? x->n_rows : col + tile;
        for (size_t row = 0; row < m->n_rows; row += 4) {
            lld_row_group group = lld_row_group_at(m->w, m->row_bytes, row, m->n_rows);
            row_group_times_tile(cells, m->out + row, m->out_stride, &group, x, col, end);
        }
    }
}

#endif
