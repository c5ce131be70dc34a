/* residency.c - which pages hold the mapped weights: lld_model_populate, lld_model_use_huge_pages,
 * lld_model_lock. Works in file order, which is layer order in every converter's output, in pieces
 * so that a stop request is seen soon. Plans nothing: the caller knows the budget. */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "model/model.h"
#include "base/status.h"

enum { PIECE_BYTES = 8 << 20, HUGE_PIECE_BYTES = 16 * LLD_HUGE_PAGE_BYTES };

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
        if (madvise(map->bytes + at, piece, MADV_POPULATE_READ) != 0)
            touch_pages(map->bytes + at, piece, page);
        int status = lld_file_name_fault(model->file, LLD_OK);
        if (status != LLD_OK) return status;
    }
    return LLD_OK;
}

/* Copy one piece into anonymous memory and move that over the file's pages, so that every pointer
 * stays. */
static int replace_piece(uint8_t *bytes, size_t size)
{
    uint8_t *room = mmap(NULL, size + LLD_HUGE_PAGE_BYTES, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room == MAP_FAILED)
        return lld_fail(LLD_ERR_MEMORY, "no memory for %zu bytes of weights in huge pages", size);
    size_t before = (size_t) - (uintptr_t)room % LLD_HUGE_PAGE_BYTES;
    uint8_t *copy = room + before;
    madvise(copy, size, MADV_HUGEPAGE); /* a kernel without huge pages keeps small ones */
    memcpy(copy, bytes, size);
    bool moved = mprotect(copy, size, PROT_READ) == 0 &&
                 mremap(copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, bytes) == bytes;
    int error = errno;
    if (before > 0) munmap(room, before);
    munmap(moved ? copy + size : copy, LLD_HUGE_PAGE_BYTES - before + (moved ? 0 : size));
    if (!moved)
        return lld_fail(LLD_ERR_MEMORY, "cannot move %zu bytes of weights: %s", size,
                        strerror(error));
    return LLD_OK;
}

int lld_model_use_huge_pages(lld_model *model, const volatile int32_t *stop)
{
    const lld_mapping *map = &model->file->mapping;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), size = (map->size + page - 1) & ~(page - 1);
    for (size_t at = 0; at < size; at += HUGE_PIECE_BYTES) {
        size_t left = size - at, piece = left < HUGE_PIECE_BYTES ? left : HUGE_PIECE_BYTES;
        if (stop != NULL && *stop != 0) return lld_fail(LLD_ERR_CANCELLED, "loading was stopped");
        if (left > piece) madvise(map->bytes + at + piece, piece, MADV_WILLNEED);
        int status = lld_file_name_fault(model->file, replace_piece(map->bytes + at, piece));
        if (status != LLD_OK) return status;
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
        size_t piece =
            limit - locked < PIECE_BYTES ? (size_t)(limit - locked) : (size_t)PIECE_BYTES;
        if (mlock(map->bytes + locked, piece) != 0) {
            int error = errno;
            lld_fail(LLD_OK, "%s: locked %" PRIu64 " of %" PRIu64 " bytes: %s (RLIMIT_MEMLOCK)",
                     model->file->path, locked, limit, strerror(error));
            break;
        }
        locked += piece;
    }
    *locked_bytes = locked;
    return LLD_OK;
}
