/* expert_cache.c - see expert_cache.h. */
#include "model/expert_cache.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"

static const double growth = 1.0442737824274138; /* 2^(1/16): what a use weighs more a pass later */
static const double most_weight = 1e12;          /* then all are scaled down */
static const double nearer = 1e-6; /* of a count, for each layer: less than any two uses differ */

static size_t n_entries(const lld_expert_cache *c) { return (size_t)c->n_layers * c->n_experts; }

int lld_expert_cache_init(lld_expert_cache *c, uint32_t n_layers, uint32_t n_experts,
                          uint32_t most_slots)
{
    *c = (lld_expert_cache){.n_layers = n_layers, .n_experts = n_experts, .weight = 1.0};
    const size_t n = n_entries(c);
    c->heat = calloc(n + 1, sizeof *c->heat);
    c->pins = calloc(n + 1, sizeof *c->pins);
    c->slot_of = malloc((n + 1) * sizeof *c->slot_of);
    c->entry_of = malloc(((size_t)most_slots + 1) * sizeof *c->entry_of);
    if (c->heat == NULL || c->pins == NULL || c->slot_of == NULL || c->entry_of == NULL) {
        lld_expert_cache_free(c);
        return lld_fail(LLD_ERR_MEMORY, "no memory for the table of experts");
    }
    for (size_t i = 0; i < n; i++) c->slot_of[i] = LLD_NO_SLOT;
    return LLD_OK;
}

void lld_expert_cache_free(lld_expert_cache *c)
{
    free(c->heat);
    free(c->pins);
    free(c->slot_of);
    free(c->entry_of);
    *c = (lld_expert_cache){0};
}

void lld_expert_cache_resize(lld_expert_cache *c, uint32_t n_slots)
{
    for (uint32_t i = n_slots; i < c->n_slots; i++) {
        if (c->entry_of[i] == LLD_NO_ENTRY) {
            c->n_free--;
            continue;
        }
        assert(c->pins[c->entry_of[i]] == 0);
        c->slot_of[c->entry_of[i]] = LLD_NO_SLOT;
    }
    for (uint32_t i = c->n_slots; i < n_slots; i++) {
        c->entry_of[i] = LLD_NO_ENTRY;
        c->n_free++;
    }
    c->n_slots = n_slots;
}

void lld_expert_cache_begin(lld_expert_cache *c)
{
    c->weight *= growth;
    if (c->weight < most_weight) return;
    for (size_t i = 0; i < n_entries(c); i++) c->heat[i] /= c->weight;
    c->weight = 1.0;
}

void lld_expert_cache_use(lld_expert_cache *c, uint32_t entry) { c->heat[entry] += c->weight; }

/* An entry's count when the pass, now in `layer`, comes to its layer again. */
static double count_at_next_use(const lld_expert_cache *c, uint32_t entry, uint32_t layer)
{
    const uint32_t own = entry / c->n_experts;
    const bool in_next_pass = own <= layer;
    const uint32_t ahead = own + (in_next_pass ? c->n_layers : 0) - layer;
    return c->heat[entry] * (in_next_pass ? 1.0 / growth : 1.0) * (1.0 - nearer * ahead);
}

static int32_t free_slot(const lld_expert_cache *c)
{
    uint32_t slot = 0;
    while (c->entry_of[slot] != LLD_NO_ENTRY) slot++;
    return (int32_t)slot;
}

static int32_t coldest_slot(const lld_expert_cache *c, uint32_t layer)
{
    int32_t coldest = LLD_NO_SLOT;
    double least = INFINITY;
    for (uint32_t slot = 0; slot < c->n_slots; slot++) {
        const uint32_t entry = (uint32_t)c->entry_of[slot];
        if (c->pins[entry] != 0) continue;
        const double count = count_at_next_use(c, entry, layer);
        if (count >= least) continue;
        least = count;
        coldest = (int32_t)slot;
    }
    return coldest;
}

int32_t lld_expert_cache_take(lld_expert_cache *c, uint32_t entry, uint32_t layer)
{
    assert(c->slot_of[entry] == LLD_NO_SLOT);
    if (c->n_free == 0) {
        const int32_t coldest = coldest_slot(c, layer);
        if (coldest == LLD_NO_SLOT) return LLD_NO_SLOT;
        lld_expert_cache_drop(c, (uint32_t)c->entry_of[coldest]);
    }
    const int32_t slot = free_slot(c);
    c->n_free--;
    c->slot_of[entry] = slot;
    c->entry_of[slot] = (int32_t)entry;
    return slot;
}

void lld_expert_cache_drop(lld_expert_cache *c, uint32_t entry)
{
    assert(c->slot_of[entry] != LLD_NO_SLOT && c->pins[entry] == 0);
    c->entry_of[c->slot_of[entry]] = LLD_NO_ENTRY;
    c->slot_of[entry] = LLD_NO_SLOT;
    c->n_free++;
}
