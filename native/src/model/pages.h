/* pages.h - pages of a mapped model file: read in, locked, moved into huge pages, given back. In pieces,
 * so that a stop request is seen soon, also on a slow card. Which pages, the caller says. */
#ifndef LLD_PAGES_H
#define LLD_PAGES_H

#include <stdatomic.h>

#include "model/model.h"

/* Of a page, as far as we made it so. */
enum { LLD_PAGE_OUT, LLD_PAGE_READ, LLD_PAGE_LOCKED };

/* How lld_pages_take works, and how far it came. */
typedef struct lld_pages_work {
    const volatile int32_t *stop; /* or NULL */
    uint64_t lock_bytes;          /* left to lock */
    int lock_error;               /* errno of the mlock that failed: no more is tried; else 0 */
    uint64_t unlocked_bytes; /* whose turn came when lock_bytes was used up or after an error */
    atomic_ullong *read_bytes, *locked_bytes; /* counted up */
} lld_pages_work;

/* Read bytes [begin, end) of the mapping into memory, begin a multiple of the page, and lock them as
 * far as `work` allows. states: (pages from begin on), set as they come in. LLD_ERR_CANCELLED,
 * LLD_ERR_FAULT. */
int lld_pages_take(const lld_file *file, uint64_t begin, uint64_t end, uint8_t *states,
                   lld_pages_work *work);

/* Let bytes [begin, end), multiples of the page, leave memory: unlocked, unmapped, dropped from the
 * page cache. A read finds the file's bytes there again, page by page. *kept: some stayed in the page
 * cache, because the kernel keeps pages in groups that reach beyond the range (of up to a huge page,
 * where the file was written not long ago). */
int lld_pages_give_back(const lld_model *model, uint64_t begin, uint64_t end, bool *kept);

/* Of mapped bytes single rows are read, far from each other: the kernel reads nothing around them. */
void lld_pages_scattered(const void *bytes, size_t n);
/* Mapped bytes that are read soon: the kernel begins now. */
void lld_pages_ahead(const void *bytes, size_t n);

#endif
