/* adapter_file.h - an adapter in memory: its pairs, found by the matrix that they change. What a step
 * makes of them is adapter.c's. */
#ifndef LLD_ADAPTER_FILE_H
#define LLD_ADAPTER_FILE_H

#include "engine/adapter.h"

struct lld_adapter {
    const lld_model *model;
    lld_adapter_pair *pairs; /* (n_pairs), by the address of their matrix */
    size_t n_pairs;
    uint32_t
        n_tensors; /* of the model, that the pairs belong to: a tensor may be several matrices */
    uint32_t max_rank;
    float alpha;
    uint8_t *memory; /* (memory_bytes) of all a and b */
    size_t memory_bytes;
};

/* What an adapter adds to a matrix of its model, or NULL. */
const lld_adapter_pair *lld_adapter_find(const lld_adapter *adapter, const lld_matrix *matrix);

#endif
