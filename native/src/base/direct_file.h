/* direct_file.h - reads a file past the page cache (O_DIRECT); where the file system refuses that,
 * through it, and drops behind. The bytes are those of the file in both cases. Several threads may read. */
#ifndef LLD_DIRECT_FILE_H
#define LLD_DIRECT_FILE_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

enum {
    LLD_DIRECT_ALIGN = 4096
}; /* of offset, size and memory; of every disk's blocks a multiple */

typedef struct lld_direct_file {
    int fd;           /* not owned */
    const char *path; /* for messages; not owned */
    int64_t size;     /* when it was opened, as are: */
    int64_t changed_seconds, changed_nanoseconds;
    atomic_bool direct;
} lld_direct_file;

/* Begin to read an open file, whose descriptor is used for nothing else but a mapping. */
int lld_direct_file_open(int fd, const char *path, lld_direct_file *out);

/* Read [offset, offset + size) to dst, all multiples of LLD_DIRECT_ALIGN, of which the first `needed`
 * bytes are in the file. LLD_ERR_FAULT names path and offset: the disk failed, or the file was cut
 * or written to since it was opened. */
int lld_direct_file_read(lld_direct_file *file, uint64_t offset, size_t size, size_t needed,
                         uint8_t *dst);

#endif
