/* scratch.c - see scratch.h: what memory a forward takes, in one arena. */
#include "engine/product.h"
#include "model/rope.h"

/* What the products of a gated feed-forward need; one that is not there: nothing. */
static void add_kinds(const lld_gated_weights *g, lld_act_kinds *input, lld_act_kinds *down)
{
    if (g->gate.data == NULL) return;
    *input |= LLD_ACT_BIT(g->gate.act) | LLD_ACT_BIT(g->up.act);
    *down |= LLD_ACT_BIT(g->down.act);
}

static lld_act_kinds kinds_of(const lld_model *m, lld_act_kinds *down)
{
    lld_act_kinds kinds = LLD_ACT_BIT(m->output.act) | LLD_ACT_BIT(m->layer_input_proj.act) |
                          LLD_ACT_BIT(m->guess.join.act) | LLD_ACT_BIT(m->guess.output.act);
    *down = 0;
    for (uint32_t i = 0; i < lld_bound_layers(&m->config); i++) {
        lld_matrix *mixer[LLD_MIXER_MATRICES];
        const uint32_t n_mixer = lld_mixer_matrices(&m->layers[i], mixer);
        for (uint32_t k = 0; k < n_mixer; k++) kinds |= LLD_ACT_BIT(mixer[k]->act);
        add_kinds(&m->layers[i].gated, &kinds, down);
        add_kinds(&m->layers[i].mixture.shared, &kinds, down);
        if (m->layers[i].mixture.experts != NULL) {
            lld_act_kinds ignored = 0; /* they have a hidden input of their own */
            kinds |= LLD_ACT_BIT(m->layers[i].mixture.router.act);
            add_kinds(&m->layers[i].mixture.experts[0], &kinds, &ignored);
        }
        kinds |=
            LLD_ACT_BIT(m->layers[i].input.gate.act) | LLD_ACT_BIT(m->layers[i].input.proj.act);
    }
    return kinds;
}

/* What the experts of all layers need. */
static lld_act_kinds expert_kinds(const lld_model *m, lld_act_kinds *down)
{
    lld_act_kinds kinds = 0;
    *down = 0;
    for (uint32_t i = 0; i < lld_bound_layers(&m->config); i++)
        if (m->layers[i].mixture.experts != NULL)
            add_kinds(&m->layers[i].mixture.experts[0], &kinds, down);
    return kinds;
}

static void take_routing(lld_arena *arena, lld_forward *f)
{
    const lld_config *c = &f->model->config;
    const lld_expert_sizes *e = &c->experts;
    const size_t rows = f->batch.n_batch, pairs = rows * e->n_used;
    lld_routing *r = &f->scratch.routing;
    lld_act_kinds down, kinds = expert_kinds(f->model, &down);
    const bool stores = (kinds & LLD_ACT_BIT(LLD_ACT_F32)) != 0,
               stores_hidden = (down & LLD_ACT_BIT(LLD_ACT_F32)) != 0;
    *r = (lld_routing){0};
    if (e->n == 0) return;
    r->logits = lld_arena_alloc(arena, (rows + 1) * e->n, sizeof(float));
    r->chosen = lld_arena_alloc(arena, pairs + e->n_used, sizeof(uint32_t));
    r->weights = lld_arena_alloc(arena, pairs + e->n_used, sizeof(float));
    r->pairs = lld_arena_alloc(arena, pairs, sizeof(uint32_t));
    r->rows = lld_arena_alloc(arena, pairs, sizeof(uint32_t));
    r->ends = lld_arena_alloc(arena, e->n, sizeof(uint32_t));
    r->order = lld_arena_alloc(arena, e->n, sizeof(uint32_t));
    r->unit_ends = lld_arena_alloc(arena, e->n + 1, sizeof(uint32_t));
    r->shared_weights = lld_arena_alloc(arena, rows, sizeof(float));
    r->input_store = lld_arena_alloc(arena, stores ? pairs * c->dim : 0, sizeof(float));
    r->hidden_store =
        lld_arena_alloc(arena, stores_hidden ? pairs * e->hidden_dim : 0, sizeof(float));
    lld_acts_alloc(arena, kinds, pairs, c->dim, r->input.forms);
    lld_acts_alloc(arena, kinds, pairs, c->dim, r->input.fine);
    lld_acts_alloc(arena, down, pairs, e->hidden_dim, r->hidden_input.forms);
    lld_acts_alloc(arena, down, pairs, e->hidden_dim, r->hidden_input.fine);
}

static void take_thread(lld_arena *arena, const lld_forward *f, lld_act_kinds kinds,
                        lld_act_kinds down, lld_thread_scratch *t)
{
    size_t tile = lld_max_size(2, lld_min_size(LLD_TILE_COLS, f->batch.n_batch));
    t->matmul = lld_arena_alloc(arena, lld_kernels_scratch_bytes(f->scratch.max_cols), 1);
    t->row = lld_arena_alloc(arena, f->scratch.max_cols, sizeof *t->row);
    lld_acts_alloc(arena, kinds, 2, f->scratch.max_cols, t->forms);
    lld_acts_alloc(arena, kinds | down, f->scratch.n_first_tokens, f->scratch.max_cols,
                   t->first_tokens);
    t->rest = lld_arena_alloc(arena, f->scratch.max_cols, sizeof *t->rest);
    t->correction = lld_arena_alloc(arena, tile * LLD_CHUNK_ROWS_MAX, sizeof *t->correction);
    t->gate = lld_arena_alloc(arena, tile * f->scratch.hidden_chunk, sizeof *t->gate);
    t->up = lld_arena_alloc(arena, tile * f->scratch.hidden_chunk, sizeof *t->up);
    const uint32_t n_used = f->model->config.experts.n_used;
    t->expert_out = lld_arena_alloc(
        arena, n_used == 0 ? 0 : f->batch.n_batch * (n_used + 1) * (size_t)LLD_EXPERT_CHUNK_ROWS,
        sizeof *t->expert_out);
    lld_attention_scratch_alloc(arena, &f->attention, &t->attention);
}

void lld_forward_alloc(lld_arena *arena, lld_forward *f)
{
    const lld_config *c = &f->model->config;
    size_t rows = f->batch.n_batch, n_q = (size_t)c->n_heads * c->head_dim,
           n_kv = (size_t)c->n_kv_heads * c->head_dim;
    uint32_t group = 1;
    for (uint32_t i = 0; i < c->n_layers; i++)
        if (c->layers[i].n_kv_heads > 0 && c->n_heads / c->layers[i].n_kv_heads > group)
            group = c->n_heads / c->layers[i].n_kv_heads;
    lld_act_kinds down, kinds = kinds_of(f->model, &down);
    const size_t layer_inputs = (size_t)c->n_layers * c->layer_input_dim,
                 mixed = lld_max_size(n_q, lld_mixed_cols(c)),
                 mixer_cols = lld_max_size(lld_max_size(c->dim, mixed), c->layer_input_dim),
                 input_cols = lld_max_size(mixer_cols, lld_joined_cols(c));

    f->scratch.max_cols =
        (uint32_t)lld_max_size(lld_max_size(input_cols, c->hidden_dim), layer_inputs);
    lld_act_kinds experts_down;
    expert_kinds(f->model, &experts_down);
    const bool by_256 = ((down | experts_down) & LLD_ACT_BIT(LLD_ACT_Q8K)) != 0;
    f->scratch.n_first_tokens = c->architecture->facts.is_encoder ? LLD_FIRST_TOKENS : 0;
    f->scratch.hidden_chunk = by_256 ? LLD_QK_K : 2 * LLD_QK;
    f->attention.kernels = f->kernels;
    f->attention.cache = f->cache;
    f->attention.n_heads = c->n_heads;
    f->attention.group = group;
    f->attention.head_dim = c->head_dim;
    f->attention.q_scale = c->query_scale;
    f->attention.softcap = c->attention_softcap;
    f->attention.sees_all = c->architecture->facts.is_encoder;

    f->scratch.x = lld_arena_alloc(arena, rows * c->dim, sizeof(float));
    f->scratch.q = lld_arena_alloc(arena, rows * mixed, sizeof(float));
    f->scratch.k = lld_arena_alloc(arena, rows * n_kv, sizeof(float));
    f->scratch.v = lld_arena_alloc(arena, rows * n_kv, sizeof(float));
    f->scratch.attended = lld_arena_alloc(arena, rows * mixed, sizeof(float));
    f->scratch.projected = lld_arena_alloc(arena, rows * lld_projected_cols(c), sizeof(float));
    f->scratch.work = lld_arena_alloc(arena, rows * c->dim, sizeof(float));
    f->scratch.mixed = NULL;
    if (c->is_parallel || (c->experts.n > 0 && c->architecture->facts.experts.beside_dense))
        f->scratch.mixed = lld_arena_alloc(arena, rows * c->dim, sizeof(float));
    f->scratch.hidden = NULL;
    f->scratch.takes_hidden = (down & LLD_ACT_BIT(LLD_ACT_F32)) != 0;
    if (f->scratch.takes_hidden)
        f->scratch.hidden = lld_arena_alloc(arena, rows * c->hidden_dim, sizeof(float));
    f->scratch.cos_sin =
        lld_arena_alloc(arena, rows * lld_rope_tables(c) * lld_rope_stride(c), sizeof(float));
    f->scratch.ones = lld_arena_alloc(arena, c->head_dim, sizeof(float));
    f->scratch.layer_inputs = lld_arena_alloc(arena, rows * layer_inputs, sizeof(float));
    f->scratch.layer_gate = lld_arena_alloc(arena, rows * c->layer_input_dim, sizeof(float));
    f->scratch.logits =
        lld_arena_alloc(arena, (size_t)f->batch.n_logits * f->model->vocab_size, sizeof(float));
    const size_t guess_dim = c->n_guess_layers > 0 ? c->dim : 0;
    f->scratch.guess_x = lld_arena_alloc(arena, rows * guess_dim, sizeof(float));
    f->scratch.left = lld_arena_alloc(arena, f->batch.n_logits * guess_dim, sizeof(float));
    f->scratch.rank_hidden =
        lld_arena_alloc(arena, f->model->rank.dense.data == NULL ? 0 : c->dim, sizeof(double));
    f->scratch.frequencies =
        lld_arena_alloc(arena, (size_t)lld_rope_tables(c) * lld_rope_stride(c) / 2, sizeof(double));
    lld_batch_alloc(arena, &f->batch);
    lld_acts_alloc(arena, kinds, rows, input_cols, f->scratch.input.forms);
    lld_acts_alloc(arena, kinds, rows, input_cols, f->scratch.input.fine);
    lld_acts_alloc(arena, down, rows, c->hidden_dim, f->scratch.hidden_input.forms);
    lld_acts_alloc(arena, down, rows, c->hidden_dim, f->scratch.hidden_input.fine);
    take_routing(arena, f);
    lld_attention_alloc(arena, &f->attention, f->batch.n_batch, f->batch.n_ctx);
    f->scratch.threads = lld_arena_alloc(arena, f->n_threads, sizeof *f->scratch.threads);
    for (uint32_t i = 0; i < f->n_threads; i++) {
        lld_thread_scratch counted;
        take_thread(arena, f, kinds, down,
                    f->scratch.threads == NULL ? &counted : &f->scratch.threads[i]);
    }
}

bool lld_forward_has_long_rope(const lld_forward *f)
{
    return f->model->rope_factors_long != NULL &&
           f->batch.n_ctx > f->model->config.scaling_original_ctx;
}

void lld_forward_prepare(lld_forward *f)
{
    const lld_config *c = &f->model->config;
    const lld_model *m = f->model;
    const float *factors = m->rope_factors;
    if (factors == NULL)
        factors = lld_forward_has_long_rope(f) ? m->rope_factors_long : m->rope_factors_short;
    f->scratch.rope_magnitude = lld_rope_frequencies(c, factors, f->scratch.frequencies);
    if (lld_rope_tables(c) == 2)
        lld_rope_local_frequencies(c, f->scratch.frequencies + lld_rope_stride(c) / 2);
    for (uint32_t i = 0; i < c->head_dim; i++) f->scratch.ones[i] = 1.0f;
}
