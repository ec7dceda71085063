/* preload.c: a shared object for LD_PRELOAD that watches a program's calls on files, and makes one of them fail.
 *
 *   FV_TRACE=FILE    append a line per call, fields separated by tabs:
 *                      call  result  errno (0: none)  path  detail  "fault" if it was made to fail, else ""
 *                    detail: open, close: r, w (then c: created, x: O_EXCL) or d (a folder); write: bytes asked for;
 *                    rename: the new path
 *   FV_FAULT=call:errno:N:once|ever|often[:part of the path]
 *                    the N-th call (from 1) on a path that holds this part fails with this errno: that one only, from
 *                    then on each, or from then on every second one.
 *                      call   open write fsync close rename unlink mkdir; fdatasync counts as fsync. log: below
 *                      errno  ENOSPC EIO EDQUOT EINTR EROFS EACCES; write also SHORT: half of the bytes are written
 *                    A close that fails has closed. What stdio does by itself is not seen.
 *   FV_DELAY=MS              every fsync takes so many milliseconds longer
 *   FV_FAULT=log:NAN:N:...   log(x) of an x from 1 to 1000, as the cross-entropy loss calls it, once per row, gives
 * NaN.
 *
 * No locks and no memory of its own: calls may come from any thread and from signal handlers. A descriptor's path is
 * noted before the program learns its number. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#define MAX_FD 1024
#define TRACE_FD 900 /* out of the way of the numbers that the program would get */

typedef enum call {
    CALL_OPEN,
    CALL_WRITE,
    CALL_FSYNC,
    CALL_CLOSE,
    CALL_RENAME,
    CALL_UNLINK,
    CALL_MKDIR,
    CALL_LOG,
    CALLS
} call;
static const char *const call_name[] = {"open", "write", "fsync", "close", "rename", "unlink", "mkdir", "log"};

typedef enum times { ONCE, EVER, OFTEN } times;
static struct {
    bool on, is_short;
    call call;
    int error;
    long from;
    times times;
    char part[256];
} fault;
static atomic_long fault_count;
static long delay_ms;
static int trace_fd = -1;

static struct {
    bool known;
    char path[512], mode[8];
} opened[MAX_FD];

static int (*real_open)(const char *, int, ...);
static int (*real_openat)(int, const char *, int, ...);
static ssize_t (*real_write)(int, const void *, size_t);
static int (*real_fsync)(int), (*real_fdatasync)(int), (*real_close)(int), (*real_unlink)(const char *);
static int (*real_rename)(const char *, const char *);
static int (*real_mkdir)(const char *, mode_t);
static double (*real_log)(double);

int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);

/* ---------------------------------------------------------------- set-up */

static void refuse(const char *what) {
    fprintf(stderr, "fault.so: FV_FAULT: %s\n", what);
    _exit(99);
}

static int errno_of(const char *name) {
    static const struct {
        const char *name;
        int error;
    } known[] = {{"ENOSPC", ENOSPC}, {"EIO", EIO},       {"EDQUOT", EDQUOT}, {"EINTR", EINTR},
                 {"EROFS", EROFS},   {"EACCES", EACCES}, {"SHORT", 0},       {"NAN", 0}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(name, known[i].name)) return known[i].error;
    refuse("unknown errno");
    return 0;
}

static void read_fault(const char *from) {
    char text[512], *at = text, *field[5] = {NULL};
    snprintf(text, sizeof text, "%s", from);
    for (int i = 0; i < 5 && at; i++) field[i] = i < 4 ? strsep(&at, ":") : at;
    if (!field[3]) refuse("expected call:errno:N:once|ever|often[:part of the path]");
    int c = 0;
    while (c < CALLS && strcmp(field[0], call_name[c]) != 0) c++;
    if (c == CALLS) refuse("unknown call");
    fault.call = (call)c;
    fault.error = errno_of(field[1]);
    fault.is_short = !strcmp(field[1], "SHORT");
    if (fault.is_short && fault.call != CALL_WRITE) refuse("only a write can be short");
    if ((fault.call == CALL_LOG) != !strcmp(field[1], "NAN")) refuse("NAN belongs to log, and to nothing else");
    fault.from = strtol(field[2], NULL, 10);
    if (fault.from < 1) refuse("N must be 1 or more");
    if (!strcmp(field[3], "once")) fault.times = ONCE;
    else if (!strcmp(field[3], "ever")) fault.times = EVER;
    else if (!strcmp(field[3], "often")) fault.times = OFTEN;
    else refuse("expected once, ever or often");
    if (field[4]) snprintf(fault.part, sizeof fault.part, "%s", field[4]);
    fault.on = true;
}

static void resolve(void *to, const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    memcpy(to, &found, sizeof found); /* ISO C has no conversion from void * to a pointer to a function */
}

__attribute__((constructor)) static void set_up(void) {
    if (real_open) return;
    resolve(&real_openat, "openat");
    resolve(&real_write, "write");
    resolve(&real_fsync, "fsync");
    resolve(&real_fdatasync, "fdatasync");
    resolve(&real_close, "close");
    resolve(&real_unlink, "unlink");
    resolve(&real_rename, "rename");
    resolve(&real_mkdir, "mkdir");
    resolve(&real_log, "log");
    resolve(&real_open, "open");
    const char *text = getenv("FV_FAULT"), *trace = getenv("FV_TRACE"), *delay = getenv("FV_DELAY");
    if (delay) delay_ms = strtol(delay, NULL, 10);
    if (text && *text) read_fault(text);
    if (!trace || !*trace) return;
    int fd = real_open(trace, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    trace_fd = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, TRACE_FD);
    if (trace_fd < 0) refuse("FV_TRACE: the file cannot be opened");
    real_close(fd);
}

/* ---------------------------------------------------------------- what each call does */

static const char *path_of(int fd) {
    return fd >= 0 && fd < MAX_FD && opened[fd].known ? opened[fd].path : "";
}
static const char *mode_of(int fd) {
    return fd >= 0 && fd < MAX_FD && opened[fd].known ? opened[fd].mode : "";
}

/* Whether this call is the one that fails. */
static bool fails(call c, const char *path) {
    if (!fault.on || c != fault.call || !strstr(path, fault.part)) return false;
    long number = atomic_fetch_add(&fault_count, 1) + 1, past = number - fault.from;
    if (past < 0) return false;
    return fault.times == EVER || (fault.times == ONCE ? past == 0 : past % 2 == 0);
}

static void trace(call c, long result, int error, const char *path, const char *detail, bool failed) {
    char line[1400];
    if (trace_fd < 0) return;
    int n = snprintf(line, sizeof line, "%s\t%ld\t%d\t%s\t%s\t%s\n", call_name[c], result, result < 0 ? error : 0, path,
                     detail, failed ? "fault" : "");
    if (n >= (int)sizeof line) n = (int)sizeof line;
    if (real_write(trace_fd, line, (size_t)n) != n) _exit(98);
    errno = error;
}

static int finish_open(int fd, const char *path, int flags, bool failed) {
    int error = errno, n = 0;
    char mode[8];
    if (flags & O_DIRECTORY) mode[n++] = 'd';
    else if ((flags & O_ACCMODE) == O_RDONLY) mode[n++] = 'r';
    else mode[n++] = 'w';
    if (flags & O_CREAT) mode[n++] = 'c';
    if (flags & O_EXCL) mode[n++] = 'x';
    mode[n] = '\0';
    if (fd >= 0 && fd < MAX_FD) {
        snprintf(opened[fd].path, sizeof opened[fd].path, "%s", path);
        memcpy(opened[fd].mode, mode, sizeof mode);
        opened[fd].known = true;
    }
    trace(CALL_OPEN, fd, error, path, mode, failed);
    errno = error;
    return fd;
}

static int any_open(int dir, const char *path, int flags, mode_t mode) {
    set_up();
    bool failed = fails(CALL_OPEN, path);
    int fd = -1;
    if (failed) errno = fault.error;
    else fd = real_openat(dir, path, flags, mode);
    return finish_open(fd, path, flags, failed);
}

static mode_t mode_argument(int flags, va_list args) {
    return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(args, mode_t) : 0;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list args; \
        va_start(args, flags); \
        mode_t mode = mode_argument(flags, args); \
        va_end(args); \
        return any_open(AT_FDCWD, path, flags, mode); \
    }
#define OPENAT(name) \
    int name(int dir, const char *path, int flags, ...) { \
        va_list args; \
        va_start(args, flags); \
        mode_t mode = mode_argument(flags, args); \
        va_end(args); \
        return any_open(dir, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
int __open_2(const char *path, int flags) { /* what open becomes with _FORTIFY_SOURCE */
    return any_open(AT_FDCWD, path, flags, 0);
}
int __open64_2(const char *path, int flags) {
    return any_open(AT_FDCWD, path, flags, 0);
}

ssize_t write(int fd, const void *data, size_t bytes) {
    set_up();
    if (fd <= STDERR_FILENO) return real_write(fd, data, bytes);
    bool failed = fails(CALL_WRITE, path_of(fd));
    ssize_t n = -1;
    if (failed && !fault.is_short) errno = fault.error;
    else n = real_write(fd, data, failed ? (bytes + 1) / 2 : bytes);
    char asked[24];
    int error = errno;
    snprintf(asked, sizeof asked, "%zu", bytes);
    trace(CALL_WRITE, (long)n, error, path_of(fd), asked, failed);
    errno = error;
    return n;
}

static int any_sync(int (*real)(int), int fd) {
    nanosleep(&(struct timespec){delay_ms / 1000, delay_ms % 1000 * 1000000}, NULL);
    bool failed = fails(CALL_FSYNC, path_of(fd));
    int result = -1;
    if (failed) errno = fault.error;
    else result = real(fd);
    int error = errno;
    trace(CALL_FSYNC, result, error, path_of(fd), mode_of(fd), failed);
    errno = error;
    return result;
}
int fsync(int fd) {
    set_up();
    return any_sync(real_fsync, fd);
}
int fdatasync(int fd) {
    set_up();
    return any_sync(real_fdatasync, fd);
}

int close(int fd) {
    set_up();
    if (fd < 0 || fd >= MAX_FD || !opened[fd].known) return real_close(fd);
    char path[sizeof opened[fd].path], mode[sizeof opened[fd].mode];
    memcpy(path, opened[fd].path, sizeof path);
    memcpy(mode, opened[fd].mode, sizeof mode);
    opened[fd].known = false; /* before the number can be given to another thread */
    bool failed = fails(CALL_CLOSE, path);
    int result = real_close(fd), error = errno;
    if (failed) result = -1, error = fault.error;
    trace(CALL_CLOSE, result, error, path, mode, failed);
    errno = error;
    return result;
}

int rename(const char *from, const char *to) {
    set_up();
    bool failed = fails(CALL_RENAME, to);
    int result = -1;
    if (failed) errno = fault.error;
    else result = real_rename(from, to);
    int error = errno;
    trace(CALL_RENAME, result, error, from, to, failed);
    errno = error;
    return result;
}

int unlink(const char *path) {
    set_up();
    bool failed = fails(CALL_UNLINK, path);
    int result = -1;
    if (failed) errno = fault.error;
    else result = real_unlink(path);
    int error = errno;
    trace(CALL_UNLINK, result, error, path, "", failed);
    errno = error;
    return result;
}

int mkdir(const char *path, mode_t mode) {
    set_up();
    bool failed = fails(CALL_MKDIR, path);
    int result = -1;
    if (failed) errno = fault.error;
    else result = real_mkdir(path, mode);
    int error = errno;
    trace(CALL_MKDIR, result, error, path, "", failed);
    errno = error;
    return result;
}

double log(double x) {
    set_up();
    return x >= 1 && x <= 1000 && fails(CALL_LOG, "") ? (double)NAN : real_log(x);
}
