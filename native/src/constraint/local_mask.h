/* local_mask.h - what is found out once for a state of a grammar, and then used wherever an answer
 * comes through that state. XGrammar (Dong et al. 2024, arXiv 2411.15100, section 3.1) calls these
 * tokens context-independent. */
#ifndef LLD_LOCAL_MASK_H
#define LLD_LOCAL_MASK_H

#include "constraint/grammar.h"

/* The mask of a state whose loop may make `remaining` more rounds, or fewer than that; NULL after a
 * failure, or where so few rounds remain that none is kept: *status tells. *work_left: as that of
 * lld_states, of which a new mask takes its part. */
const lld_local_mask *lld_local_mask_of(lld_grammar *grammar, uint32_t state, uint32_t remaining,
                                        uint32_t *work_left, int *status);

#endif
