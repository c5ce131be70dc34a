/* expert_guesses.h - which experts the next layer is guessed to choose, and whether reading them pays.
 *
 * A layer adds little to its input, so the router of the next layer, given this layer's input, already
 * chooses much of what it will choose (Eliseev and Mazur, arXiv 2312.17238; Madan et al., arXiv
 * 2603.19289). Only experts that are not in memory are guessed. A right guess is read while the layer
 * between computes; a wrong one takes the disk from what was chosen. How often guesses are right depends
 * on the model and the text, so they are counted, and read only while enough of them are right;
 * otherwise a few passes go on guessing, to see whether that changes. Arithmetic only; the caller holds
 * a lock. */
#ifndef LLD_EXPERT_GUESSES_H
#define LLD_EXPERT_GUESSES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/config.h"

/* An entry is an expert of the model: layer * n_experts + expert. Zeroed: nothing was guessed yet. */
typedef struct lld_expert_guesses {
    uint32_t entries[LLD_MAX_EXPERTS], n; /* that the next layer is guessed to choose */
    uint32_t judged, right;               /* guesses of late, and those that were right */
    uint64_t total, total_right;          /* since the beginning */
    uint64_t n_passes;
    bool pass_guesses, pass_reads; /* this pass guesses; and reads what is guessed */
} lld_expert_guesses;

/* A pass begins. */
void lld_expert_guesses_begin(lld_expert_guesses *guesses);
void lld_expert_guesses_add(lld_expert_guesses *guesses, uint32_t entry);
/* The layer that was guessed chose n experts, the first of them entry `first` + experts[0]. Nothing is
 * guessed afterwards. */
void lld_expert_guesses_judge(lld_expert_guesses *guesses, uint32_t first, const uint32_t *experts,
                              size_t n);

#endif
