/* model.c - bind the tensors of a file to the shapes in model.h; every check of a tensor is here.
 */
#include "model/model.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "model/extents.h"
#include "model/pages.h"
#include "model/residency.h"
#include "model/unsupported.h"

enum { NAME_BYTES = 64, MAX_VOCAB = 1 << 22 };

/* Binds tensors by name: the first failure sticks, so a caller checks once. */
typedef struct {
    lld_model *model;
    const lld_gguf *gguf;
    bool *bound; /* (gguf->n_tensors) */
    int layer;   /* -1: a tensor of the whole model */
    int status;
} binder;

static void tensor_name(const binder *b, const char *suffix, char name[NAME_BYTES])
{
    if (b->layer < 0)
        snprintf(name, NAME_BYTES, "%s", suffix);
    else
        snprintf(name, NAME_BYTES, "blk.%d.%s", b->layer, suffix);
}

static const lld_tensor *find(binder *b, const char *suffix, lld_need need, char name[NAME_BYTES])
{
    if (b->status != LLD_OK) return NULL;
    tensor_name(b, suffix, name);
    const lld_tensor *tensor = lld_gguf_find_tensor(b->gguf, name);
    if (tensor == NULL && need == LLD_REQUIRED)
        b->status = lld_fail(LLD_ERR_CORRUPT, "tensor '%s' is missing", name);
    if (tensor != NULL) b->bound[tensor - b->gguf->tensors] = true;
    return tensor;
}

static bool check_shape(binder *b, const lld_tensor *t, const char *name, uint64_t n_cols,
                        uint64_t n_rows)
{
    if (t->dims[0] == n_cols && t->dims[1] == n_rows && t->dims[2] == 1 && t->dims[3] == 1)
        return true;
    b->status = lld_fail(LLD_ERR_CORRUPT,
                         "tensor '%s' has shape (%" PRIu64 ", %" PRIu64 ", %" PRIu64 ", %" PRIu64
                         "), must be (%" PRIu64 ", %" PRIu64 ")",
                         name, t->dims[0], t->dims[1], t->dims[2], t->dims[3], n_cols, n_rows);
    return false;
}

static lld_matrix bind_matrix(binder *b, const char *suffix, lld_need need, uint64_t n_rows,
                              uint64_t n_cols)
{
    char name[NAME_BYTES];
    const lld_tensor *t = find(b, suffix, need, name);
    if (t == NULL || !check_shape(b, t, name, n_cols, n_rows)) return (lld_matrix){0};
    b->model->weight_bytes += t->bytes;
    b->model->streamed_bytes += t->bytes;
    return (lld_matrix){.data = t->data,
                        .n_rows = n_rows,
                        .n_cols = n_cols,
                        .row_bytes = lld_type_row_bytes(t->type, n_cols),
                        .type = t->type,
                        .act = lld_type_act_kind(t->type)};
}

/* Of a bound table one row is read for a token, not the matrix. */
static void count_by_row(lld_model *m, const lld_matrix *table)
{
    if (table->data != NULL) m->streamed_bytes -= (table->n_rows - 1) * table->row_bytes;
}

/* Rows [first, first + n_rows) of a matrix. */
static lld_matrix view_rows(const lld_matrix *m, uint64_t first, uint64_t n_rows)
{
    lld_matrix view = *m;
    if (m->data == NULL) return view; /* a fault was noted */
    view.data += first * m->row_bytes;
    view.n_rows = n_rows;
    return view;
}

/* The n elements of a tensor as float32. */
static const float *bind_floats(binder *b, const lld_tensor *t, const char *name, uint64_t n)
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

static const float *bind_vector(binder *b, const char *suffix, lld_need need, uint64_t n)
{
    char name[NAME_BYTES];
    if (need == LLD_ABSENT) return NULL;
    const lld_tensor *t = find(b, suffix, need, name);
    if (t == NULL || !check_shape(b, t, name, n, 1)) return NULL;
    return bind_floats(b, t, name, n);
}

/* A tensor that may be there and that nothing reads. */
static void leave_unused(binder *b, const char *suffix)
{
    char name[NAME_BYTES];
    find(b, suffix, LLD_OPTIONAL, name);
}

/* Queries, keys and values are three tensors, or the rows of one, in that order. */
static void bind_qkv(binder *b, lld_attention_weights *w)
{
    const lld_config *c = &b->model->config;
    const lld_need bias = c->architecture->qkv_bias;
    const lld_layer_sizes *s = &c->layers[b->layer];
    const uint64_t n_q = (uint64_t)c->n_heads * s->head_dim,
                   n_kv = (uint64_t)s->n_kv_heads * s->head_dim;
    const lld_matrix fused =
        bind_matrix(b, "attn_qkv.weight", LLD_OPTIONAL, n_q + 2 * n_kv, c->dim);
    if (fused.data != NULL) {
        const float *biases = bind_vector(b, "attn_qkv.bias", bias, n_q + 2 * n_kv);
        w->wq = view_rows(&fused, 0, n_q);
        w->wk = view_rows(&fused, n_q, n_kv);
        w->wv = view_rows(&fused, n_q + n_kv, n_kv);
        w->bq = biases;
        w->bk = biases == NULL ? NULL : biases + n_q;
        w->bv = biases == NULL ? NULL : biases + n_q + n_kv;
        return;
    }
    const lld_need values = c->architecture->facts.norms_values ? LLD_OPTIONAL : LLD_REQUIRED;
    const bool gated = c->architecture->facts.gates_attention;
    w->wq = bind_matrix(b, "attn_q.weight", LLD_REQUIRED, gated ? 2 * n_q : n_q, c->dim);
    w->bq = bind_vector(b, "attn_q.bias", bias, n_q);
    if (s->kv_layer != (uint32_t)b->layer) {
        leave_unused(b, "attn_k.weight");
        leave_unused(b, "attn_v.weight");
        return;
    }
    w->wk = bind_matrix(b, "attn_k.weight", LLD_REQUIRED, n_kv, c->dim);
    w->wv = bind_matrix(b, "attn_v.weight", values, n_kv, c->dim);
    w->bk = bind_vector(b, "attn_k.bias", bias, n_kv);
    w->bv = bind_vector(b, "attn_v.bias", bias, n_kv);
}

static void bind_attention(binder *b, lld_attention_weights *w)
{
    const lld_config *c = &b->model->config;
    const lld_architecture *a = c->architecture;
    const lld_layer_sizes *s = &c->layers[b->layer];
    uint64_t n_q = (uint64_t)c->n_heads * s->head_dim, n_kv = (uint64_t)s->n_kv_heads * s->head_dim;

    const bool has_kv = s->kv_layer == (uint32_t)b->layer;
    bind_qkv(b, w);
    w->wv.fine = has_kv;
    w->wk.fine = has_kv && w->wv.data == NULL; /* it makes the values, too */
    if (a->qk_norm != LLD_QK_NORM_NONE) {
        bool row = a->qk_norm == LLD_QK_NORM_ROW;
        w->q_norm = bind_vector(b, "attn_q_norm.weight", LLD_REQUIRED, row ? n_q : s->head_dim);
        if (!has_kv) leave_unused(b, "attn_k_norm.weight");
        if (has_kv)
            w->k_norm =
                bind_vector(b, "attn_k_norm.weight", LLD_REQUIRED, row ? n_kv : s->head_dim);
    }
    w->wo = bind_matrix(b, "attn_output.weight", LLD_REQUIRED, c->dim, n_q);
    w->bo = bind_vector(b, "attn_output.bias", LLD_OPTIONAL, c->dim);
}

/* A matrix of which every element is used as it is: float32, in the file or converted. */
static const float *bind_table(binder *b, const char *suffix, uint64_t n_rows, uint64_t n_cols)
{
    char name[NAME_BYTES];
    const lld_tensor *t = find(b, suffix, LLD_REQUIRED, name);
    if (t == NULL || !check_shape(b, t, name, n_cols, n_rows)) return NULL;
    return bind_floats(b, t, name, n_rows * n_cols);
}

/* Give the layer that is bound room in a state slot, behind the layers before it. */
static size_t add_state(binder *b, size_t n_floats)
{
    const size_t offset = b->model->state_floats;
    b->model->state_floats += n_floats;
    return offset;
}

static void bind_convolution(binder *b, lld_layer *layer)
{
    const lld_config *c = &b->model->config;
    lld_convolution_weights *w = &layer->convolution;
    w->in = bind_matrix(b, "shortconv.in_proj.weight", LLD_REQUIRED, 3ull * c->dim, c->dim);
    w->conv = bind_table(b, "shortconv.conv.weight", c->dim, c->conv_width);
    w->out = bind_matrix(b, "shortconv.out_proj.weight", LLD_REQUIRED, c->dim, c->dim);
    w->out.fine = true;
    layer->state_offset = add_state(b, (size_t)(c->conv_width - 1) * c->dim);
}

static void bind_delta_net(binder *b, lld_layer *layer)
{
    const lld_config *c = &b->model->config;
    lld_delta_weights *w = &layer->delta;
    const uint64_t n_v = (uint64_t)c->delta_v_heads * c->delta_dim,
                   n_channels = lld_delta_channels(c);
    w->qkv = bind_matrix(b, "attn_qkv.weight", LLD_REQUIRED, n_channels, c->dim);
    w->gate = bind_matrix(b, "attn_gate.weight", LLD_REQUIRED, n_v, c->dim);
    w->beta = bind_matrix(b, "ssm_beta.weight", LLD_REQUIRED, c->delta_v_heads, c->dim);
    w->alpha = bind_matrix(b, "ssm_alpha.weight", LLD_REQUIRED, c->delta_v_heads, c->dim);
    w->conv = bind_table(b, "ssm_conv1d.weight", n_channels, c->conv_width);
    w->dt_bias = bind_vector(b, "ssm_dt.bias", LLD_REQUIRED, c->delta_v_heads);
    w->a = bind_vector(b, "ssm_a", LLD_REQUIRED, c->delta_v_heads);
    w->norm = bind_vector(b, "ssm_norm.weight", LLD_REQUIRED, c->delta_dim);
    w->out = bind_matrix(b, "ssm_out.weight", LLD_REQUIRED, c->dim, n_v);
    w->out.fine = true;
    layer->state_offset =
        add_state(b, (size_t)(c->conv_width - 1) * n_channels + n_v * c->delta_dim);
}

static void bind_gated(binder *b, lld_gated_weights *w)
{
    const lld_config *c = &b->model->config;
    const lld_gate gate = c->architecture->facts.gate;
    const uint64_t n = c->layers[b->layer].hidden_dim, n_up = gate == LLD_GATE_FUSED ? 2 * n : n;
    if (gate == LLD_GATE_SPLIT) {
        w->gate = bind_matrix(b, "ffn_gate.weight", LLD_REQUIRED, n, c->dim);
        w->gate_bias = bind_vector(b, "ffn_gate.bias", LLD_OPTIONAL, n);
    }
    w->up = bind_matrix(b, "ffn_up.weight", LLD_REQUIRED, n_up, c->dim);
    w->up_bias = bind_vector(b, "ffn_up.bias", LLD_OPTIONAL, n_up);
    if (gate == LLD_GATE_FUSED) {
        const lld_matrix both = w->up;
        w->gate = view_rows(&both, 0, n);
        w->up = view_rows(&both, n, n);
        w->gate_bias = w->up_bias;
        if (w->up_bias != NULL) w->up_bias += n;
    } else if (gate == LLD_GATE_NONE) {
        w->gate = w->up;
        w->gate_bias = w->up_bias;
        w->up = (lld_matrix){0};
        w->up_bias = NULL;
    }
    w->down = bind_matrix(b, "ffn_down.weight", LLD_REQUIRED, c->dim, n);
    w->down_bias = bind_vector(b, "ffn_down.bias", LLD_OPTIONAL, c->dim);
}

/* A norm by the family's name of it, which is NULL where the family has none. */
static lld_norm bind_norm(binder *b, const char *name)
{
    const lld_config *c = &b->model->config;
    const lld_need bias = c->architecture->facts.norm == LLD_LAYER_NORM ? LLD_REQUIRED : LLD_ABSENT;
    char suffix[NAME_BYTES / 2];
    lld_norm norm = {0};
    if (name == NULL) return norm;
    snprintf(suffix, sizeof suffix, "%s.weight", name);
    norm.weight = bind_vector(b, suffix, LLD_REQUIRED, c->dim);
    snprintf(suffix, sizeof suffix, "%s.bias", name);
    norm.bias = bind_vector(b, suffix, bias, c->dim);
    return norm;
}

static void bind_layer_input(binder *b, lld_layer_input_weights *w)
{
    const lld_config *c = &b->model->config;
    if (c->layer_input_dim == 0) return;
    w->gate = bind_matrix(b, "inp_gate.weight", LLD_REQUIRED, c->layer_input_dim, c->dim);
    w->proj = bind_matrix(b, "proj.weight", LLD_REQUIRED, c->dim, c->layer_input_dim);
    w->norm = bind_norm(b, "post_norm");
}

/* What makes the inputs of all layers. */
static void bind_layer_inputs(binder *b)
{
    lld_model *m = b->model;
    const lld_config *c = &m->config;
    const uint64_t n = (uint64_t)c->n_layers * c->layer_input_dim;
    if (n == 0) return;
    m->layer_input_table =
        bind_matrix(b, "per_layer_token_embd.weight", LLD_REQUIRED, m->vocab_size, n);
    count_by_row(m, &m->layer_input_table);
    if (b->status == LLD_OK)
        lld_pages_scattered(m->layer_input_table.data,
                            m->vocab_size * m->layer_input_table.row_bytes);
    m->layer_input_proj = bind_matrix(b, "per_layer_model_proj.weight", LLD_REQUIRED, n, c->dim);
    m->layer_input_proj.fine = true; /* all layers feel its error */
    m->layer_input_norm =
        bind_vector(b, "per_layer_proj_norm.weight", LLD_REQUIRED, c->layer_input_dim);
}

/* Choose the kinds of one layer, and bind what they need. */
static void bind_layer(binder *b, lld_layer *layer)
{
    const lld_norm_names *norms = &b->model->config.architecture->norms;
    const lld_config *c = &b->model->config;
    if (c->is_local[b->layer]) {
        layer->window = c->window;
        layer->rope = c->local_rope_base > 0.0f;
    }
    if (c->is_unrotated[b->layer]) layer->rope = -1;
    layer->sizes = c->layers[b->layer];
    layer->mixer = layer->sizes.n_kv_heads > 0            ? LLD_MIXER_ATTENTION
                   : c->architecture->facts.has_delta_net ? LLD_MIXER_DELTA_NET
                                                          : LLD_MIXER_CONVOLUTION;
    layer->feed = LLD_FEED_GATED;
    layer->mixer_norm = bind_norm(b, norms->before_mixer);
    layer->mixer_post_norm = bind_norm(b, norms->after_mixer);
    layer->feed_norm = bind_norm(b, norms->before_feed);
    if (c->is_parallel && norms->before_feed == NULL) layer->feed_norm = layer->mixer_norm;
    layer->feed_post_norm = bind_norm(b, norms->after_feed);
    if (layer->mixer == LLD_MIXER_CONVOLUTION)
        bind_convolution(b, layer);
    else if (layer->mixer == LLD_MIXER_DELTA_NET)
        bind_delta_net(b, layer);
    else
        bind_attention(b, &layer->attention);
    bind_gated(b, &layer->gated);
    bind_layer_input(b, &layer->input);
    if (c->architecture->facts.has_layer_inputs)
        layer->output_scale = bind_vector(b, "layer_output_scale.weight", LLD_OPTIONAL, 1);
}

/* The vocabulary's size is the embedding's number of rows; the token list must agree with it. */
static void read_vocab_size(binder *b)
{
    char name[NAME_BYTES];
    const lld_tensor *t = find(b, "token_embd.weight", LLD_REQUIRED, name);
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
static const float *bind_rope_factors(binder *b, const char *name, lld_need need)
{
    const uint32_t n = b->model->config.n_rot / 2;
    const float *factors = bind_vector(b, name, need, n);
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
static void bind_all_rope_factors(binder *b)
{
    lld_model *m = b->model;
    const lld_need need = m->config.scaling == LLD_SCALING_LONGROPE ? LLD_REQUIRED : LLD_OPTIONAL;
    m->rope_factors = bind_rope_factors(b, "rope_freqs.weight", LLD_OPTIONAL);
    m->rope_factors_long = bind_rope_factors(b, "rope_factors_long.weight", need);
    m->rope_factors_short = bind_rope_factors(
        b, "rope_factors_short.weight", m->rope_factors_long != NULL ? LLD_REQUIRED : LLD_ABSENT);
}

/* What is left out changes the answer: a tensor that nothing bound is refused by its name. */
static void check_all_bound(binder *b)
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

static void bind_model(binder *b)
{
    lld_model *m = b->model;
    const lld_config *c = &m->config;
    const char *norm = c->architecture->facts.output_norm;
    read_vocab_size(b);
    if (b->status != LLD_OK) return;
    m->output = bind_matrix(b, "output.weight", LLD_OPTIONAL, m->vocab_size, c->dim);
    bool tied = b->status == LLD_OK && m->output.data == NULL;
    if (tied) {
        m->embedding = bind_matrix(b, "token_embd.weight", LLD_REQUIRED, m->vocab_size, c->dim);
        m->output = m->embedding;
    }
    m->output.fine = true;
    m->output_norm = bind_norm(b, norm == NULL ? "output_norm" : norm);
    m->output_bias = bind_vector(b, "output.bias", LLD_OPTIONAL, m->vocab_size);
    bind_all_rope_factors(b);
    for (uint32_t i = 0; i < c->n_layers && b->status == LLD_OK; i++) {
        b->layer = (int)i;
        bind_layer(b, &m->layers[i]);
    }
    b->layer = -1;
    if (!tied) {
        m->embedding = bind_matrix(b, "token_embd.weight", LLD_REQUIRED, m->vocab_size, c->dim);
        count_by_row(m, &m->embedding);
    }
    bind_layer_inputs(b);
    if (b->status == LLD_OK) check_all_bound(b);
}

static int bind(lld_model *m, const lld_gguf *gguf)
{
    binder b = {.model = m, .gguf = gguf, .layer = -1, .status = LLD_OK};
    b.bound = calloc(gguf->n_tensors + 1, sizeof *b.bound);
    m->layers = calloc(m->config.n_layers, sizeof *m->layers);
    if (b.bound == NULL || m->layers == NULL)
        b.status = lld_fail(LLD_ERR_MEMORY, "no memory for the layer table");
    else
        bind_model(&b);
    free(b.bound);
    return b.status == LLD_OK ? lld_extents_cut(m, LLD_EXTENT_BYTES) : b.status;
}

/* Room for every vector, and every table of few columns, of the file that is not float32. */
static int allocate_converted(lld_model *m, const lld_gguf *gguf)
{
    uint64_t n = 0;
    for (size_t i = 0; i < gguf->n_tensors; i++) {
        const lld_tensor *t = &gguf->tensors[i];
        bool vector = t->dims[1] == 1 && t->dims[2] == 1 && t->dims[3] == 1; /* whatever n_dims */
        bool table = t->dims[0] <= LLD_MAX_CONV_WIDTH;                       /* of a convolution */
        if ((vector || table) && (t->type == LLD_F16 || t->type == LLD_BF16))
            n += t->bytes / sizeof(uint16_t);
    }
    if (n == 0) return LLD_OK;
    m->converted = malloc(n * sizeof *m->converted);
    if (m->converted == NULL)
        return lld_fail(LLD_ERR_MEMORY, "no memory for %" PRIu64 " converted weights", n);
    return LLD_OK;
}

int lld_model_open(const char *path, lld_model **out)
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
    free(model->extents);
    free(model->converted);
    free(model);
}

const lld_file *lld_model_file(const lld_model *model) { return model->file; }
