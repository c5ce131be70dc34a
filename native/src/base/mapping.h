/* mapping.h - a file mapped read-only, and what happens when the file fails under the mapping.
 * A SIGBUS inside a registered mapping (the file was cut, its disk fails) puts a page of zeros
 * there and marks the mapping as faulted, so that the computation ends in an ordinary error; any
 * other SIGBUS goes to the handler that was there before. A thread that reads a mapping must not
 * block SIGBUS: the kernel kills the process when a fault's signal is blocked. */
#ifndef LLD_MAPPING_H
#define LLD_MAPPING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    LLD_MAPPING_MAX = 64, /* mappings open at one time */
    LLD_HUGE_PAGE_BYTES =
        2 << 20 /* x86-64, and aarch64 with 4 KiB pages; mappings begin at a multiple */
};

typedef struct lld_mapping {
    uint8_t *bytes; /* (size) */
    size_t size;    /* >= 1 */
    int slot;       /* in the SIGBUS handler's table */
    int fd;         /* of the file, for reading beside the mapping */
} lld_mapping;

/* Map a regular file (not a FIFO, device or directory; never blocks on one). Errors name the path.
 * Any thread may open and close. */
int lld_mapping_open(const char *path, lld_mapping *out);
void lld_mapping_close(lld_mapping *mapping);

/* Whether a page of the mapping was lost since it was opened. Any thread. */
bool lld_mapping_faulted(const lld_mapping *mapping);

/* The end of a path that is too long for a message; else the path itself. */
const char *lld_path_tail(const char *path);

#endif
