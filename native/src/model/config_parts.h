/* config_parts.h - the parts of lld_config_read, in the order in which it calls them: a file for each
 * noun, config_NOUN.c. What a part finds wrong is in keys->status. */
#ifndef LLD_CONFIG_PARTS_H
#define LLD_CONFIG_PARTS_H

#include "model/config.h"
#include "model/keys.h"

enum {
    LLD_MAX_DIM = 1 << 17,
    LLD_MAX_HIDDEN = 1 << 19,
    LLD_MAX_HEADS = 1024,
    LLD_MAX_CTX = 1 << 30
};

/* config_heads.c. Sizes of each layer, states included; then Gemma 4's: local layers have heads of
 * another size than those that see all, and the last layers read the keys and values of the last
 * layer of their kind before them. */
void lld_config_read_hidden_dims(lld_keys *r, lld_config *c);
void lld_config_read_heads(lld_keys *r, lld_config *c);
void lld_config_read_local_heads(lld_keys *r, lld_config *c);
void lld_config_read_shared_kv(lld_keys *r, lld_config *c);
/* config_experts.c. After the hidden dims, which become those of the experts where there are some. */
void lld_config_read_experts(lld_keys *r, lld_config *c);
/* config_states.c. Sizes of the delta rule and of state spaces, and which layers have them. */
void lld_config_read_delta_net(lld_keys *r, lld_config *c);
void lld_config_read_state_space(lld_keys *r, lld_config *c);
/* config_windows.c */
void lld_config_read_windows(lld_keys *r, lld_config *c);
/* config_rope.c. How RoPE is scaled; which layers leave queries and keys as they are. */
void lld_config_read_scaling(lld_keys *r, lld_config *c);
void lld_config_read_unrotated(lld_keys *r, lld_config *c);

#endif
