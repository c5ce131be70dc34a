/* residency.c - which pages of the mapped weights are in memory: lld_model_populate, lld_model_lock.
 * Works in file order, which is layer order in every converter's output, in pieces so that a stop
 * request is seen soon. Plans nothing: the caller knows the budget. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "model.h"
#include "status.h"

enum { PIECE_BYTES = 8 << 20 };

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#endif

/* Map a piece's pages by touching one byte of each, where the kernel lacks MADV_POPULATE_READ. */
static void touch_pages(const uint8_t *bytes, size_t size, size_t page)
{
    for (size_t i = 0; i < size; i += page) (void)*(const volatile uint8_t *)(bytes + i);
}

int lld_model_populate(lld_model *model, const volatile int32_t *stop)
{
    const lld_mapping *map = &model->file->mapping;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (map->size > PIECE_BYTES) madvise(map->bytes, PIECE_BYTES, MADV_WILLNEED);
    for (size_t at = 0; at < map->size; at += PIECE_BYTES) {
        size_t left = map->size - at, piece = left < PIECE_BYTES ? left : PIECE_BYTES;
        if (stop != NULL && *stop != 0) return lld_fail(LLD_ERR_CANCELLED, "loading was stopped");
        if (left > 2 * (size_t)PIECE_BYTES) /* read the next piece while this one is mapped */
            madvise(map->bytes + at + PIECE_BYTES, PIECE_BYTES, MADV_WILLNEED);
        if (madvise(map->bytes + at, piece, MADV_POPULATE_READ) != 0) touch_pages(map->bytes + at, piece, page);
        if (lld_mapping_faulted(map))
            return lld_fail(LLD_ERR_FAULT, "%s: the file shrank or could not be read near byte %zu", model->file->path, at);
    }
    return LLD_OK;
}

int lld_model_lock(lld_model *model, uint64_t max_bytes, uint64_t *locked_bytes)
{
    const lld_mapping *map = &model->file->mapping;
    uint64_t limit = max_bytes < map->size ? max_bytes : map->size;
    uint64_t locked = 0;
    lld_fail(LLD_OK, "all of %" PRIu64 " bytes are locked", limit);
    while (locked < limit) {
        size_t piece = limit - locked < PIECE_BYTES ? (size_t)(limit - locked) : (size_t)PIECE_BYTES;
        if (mlock(map->bytes + locked, piece) != 0) {
            int error = errno;
            lld_fail(LLD_OK, "%s: locked %" PRIu64 " of %" PRIu64 " bytes: %s (RLIMIT_MEMLOCK)", model->file->path,
                     locked, limit, strerror(error));
            break;
        }
        locked += piece;
    }
    *locked_bytes = locked;
    return LLD_OK;
}
