/* model.c - bind the tensors of a file to the shapes in model.h; what one layer's half has is in
 * bind_mixer.c and bind_feed.c. */
#include "model/model.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "model/bind.h"
#include "model/extents.h"
#include "model/pages.h"
#include "model/residency.h"
#include "model/unsupported.h"

enum { MAX_VOCAB = 1 << 22 };

static void bind_layer_input(lld_binder *b, lld_layer_input_weights *w)
{
    const lld_config *c = &b->model->config;
    if (c->layer_input_dim == 0) return;
    w->gate = lld_bind_matrix(b, "inp_gate.weight", LLD_REQUIRED, c->layer_input_dim, c->dim);
    w->proj = lld_bind_matrix(b, "proj.weight", LLD_REQUIRED, c->dim, c->layer_input_dim);
    w->norm = lld_bind_norm(b, "post_norm");
}

/* What makes the inputs of all layers. */
static void bind_layer_inputs(lld_binder *b)
{
    lld_model *m = b->model;
    const lld_config *c = &m->config;
    const uint64_t n = (uint64_t)c->n_layers * c->layer_input_dim;
    if (n == 0) return;
    m->layer_input_table =
        lld_bind_matrix(b, "per_layer_token_embd.weight", LLD_REQUIRED, m->vocab_size, n);
    lld_bind_by_row(m, &m->layer_input_table);
    if (b->status == LLD_OK)
        lld_pages_scattered(m->layer_input_table.data,
                            m->vocab_size * m->layer_input_table.row_bytes);
    m->layer_input_proj =
        lld_bind_matrix(b, "per_layer_model_proj.weight", LLD_REQUIRED, n, c->dim);
    m->layer_input_proj.fine = true; /* all layers feel its error */
    m->layer_input_norm =
        lld_bind_vector(b, "per_layer_proj_norm.weight", LLD_REQUIRED, c->layer_input_dim);
}

static lld_mixer_kind mixer_kind(const lld_config *c, bool has_kv_heads)
{
    const lld_family_facts *facts = &c->architecture->facts;
    if (facts->state_space == LLD_SSM_BESIDE) return LLD_MIXER_ATTENTION_AND_STATE_SPACE;
    if (has_kv_heads) return LLD_MIXER_ATTENTION;
    if (facts->state_space != LLD_SSM_ABSENT) return LLD_MIXER_STATE_SPACE;
    return facts->has_delta_net ? LLD_MIXER_DELTA_NET : LLD_MIXER_CONVOLUTION;
}

static lld_feed_kind feed_kind(const lld_config *c, uint32_t layer)
{
    if (c->layers[layer].hidden_dim == 0) return LLD_FEED_NONE;
    if (!lld_has_experts(c, layer)) return LLD_FEED_GATED;
    return c->architecture->facts.experts.beside_dense ? LLD_FEED_GATED_AND_EXPERTS
                                                       : LLD_FEED_EXPERTS;
}

static void bind_mixer(lld_binder *b, lld_layer *layer)
{
    switch (layer->mixer) {
    case LLD_MIXER_ATTENTION:
        lld_bind_attention(b, &layer->attention);
        break;
    case LLD_MIXER_CONVOLUTION:
        lld_bind_convolution(b, layer);
        break;
    case LLD_MIXER_DELTA_NET:
        lld_bind_delta_net(b, layer);
        break;
    case LLD_MIXER_STATE_SPACE:
        lld_bind_state_space(b, layer);
        break;
    case LLD_MIXER_ATTENTION_AND_STATE_SPACE:
        lld_bind_attention(b, &layer->attention);
        lld_bind_state_space(b, layer);
        break;
    }
}

/* Choose the kinds of one layer, and bind what they need. */
static void bind_layer(lld_binder *b, lld_layer *layer)
{
    const lld_norm_names *norms = &b->model->config.architecture->norms;
    const lld_config *c = &b->model->config;
    if (c->is_local[b->layer]) {
        layer->window = c->window;
        layer->rope = c->local_rope_base > 0.0f;
    }
    if (c->is_unrotated[b->layer]) layer->rope = -1;
    layer->sizes = c->layers[b->layer];
    layer->mixer = mixer_kind(c, layer->sizes.n_kv_heads > 0);
    layer->feed = feed_kind(c, (uint32_t)b->layer);
    layer->mixer_norm = lld_bind_norm(b, norms->before_mixer);
    layer->mixer_post_norm = lld_bind_norm(b, norms->after_mixer);
    layer->feed_norm = lld_bind_norm(b, norms->before_feed);
    if (c->is_parallel && norms->before_feed == NULL) layer->feed_norm = layer->mixer_norm;
    layer->feed_post_norm = lld_bind_norm(b, norms->after_feed);
    bind_mixer(b, layer);
    const bool has_both = layer->feed == LLD_FEED_GATED_AND_EXPERTS;
    if (layer->feed == LLD_FEED_GATED || has_both) lld_bind_gated(b, &layer->gated);
    if (layer->feed == LLD_FEED_EXPERTS || has_both)
        lld_bind_mixture(b, &layer->mixture,
                         b->model->experts +
                             (size_t)(b->layer - (int)c->experts.n_dense_layers) * c->experts.n);
    bind_layer_input(b, &layer->input);
    if (c->architecture->facts.has_layer_inputs)
        layer->output_scale = lld_bind_vector(b, "layer_output_scale.weight", LLD_OPTIONAL, 1);
}

/* The vocabulary's size is the embedding's number of rows; the token list must agree with it. */
static void read_vocab_size(lld_binder *b)
{
    char name[LLD_NAME_BYTES];
    const lld_tensor *t = lld_bind_find(b, "token_embd.weight", LLD_REQUIRED, name);
    if (t == NULL) return;
    if (t->dims[1] < 1 || t->dims[1] > MAX_VOCAB) {
        b->status = lld_fail(LLD_ERR_CORRUPT, "tensor '%s' has %" PRIu64 " rows, must be 1 to %d",
                             name, t->dims[1], (int)MAX_VOCAB);
        return;
    }
    const lld_kv *tokens = lld_gguf_find(b->gguf, "tokenizer.ggml.tokens");
    if (tokens != NULL && tokens->type == LLD_GGUF_ARRAY && tokens->count != t->dims[1]) {
        b->status = lld_fail(LLD_ERR_CORRUPT,
                             "metadata key 'tokenizer.ggml.tokens' has %" PRIu64
                             " tokens, tensor '%s' has %" PRIu64 " rows",
                             tokens->count, name, t->dims[1]);
        return;
    }
    b->model->vocab_size = (uint32_t)t->dims[1];
}

/* Divisors of the RoPE frequencies, which must be finite and > 0. */
static const float *bind_rope_factors(lld_binder *b, const char *name, lld_need need)
{
    const uint32_t n = b->model->config.n_rot / 2;
    const float *factors = lld_bind_vector(b, name, need, n);
    if (b->status != LLD_OK || factors == NULL) return NULL;
    for (uint32_t i = 0; i < n; i++) {
        if (isfinite(factors[i]) && factors[i] > 0.0f) continue;
        b->status = lld_fail(LLD_ERR_CORRUPT,
                             "tensor '%s': element %" PRIu32 " is %g, must be finite and > 0", name,
                             i, (double)factors[i]);
        return NULL;
    }
    return factors;
}

/* Those of LongRoPE come in pairs, whether or not the file names the kind of its scaling. */
static void bind_all_rope_factors(lld_binder *b)
{
    lld_model *m = b->model;
    const lld_need need = m->config.scaling == LLD_SCALING_LONGROPE ? LLD_REQUIRED : LLD_OPTIONAL;
    m->rope_factors = bind_rope_factors(b, "rope_freqs.weight", LLD_OPTIONAL);
    m->rope_factors_long = bind_rope_factors(b, "rope_factors_long.weight", need);
    m->rope_factors_short = bind_rope_factors(
        b, "rope_factors_short.weight", m->rope_factors_long != NULL ? LLD_REQUIRED : LLD_ABSENT);
}

/* What is left out changes the answer: a tensor that nothing bound is refused by its name. */
static void check_all_bound(lld_binder *b)
{
    for (size_t i = 0; i < b->gguf->n_tensors && b->status == LLD_OK; i++) {
        const lld_tensor *t = &b->gguf->tensors[i];
        if (b->bound[i] || lld_tensor_is_needless(&b->model->config, t)) continue;
        b->status = lld_fail(LLD_ERR_UNSUPPORTED,
                             "tensor '%.*s' has no place in a model of architecture '%s'",
                             (int)(t->name_length > 64 ? 64 : t->name_length), t->name,
                             b->model->config.architecture->name);
    }
}

/* An encoder's embedding has more than tokens, all of it read by rows. */
static void bind_encoder(lld_binder *b)
{
    enum { MAX_TYPES = 16 };
    lld_model *m = b->model;
    const lld_config *c = &m->config;
    char name[LLD_NAME_BYTES];
    m->embedding = lld_bind_matrix(b, "token_embd.weight", LLD_REQUIRED, m->vocab_size, c->dim);
    lld_bind_by_row(m, &m->embedding);
    if (c->architecture->facts.has_positions)
        m->positions =
            lld_bind_matrix(b, "position_embd.weight", LLD_REQUIRED, c->n_ctx_train, c->dim);
    lld_bind_by_row(m, &m->positions);
    const lld_tensor *types = lld_bind_find(b, "token_types.weight", LLD_OPTIONAL, name);
    if (types != NULL) {
        if (types->dims[1] < 1 || types->dims[1] > MAX_TYPES)
            b->status =
                lld_fail(LLD_ERR_CORRUPT, "tensor '%s' has %" PRIu64 " rows, must be 1 to %d", name,
                         types->dims[1], (int)MAX_TYPES);
        m->types = lld_bind_matrix(b, "token_types.weight", LLD_REQUIRED, types->dims[1], c->dim);
    }
    lld_bind_by_row(m, &m->types);
    m->embedding_norm = lld_bind_norm(b, "token_embd_norm");
}

static void bind_rank(lld_binder *b)
{
    enum { MAX_SCORES = 16 };
    lld_rank_weights *w = &b->model->rank;
    const uint64_t dim = b->model->config.dim;
    char name[LLD_NAME_BYTES];
    if (!lld_ranks(b->gguf, &b->model->config)) return;
    const lld_tensor *output = lld_bind_find(b, "cls.output.weight", LLD_REQUIRED, name);
    if (output == NULL) return;
    if (output->dims[1] < 1 || output->dims[1] > MAX_SCORES) {
        b->status = lld_fail(LLD_ERR_CORRUPT, "tensor '%s' has %" PRIu64 " rows, must be 1 to %d",
                             name, output->dims[1], (int)MAX_SCORES);
        return;
    }
    w->output = lld_bind_matrix(b, "cls.output.weight", LLD_REQUIRED, output->dims[1], dim);
    w->output_bias = lld_bind_vector(b, "cls.output.bias", LLD_OPTIONAL, output->dims[1]);
    w->dense = lld_bind_matrix(b, "cls.weight", LLD_OPTIONAL, dim, dim);
    if (w->dense.data != NULL) w->dense_bias = lld_bind_vector(b, "cls.bias", LLD_OPTIONAL, dim);
    lld_bind_by_row(b->model, &w->output);
    lld_bind_by_row(b->model, &w->dense);
}

static void bind_output(lld_binder *b)
{
    lld_model *m = b->model;
    const lld_config *c = &m->config;
    const char *norm = c->architecture->facts.output_norm;
    m->output = lld_bind_matrix(b, "output.weight", LLD_OPTIONAL, m->vocab_size, c->dim);
    const bool tied = b->status == LLD_OK && m->output.data == NULL;
    m->embedding = lld_bind_matrix(b, "token_embd.weight", LLD_REQUIRED, m->vocab_size, c->dim);
    if (tied)
        m->output = m->embedding;
    else
        lld_bind_by_row(m, &m->embedding);
    m->output.fine = true;
    m->output_norm = lld_bind_norm(b, norm == NULL ? "output_norm" : norm);
    m->output_bias = lld_bind_vector(b, "output.bias", LLD_OPTIONAL, m->vocab_size);
}

/* Of its weights a decoded token needs none. */
static void bind_guess_layer(lld_binder *b)
{
    lld_model *m = b->model;
    const uint64_t streamed_bytes = m->streamed_bytes;
    if (m->config.n_guess_layers == 0 || b->status != LLD_OK) return;
    b->layer = (int)m->config.n_layers;
    bind_layer(b, &m->layers[b->layer]);
    lld_bind_guess(b);
    m->streamed_bytes = streamed_bytes;
}

static void bind_model(lld_binder *b)
{
    lld_model *m = b->model;
    const lld_config *c = &m->config;
    read_vocab_size(b);
    if (b->status != LLD_OK) return;
    if (c->architecture->facts.is_encoder)
        bind_encoder(b);
    else
        bind_output(b);
    bind_rank(b);
    bind_all_rope_factors(b);
    for (uint32_t i = 0; i < c->n_layers && b->status == LLD_OK; i++) {
        b->layer = (int)i;
        bind_layer(b, &m->layers[i]);
    }
    bind_guess_layer(b);
    b->layer = -1;
    bind_layer_inputs(b);
    if (b->status == LLD_OK) check_all_bound(b);
}

static int bind(lld_model *m, const lld_gguf *gguf)
{
    lld_binder b = {.model = m, .gguf = gguf, .layer = -1, .status = LLD_OK};
    b.bound = calloc(gguf->n_tensors + 1, sizeof *b.bound);
    const size_t n_layers = lld_bound_layers(&m->config);
    m->layers = calloc(n_layers, sizeof *m->layers);
    m->experts = calloc(n_layers * m->config.experts.n + 1, sizeof *m->experts);
    if (b.bound == NULL || m->layers == NULL || m->experts == NULL)
        b.status = lld_fail(LLD_ERR_MEMORY, "no memory for the layer table");
    else
        bind_model(&b);
    free(b.bound);
    return b.status == LLD_OK ? lld_extents_cut(m, LLD_EXTENT_BYTES) : b.status;
}

static bool name_ends(const lld_tensor *t, const char *suffix)
{
    const size_t n = strlen(suffix);
    return t->name_length >= n && memcmp(t->name + t->name_length - n, suffix, n) == 0;
}

/* Room for every vector, every table of few columns, every norm and bias of the file that is not float32. */
static int allocate_converted(lld_model *m, const lld_gguf *gguf)
{
    uint64_t n = 0;
    for (size_t i = 0; i < gguf->n_tensors; i++) {
        const lld_tensor *t = &gguf->tensors[i];
        bool vector = t->dims[1] == 1 && t->dims[2] == 1 && t->dims[3] == 1; /* whatever n_dims */
        bool table = t->dims[0] <= LLD_MAX_CONV_WIDTH;                       /* of a convolution */
        bool norm = name_ends(t, "_norm.weight");                            /* of groups */
        bool bias = name_ends(t, ".bias");                                   /* of experts */
        if ((vector || table || norm || bias) && (t->type == LLD_F16 || t->type == LLD_BF16))
            n += t->bytes / sizeof(uint16_t);
    }
    if (n == 0) return LLD_OK;
    m->converted = malloc(n * sizeof *m->converted);
    if (m->converted == NULL)
        return lld_fail(LLD_ERR_MEMORY, "no memory for %" PRIu64 " converted weights", n);
    return LLD_OK;
}

int lld_model_open(const char *path, bool guesses, lld_model **out)
{
    lld_model *m = calloc(1, sizeof *m);
    if (m == NULL) return lld_fail(LLD_ERR_MEMORY, "no memory for the model");
    int status = lld_file_open(path, &m->file);
    if (status != LLD_OK) {
        free(m);
        return status;
    }
    const lld_gguf *gguf = &m->file->gguf;
    status = lld_config_read(gguf, &m->config);
    if (status == LLD_OK && guesses && lld_bind_has_guess(gguf, &m->config))
        lld_config_use_guess_layer(&m->config);
    if (status == LLD_OK) status = allocate_converted(m, gguf);
    if (status == LLD_OK) status = bind(m, gguf);
    if (status == LLD_OK) status = lld_residency_create(m);
    status = lld_file_name_fault(m->file, status);
    if (status != LLD_OK) {
        lld_model_close(m);
        return status;
    }
    *out = m;
    return LLD_OK;
}

void lld_model_close(lld_model *model)
{
    if (model == NULL) return;
    lld_residency_destroy(model->residency);
    lld_file_close(model->file);
    free(model->layers);
    free(model->experts);
    free(model->extents);
    free(model->converted);
    free(model);
}

const lld_file *lld_model_file(const lld_model *model) { return model->file; }
