/* matmul.c - the reference matmul of every weight format, in plain C.
 * Each is the chain of kernels.h, written once per activation kind: a weight block is unpacked to
 * integers (unpack.h), then multiplied with that block of every activation row, out[] itself being
 * the accumulator. The integer loops have fixed lengths so that the compiler vectorizes them. */
#include <assert.h>

#include "kernels/generic/generic.h"
#include "format/unpack.h"
#include "base/vecmath.h"

static void clear_outputs(float *out, size_t out_stride, size_t n)
{
    for (size_t c = 0; c < n; c++) out[c * out_stride] = 0.0f;
}

/* ---- blocks of 32 against Q8 ----------------------------------------------------------------- */

static int32_t dot_32(const int8_t q[32], const int8_t y[32])
{
    int32_t sum = 0; /* |sum| <= 32 * 128 * 127 */
    for (int i = 0; i < 32; i++) sum += q[i] * y[i];
    return sum;
}

typedef void (*unpack_fn)(const void *block, lld_unpacked *out);

LLD_INLINE void matmul_q8(unpack_fn unpack, bool has_min, size_t block_bytes, lld_matmul m)
{
    const lld_acts *x = m.x;
    const size_t n_blocks = x->n_cols / LLD_QK;
    assert(x->n_cols % LLD_QK == 0 && m.row_bytes >= n_blocks * block_bytes);
    for (size_t r = 0; r < m.n_rows; r++) {
        clear_outputs(m.out + r, m.out_stride, x->n_rows);
        for (size_t b = 0; b < n_blocks; b++) {
            lld_unpacked u;
            unpack(m.w + r * m.row_bytes + b * block_bytes, &u);
            for (size_t c = 0; c < x->n_rows; c++) {
                float *acc = &m.out[c * m.out_stride + r];
                int32_t isum = dot_32(u.q, x->y + c * x->y_stride + b * LLD_QK);
                *acc = __builtin_fmaf(u.d * x->d[c * n_blocks + b], (float)isum, *acc);
                if (has_min) *acc = __builtin_fmaf(u.m, x->s[c * n_blocks + b], *acc);
            }
        }
    }
}

/* ---- blocks of 64 and 128 against Q8: parts of 32 that share a scale -------------------------- */

typedef void (*unpack_part_fn)(const void *block, size_t part, lld_unpacked *out);

LLD_INLINE void matmul_parts(unpack_part_fn unpack, size_t n_parts, size_t block_bytes,
                             lld_matmul m)
{
    const lld_acts *x = m.x;
    const size_t n_blocks = x->n_cols / LLD_QK;
    assert(x->n_cols % (n_parts * LLD_QK) == 0 && m.row_bytes >= n_blocks / n_parts * block_bytes);
    for (size_t r = 0; r < m.n_rows; r++) {
        clear_outputs(m.out + r, m.out_stride, x->n_rows);
        for (size_t b = 0; b < n_blocks; b++) {
            lld_unpacked u;
            unpack(m.w + r * m.row_bytes + b / n_parts * block_bytes, b % n_parts, &u);
            for (size_t c = 0; c < x->n_rows; c++) {
                float *acc = &m.out[c * m.out_stride + r];
                int32_t isum = dot_32(u.q, x->y + c * x->y_stride + b * LLD_QK);
                *acc = __builtin_fmaf(u.d * x->d[c * n_blocks + b], (float)isum, *acc);
            }
        }
    }
}

/* ---- blocks of 256 against Q8K --------------------------------------------------------------- */

static int32_t dot_256(const lld_unpacked_k *u, const int8_t y[256])
{
    int32_t sum = 0; /* |sum| <= 256 * 128 * 32 * 127 (Q6_K) < 2^28 */
    for (int j = 0; j < LLD_QK_K / 16; j++) {
        int32_t part = 0;
        for (int i = 16 * j; i < 16 * j + 16; i++) part += u->q[i] * y[i];
        sum += u->scale[j] * part;
    }
    return sum;
}

static int32_t dot_mins(const lld_unpacked_k *u, const int16_t sum16[16])
{
    int32_t sum = 0; /* |sum| <= 16 * 63 * 16 * 127 */
    for (int j = 0; j < LLD_QK_K / 16; j++) sum += u->min[j] * sum16[j];
    return sum;
}

typedef void (*unpack_k_fn)(const void *block, lld_unpacked_k *out);

LLD_INLINE void matmul_q8k(unpack_k_fn unpack, bool has_min, size_t block_bytes, lld_matmul m)
{
    const lld_acts *x = m.x;
    const size_t n_blocks = x->n_cols / LLD_QK_K;
    assert(x->n_cols % LLD_QK_K == 0 && m.row_bytes >= n_blocks * block_bytes);
    for (size_t r = 0; r < m.n_rows; r++) {
        clear_outputs(m.out + r, m.out_stride, x->n_rows);
        for (size_t b = 0; b < n_blocks; b++) {
            lld_unpacked_k u;
            unpack(m.w + r * m.row_bytes + b * block_bytes, &u);
            for (size_t c = 0; c < x->n_rows; c++) {
                float *acc = &m.out[c * m.out_stride + r];
                float dx = x->d[c * n_blocks + b];
                int32_t isum = dot_256(&u, x->y + c * x->y_stride + b * LLD_QK_K);
                *acc = __builtin_fmaf(u.d * dx, (float)isum, *acc);
                if (has_min) {
                    int32_t msum = dot_mins(&u, x->sum16 + (c * n_blocks + b) * (LLD_QK_K / 16));
                    *acc = __builtin_fmaf(-(u.dmin * dx), (float)msum, *acc);
                }
            }
        }
    }
}

/* ---- float weights --------------------------------------------------------------------------- */

static float dot_f32(const float *w, const float *x, size_t n)
{
    float lane[8] = {0};
    size_t k = 0;
    for (; k + 8 <= n; k += 8)
        for (size_t i = 0; i < 8; i++) lane[i] = __builtin_fmaf(w[k + i], x[k + i], lane[i]);
    for (size_t i = 0; k + i < n; i++) lane[i] = __builtin_fmaf(w[k + i], x[k + i], lane[i]);
    return lld_reduce8(lane);
}

/* One weight row at a time is widened into scratch: (n_cols) float32. */
LLD_INLINE void matmul_float(uint32_t type, lld_matmul m)
{
    const lld_acts *x = m.x;
    float *row = m.scratch;
    assert(m.row_bytes >= lld_type_row_bytes(type, x->n_cols));
    for (size_t r = 0; r < m.n_rows; r++) {
        lld_dequantize_row(type, m.w + r * m.row_bytes, row, x->n_cols);
        for (size_t c = 0; c < x->n_rows; c++)
            m.out[c * m.out_stride + r] = dot_f32(row, x->f32 + c * x->n_cols, x->n_cols);
    }
}

/* ---- every format of the list ---------------------------------------------------------------- */

#define DEFINE_MATMUL(name, function, id, block, bytes, offset, quantizer)                         \
    static void matmul_##function(const lld_matmul *m) { MULTIPLY_##block(id, function, offset); }
#define MULTIPLY_1(id, function, offset) matmul_float(id, *m)
#define MULTIPLY_32(id, function, offset)                                                          \
    matmul_q8(lld_unpack_##function, offset, sizeof(lld_block_##function), *m)
#define MULTIPLY_64(id, function, offset)  MULTIPLY_PARTS(function, 2)
#define MULTIPLY_128(id, function, offset) MULTIPLY_PARTS(function, 4)
#define MULTIPLY_PARTS(function, n_parts)                                                          \
    matmul_parts(lld_unpack_##function, n_parts, sizeof(lld_block_##function), *m)
#define MULTIPLY_256(id, function, offset)                                                         \
    matmul_q8k(lld_unpack_##function, offset, sizeof(lld_block_##function), *m)
LLD_FORMATS(DEFINE_MATMUL)

void lld_kernels_init_generic_matmul(lld_kernels *table)
{
#define SET_MATMUL(name, function, id, block, bytes, offset, quantizer)                            \
    table->matmul[id] = matmul_##function;
    LLD_FORMATS(SET_MATMUL)
}
