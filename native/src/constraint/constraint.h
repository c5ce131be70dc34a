/* constraint.h - where one answer is in its grammar; the public functions are in llamad_engine.h. */
#ifndef LLD_CONSTRAINT_H
#define LLD_CONSTRAINT_H

#include "constraint/states.h"

struct lld_constraint {
    lld_grammar *grammar;
    lld_states states;
    uint32_t state;      /* after the tokens so far */
    uint64_t *mask;      /* (vocab_size / 64, rounded up) */
    uint32_t *at;        /* (max_depth + 1) state after each byte of a path */
    int32_t *end_tokens; /* (n_end_tokens) */
    size_t n_end_tokens;
    bool ended; /* an end token was accepted */
};

/* The tokens that may come next, as bits: (vocab_size / 64, rounded up); NULL after a failure, whose
 * status is in *status. Good until the next call. */
const uint64_t *lld_constraint_mask(lld_constraint *constraint, int *status);

#endif
