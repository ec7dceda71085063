/* status.c: error context, default allocator, POSIX file operations, checked arithmetic. */
#include "core/status.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

const char *fv_status_text(fv_status status) {
    switch (status) {
#define FV_STATUS_CASE(name, code, text) \
    case name: return text;
        FV_STATUS_TABLE(FV_STATUS_CASE)
#undef FV_STATUS_CASE
    }
    return "unknown status";
}

/* ---------------------------------------------------------------- default allocator */

#define HUGE_PAGE ((size_t)2 << 20)
#define MAP_THRESHOLD \
    ((size_t)4 << 20) /* from here on blocks are mapped on their own, in huge pages where there are any */
#define DEFAULT_ALIGN 64

static size_t round_up(size_t bytes, size_t unit) {
    return (bytes + unit - 1) / unit * unit;
}

/* Map more than asked for, then give back what lies before and behind the aligned block. */
static void *map_huge(size_t bytes, size_t align) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t slack = align > HUGE_PAGE ? align : HUGE_PAGE;
    if (bytes > SIZE_MAX - slack - page) return NULL;
    size_t size = round_up(bytes, page);
    unsigned char *raw = mmap(NULL, size + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw == MAP_FAILED) return NULL;
    size_t before = (slack - (uintptr_t)raw % slack) % slack, behind = slack - before;
    if (before) munmap(raw, before);
    if (behind) munmap(raw + before + size, behind);
    madvise(raw + before, size, MADV_HUGEPAGE); /* advice: kernels without huge pages refuse it, and that is fine */
    return raw + before;
}

static void *default_alloc(void *user, size_t bytes, size_t align) {
    (void)user;
    if (bytes >= MAP_THRESHOLD) return map_huge(bytes, align);
    void *ptr = NULL;
    if (align < sizeof(void *)) align = sizeof(void *);
    return posix_memalign(&ptr, align, bytes ? bytes : 1) == 0 ? ptr : NULL;
}

static void default_free(void *user, void *ptr, size_t bytes) {
    (void)user;
    if (bytes < MAP_THRESHOLD) free(ptr);
    else if (ptr) munmap(ptr, round_up(bytes, (size_t)sysconf(_SC_PAGESIZE)));
}

/* ---------------------------------------------------------------- POSIX file operations */

static int posix_open(void *user, const char *path, int flags, int mode) {
    (void)user;
    return open(path, flags, mode);
}
static int64_t posix_read(void *user, int fd, void *buf, size_t bytes) {
    (void)user;
    return read(fd, buf, bytes);
}
static int64_t posix_write(void *user, int fd, const void *buf, size_t bytes) {
    (void)user;
    return write(fd, buf, bytes);
}
static int64_t posix_size(void *user, int fd) {
    (void)user;
    struct stat st;
    if (fstat(fd, &st) != 0) return -1;
    if (!S_ISREG(st.st_mode)) {
        errno = EINVAL;
        return -1;
    }
    return st.st_size;
}
static int posix_fsync(void *user, int fd) {
    (void)user;
    return fsync(fd);
}
static int posix_close(void *user, int fd) {
    (void)user;
    return close(fd);
}
static int posix_rename(void *user, const char *from, const char *to) {
    (void)user;
    return rename(from, to);
}
static int posix_unlink(void *user, const char *path) {
    (void)user;
    return unlink(path);
}

void fv_ctx_init(fv_ctx *ctx) {
    memset(ctx, 0, sizeof *ctx);
    ctx->alloc = (fv_allocator){.alloc = default_alloc, .free = default_free, .zeroed_from = MAP_THRESHOLD};
    ctx->io = (fv_io){.open = posix_open,
                      .read = posix_read,
                      .write = posix_write,
                      .size = posix_size,
                      .fsync = posix_fsync,
                      .close = posix_close,
                      .rename = posix_rename,
                      .unlink = posix_unlink};
    ctx->error.offset = -1;
}

/* ---------------------------------------------------------------- errors and log */

size_t fv_utf8_length(const unsigned char *s) {
    if (s[0] < 0x80) return 1;
    size_t n = s[0] >= 0xF0 ? 4 : s[0] >= 0xE0 ? 3 : 2;
    if (s[0] < 0xC2 || s[0] > 0xF4) return 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xC0) != 0x80) return 0;
    bool bad_second = (s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] > 0x9F) || (s[0] == 0xF0 && s[1] < 0x90) ||
                      (s[0] == 0xF4 && s[1] > 0x8F);
    return bad_second ? 0 : n;
}

/* A sequence that the end of the buffer has cut is no UTF-8 either. */
static void clean(char *text) {
    for (unsigned char *s = (unsigned char *)text; *s;) {
        size_t n = fv_utf8_length(s);
        bool control = *s < 0x20 || *s == 0x7f || (*s == 0xC2 && s[1] < 0xA0); /* C0, DEL, C1 */
        if (n > 0 && !control) {
            s += n;
            continue;
        }
        for (size_t i = n ? n : 1; i > 0; i--) *s++ = '?';
    }
}

/* The arguments may point into the error that is replaced: a new one is made beside it. */
static fv_status record(fv_ctx *ctx, fv_status code, const char *path, int64_t offset, const char *fmt, va_list args) {
    fv_error error = {.code = code, .offset = offset};
    vsnprintf(error.message, sizeof error.message, fmt, args);
    if (path) snprintf(error.path, sizeof error.path, "%s", path);
    clean(error.message);
    clean(error.path);
    ctx->error = error;
    return code;
}

fv_status fv_fail(fv_ctx *ctx, fv_status code, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    record(ctx, code, NULL, -1, fmt, args);
    va_end(args);
    return code;
}

fv_status fv_fail_at(fv_ctx *ctx, fv_status code, const char *path, int64_t offset, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    record(ctx, code, path, offset, fmt, args);
    va_end(args);
    return code;
}

fv_status fv_hint(fv_ctx *ctx, const char *fmt, ...) {
    char hint[sizeof ctx->error.hint];
    va_list args;
    va_start(args, fmt);
    vsnprintf(hint, sizeof hint, fmt, args);
    va_end(args);
    clean(hint);
    memcpy(ctx->error.hint, hint, sizeof hint);
    return ctx->error.code;
}

fv_status fv_fail_memory(fv_ctx *ctx, size_t bytes, const char *what) {
    if (bytes == SIZE_MAX) return fv_fail(ctx, FV_E_MEMORY, "out of memory: the size of %s overflows", what);
    if (bytes < (size_t)1 << 20) return fv_fail(ctx, FV_E_MEMORY, "out of memory: %zu bytes for %s", bytes, what);
    return fv_fail(ctx, FV_E_MEMORY, "out of memory: %.1f MiB for %s", (double)bytes / 1048576.0, what);
}

void fv_log(const fv_ctx *ctx, fv_log_level level, const char *fmt, ...) {
    if (!ctx->log) return;
    char line[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    clean(line);
    ctx->log(ctx->log_user, level, line);
}

/* ---------------------------------------------------------------- memory */

bool fv_size_mul(size_t a, size_t b, size_t *out) {
    size_t product;
    if (__builtin_mul_overflow(a, b, &product)) return false;
    *out = product;
    return true;
}

bool fv_size_add(size_t a, size_t b, size_t *out) {
    size_t sum;
    if (__builtin_add_overflow(a, b, &sum)) return false;
    *out = sum;
    return true;
}

/* Nothing is a byte too, so that NULL always means failure. */
static size_t block_bytes(size_t count, size_t size) {
    size_t bytes = SIZE_MAX;
    fv_size_mul(count, size, &bytes);
    return bytes ? bytes : 1;
}

void *fv_alloc(fv_ctx *ctx, size_t count, size_t size) {
    size_t bytes = block_bytes(count, size);
    void *ptr = bytes < SIZE_MAX ? ctx->alloc.alloc(ctx->alloc.user, bytes, DEFAULT_ALIGN) : NULL;
    if (!ptr) fv_fail_memory(ctx, bytes, "a block");
    return ptr;
}

void *fv_calloc(fv_ctx *ctx, size_t count, size_t size) {
    void *ptr = fv_alloc(ctx, count, size);
    bool fresh = ctx->alloc.zeroed_from && block_bytes(count, size) >= ctx->alloc.zeroed_from;
    if (ptr && !fresh) memset(ptr, 0, block_bytes(count, size));
    return ptr;
}

void fv_free(fv_ctx *ctx, void *ptr, size_t count, size_t size) {
    if (ptr) ctx->alloc.free(ctx->alloc.user, ptr, block_bytes(count, size));
}

char *fv_strdup(fv_ctx *ctx, const char *s) {
    size_t bytes = strlen(s) + 1;
    char *copy = fv_alloc(ctx, bytes, 1);
    if (copy) memcpy(copy, s, bytes);
    return copy;
}
