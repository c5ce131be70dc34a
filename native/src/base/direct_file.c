/* direct_file.c - see direct_file.h. */
#include "base/direct_file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mapping.h"
#include "base/status.h"

static bool set_direct(lld_direct_file *f, bool direct)
{
    int flags = fcntl(f->fd, F_GETFL);
    if (flags < 0) return false;
    flags = direct ? flags | O_DIRECT : flags & ~O_DIRECT;
    if (fcntl(f->fd, F_SETFL, flags) != 0) return false;
    atomic_store(&f->direct, direct);
    return true;
}

/* Read through the page cache from now on, no more than is asked for. */
static void use_page_cache(lld_direct_file *f)
{
    set_direct(f, false);
    posix_fadvise(f->fd, 0, 0, POSIX_FADV_RANDOM);
}

int lld_direct_file_open(int fd, const char *path, lld_direct_file *out)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return lld_fail(LLD_ERR_IO, "%s: %s", lld_path_tail(path), strerror(errno));
    out->fd = fd;
    out->path = path;
    out->size = st.st_size;
    out->changed_seconds = st.st_mtim.tv_sec;
    out->changed_nanoseconds = st.st_mtim.tv_nsec;
    atomic_init(&out->direct, false);
    if (!set_direct(out, true)) use_page_cache(out);
    return LLD_OK;
}

/* Whether the file is still the one that was opened. The descriptor holds on to a file that was replaced
 * by rename. One that was written to has another time of change; so has one that was only touched, and
 * nothing but its bytes would tell the two apart: half of them old, half new make a wrong answer, so
 * both fail. */
static int check_unchanged(const lld_direct_file *f, uint64_t offset)
{
    struct stat st;
    const char *path = lld_path_tail(f->path);
    if (fstat(f->fd, &st) != 0)
        return lld_fail(LLD_ERR_FAULT, "%s: offset %" PRIu64 ": %s", path, offset, strerror(errno));
    if (st.st_size < f->size)
        return lld_fail(LLD_ERR_FAULT,
                        "%s: offset %" PRIu64 ": the file was cut to %jd of %" PRId64
                        " bytes while its model was in use",
                        path, offset, (intmax_t)st.st_size, f->size);
    if (st.st_mtim.tv_sec != f->changed_seconds || st.st_mtim.tv_nsec != f->changed_nanoseconds)
        return lld_fail(LLD_ERR_FAULT,
                        "%s: offset %" PRIu64
                        ": the file was written to while its model was in use",
                        path, offset);
    return LLD_OK;
}

int lld_direct_file_read(lld_direct_file *f, uint64_t offset, size_t size, size_t needed,
                         uint8_t *dst)
{
    int status = check_unchanged(f, offset);
    if (status != LLD_OK) return status;
    for (size_t done = 0; done < needed;) {
        ssize_t n = pread(f->fd, dst + done, size - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EINVAL && atomic_load(&f->direct)) {
            use_page_cache(f);
            continue;
        }
        if (n < 0)
            return lld_fail(LLD_ERR_FAULT, "%s: cannot read %zu bytes at offset %" PRIu64 ": %s",
                            lld_path_tail(f->path), size - done, offset + done, strerror(errno));
        size_t end = done + (size_t)n; /* of a short read: whole blocks of it, to go on from */
        if (end < needed && atomic_load(&f->direct)) end -= end % LLD_DIRECT_ALIGN;
        if (end <= done)
            return lld_fail(
                LLD_ERR_FAULT,
                "%s: the file ends %zu bytes before the end of weights at offset %" PRIu64,
                lld_path_tail(f->path), needed - done - (size_t)n, offset);
        done = end;
    }
    if (!atomic_load(&f->direct))
        posix_fadvise(f->fd, (off_t)offset, (off_t)size, POSIX_FADV_DONTNEED);
    return LLD_OK;
}
