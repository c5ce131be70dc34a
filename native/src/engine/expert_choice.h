/* expert_choice.h - which experts a row goes through, and how much each of them weighs. */
#ifndef LLD_EXPERT_CHOICE_H
#define LLD_EXPERT_CHOICE_H

#include "engine/product.h"

/* A layer's router, whose logits go to a row of scratch.routing; and the norm of what it sees. */
lld_product lld_expert_choice_router(const lld_forward *forward, const lld_layer *layer,
                                     size_t row);
const lld_norm *lld_expert_choice_norm(const lld_layer *layer);

/* Choose by a row's logits of the router, in scratch.routing: its chosen and weights. What is in logits
 * becomes what is chosen by. Of equal scores the expert of the lower number is chosen. */
void lld_expert_choice_make(lld_forward *forward, const lld_expert_weights *weights, size_t row);

#endif
