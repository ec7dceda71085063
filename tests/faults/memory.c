/* memory.c: a shared object for LD_PRELOAD that makes one allocation of a program fail: malloc, calloc, realloc,
 * aligned memory and anonymous mappings, whoever asks for them, libraries too.
 *
 *   FV_MEMORY=N[:FILE]   the N-th call (from 1) returns NULL, with errno ENOMEM; 0: none. FILE gets the number of calls
 *                        when the program ends
 *
 * What the loader takes before main() and what runs after exit() does not count. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* glibc's own, under names that nobody interposes. */
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *ptr, size_t bytes);
void *__libc_memalign(size_t align, size_t bytes);

static atomic_long count;
static long fail_at;
static const char *report;
static bool counting;

/* At exit, before the destructors. */
static void finish(void) {
    char text[32];
    counting = false;
    int fd = report ? open(report, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666) : -1;
    if (fd < 0) return;
    int n = snprintf(text, sizeof text, "%ld\n", atomic_load(&count));
    if (write(fd, text, (size_t)n) < 0) n = 0;
    close(fd);
}

static int (*real_main)(int, char **, char **);
static int counted_main(int argc, char **argv, char **envp) {
    const char *said = getenv("FV_MEMORY");
    char *end = NULL;
    if (said && atexit(finish) == 0) {
        fail_at = strtol(said, &end, 10);
        if (*end == ':') report = end + 1;
        counting = true;
    }
    return real_main(argc, argv, envp);
}

typedef int (*start_fn)(int (*)(int, char **, char **), int, char **, void (*)(void), void (*)(void), void (*)(void),
                        void *);
int __libc_start_main(int (*program)(int, char **, char **), int argc, char **argv, void (*init)(void),
                      void (*fini)(void), void (*loader_fini)(void), void *stack_end);
int __libc_start_main(int (*program)(int, char **, char **), int argc, char **argv, void (*init)(void),
                      void (*fini)(void), void (*loader_fini)(void), void *stack_end) {
    start_fn start;
    *(void **)&start = dlsym(RTLD_NEXT, "__libc_start_main");
    real_main = program;
    return start(counted_main, argc, argv, init, fini, loader_fini, stack_end);
}

static bool fails(void) {
    if (!counting || atomic_fetch_add(&count, 1) + 1 != fail_at) return false;
    errno = ENOMEM;
    return true;
}

void *malloc(size_t bytes) {
    return fails() ? NULL : __libc_malloc(bytes);
}
void *calloc(size_t n, size_t bytes) {
    return fails() ? NULL : __libc_calloc(n, bytes);
}
void *realloc(void *ptr, size_t bytes) {
    return fails() ? NULL : __libc_realloc(ptr, bytes);
}
void *aligned_alloc(size_t align, size_t bytes) {
    return fails() ? NULL : __libc_memalign(align, bytes);
}
int posix_memalign(void **out, size_t align, size_t bytes) {
    void *ptr = fails() ? NULL : __libc_memalign(align, bytes);
    if (!ptr) return ENOMEM;
    *out = ptr;
    return 0;
}
void *mmap(void *addr, size_t bytes, int protection, int flags, int fd, off_t offset) {
    if ((flags & MAP_ANONYMOUS) && fails()) return MAP_FAILED;
    return (void *)syscall(SYS_mmap, addr, bytes, protection, flags, fd, offset);
}
