/* unsupported.h - metadata that asks for arithmetic this engine does not have. A file that asks for
 * it is refused by the key's name: it would load, and answer wrong. What comes with tensors of its
 * own is not listed: model.c refuses every tensor that it does not bind. */
#ifndef LLD_UNSUPPORTED_H
#define LLD_UNSUPPORTED_H

#include "model/config.h"

/* config is complete, but that a sliding window cuts its context here: within the window nothing
 * slides. LLD_ERR_UNSUPPORTED names the key and its value. */
int lld_config_check_unsupported(const lld_gguf *gguf, lld_config *config);

/* Whether the model gives texts scores (pooling_type 4), and has the matrices for that. */
bool lld_ranks(const lld_gguf *gguf, const lld_config *config);

/* Whether a tensor may stay unused: it follows from the metadata, or only guesses tokens. */
bool lld_tensor_is_needless(const lld_config *config, const lld_tensor *tensor);

/* LLD_ERR_UNSUPPORTED for a part of a model that was cut into files, and for an adapter. */
int lld_config_check_whole(const lld_gguf *gguf);

#endif
