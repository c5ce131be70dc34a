/* bind_guess.c - see bind.h: what joins a token with what the model left for the one before it. */
#include "model/bind.h"

#include <inttypes.h>
#include <stdio.h>

bool lld_bind_has_guess(const lld_gguf *gguf, const lld_config *c)
{
    static const char *const parts[] = {"eh_proj", "enorm", "hnorm", "shared_head_norm"};
    char name[LLD_NAME_BYTES];
    for (size_t i = 0; c->n_extra_layers > 0 && i < sizeof parts / sizeof *parts; i++) {
        snprintf(name, sizeof name, "blk.%" PRIu32 ".nextn.%s.weight", c->n_layers, parts[i]);
        if (lld_gguf_find_tensor(gguf, name) != NULL) return true;
    }
    return false;
}

void lld_bind_guess(lld_binder *b)
{
    lld_model *m = b->model;
    lld_guess_weights *g = &m->guess;
    const uint32_t dim = m->config.dim;
    char name[LLD_NAME_BYTES];
    g->join = lld_bind_matrix(b, "nextn.eh_proj.weight", LLD_REQUIRED, dim, 2ull * dim);
    g->token_norm = lld_bind_norm(b, "nextn.enorm");
    g->hidden_norm = lld_bind_norm(b, "nextn.hnorm");
    g->norm = m->output_norm;
    if (lld_bind_find(b, "nextn.shared_head_norm.weight", LLD_OPTIONAL, name) != NULL)
        g->norm = lld_bind_norm(b, "nextn.shared_head_norm");
    g->embedding =
        lld_bind_matrix(b, "nextn.embed_tokens.weight", LLD_OPTIONAL, m->vocab_size, dim);
    if (g->embedding.data == NULL) g->embedding = m->embedding;
    g->output =
        lld_bind_matrix(b, "nextn.shared_head_head.weight", LLD_OPTIONAL, m->vocab_size, dim);
    if (g->output.data == NULL) g->output = m->output;
    g->output.fine = true;
    g->state_offset = lld_bind_state(b, dim);
}
