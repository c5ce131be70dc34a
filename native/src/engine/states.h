/* states.h - what layers without attention remember of a sequence: slots of a fixed size.
 *
 * A slot holds the state of one sequence behind one of its tokens, of all layers that have one: layer
 * after layer, at lld_layer.state_offset, what its mixer says. A run begins with the state in one slot
 * and leaves what it comes to in another, or in the same. So a slot that nobody writes is a state that
 * is kept, and any number of runs may begin with it. Owns memory; whose a slot is the caller knows.
 * Memory is taken at create and touched when used.
 */
#ifndef LLD_STATES_H
#define LLD_STATES_H

#include <stddef.h>
#include <stdint.h>

#include "model/model.h"

typedef struct lld_states {
    uint32_t n_slots;   /* 0: of a model without states */
    size_t slot_floats; /* a multiple of 16 */
    float *memory;      /* (n_slots, slot_floats) */
} lld_states;

/* Set the sizes; takes no memory. */
int lld_states_plan(lld_states *states, const lld_model *model, uint32_t n_slots);
/* Take the memory of planned states. */
int lld_states_create(lld_states *states);
void lld_states_destroy(lld_states *states);

/* The state of one layer in a slot. */
static inline float *lld_state_at(const lld_states *states, uint32_t slot, const lld_layer *layer)
{
    return states->memory + slot * states->slot_floats + layer->state_offset;
}

#endif
