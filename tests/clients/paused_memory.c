/* paused_memory.c - preloaded into a service under test: its mlock and its
 * madvise(MADV_POPULATE_READ), written down in the file $MEMORY_CALLS. The second call of the one
 * that $MEMORY_PAUSED names tells the FIFO $MEMORY_BEGUN and waits for the FIFO $MEMORY_GO_ON; from
 * the second on, mlock fails with $MEMORY_ERRNO. What is not set does not happen. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#endif

/* Read or write one byte at the path in an environment variable. */
static void transfer_byte(const char *variable, int flags)
{
    const char *path = getenv(variable);
    char byte = '\n';
    int fd = path == NULL ? -1 : open(path, flags, 0600);
    ssize_t n = fd < 0 ? 0 : flags == O_RDONLY ? read(fd, &byte, 1) : write(fd, &byte, 1);
    (void)n;
    if (fd >= 0) close(fd);
}

static void begin_call(const char *name, int number)
{
    const char *calls = getenv("MEMORY_CALLS"), *paused = getenv("MEMORY_PAUSED");
    int fd = calls == NULL ? -1 : open(calls, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (fd >= 0) {
        ssize_t n = write(fd, name, strlen(name));
        (void)n;
        close(fd);
    }
    if (number == 2 && paused != NULL && strncmp(name, paused, strlen(paused)) == 0) {
        transfer_byte("MEMORY_BEGUN", O_WRONLY);
        transfer_byte("MEMORY_GO_ON", O_RDONLY);
    }
}

int mlock(const void *start, size_t size)
{
    static int n_calls;
    const char *error = getenv("MEMORY_ERRNO");
    begin_call("mlock\n", ++n_calls);
    if (error != NULL && n_calls >= 2) {
        errno = atoi(error);
        return -1;
    }
    return (int)syscall(SYS_mlock, start, size);
}

int madvise(void *start, size_t size, int advice)
{
    static int n_calls;
    if (advice == MADV_POPULATE_READ) begin_call("populate\n", ++n_calls);
    return (int)syscall(SYS_madvise, start, size, advice);
}
