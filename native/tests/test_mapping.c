/* test_mapping.c - files that are mapped, refused, cut and lost; and other people's SIGBUS. */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "gguf/file.h"
#include "gguf_builder.h"

static char directory[] = "/tmp/lld_mapping_XXXXXX";

static const char *path_of(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static const char *write_file(const char *name, const void *bytes, size_t n)
{
    const char *path = path_of(name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0 && write(fd, bytes, n) == (ssize_t)n, "%s", path);
    close(fd);
    return path;
}

/* A file of n_pages pages filled with 0x5A. */
static const char *write_pages(const char *name, size_t n_pages)
{
    size_t n = n_pages * (size_t)sysconf(_SC_PAGESIZE);
    uint8_t *bytes = malloc(n);
    memset(bytes, 0x5A, n);
    const char *path = write_file(name, bytes, n);
    free(bytes);
    return path;
}

static void test_a_file_is_mapped(void)
{
    lld_mapping m;
    CHECK(lld_mapping_open(write_file("three", "abc", 3), &m) == LLD_OK, "%s", lld_error_message());
    CHECK(m.size == 3 && memcmp(m.bytes, "abc", 3) == 0 && !lld_mapping_faulted(&m), "contents");
    lld_mapping_close(&m);
}

static void check_refused(const char *path, int status, const char *fault)
{
    lld_mapping m;
    char message[512];
    snprintf(message, sizeof message, "%s: %s", path, fault);
    CHECK(lld_mapping_open(path, &m) == status, "%s", path);
    CHECK(strcmp(lld_error_message(), message) == 0, "message '%s', expected '%s'",
          lld_error_message(), message);
}

static void test_what_is_no_regular_file_is_refused(void)
{
    check_refused(path_of("absent"), LLD_ERR_IO, "No such file or directory");
    check_refused(directory, LLD_ERR_IO, "is a directory, must be a regular file");
    check_refused("/dev/zero", LLD_ERR_IO, "is a character device, must be a regular file");
    CHECK(mkfifo(path_of("fifo"), 0600) == 0, "mkfifo");
    check_refused(path_of("fifo"), LLD_ERR_IO, "is a FIFO, must be a regular file");
    check_refused(write_file("empty", "", 0), LLD_ERR_CORRUPT, "file is empty");
}

static void test_a_long_path_leaves_room_for_the_fault(void)
{
    char path[1024];
    memset(path, 'x', sizeof path);
    for (size_t i = 0; i < sizeof path; i += 50) path[i] = '/';
    path[sizeof path - 1] = '\0';
    lld_mapping m;
    CHECK(lld_mapping_open(path, &m) == LLD_ERR_IO, "opened");
    CHECK(strstr(lld_error_message(), ": No such file or directory"), "%s", lld_error_message());
}

static void test_mappings_are_limited_in_number_and_reusable(void)
{
    static lld_mapping mappings[LLD_MAPPING_MAX];
    lld_mapping one_more;
    const char *path = write_file("three", "abc", 3);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < LLD_MAPPING_MAX; i++)
            CHECK(lld_mapping_open(path, &mappings[i]) == LLD_OK, "%s", lld_error_message());
        CHECK(lld_mapping_open(path, &one_more) == LLD_ERR_MEMORY, "one too many");
        for (int i = 0; i < LLD_MAPPING_MAX; i++) lld_mapping_close(&mappings[i]);
    }
}

static void test_a_cut_file_reads_as_zeros_and_is_marked(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    lld_mapping cut, whole;
    CHECK(lld_mapping_open(write_pages("whole", 2), &whole) == LLD_OK, "whole");
    const char *path = write_pages("cut", 4);
    CHECK(lld_mapping_open(path, &cut) == LLD_OK && truncate(path, (off_t)page) == 0, "cut");
    volatile const uint8_t *bytes = cut.bytes;
    CHECK(bytes[0] == 0x5A && !lld_mapping_faulted(&cut), "the first page is still there");
    CHECK(bytes[2 * page + 5] == 0 && bytes[4 * page - 1] == 0, "lost pages are zeros");
    CHECK(lld_mapping_faulted(&cut), "marked");
    CHECK(whole.bytes[page] == 0x5A && !lld_mapping_faulted(&whole), "the other file is not");
    lld_mapping_close(&cut);
    lld_mapping_close(&whole);
    CHECK(lld_mapping_open(path, &cut) == LLD_OK && !lld_mapping_faulted(&cut), "fresh slot");
    lld_mapping_close(&cut);
}

enum { FAULT_PAGES = 64, FAULT_THREADS = 4 };

static void *read_every_page(void *mapping)
{
    const lld_mapping *m = mapping;
    volatile const uint8_t *bytes = m->bytes;
    uintptr_t sum = 0;
    for (size_t i = 0; i < m->size; i += (size_t)sysconf(_SC_PAGESIZE)) sum += bytes[i];
    return (void *)sum;
}

static void test_threads_may_fault_at_once(void)
{
    const char *path = write_pages("threads", FAULT_PAGES);
    lld_mapping m;
    pthread_t threads[FAULT_THREADS];
    CHECK(lld_mapping_open(path, &m) == LLD_OK && truncate(path, 0) == 0, "cut");
    for (int i = 0; i < FAULT_THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, read_every_page, &m) == 0, "thread %d", i);
    for (int i = 0; i < FAULT_THREADS; i++) {
        void *sum = &m;
        pthread_join(threads[i], &sum);
        CHECK(sum == NULL, "thread %d read something", i);
    }
    CHECK(lld_mapping_faulted(&m), "marked");
    lld_mapping_close(&m);
}

static void put_vocabulary(builder *b, uint64_t n_strings)
{
    put_header(b, 3, 0, 1);
    put_array(b, "tokenizer.ggml.tokens", LLD_GGUF_STRING, n_strings);
    for (uint64_t i = 0; i < n_strings; i++) put_string(b, "word");
}

static void test_a_file_is_opened_and_its_faults_are_named(void)
{
    builder b = {.n = 0};
    lld_file *file = NULL;
    put_vocabulary(&b, 3);
    CHECK(lld_file_open(write_file("good.gguf", b.bytes, b.n), &file) == LLD_OK, "%s",
          lld_error_message());
    lld_kv kv;
    lld_tensor tensor;
    CHECK(lld_file_version(file) == 3 && lld_file_bytes(file) == b.n && lld_file_n_kv(file) == 1 &&
              lld_file_n_tensors(file) == 0,
          "numbers");
    CHECK(lld_file_kv(file, 0, &kv) == LLD_OK && kv.count == 3, "entry");
    CHECK(lld_file_kv(file, 1, &kv) == LLD_ERR_INVALID, "entry beyond the last");
    CHECK(lld_file_tensor(file, 0, &tensor) == LLD_ERR_INVALID, "tensor beyond the last");
    lld_file_close(file);

    char message[512];
    const char *path = write_file("bad.gguf", b.bytes, b.n - 1);
    snprintf(message, sizeof message,
             "%s: key 'tokenizer.ggml.tokens': string of 4 bytes at byte "
             "%zu, file has %zu bytes",
             path, b.n - 4, b.n - 1);
    CHECK(lld_file_open(path, &file) == LLD_ERR_CORRUPT && file == NULL, "cut file");
    CHECK(strcmp(lld_error_message(), message) == 0, "'%s'", lld_error_message());
    lld_file_close(NULL);
}

static void test_a_file_cut_after_opening_is_a_fault(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const char *path = write_pages("later", 2);
    builder b = {.n = 0};
    put_vocabulary(&b, 1);
    int fd = open(path, O_WRONLY);
    CHECK(fd >= 0 && pwrite(fd, b.bytes, b.n, 0) == (ssize_t)b.n, "write");
    close(fd);
    lld_file *file = NULL;
    CHECK(lld_file_open(path, &file) == LLD_OK, "%s", lld_error_message());
    CHECK(lld_file_name_fault(file, LLD_OK) == LLD_OK, "whole");
    CHECK(truncate(path, (off_t)page) == 0, "truncate");
    CHECK(((volatile const uint8_t *)file->mapping.bytes)[page] == 0, "zeros");
    CHECK(lld_file_name_fault(file, LLD_OK) == LLD_ERR_FAULT, "fault");
    CHECK(strstr(lld_error_message(), "later: file of ") != NULL, "%s", lld_error_message());
    lld_file_close(file);
}

/* ---- SIGBUS that is not ours: in children, before this process maps its first file ----------- */

/* The wait status of a child that ran `action`. */
static int run_child(void (*action)(void))
{
    pid_t child = fork();
    if (child == 0) {
        action();
        _exit(0);
    }
    int status = 0;
    CHECK(child > 0 && waitpid(child, &status, 0) == child, "child");
    return status;
}

static void exit_3(int signal)
{
    (void)signal;
    _exit(3);
}

static void exit_4(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    _exit(info->si_pid == getpid() ? 4 : 5);
}

static void map_after(struct sigaction action)
{
    lld_mapping m;
    sigaction(SIGBUS, &action, NULL);
    if (lld_mapping_open(path_of("whole"), &m) != LLD_OK) _exit(9);
}

static void raise_after_default(void)
{
    map_after((struct sigaction){.sa_handler = SIG_DFL});
    raise(SIGBUS);
}

static void raise_after_ignore(void)
{
    map_after((struct sigaction){.sa_handler = SIG_IGN});
    raise(SIGBUS);
}

static void raise_after_handler(void)
{
    map_after((struct sigaction){.sa_handler = exit_3});
    raise(SIGBUS);
}

static void raise_after_handler_with_info(void)
{
    map_after((struct sigaction){.sa_sigaction = exit_4, .sa_flags = SA_SIGINFO});
    raise(SIGBUS);
}

static void fault_outside_of_any_mapping(void)
{
    map_after((struct sigaction){.sa_handler = SIG_DFL});
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    int fd = open(path_of("whole"), O_RDONLY);
    volatile const uint8_t *bytes = mmap(NULL, 8 * page, PROT_READ, MAP_SHARED, fd, 0);
    _exit(bytes[7 * page]);
}

static void test_a_foreign_sigbus_goes_where_it_went_before(void)
{
    write_pages("whole", 2);
    int status = run_child(raise_after_default);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "default: %d", status);
    status = run_child(raise_after_ignore);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "ignored: %d", status);
    status = run_child(raise_after_handler);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 3, "handler: %d", status);
    status = run_child(raise_after_handler_with_info);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 4, "handler with info: %d", status);
    status = run_child(fault_outside_of_any_mapping);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "foreign fault: %d", status);
}

int main(void)
{
    CHECK(mkdtemp(directory) != NULL, "mkdtemp");
    test_a_foreign_sigbus_goes_where_it_went_before();
    test_a_file_is_mapped();
    test_what_is_no_regular_file_is_refused();
    test_a_long_path_leaves_room_for_the_fault();
    test_mappings_are_limited_in_number_and_reusable();
    test_a_cut_file_reads_as_zeros_and_is_marked();
    test_threads_may_fault_at_once();
    test_a_file_is_opened_and_its_faults_are_named();
    test_a_file_cut_after_opening_is_a_fault();
    const char *names[] = {"three",   "fifo",      "empty",    "whole", "cut",
                           "threads", "good.gguf", "bad.gguf", "later"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) unlink(path_of(names[i]));
    CHECK(rmdir(directory) == 0, "%s is not empty", directory);
    return check_result();
}
