/* rank.c - see rank.h. In float64: it is done once a text, and the weights are read where they lie. */
#include "engine/rank.h"

#include "base/elementary.h"
#include "format/format.h"

/* out[i] = matrix[i] * x + bias[i] */
static void multiply(const lld_matrix *matrix, const float *bias, const double *x, float *weights,
                     double *out)
{
    for (uint64_t i = 0; i < matrix->n_rows; i++) {
        double sum = bias == NULL ? 0.0 : (double)bias[i];
        lld_dequantize_row(matrix->type, matrix->data + i * matrix->row_bytes, weights,
                           matrix->n_cols);
        for (uint64_t k = 0; k < matrix->n_cols; k++) sum += (double)weights[k] * x[k];
        out[i] = sum;
    }
}

void lld_rank_row(const lld_rank_weights *w, const double *row, float *weights, double *hidden,
                  double *scores)
{
    if (w->dense.data != NULL) {
        multiply(&w->dense, w->dense_bias, row, weights, hidden);
        for (uint64_t i = 0; i < w->dense.n_rows; i++)
            hidden[i] = 1.0 - 2.0 / (lld_exp(2.0 * hidden[i]) + 1.0); /* the hyperbolic tangent */
        row = hidden;
    }
    multiply(&w->output, w->output_bias, row, weights, scores);
}
