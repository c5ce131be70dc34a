/* mapping.h - a file mapped read-only, and what happens when the file fails under the mapping.
 * A SIGBUS inside a registered mapping puts a page of zeros there and marks the mapping as faulted,
 * so that the computation ends in an ordinary error; any other SIGBUS goes to the previous handler. */
#ifndef LLD_MAPPING_H
#define LLD_MAPPING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct lld_mapping {
    uint8_t *bytes; /* (size) */
    size_t size;
    int slot;       /* in the SIGBUS handler's table */
} lld_mapping;

/* Map a regular file (not a FIFO, device or directory; never blocks on one). Errors name the path. */
int lld_mapping_open(const char *path, lld_mapping *out);
void lld_mapping_close(lld_mapping *mapping);
bool lld_mapping_faulted(const lld_mapping *mapping);

#endif
