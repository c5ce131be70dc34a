/* expert_slots.c - see expert_slots.h. */
#include "model/expert_slots.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/direct_file.h"
#include "base/status.h"

static lld_blocks blocks_of(const lld_model *model, const lld_matrix *m)
{
    if (m->data == NULL) return (lld_blocks){0};
    const uint64_t align = LLD_DIRECT_ALIGN, at = (uint64_t)(m->data - model->file->mapping.bytes);
    const size_t skip = (size_t)(at % align), needed = skip + m->n_rows * m->row_bytes;
    return (lld_blocks){.offset = at - skip,
                        .bytes = (needed + align - 1) / align * align,
                        .skip = skip,
                        .needed = needed};
}

lld_expert_places lld_expert_places_of(const lld_model *model, const lld_gated_weights *w)
{
    return (lld_expert_places){.gate = blocks_of(model, &w->gate),
                               .up = blocks_of(model, &w->up),
                               .down = blocks_of(model, &w->down)};
}

const lld_gated_weights *lld_expert_weights_of(const lld_model *model, uint32_t entry)
{
    const uint32_t n = model->config.experts.n;
    return &model->layers[entry / n].mixture.experts[entry % n];
}

static uint32_t n_entries(const lld_model *model)
{
    return model->config.n_layers * model->config.experts.n;
}

uint8_t *lld_expert_slots_kept(const lld_model *model, const lld_residency *r)
{
    uint8_t *kept = calloc(n_entries(model) + 1, 1);
    for (size_t i = 0; kept != NULL && i < r->n_extents; i++) {
        const lld_extent *e = &model->extents[i];
        if (e->role != LLD_ROLE_EXPERT || r->resident[i] != 0) continue;
        kept[(uint32_t)e->layer * model->config.experts.n + (uint32_t)e->expert] = 1;
    }
    return kept;
}

static uint64_t matrix_bytes(const lld_matrix *m)
{
    return m->data == NULL ? 0 : (uint64_t)m->n_rows * m->row_bytes;
}

/* Count the experts that are kept, and how large the largest is. */
static void measure(lld_expert_slots *s, const lld_model *model)
{
    const uint32_t n = model->config.experts.n;
    uint32_t in_layer = 0;
    for (uint32_t entry = 0; entry < n_entries(model); entry++) {
        if (entry % n == 0) in_layer = 0;
        if (s->is_kept[entry] == 0) continue;
        const lld_gated_weights *w = lld_expert_weights_of(model, entry);
        const lld_expert_places p = lld_expert_places_of(model, w);
        const size_t bytes = p.gate.bytes + p.up.bytes + p.down.bytes;
        if (bytes > s->slot_bytes) s->slot_bytes = bytes;
        s->weight_bytes += matrix_bytes(&w->gate) + matrix_bytes(&w->up) + matrix_bytes(&w->down);
        s->most++;
        if (++in_layer > s->least) s->least = in_layer;
    }
}

int lld_expert_slots_init(lld_expert_slots *s, const lld_model *model, uint8_t *kept)
{
    *s = (lld_expert_slots){.is_kept = kept};
    measure(s, model);
    if (s->most == 0) {
        lld_expert_slots_free(s);
        return LLD_OK;
    }
    const size_t size = s->most * s->slot_bytes;
    void *bytes = mmap(NULL, size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (bytes == MAP_FAILED) {
        lld_expert_slots_free(s);
        return lld_fail(LLD_ERR_MEMORY, "no room for %zu bytes of experts", size);
    }
    madvise(bytes, size, MADV_HUGEPAGE); /* a kernel without huge pages keeps small ones */
    s->bytes = bytes;
    return LLD_OK;
}

int lld_expert_slots_resize(lld_expert_slots *s, uint32_t n, uint64_t lock_bytes)
{
    if (n > s->most) n = s->most;
    if (n < s->least)
        return lld_fail(LLD_ERR_INVALID, "%u slots for experts, a layer has %u", n, s->least);
    const size_t size = n * s->slot_bytes, before = s->n * s->slot_bytes;
    if (size < before) {
        munlock(s->bytes + size, before - size);
        madvise(s->bytes + size, before - size, MADV_DONTNEED);
    }
    s->n = n;
    s->lock_error = 0;
    s->locked_bytes = 0;
    if (size <= lock_bytes && mlock(s->bytes, size) == 0) {
        s->locked_bytes = size;
        return LLD_OK;
    }
    s->lock_error = size <= lock_bytes ? errno : 0;
    munlock(s->bytes, size); /* what was, or a part */
    return LLD_OK;
}

void lld_expert_slots_free(lld_expert_slots *s)
{
    if (s->bytes != NULL) munmap(s->bytes, s->most * s->slot_bytes);
    free(s->is_kept);
    *s = (lld_expert_slots){0};
}
