/* expert_cache.h - which experts of a model have one of a few slots, and which gives its slot away.
 *
 * Each use of an expert counts, and counts fade: a use 16 passes ago is worth half of one now (LRFU: Lee
 * et al., IEEE Transactions on Computers 50(12), 2001). The slot is taken of the expert whose count
 * will be the lowest when the pass comes to its layer again. Of equal counts it is the one whose
 * layer is farthest ahead: steps that use everything, as those of a prompt do, then find the same
 * part in memory each time, where the least recently used would always be the next to be needed.
 * What is pinned stays. Arithmetic only: no memory of weights, no threads; the caller holds a lock. */
#ifndef LLD_EXPERT_CACHE_H
#define LLD_EXPERT_CACHE_H

#include <stdbool.h>
#include <stdint.h>

enum { LLD_NO_SLOT = -1, LLD_NO_ENTRY = -1 };

/* An entry is an expert of the model: layer * n_experts + expert. */
typedef struct lld_expert_cache {
    uint32_t n_layers, n_experts; /* n_experts: of a layer */
    uint32_t n_slots, n_free;
    double weight;     /* of a use in this pass, which grows in place of the others' fading */
    double *heat;      /* (entries) the sum of the weights of its uses */
    uint8_t *pins;     /* (entries) how many need it where it is */
    int32_t *slot_of;  /* (entries) or LLD_NO_SLOT */
    int32_t *entry_of; /* (most_slots) or LLD_NO_ENTRY */
} lld_expert_cache;

/* For up to most_slots slots, of which there are none yet. LLD_ERR_MEMORY. */
int lld_expert_cache_init(lld_expert_cache *cache, uint32_t n_layers, uint32_t n_experts,
                          uint32_t most_slots);
void lld_expert_cache_free(lld_expert_cache *cache);

/* Have n_slots from now on, <= most_slots. What was in slots beyond is in none; nothing there is pinned. */
void lld_expert_cache_resize(lld_expert_cache *cache, uint32_t n_slots);

/* A pass begins. */
void lld_expert_cache_begin(lld_expert_cache *cache);
/* Count a use in this pass. */
void lld_expert_cache_use(lld_expert_cache *cache, uint32_t entry);
/* Give an entry that has no slot one, while the pass is in `layer`: a free one, or another entry's.
 * Returns the slot, LLD_NO_SLOT when all are pinned. */
int32_t lld_expert_cache_take(lld_expert_cache *cache, uint32_t entry, uint32_t layer);
/* Take an entry's slot, which becomes free. */
void lld_expert_cache_drop(lld_expert_cache *cache, uint32_t entry);

#endif
