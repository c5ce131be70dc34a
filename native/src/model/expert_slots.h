/* expert_slots.h - room in memory for some of a model's experts: a slot holds one of them, its matrices
 * one behind the other, each with the whole blocks of the file that it lies in. Who is in which slot,
 * and reading, is for others (expert_cache.h, expert_store.h). */
#ifndef LLD_EXPERT_SLOTS_H
#define LLD_EXPERT_SLOTS_H

#include <stdint.h>

#include "model/model.h"

typedef struct lld_expert_slots {
    uint8_t *is_kept;      /* (n_layers * n_experts) has a slot, not the mapping; NULL: none has */
    uint32_t most, least;  /* slots: for all experts that are kept; for those of a layer */
    uint32_t n;            /* in use */
    size_t slot_bytes;     /* of the largest expert */
    uint64_t weight_bytes; /* of all experts that are kept */
    uint8_t *bytes;        /* (most, slot_bytes), of which n are in use */
    uint64_t locked_bytes;
    int lock_error; /* errno of what was not locked, or 0 */
} lld_expert_slots;

/* Whole blocks of the file around a matrix. */
typedef struct lld_blocks {
    uint64_t offset;
    size_t bytes;  /* of the blocks; 0: there is no such matrix */
    size_t skip;   /* bytes of them before the matrix */
    size_t needed; /* of them, up to its end */
} lld_blocks;

/* An expert's matrices one behind the other, as in a slot. */
typedef struct lld_expert_places {
    lld_blocks gate, up, down;
} lld_expert_places;

lld_expert_places lld_expert_places_of(const lld_model *model, const lld_gated_weights *weights);
/* Of expert number layer * n_experts + expert. */
const lld_gated_weights *lld_expert_weights_of(const lld_model *model, uint32_t entry);

/* Which experts have an extent that is not resident: (n_layers * n_experts), to free. NULL: no memory. */
uint8_t *lld_expert_slots_kept(const lld_model *model, const lld_residency *residency);
/* Reserve room for all that are kept; takes `kept`. No slot is in use. LLD_ERR_MEMORY. */
int lld_expert_slots_init(lld_expert_slots *slots, const lld_model *model, uint8_t *kept);
/* Have n slots from now on, at most `most`, locked within lock_bytes; those beyond leave memory.
 * LLD_ERR_INVALID below `least`. */
int lld_expert_slots_resize(lld_expert_slots *slots, uint32_t n, uint64_t lock_bytes);
void lld_expert_slots_free(lld_expert_slots *slots);

#endif
