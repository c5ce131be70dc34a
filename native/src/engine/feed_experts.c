/* feed_experts.c - a mixture of experts: a router chooses a few gated feed-forwards for each row, and what
 * they make is added, weighted, in the order of rank (Mixtral, arXiv 2401.04088; shared experts:
 * DeepSeekMoE, arXiv 2401.06066).
 *   1. norm, quantize, router        3. gate and up of the chosen, activation, quantize
 *   2. choose, group by expert       4. down of all chosen, weighted sum, residual
 * Rows are grouped by expert, so that each expert's weights are read once for all of its rows. No
 * result depends on the group: every product of a row is as if it were alone, and its sum has the
 * order of its own ranks. Who is chosen: expert_choice.h. */
#include "engine/expert_choice.h"
#include "engine/expert_guess.h"
#include "engine/layer.h"

#include <string.h>

#include "base/vecmath.h"

/* ---- the pairs --------------------------------------------------------------------------------- */

/* Number the pairs, those of an expert behind each other. */
static void group(lld_forward *f)
{
    const lld_expert_sizes *e = &f->model->config.experts;
    lld_routing *r = &f->scratch.routing;
    const size_t n_pairs = f->batch.n_rows * e->n_used;
    memset(r->ends, 0, e->n * sizeof *r->ends);
    for (size_t i = 0; i < n_pairs; i++) r->ends[r->chosen[i]]++;
    uint32_t end = 0;
    r->n_chosen = 0;
    for (uint32_t i = 0; i < e->n; i++) { /* ends: for now where each begins */
        const uint32_t n = r->ends[i];
        if (n != 0) r->order[r->n_chosen++] = i;
        r->ends[i] = end;
        end += n;
    }
    for (size_t i = 0; i < n_pairs; i++) {
        const uint32_t pair = r->ends[r->chosen[i]]++;
        r->pairs[i] = pair;
        r->rows[pair] = (uint32_t)(i / e->n_used);
    }
}

/* The first pair of an expert. */
static size_t first_pair(const lld_routing *r, uint32_t expert)
{
    return expert == 0 ? 0 : r->ends[expert - 1];
}

/* Count the units of gate and up, in the order in which the experts are computed. */
static void count_units(lld_forward *f, const lld_expert_weights *w)
{
    const lld_expert_sizes *e = &f->model->config.experts;
    lld_routing *r = &f->scratch.routing;
    const size_t chunk = f->scratch.hidden_chunk;
    uint32_t units = 0;
    for (uint32_t i = 0; i < r->n_chosen; i++) {
        const size_t n = r->ends[r->order[i]] - first_pair(r, r->order[i]);
        units += (uint32_t)(lld_divide_up(e->hidden_dim, chunk) * lld_divide_up(n, LLD_TILE_COLS));
        r->unit_ends[i] = units;
    }
    if (w->shared.gate.data != NULL)
        units += (uint32_t)(lld_divide_up(w->shared.gate.n_rows, chunk) *
                            lld_divide_up(f->batch.n_rows, LLD_TILE_COLS));
    r->unit_ends[r->n_chosen] = units;
}

/* The weights of a chosen expert, of which the part is there; false: the step ends. */
static bool weights_of(lld_forward *f, const lld_layer *l, uint32_t expert, lld_expert_part part,
                       lld_gated_weights *out)
{
    if (f->reading.experts != NULL)
        return lld_expert_store_take(f->reading.experts, lld_layer_index(f, l), expert, part, out);
    *out = l->mixture.experts[expert];
    return true;
}

/* The rows of the pairs; of a single row they are all the same one. */
static void gather(lld_forward *f, unsigned thread, const lld_expert_weights *w,
                   const lld_input *input)
{
    lld_routing *r = &f->scratch.routing;
    const lld_gated_weights *expert = &w->experts[0];
    const size_t dim = f->model->config.dim,
                 n_pairs = f->batch.n_rows * f->model->config.experts.n_used;
    const lld_act_kinds kinds = LLD_ACT_BIT(expert->gate.act) | LLD_ACT_BIT(expert->up.act);
    lld_input *pairs = &f->scratch.threads[thread].pairs;
    for (size_t pair; (pair = lld_pool_next(f->pool, thread, n_pairs)) < n_pairs;) {
        const size_t row = r->rows[pair];
        for (lld_act_kind kind = 0; kind < LLD_ACT_COUNT; kind++) {
            if ((kinds & LLD_ACT_BIT(kind)) == 0) continue;
            lld_acts_copy_row(kind, &pairs->forms[kind], pair, &input->forms[kind], row);
            if (lld_is_first_token(f, NULL, row))
                lld_acts_copy_row(kind, &pairs->fine[kind], pair, &input->fine[kind], row);
        }
        if ((kinds & LLD_ACT_BIT(LLD_ACT_F32)) != 0)
            memcpy(r->input_store + pair * dim, input->forms[LLD_ACT_F32].f32 + row * dim,
                   dim * sizeof(float));
    }
    lld_pool_barrier(f->pool);
}

/* How much of the shared expert a row gets. */
static void weigh_shared(lld_forward *f, const lld_expert_weights *w, size_t row, const float *x)
{
    float lane[8] = {0};
    if (w->shared_gate == NULL) {
        f->scratch.routing.shared_weights[row] = 1.0f;
        return;
    }
    for (size_t k = 0; k < f->model->config.dim; k++)
        lane[k % 8] = __builtin_fmaf(w->shared_gate[k], x[k], lane[k % 8]);
    f->scratch.routing.shared_weights[row] = 1.0f / (1.0f + lld_expf(-lld_reduce8(lane)));
}

/* What a row's experts are multiplied with, for their importance. */
static void collect(lld_forward *f, const lld_layer *l, size_t row, const float *x)
{
    const uint32_t n_used = f->model->config.experts.n_used;
    for (uint32_t rank = 0; f->importance != NULL && rank < n_used; rank++)
        lld_importance_add_expert(
            f->importance, lld_layer_index(f, l), LLD_IMPORTANCE_EXPERTS_GATE_UP,
            f->scratch.routing.chosen[row * n_used + rank], 0, x, f->model->config.dim);
}

/* All that a row needs of its experts before they are grouped; x: (dim) normed. */
static void route_row(lld_forward *f, const lld_layer *l, size_t row, const float *x)
{
    lld_expert_choice_make(f, &l->mixture, row);
    weigh_shared(f, &l->mixture, row, x);
    collect(f, l, row, x);
}

/* Phases 1 and 2. Returns the normed rows. */
static const lld_input *route(lld_forward *f, unsigned thread, const lld_layer *l)
{
    const lld_expert_weights *w = &l->mixture;
    const size_t n_rows = f->batch.n_rows, dim = f->model->config.dim;
    lld_act_kinds kinds = LLD_ACT_BIT(w->router.act) | LLD_ACT_BIT(LLD_ACT_F32) |
                          LLD_ACT_BIT(w->experts[0].gate.act) | LLD_ACT_BIT(w->experts[0].up.act);
    const bool has_shared = w->shared.gate.data != NULL;
    if (has_shared) kinds |= LLD_ACT_BIT(w->shared.gate.act) | LLD_ACT_BIT(w->shared.up.act);
    const bool norms_apart = w->router_norm.weight != NULL;
    const lld_source s = {.make_row = lld_normed_row,
                          .norm = norms_apart ? &w->norm : &l->feed_norm,
                          .n_rows = n_rows,
                          .n_cols = dim,
                          .kinds = kinds,
                          .store = f->scratch.work,
                          .layer = l,
                          .name = has_shared ? LLD_IMPORTANCE_GATE_UP : LLD_IMPORTANCE_INPUTS};
    lld_source routed = s;
    const lld_product router = lld_expert_choice_router(f, l, 0);
    routed.norm = lld_expert_choice_norm(l);
    if (norms_apart) routed.name = LLD_IMPORTANCE_INPUTS;
    const lld_input *input = lld_input_make(f, thread, &routed);
    lld_products_run(f, thread, &router, 1, input);
    lld_pool_barrier(f->pool);
    if (norms_apart) input = lld_input_make(f, thread, &s);
    if (n_rows > 1) {
        for (size_t row; (row = lld_pool_next(f->pool, thread, n_rows)) < n_rows;)
            route_row(f, l, row, input->forms[LLD_ACT_F32].f32 + row * dim);
        lld_pool_barrier(f->pool);
    }
    if (thread == 0) {
        if (n_rows == 1) route_row(f, l, 0, input->forms[LLD_ACT_F32].f32);
        group(f);
        if (f->reading.experts != NULL)
            lld_expert_store_choose(f->reading.experts, lld_layer_index(f, l),
                                    f->scratch.routing.order, f->scratch.routing.n_chosen);
        lld_expert_guess_tell(f, l);
        count_units(f, w);
    }
    lld_pool_barrier(f->pool);
    return input;
}

/* ---- the products ------------------------------------------------------------------------------ */

/* Where the gate or down matrix of the i-th of the chosen experts has a row; NULL where experts stream. */
static const uint8_t *rows_of_chosen(const lld_forward *f, const lld_layer *l, uint32_t i,
                                     lld_expert_part part, size_t row)
{
    if (f->reading.experts != NULL) return NULL;
    const lld_gated_weights *w = &l->mixture.experts[f->scratch.routing.order[i]];
    return lld_matrix_row(part == LLD_EXPERT_DOWN ? &w->down : &w->gate, row);
}

/* Unit `unit` of a feed-forward's gate and up, of n_rows rows: of `input` from first_col on, of `hidden`
 * from first_row on. */
static void gate_up_unit(lld_forward *f, unsigned thread, const lld_hidden *hidden,
                         const lld_input *input, size_t unit, size_t n_rows, size_t first_col,
                         size_t first_row)
{
    const size_t n_tiles = lld_divide_up(n_rows, LLD_TILE_COLS), chunk = f->scratch.hidden_chunk;
    const size_t row = unit / n_tiles * chunk, col = unit % n_tiles * LLD_TILE_COLS;
    lld_tile tile = {.first_row = row,
                     .n_rows = lld_min_size(chunk, hidden->weights->gate.n_rows - row),
                     .first_col = first_col + col,
                     .n_cols = lld_min_size(LLD_TILE_COLS, n_rows - col)};
    lld_hidden_unit(f, thread, hidden, input, &tile, first_row + col);
}

static void gate_up_phase(lld_forward *f, unsigned thread, const lld_layer *l,
                          const lld_input *input)
{
    const lld_expert_weights *w = &l->mixture;
    const lld_routing *r = &f->scratch.routing;
    lld_thread_scratch *t = &f->scratch.threads[thread];
    const bool single = f->batch.n_rows == 1; /* its pairs' rows are the input's only one */
    lld_hidden hidden = {.values = &t->pairs_hidden,
                         .store = r->hidden_store,
                         .importance = LLD_IMPORTANCE_EXPERTS_DOWN,
                         .layer = lld_layer_index(f, l)};
    const lld_hidden shared = {.weights = &w->shared,
                               .values = &t->hidden,
                               .store = f->scratch.hidden,
                               .importance = LLD_IMPORTANCE_DOWN,
                               .layer = hidden.layer};
    const size_t n_units = r->unit_ends[r->n_chosen];
    lld_gated_weights weights;
    uint32_t i = 0;
    for (size_t unit; (unit = lld_product_next(f, thread, n_units)) < n_units;) {
        if (i > 0 && unit < r->unit_ends[i - 1]) i = 0; /* another thread's share */
        while (i < r->n_chosen && unit >= r->unit_ends[i]) i++;
        const size_t within = i == 0 ? unit : unit - r->unit_ends[i - 1];
        if (i == r->n_chosen) {
            gate_up_unit(f, thread, &shared, input, within, f->batch.n_rows, 0, 0);
            continue;
        }
        const uint32_t expert = r->order[i];
        const size_t first = first_pair(r, expert), n = r->ends[expert] - first;
        if (!weights_of(f, l, expert, LLD_EXPERT_GATE_UP, &weights)) continue;
        hidden.weights = &weights;
        hidden.expert = expert;
        hidden.next =
            i + 1 < r->n_chosen ? rows_of_chosen(f, l, i + 1, LLD_EXPERT_GATE_UP, 0) : NULL;
        gate_up_unit(f, thread, &hidden, single ? input : &t->pairs, within, n, single ? 0 : first,
                     first);
    }
    lld_pool_barrier(f->pool);
}

/* Rows [first_row, first_row + n_rows) of a down matrix times n rows of an input, to out. */
static void down_tiles(lld_forward *f, unsigned thread, const lld_matrix *down,
                       const lld_input *input, lld_tile tile, size_t n)
{
    const size_t end = tile.first_col + n;
    for (; tile.first_col < end; tile.first_col += tile.n_cols) {
        tile.n_cols = lld_min_size(LLD_TILE_COLS, end - tile.first_col);
        lld_multiply_tile(f, thread, down, input, &tile);
        tile.out += tile.n_cols * tile.out_stride;
    }
}

/* What the experts add to one row of the residual stream, n_rows elements of it. out: of the pairs, then
 * of the rows' shared expert, (n_rows) each. */
static void add_row(const lld_forward *f, const lld_layer *l, size_t row, size_t first_row,
                    size_t n_rows, const float *out)
{
    const lld_config *c = &f->model->config;
    const lld_routing *r = &f->scratch.routing;
    const size_t n_used = c->experts.n_used, n_pairs = f->batch.n_rows * n_used;
    const float *shared = out + (n_pairs + row) * n_rows;
    float *work = f->scratch.work + row * c->dim + first_row;
    memset(work, 0, n_rows * sizeof *work);
    for (size_t rank = 0; rank < n_used; rank++) {
        const float weight = r->weights[row * n_used + rank];
        const float *pair = out + r->pairs[row * n_used + rank] * n_rows;
        const float *bias = l->mixture.experts[r->chosen[row * n_used + rank]].down_bias;
        if (bias == NULL)
            for (size_t i = 0; i < n_rows; i++) work[i] += weight * pair[i];
        else
            for (size_t i = 0; i < n_rows; i++) work[i] += weight * (pair[i] + bias[first_row + i]);
    }
    if (l->mixture.shared.gate.data != NULL)
        for (size_t i = 0; i < n_rows; i++) work[i] += r->shared_weights[row] * shared[i];
    if (c->residual_scale != 1.0f)
        for (size_t i = 0; i < n_rows; i++) work[i] *= c->residual_scale;
    if (l->feed_post_norm.weight == NULL)
        f->kernels->add(f->scratch.x + row * c->dim + first_row, work, n_rows);
}

static void down_phase(lld_forward *f, unsigned thread, const lld_layer *l)
{
    const lld_expert_weights *w = &l->mixture;
    const lld_config *c = &f->model->config;
    const lld_routing *r = &f->scratch.routing;
    lld_thread_scratch *t = &f->scratch.threads[thread];
    const size_t chunk =
        lld_min_size(LLD_EXPERT_CHUNK_ROWS, lld_chunk_rows(f, &w->experts[0].down));
    const size_t n_units = lld_divide_up(c->dim, chunk), n_rows = f->batch.n_rows;
    lld_gated_weights weights;
    for (size_t unit; (unit = lld_product_next(f, thread, n_units)) < n_units;) {
        const size_t first_row = unit * chunk, n = lld_min_size(chunk, c->dim - first_row);
        for (uint32_t i = 0; i < r->n_chosen; i++) {
            const uint32_t expert = r->order[i];
            const size_t first = first_pair(r, expert);
            const bool is_last = i + 1 == r->n_chosen;
            const lld_tile tile = {.first_row = first_row,
                                   .n_rows = n,
                                   .first_col = first,
                                   .out = t->expert_out + first * n,
                                   .out_stride = n,
                                   .next =
                                       rows_of_chosen(f, l, is_last ? 0 : i + 1, LLD_EXPERT_DOWN,
                                                      is_last ? first_row + n : first_row)};
            if (!weights_of(f, l, expert, LLD_EXPERT_DOWN, &weights)) break;
            down_tiles(f, thread, &weights.down, &t->pairs_hidden, tile, r->ends[expert] - first);
        }
        if (w->shared.gate.data != NULL) {
            const lld_tile tile = {.first_row = first_row,
                                   .n_rows = n,
                                   .out = t->expert_out + n_rows * c->experts.n_used * n,
                                   .out_stride = n};
            down_tiles(f, thread, &w->shared.down, &t->hidden, tile, n_rows);
        }
        for (size_t row = 0; row < n_rows; row++) add_row(f, l, row, first_row, n, t->expert_out);
    }
}

void lld_feed_experts(lld_forward *f, unsigned thread, const lld_layer *l)
{
    const lld_config *c = &f->model->config;
    const lld_routing *r = &f->scratch.routing;
    lld_thread_scratch *t = &f->scratch.threads[thread];
    const size_t n_pairs = f->batch.n_rows * c->experts.n_used;
    t->pairs = r->input;
    t->pairs_hidden = r->hidden_input;
    t->pairs.batch_rows = t->pairs_hidden.batch_rows = r->rows;
    lld_input_shape(&t->pairs, n_pairs, c->dim, r->input_store);
    lld_input_shape(&t->pairs_hidden, n_pairs, c->experts.hidden_dim, r->hidden_store);
    if (l->mixture.shared.gate.data != NULL) {
        t->hidden = f->scratch.hidden_input;
        lld_input_shape(&t->hidden, f->batch.n_rows, c->experts.shared_hidden_dim,
                        f->scratch.hidden);
    }
    lld_expert_guess_run(f, thread, l);
    const lld_input *input = route(f, thread, l);
    if (f->batch.n_rows > 1) gather(f, thread, &l->mixture, input);
    gate_up_phase(f, thread, l, input);
    down_phase(f, thread, l);
}
