/* pages.c - see pages.h, and the public lld_model_use_huge_pages, which is for whole files. */
#include "model/pages.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/status.h"

/* A part that is locked ends where a huge page does: the kernel splits one that is locked in part. */
enum {
    PIECE_BYTES = 8 << 20,
    LOCK_BYTES = LLD_HUGE_PAGE_BYTES,
    HUGE_PIECE_BYTES = 4 * LLD_HUGE_PAGE_BYTES
};

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#endif

/* Map a piece's pages by touching one byte of each, where the kernel lacks MADV_POPULATE_READ. */
static void touch_pages(const uint8_t *bytes, size_t size, size_t page)
{
    for (size_t i = 0; i < size; i += page) (void)*(const volatile uint8_t *)(bytes + i);
}

static int check_stop(const volatile int32_t *stop)
{
    return stop != NULL && *stop != 0 ? lld_fail(LLD_ERR_CANCELLED, "loading was stopped") : LLD_OK;
}

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* The bytes from an address to the next multiple of `step`, a power of two. */
static uint64_t to_next(const uint8_t *address, size_t step)
{
    return step - (uintptr_t)address % step;
}

/* Lock a piece that was read, a part after the other: each may be the last that the limit allows. */
static int lock_piece(uint8_t *bytes, uint64_t size, size_t page, uint8_t *states,
                      lld_pages_work *work)
{
    const uint64_t whole = (size + page - 1) / page * page;
    memset(states, LLD_PAGE_READ, whole / page);
    for (uint64_t at = 0, part; at < whole; at += part) {
        int status = check_stop(work->stop);
        if (status != LLD_OK) return status;
        part = least(least(whole - at, to_next(bytes + at, LOCK_BYTES)),
                     work->lock_bytes / page * page);
        if (part == 0 || work->lock_error != 0 || mlock(bytes + at, part) != 0) {
            if (part != 0 && work->lock_error == 0) work->lock_error = errno;
            work->unlocked_bytes += whole - at;
            return LLD_OK;
        }
        work->lock_bytes -= part;
        atomic_fetch_add(work->locked_bytes, part);
        memset(states + at / page, LLD_PAGE_LOCKED, part / page);
    }
    return LLD_OK;
}

int lld_pages_take(const lld_file *file, uint64_t begin, uint64_t end, uint8_t *states,
                   lld_pages_work *work)
{
    uint8_t *bytes = file->mapping.bytes;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    madvise(bytes + begin, least(end - begin, PIECE_BYTES), MADV_WILLNEED);
    for (uint64_t at = begin, piece; at < end; at += piece) {
        piece = least(end - at, to_next(bytes + at, PIECE_BYTES));
        const uint64_t left = end - at - piece;
        int status = check_stop(work->stop);
        if (status != LLD_OK) return status;
        if (left > 0) /* read the next piece while this one is mapped */
            madvise(bytes + at + piece, least(left, PIECE_BYTES), MADV_WILLNEED);
        if (madvise(bytes + at, piece, MADV_POPULATE_READ) != 0)
            touch_pages(bytes + at, piece, page);
        if ((status = lld_file_name_fault(file, LLD_OK)) != LLD_OK) return status;
        atomic_fetch_add(work->read_bytes, piece);
        status = lock_piece(bytes + at, piece, page, states + (at - begin) / page, work);
        if (status != LLD_OK) return status;
    }
    return LLD_OK;
}

/* Put the file's pages where copies lie, in one call: another thread may be reading there. */
static int map_again(const lld_file *file, uint64_t begin, size_t size)
{
    uint8_t *bytes = file->mapping.bytes + begin;
    if (mmap(bytes, size, PROT_READ, MAP_SHARED | MAP_FIXED, file->mapping.fd, (off_t)begin) ==
        bytes)
        return LLD_OK;
    return lld_fail(LLD_ERR_MEMORY, "%s: cannot give %zu bytes at offset %llu back: %s",
                    lld_path_tail(file->path), size, (unsigned long long)begin, strerror(errno));
}

/* Whether a page of the range is in the page cache; true where the kernel does not tell. */
static bool is_cached(uint8_t *bytes, size_t size)
{
    enum { LOOK_PAGES = 4096 };
    unsigned char seen[LOOK_PAGES];
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), look = LOOK_PAGES * page;
    for (size_t at = 0; at < size; at += look) {
        const size_t part = (size_t)least(size - at, look);
        if (mincore(bytes + at, part, seen) != 0) return true;
        for (size_t i = 0; i < part / page; i++)
            if ((seen[i] & 1) != 0) return true;
    }
    return false;
}

int lld_pages_give_back(const lld_model *model, uint64_t begin, uint64_t end, bool *kept)
{
    const lld_file *file = model->file;
    const size_t size = (size_t)(end - begin);
    if (model->is_copied) {
        int status = map_again(file, begin, size);
        if (status != LLD_OK) return status;
    } else {
        munlock(file->mapping.bytes + begin, size);
        madvise(file->mapping.bytes + begin, size, MADV_DONTNEED);
    }
    madvise(file->mapping.bytes + begin, size, MADV_RANDOM);
    posix_fadvise(file->mapping.fd, (off_t)begin, (off_t)size, POSIX_FADV_DONTNEED);
    *kept = is_cached(file->mapping.bytes + begin, size);
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
    model->is_copied = true;
    for (size_t at = 0; at < size; at += HUGE_PIECE_BYTES) {
        size_t left = size - at, piece = left < HUGE_PIECE_BYTES ? left : HUGE_PIECE_BYTES;
        int status = check_stop(stop);
        if (status != LLD_OK) return status;
        if (left > piece) madvise(map->bytes + at + piece, piece, MADV_WILLNEED);
        status = lld_file_name_fault(model->file, replace_piece(map->bytes + at, piece));
        if (status != LLD_OK) return status;
    }
    return LLD_OK;
}

static void advise(const void *bytes, size_t n, int advice)
{
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)bytes / page * page;
    madvise((void *)begin, (uintptr_t)bytes + n - begin, advice);
}

void lld_pages_scattered(const void *bytes, size_t n) { advise(bytes, n, MADV_RANDOM); }

void lld_pages_ahead(const void *bytes, size_t n) { advise(bytes, n, MADV_WILLNEED); }
