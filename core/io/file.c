/* file.c: whole files in, and durable files out. */
#include "core/io/io.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MAX_INTERRUPTIONS 1000 /* in a row; a call that is interrupted for ever must not hang the program */
#define MAX_TEMP_NAMES 1000
#define CHUNK ((size_t)256 << 20)

/* ---------------------------------------------------------------- reading */

static int open_retried(fv_ctx *ctx, const char *path, int flags, int mode) {
    int fd = -1;
    for (int i = 0; i < MAX_INTERRUPTIONS; i++) {
        fd = ctx->io.open(ctx->io.user, path, flags, mode);
        if (fd >= 0 || errno != EINTR) break;
    }
    return fd;
}

fv_status fv_reader_open(fv_reader *r, fv_ctx *ctx, const char *path) {
    *r = (fv_reader){.ctx = ctx, .fd = -1};
    if (snprintf(r->path, sizeof r->path, "%s", path) >= (int)sizeof r->path)
        return fv_fail_at(ctx, FV_E_IO, path, -1, "cannot open: the path is longer than %zu bytes", sizeof r->path - 1);
    /* O_NONBLOCK: a FIFO opens at once, and is refused below */
    r->fd = open_retried(ctx, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0);
    if (r->fd < 0) return fv_fail_at(ctx, FV_E_IO, path, -1, "cannot open: %s", strerror(errno));
    int64_t size = ctx->io.size(ctx->io.user, r->fd);
    if (size < 0) {
        int error = errno;
        fv_reader_close(r);
        if (error == EINVAL) return fv_fail_at(ctx, FV_E_IO, path, -1, "not a regular file");
        return fv_fail_at(ctx, FV_E_IO, path, -1, "cannot find out the size: %s", strerror(error));
    }
    r->size = (uint64_t)size;
    return FV_OK;
}

fv_status fv_read(fv_reader *r, void *data, size_t bytes) {
    unsigned char *to = data;
    int interruptions = 0;
    while (bytes) {
        int64_t n = r->ctx->io.read(r->ctx->io.user, r->fd, to, bytes < CHUNK ? bytes : CHUNK);
        if (n < 0 && errno == EINTR && ++interruptions < MAX_INTERRUPTIONS) continue;
        if (n < 0) return fv_fail_at(r->ctx, FV_E_IO, r->path, (int64_t)r->offset, "cannot read: %s", strerror(errno));
        if (n == 0) {
            return fv_fail_at(r->ctx, FV_E_IO, r->path, (int64_t)r->offset,
                              "the file ends early: %zu more bytes expected", bytes);
        }
        interruptions = 0;
        to += n;
        bytes -= (size_t)n;
        r->offset += (uint64_t)n;
    }
    return FV_OK;
}

void fv_reader_close(fv_reader *r) {
    if (r->fd >= 0) r->ctx->io.close(r->ctx->io.user, r->fd); /* nothing was written: nothing can be lost */
    r->fd = -1;
}

fv_status fv_read_file(fv_ctx *ctx, const char *path, size_t limit, void **data, size_t *size) {
    *data = NULL;
    *size = 0;
    fv_reader reader;
    FV_TRY(fv_reader_open(&reader, ctx, path));
    if (reader.size > limit || reader.size >= SIZE_MAX) {
        fv_reader_close(&reader);
        return fv_fail_at(ctx, FV_E_DATA, path, -1, "%" PRIu64 " bytes are more than expected (at most %zu)",
                          reader.size, limit);
    }
    size_t bytes = (size_t)reader.size;
    char *text = fv_alloc(ctx, bytes + 1, 1);
    fv_status status = text ? fv_read(&reader, text, bytes) : FV_E_MEMORY;
    fv_reader_close(&reader);
    if (status != FV_OK) {
        fv_free(ctx, text, bytes + 1, 1);
        return status;
    }
    text[bytes] = '\0';
    *data = text;
    *size = bytes;
    return FV_OK;
}

/* ---------------------------------------------------------------- writing */

/* The first error stays; `what` failed with `error`. */
static fv_status writer_fail(fv_writer *w, const char *what, int error) {
    w->status = fv_fail_at(w->ctx, FV_E_IO, w->path, (int64_t)w->bytes, "cannot %s: %s", what, strerror(error));
    if (error == ENOSPC || error == EDQUOT)
        fv_hint(w->ctx, "free some space; the file that was there before is unharmed");
    return w->status;
}

fv_status fv_writer_open(fv_writer *w, fv_ctx *ctx, const char *path) {
    *w = (fv_writer){.ctx = ctx, .fd = -1};
    if (snprintf(w->path, sizeof w->path, "%s", path) >= (int)sizeof w->path)
        return w->status = fv_fail_at(ctx, FV_E_IO, path, -1, "cannot create: the path is longer than %zu bytes",
                                      sizeof w->path - 1);
    int error = EEXIST; /* leftovers of a killed process of the same number are stepped over */
    for (int n = 0; n < MAX_TEMP_NAMES && error == EEXIST; n++) {
        snprintf(w->temp, sizeof w->temp, "%s.tmp-%ld-%d", w->path, (long)getpid(), n);
        w->fd = open_retried(ctx, w->temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (w->fd >= 0) return FV_OK;
        error = errno;
    }
    w->temp[0] = '\0';
    return writer_fail(w, "create", error);
}

fv_status fv_write(fv_writer *w, const void *data, size_t bytes) {
    const unsigned char *from = data;
    int interruptions = 0;
    while (bytes && w->status == FV_OK) {
        int64_t n = w->ctx->io.write(w->ctx->io.user, w->fd, from, bytes < CHUNK ? bytes : CHUNK);
        if (n < 0 && errno == EINTR && ++interruptions < MAX_INTERRUPTIONS) continue;
        if (n <= 0) return writer_fail(w, "write", n < 0 ? errno : EIO);
        interruptions = 0;
        from += n;
        bytes -= (size_t)n;
        w->bytes += (uint64_t)n;
    }
    return w->status;
}

/* File systems that cannot sync a directory say EINVAL; there is nothing more to be done there. */
fv_status fv_sync_name(fv_ctx *ctx, const char *path) {
    char folder[512];
    if (snprintf(folder, sizeof folder, "%s", path) >= (int)sizeof folder)
        return fv_fail_at(ctx, FV_E_IO, path, -1, "the path is longer than %zu bytes", sizeof folder - 1);
    char *slash = strrchr(folder, '/');
    if (!slash) snprintf(folder, sizeof folder, ".");
    else slash[slash == folder] = '\0';

    int fd = open_retried(ctx, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0) return fv_fail_at(ctx, FV_E_IO, path, -1, "cannot open its folder to sync it: %s", strerror(errno));
    int failed = ctx->io.fsync(ctx->io.user, fd), error = errno;
    ctx->io.close(ctx->io.user, fd);
    if (!failed || error == EINVAL) return FV_OK;
    return fv_fail_at(ctx, FV_E_IO, path, -1, "cannot sync its folder: %s", strerror(error));
}

fv_status fv_writer_commit(fv_writer *w) {
    if (w->status == FV_OK && w->ctx->io.fsync(w->ctx->io.user, w->fd) != 0) writer_fail(w, "sync", errno);
    if (w->fd >= 0) {
        int fd = w->fd;
        w->fd = -1; /* closed even if close fails. EINTR after a sync loses nothing. */
        if (w->ctx->io.close(w->ctx->io.user, fd) != 0 && errno != EINTR && w->status == FV_OK)
            writer_fail(w, "close", errno);
    }
    if (w->status == FV_OK && w->keep && w->ctx->io.rename(w->ctx->io.user, w->path, w->keep) != 0 && errno != ENOENT)
        writer_fail(w, "rename the file that was there before", errno);
    if (w->status == FV_OK && w->ctx->io.rename(w->ctx->io.user, w->temp, w->path) != 0)
        writer_fail(w, "rename", errno);
    if (w->status != FV_OK) {
        fv_writer_abort(w);
        return w->status;
    }
    w->temp[0] = '\0';
    return w->status = fv_sync_name(w->ctx, w->path);
}

void fv_writer_abort(fv_writer *w) {
    if (w->fd >= 0) w->ctx->io.close(w->ctx->io.user, w->fd);
    w->fd = -1;
    if (w->temp[0]) w->ctx->io.unlink(w->ctx->io.user, w->temp);
    w->temp[0] = '\0';
}

fv_status fv_write_file(fv_ctx *ctx, const char *path, const void *data, size_t bytes) {
    fv_writer w;
    FV_TRY(fv_writer_open(&w, ctx, path));
    fv_write(&w, data, bytes);
    return fv_writer_commit(&w);
}
