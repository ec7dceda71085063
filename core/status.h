/* status.h: status codes (they are also the program's exit codes), the error a call leaves behind, and the context
 * that every library call receives: where memory comes from, how files are reached, who hears log lines.
 *
 *   fv_ctx ── alloc   allocator hook (every byte of the library comes from here)
 *          ── io      file operations as a vtable, so that tests can make any of them fail
 *          ── log     callback; the library itself never prints
 *          ── error   the last failure: code, message, hint, path, offset
 *
 * The library never exits, never aborts on input and keeps no global state. */
#ifndef FV_CORE_STATUS_H
#define FV_CORE_STATUS_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FV_VERSION "0.1.0"

#if defined(__GNUC__)
#define FV_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define FV_PRINTF(fmt, args)
#endif

/* X(name, code, text). The codes are the exit codes of the program. */
#define FV_STATUS_TABLE(X) \
    X(FV_OK, 0, "ok") \
    X(FV_E_INTERNAL, 1, "internal error") \
    X(FV_E_USAGE, 2, "usage") \
    X(FV_E_DATA, 3, "data") \
    X(FV_E_MODEL, 4, "model or checkpoint") \
    X(FV_E_IO, 5, "input/output") \
    X(FV_E_MEMORY, 6, "memory or device") \
    X(FV_E_NUMERIC, 7, "numerics: non-finite or diverged") \
    X(FV_E_BUSY, 8, "run folder in use") \
    X(FV_E_RANK, 9, "a rank was lost") \
    X(FV_E_GATE, 10, "a gate was not met")

typedef enum fv_status {
#define FV_STATUS_ENUM(name, code, text) name = code,
    FV_STATUS_TABLE(FV_STATUS_ENUM)
#undef FV_STATUS_ENUM
} fv_status;

/* Short text of a status, never NULL. */
const char *fv_status_text(fv_status status);

/* What went wrong. `path` is empty and `offset` is -1 where they do not apply. */
typedef struct fv_error {
    fv_status code;
    char message[768];
    char hint[384];
    char path[512];
    int64_t offset;
} fv_error;

/* Allocator hook. `alloc` returns memory aligned to `align` (a power of two) or NULL; `free` gets the same size. */
typedef struct fv_allocator {
    void *(*alloc)(void *user, size_t bytes, size_t align);
    void (*free)(void *user, void *ptr, size_t bytes);
    void *user;
    size_t zeroed_from; /* blocks of at least so many bytes come zeroed; 0: none do */
} fv_allocator;

/* File operations. Each returns what the system call of the same name returns and sets errno. */
typedef struct fv_io {
    int (*open)(void *user, const char *path, int flags, int mode);
    int64_t (*read)(void *user, int fd, void *buf, size_t bytes);
    int64_t (*write)(void *user, int fd, const void *buf, size_t bytes);
    int64_t (*size)(void *user, int fd); /* size of a regular file; -1 and errno = EINVAL for anything else */
    int (*fsync)(void *user, int fd);
    int (*close)(void *user, int fd);
    int (*rename)(void *user, const char *from, const char *to);
    int (*unlink)(void *user, const char *path);
    void *user;
} fv_io;

typedef enum fv_log_level { FV_LOG_DEBUG, FV_LOG_INFO, FV_LOG_WARN } fv_log_level;
typedef void (*fv_log_fn)(void *user, fv_log_level level, const char *line);

typedef struct fv_ctx {
    fv_allocator alloc;
    fv_io io;
    fv_log_fn log; /* NULL: silent */
    void *log_user;
    fv_error error;
} fv_ctx;

/* A context with malloc, POSIX files and no log. It owns nothing: there is no destroy call. Give each thread its own
 * copy. */
void fv_ctx_init(fv_ctx *ctx);

/* Record an error and return `code`, so that `return fv_fail(ctx, FV_E_DATA, "...")` reads well. Clears hint, path,
 * offset. Texts of errors and log lines are cleaned: control characters and what is no UTF-8 become '?', since names
 * out of files end up in them and they end up on terminals. */
fv_status fv_fail(fv_ctx *ctx, fv_status code, const char *fmt, ...) FV_PRINTF(3, 4);
/* The same with the path (and byte offset, or -1) that the message is about; the message should not repeat the path. */
fv_status fv_fail_at(fv_ctx *ctx, fv_status code, const char *path, int64_t offset, const char *fmt, ...)
    FV_PRINTF(5, 6);
/* Say how to mend it; returns the code of the recorded error. */
fv_status fv_hint(fv_ctx *ctx, const char *fmt, ...) FV_PRINTF(2, 3);
/* Record that `bytes` could not be had for `what`: FV_E_MEMORY. */
fv_status fv_fail_memory(fv_ctx *ctx, size_t bytes, const char *what);

/* A line to the log callback, if there is one. */
void fv_log(const fv_ctx *ctx, fv_log_level level, const char *fmt, ...) FV_PRINTF(3, 4);

/* Memory from the context's allocator. NULL (and ctx->error set) on failure or when count * size overflows. */
void *fv_alloc(fv_ctx *ctx, size_t count, size_t size);
void *fv_calloc(fv_ctx *ctx, size_t count, size_t size);
void fv_free(fv_ctx *ctx, void *ptr, size_t count, size_t size);
/* A copy of a string, to be given back with fv_free(ctx, s, strlen(s) + 1, 1). */
char *fv_strdup(fv_ctx *ctx, const char *s);

/* Length of the UTF-8 character at s, 0 if it is none (RFC 3629: shortest form, no surrogates, at most U+10FFFF). */
size_t fv_utf8_length(const unsigned char *s);

/* Checked size arithmetic: false on overflow, and *out is then untouched. */
bool fv_size_mul(size_t a, size_t b, size_t *out);
bool fv_size_add(size_t a, size_t b, size_t *out);

/* Analysers (tools/analyze.sh) see one file at a time: that a failure returns its code, they are told here. */
#ifdef FV_ANALYZE
#define fv_fail(ctx, code, ...) (fv_fail(ctx, code, __VA_ARGS__), (code))
#define fv_fail_at(ctx, code, ...) (fv_fail_at(ctx, code, __VA_ARGS__), (code))
#define fv_fail_memory(ctx, ...) (fv_fail_memory(ctx, __VA_ARGS__), FV_E_MEMORY)
#endif

/* FV_TRY(expr): leave the function with the status when it is not FV_OK. */
#define FV_TRY(expr) \
    do { \
        fv_status fv_try_ = (expr); \
        if (fv_try_ != FV_OK) return fv_try_; \
    } while (0)

#endif
