/* parameters.h - the ranges of what a caller gives a sampler. */
#ifndef LLD_PARAMETERS_H
#define LLD_PARAMETERS_H

#include <stddef.h>

#include "llamad_engine.h"

/* LLD_ERR_INVALID, with a message that begins with the parameter's name and has its range. */
int lld_sampling_check(const lld_sampling *sampling);

/* Of n tokens and what is added to their logits. LLD_ERR_INVALID. */
int lld_bias_check(const int32_t *tokens, const float *values, size_t n, uint32_t vocab_size);

/* Of n samplers in their order (enum lld_sampler_kind), each at most once. LLD_ERR_INVALID. */
int lld_order_check(const uint8_t *kinds, size_t n);

#endif
