/* residency.c - which pages hold the mapped weights: lld_model_populate, lld_model_use_huge_pages,
 * lld_model_lock. Reads in file order, which is layer order in every converter's output, and locks in
 * order of use; both in pieces so that a stop request is seen soon, also on a slow card. Plans nothing:
 * the caller knows the budget. */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "model/model.h"
#include "base/status.h"

enum {
    PIECE_BYTES = 8 << 20,
    HUGE_PIECE_BYTES = 4 * LLD_HUGE_PAGE_BYTES,
    LOCK_PIECE_BYTES = 4 << 20
};

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

/* The pages of extent i that no extent before it has: two tensors may meet within a page. begin, end:
 * bytes of the mapping, multiples of the page; begin == end where there are none. */
static void pages_of(const lld_model *model, size_t i, uint64_t page, uint64_t *begin,
                     uint64_t *end)
{
    const lld_extent *e = model->extents;
    *begin = e[i].offset / page * page;
    *end = (e[i].offset + e[i].bytes + page - 1) / page * page;
    for (size_t k = 0; k < i && *begin < *end; k++) {
        uint64_t first = e[k].offset / page * page;
        uint64_t behind = (e[k].offset + e[k].bytes + page - 1) / page * page;
        if (first <= *begin && *begin < behind) *begin = behind < *end ? behind : *end;
        if (first < *end && *end <= behind) *end = first > *begin ? first : *begin;
    }
}

/* Say why `wanted` bytes beyond `locked` could not be locked. The kernel answers EAGAIN when it finds
 * no memory for the pages (the machine's or a control group's), ENOMEM and EPERM at the limit. */
static void explain_lock(const lld_model *model, uint64_t locked, uint64_t wanted, int error)
{
    struct rlimit limit;
    if (error != EAGAIN && getrlimit(RLIMIT_MEMLOCK, &limit) == 0 &&
        limit.rlim_cur != RLIM_INFINITY && locked + wanted > limit.rlim_cur)
        lld_fail(LLD_OK, "%s: locked %" PRIu64 " bytes: RLIMIT_MEMLOCK is %" PRIu64 " bytes",
                 model->file->path, locked, (uint64_t)limit.rlim_cur);
    else
        lld_fail(LLD_OK,
                 "%s: locked %" PRIu64 " bytes: the machine or the control group has no memory for "
                 "%" PRIu64 " more: %s",
                 model->file->path, locked, wanted, strerror(error));
}

int lld_model_lock(lld_model *model, uint64_t max_bytes, const volatile int32_t *stop,
                   uint64_t *locked_bytes)
{
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t begin, end;
    *locked_bytes = 0;
    lld_fail(LLD_OK, "%s", "");
    for (size_t i = 0; i < model->n_extents; i++) {
        for (pages_of(model, i, page, &begin, &end); begin < end;) {
            uint64_t piece = end - begin < LOCK_PIECE_BYTES ? end - begin : LOCK_PIECE_BYTES;
            if (piece > max_bytes - *locked_bytes)
                piece = (max_bytes - *locked_bytes) / page * page;
            if (piece == 0) return LLD_OK;
            if (stop != NULL && *stop != 0)
                return lld_fail(LLD_ERR_CANCELLED, "loading was stopped");
            if (mlock(model->file->mapping.bytes + begin, piece) != 0) {
                explain_lock(model, *locked_bytes, piece, errno);
                return LLD_OK;
            }
            *locked_bytes += piece;
            begin += piece;
        }
    }
    return LLD_OK;
}
