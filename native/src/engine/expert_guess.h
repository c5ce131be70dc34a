/* expert_guess.h - what the next layer will choose, guessed by its router from this layer's input.
 *
 * Only for a single row: the rows of a prompt choose nearly all experts. Only where experts are read on
 * demand, and nothing else streams: a router that is read in its turn cannot be asked before. Changes no
 * result. What follows from a guess is model/expert_guesses.h's. */
#ifndef LLD_EXPERT_GUESS_H
#define LLD_EXPERT_GUESS_H

#include "engine/forward.h"

/* A phase of its own, before the layer's experts. All threads. */
void lld_expert_guess_run(lld_forward *forward, unsigned thread, const lld_layer *layer);
/* Tell the store of experts, once it knows what this layer chose. One thread. */
void lld_expert_guess_tell(lld_forward *forward, const lld_layer *layer);

#endif
