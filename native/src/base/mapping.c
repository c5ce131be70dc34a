/* mapping.c - opens, maps and unmaps files, and survives their loss.
 *
 * The SIGBUS handler runs on the faulting thread, at any instruction that reads the mapping, on
 * many threads at once. It reads only lock-free atomics and calls only mmap, sigaction and raise.
 * The table has a fixed number of slots: a handler must not follow pointers that another thread
 * frees.
 *
 * Does not parse (gguf.c), nor decide what stays in memory (residency.c). */
#include "base/mapping.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/status.h"

/* One registered mapping. base is 0 while the slot is free or being changed; size is valid when
 * base is not 0. The owner holds the slot through `used`; readers race with base and size only. */
typedef struct slot {
    atomic_bool used;
    atomic_uintptr_t base;
    atomic_size_t size;
    atomic_bool faulted;
} slot;

static slot slots[LLD_MAPPING_MAX];
static uintptr_t page_bytes;
static struct sigaction previous_action;
static int install_errno;

static slot *slot_of(uintptr_t address)
{
    for (int i = 0; i < LLD_MAPPING_MAX; i++) {
        uintptr_t base = atomic_load(&slots[i].base);
        size_t size = atomic_load(&slots[i].size);
        if (base != 0 && base == atomic_load(&slots[i].base) && address >= base &&
            address - base < ((size + page_bytes - 1) & ~(page_bytes - 1)))
            return &slots[i];
    }
    return NULL;
}

static void call_previous(int signal, siginfo_t *info, void *context)
{
    if (previous_action.sa_flags & SA_SIGINFO) {
        previous_action.sa_sigaction(signal, info, context);
    } else if (previous_action.sa_handler == SIG_DFL) {
        sigaction(signal, &previous_action, NULL);
        raise(signal); /* pending until this handler returns, then it ends the process */
    } else if (previous_action.sa_handler != SIG_IGN) {
        previous_action.sa_handler(signal);
    }
}

static void on_sigbus(int signal, siginfo_t *info, void *context)
{
    int saved_errno = errno;
    uintptr_t address = (uintptr_t)info->si_addr;
    slot *s = info->si_code > 0 ? slot_of(address) : NULL; /* <= 0: sent by a process */
    void *page = (void *)(address & ~(page_bytes - 1));
    if (s != NULL &&
        mmap(page, page_bytes, PROT_READ, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == page)
        atomic_store(&s->faulted, true);
    else
        call_previous(signal, info, context);
    errno = saved_errno;
}

static void install_handler(void)
{
    page_bytes = (uintptr_t)sysconf(_SC_PAGESIZE);
    struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGBUS, NULL, &previous_action) != 0 || sigaction(SIGBUS, &action, NULL) != 0)
        install_errno = errno;
}

static int take_slot(const char *path, int *out)
{
    for (int i = 0; i < LLD_MAPPING_MAX; i++) {
        bool expected = false;
        if (atomic_compare_exchange_strong(&slots[i].used, &expected, true)) {
            *out = i;
            return LLD_OK;
        }
    }
    return lld_fail(LLD_ERR_MEMORY, "%s: %d files are mapped already, which is the limit",
                    lld_path_tail(path), LLD_MAPPING_MAX);
}

static void free_slot(int index)
{
    atomic_store(&slots[index].base, 0);
    atomic_store(&slots[index].used, false);
}

const char *lld_path_tail(const char *path)
{
    enum { ROOM = 200 };
    size_t length = strlen(path);
    if (length <= ROOM) return path;
    const char *slash = strchr(path + length - ROOM, '/');
    return slash != NULL ? slash + 1 : path + length - ROOM;
}

static const char *kind_of(mode_t mode)
{
    return S_ISDIR(mode)    ? "a directory"
           : S_ISFIFO(mode) ? "a FIFO"
           : S_ISCHR(mode)  ? "a character device"
           : S_ISBLK(mode)  ? "a block device"
           : S_ISSOCK(mode) ? "a socket"
                            : "no regular file";
}

/* Map size bytes of fd where a huge page may begin, so that residency.c can put huge pages there. */
static void *map_aligned(int fd, size_t size)
{
    size_t room = size + LLD_HUGE_PAGE_BYTES;
    uint8_t *reserved =
        mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (reserved == MAP_FAILED) return MAP_FAILED;
    size_t before = (size_t) - (uintptr_t)reserved % LLD_HUGE_PAGE_BYTES;
    void *bytes = mmap(reserved + before, size, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0);
    int error = errno;
    if (bytes == MAP_FAILED) {
        munmap(reserved, room);
        errno = error;
        return MAP_FAILED;
    }
    size_t end = (before + size + page_bytes - 1) & ~(page_bytes - 1);
    if (before > 0) munmap(reserved, before);
    if (end < room) munmap(reserved + end, room - end);
    return bytes;
}

/* Check that fd is a regular file that is not empty, and map it. */
static int map_descriptor(const char *path, int fd, lld_mapping *out)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return lld_fail(LLD_ERR_IO, "%s: %s", lld_path_tail(path), strerror(errno));
    if (!S_ISREG(st.st_mode))
        return lld_fail(LLD_ERR_IO, "%s: is %s, must be a regular file", lld_path_tail(path),
                        kind_of(st.st_mode));
    if (st.st_size == 0) return lld_fail(LLD_ERR_CORRUPT, "%s: file is empty", lld_path_tail(path));
    if ((uintmax_t)st.st_size > SIZE_MAX / 2)
        return lld_fail(LLD_ERR_MEMORY, "%s: %jd bytes are more than can be mapped",
                        lld_path_tail(path), (intmax_t)st.st_size);
    void *bytes = map_aligned(fd, (size_t)st.st_size);
    if (bytes == MAP_FAILED)
        return lld_fail(errno == ENOMEM ? LLD_ERR_MEMORY : LLD_ERR_IO,
                        "%s: cannot map %jd bytes: %s", lld_path_tail(path), (intmax_t)st.st_size,
                        strerror(errno));
    out->bytes = bytes;
    out->size = (size_t)st.st_size;
    return LLD_OK;
}

int lld_mapping_open(const char *path, lld_mapping *out)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, install_handler);
    if (install_errno != 0)
        return lld_fail(LLD_ERR_IO, "cannot install the SIGBUS handler: %s",
                        strerror(install_errno));
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) return lld_fail(LLD_ERR_IO, "%s: %s", lld_path_tail(path), strerror(errno));
    int index = -1;
    int status = take_slot(path, &index);
    if (status == LLD_OK && (status = map_descriptor(path, fd, out)) != LLD_OK) free_slot(index);
    if (status != LLD_OK) {
        close(fd);
        return status;
    }
    out->slot = index;
    out->fd = fd;
    atomic_store(&slots[index].faulted, false);
    atomic_store(&slots[index].size, out->size);
    atomic_store(&slots[index].base, (uintptr_t)out->bytes);
    return LLD_OK;
}

void lld_mapping_close(lld_mapping *mapping)
{
    free_slot(mapping->slot);
    munmap(mapping->bytes, mapping->size);
    close(mapping->fd);
    memset(mapping, 0, sizeof *mapping);
}

bool lld_mapping_faulted(const lld_mapping *mapping)
{
    return atomic_load(&slots[mapping->slot].faulted);
}
