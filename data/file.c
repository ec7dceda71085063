/* file.c: files read from beginning to end, with gzip unpacked on the way, through the context's file operations. */
#include "data/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STREAM_INPUT ((size_t)256 << 10)
#define STEP_MOST ((size_t)1 << 30)   /* zlib counts in 32 bits */
#define MOST_BARREN ((size_t)1 << 20) /* bytes of gzip that nothing comes out of: names, comments, empty blocks */
#define DEFLATE_RATIO 1032u           /* one bit for 258 bytes, and the rest rounded up (zlib's technical notes) */

fv_status fv_data_path(fv_ctx *ctx, char out[FV_DATA_PATH], const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(out, FV_DATA_PATH, fmt, args);
    va_end(args);
    if (n < 0 || n >= FV_DATA_PATH)
        return fv_fail_at(ctx, FV_E_USAGE, out, -1, "path longer than %d bytes", FV_DATA_PATH - 1);
    return FV_OK;
}

bool fv_data_exists(fv_ctx *ctx, const char *path) {
    int fd = ctx->io.open(ctx->io.user, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0); /* a FIFO must not be waited for */
    if (fd < 0) return false;
    bool regular = ctx->io.size(ctx->io.user, fd) >= 0;
    ctx->io.close(ctx->io.user, fd);
    return regular;
}

fv_status fv_data_mkdirs(fv_ctx *ctx, const char *path) {
    char part[FV_DATA_PATH];
    FV_TRY(fv_data_path(ctx, part, "%s", path));
    for (char *p = part + 1;; p++) {
        if (*p && *p != '/') continue;
        char end = *p;
        *p = 0;
        if (mkdir(part, 0777) != 0 && errno != EEXIST)
            return fv_fail_at(ctx, FV_E_IO, part, -1, "cannot create the folder: %s", strerror(errno));
        *p = end;
        if (!end) return FV_OK;
    }
}

fv_status fv_data_parent(fv_ctx *ctx, const char *path, char out[FV_DATA_PATH]) {
    FV_TRY(fv_data_path(ctx, out, "%s", path));
    char *slash = strrchr(out, '/');
    if (!slash) memcpy(out, ".", 2);
    else slash[slash == out] = 0;
    return FV_OK;
}

fv_status fv_data_sync_folder(fv_ctx *ctx, const char *folder) {
    int fd = ctx->io.open(ctx->io.user, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0) return fv_fail_at(ctx, FV_E_IO, folder, -1, "cannot open the folder: %s", strerror(errno));
    int failed = ctx->io.fsync(ctx->io.user, fd) != 0 ? errno : 0;
    ctx->io.close(ctx->io.user, fd);
    if (failed && failed != EINVAL) /* EINVAL: a file system that has nothing to sync for folders */
        return fv_fail_at(ctx, FV_E_IO, folder, -1, "fsync of the folder: %s", strerror(failed));
    return FV_OK;
}

fv_status fv_data_open(fv_reader *r, fv_ctx *ctx, const char *path) {
    fv_status status = fv_reader_open(r, ctx, path);
    if (status == FV_OK || access(path, F_OK) == 0 || (errno != ENOENT && errno != ENOTDIR)) return status;
    return fv_fail_at(ctx, FV_E_DATA, path, -1, "no such file");
}

/* ---------------------------------------------------------------- streams */

/* zlib frees without saying how much: the size stands in front of each block. */
enum { ZLIB_FRONT = 64 };
static voidpf zlib_alloc(voidpf user, uInt items, uInt size) {
    size_t bytes;
    if (!fv_size_mul(items, size, &bytes) || !fv_size_add(bytes, ZLIB_FRONT, &bytes)) return Z_NULL;
    unsigned char *block = fv_alloc(user, bytes, 1);
    if (!block) return Z_NULL;
    memcpy(block, &bytes, sizeof bytes);
    return block + ZLIB_FRONT;
}
static void zlib_free(voidpf user, voidpf ptr) {
    if (!ptr) return;
    unsigned char *block = (unsigned char *)ptr - ZLIB_FRONT;
    size_t bytes;
    memcpy(&bytes, block, sizeof bytes);
    fv_free(user, block, bytes, 1);
}

/* Read more input where there is none; leaves avail_in 0 at the end of the file. */
static fv_status refill(fv_stream *s) {
    if (s->z.avail_in > 0) return FV_OK;
    uint64_t left = s->file.size - s->file.offset;
    size_t n = left < STREAM_INPUT ? (size_t)left : STREAM_INPUT;
    if (n > 0) FV_TRY(fv_read(&s->file, s->in, n));
    s->z.next_in = s->in;
    s->z.avail_in = (uInt)n;
    return FV_OK;
}

static uint64_t stream_offset(const fv_stream *s) {
    return s->file.offset - s->z.avail_in;
}

static fv_status stream_fail(fv_stream *s, const char *what) {
    return fv_fail_at(s->file.ctx, FV_E_DATA, s->file.path, (int64_t)stream_offset(s), "%s", what);
}

fv_status fv_stream_open(fv_stream *s, fv_ctx *ctx, const char *path) {
    *s = (fv_stream){.file.fd = -1};
    FV_TRY(fv_data_open(&s->file, ctx, path));
    s->in = fv_alloc(ctx, STREAM_INPUT, 1);
    fv_status status = s->in ? refill(s) : FV_E_MEMORY;
    if (status == FV_OK && s->z.avail_in >= 2 && s->in[0] == 0x1f && s->in[1] == 0x8b) {
        s->z.zalloc = zlib_alloc;
        s->z.zfree = zlib_free;
        s->z.opaque = ctx;
        int rc = inflateInit2(&s->z, 15 + 16); /* gzip only, window as large as there is */
        s->gzip = rc == Z_OK;
        if (rc == Z_MEM_ERROR) status = fv_fail_memory(ctx, (size_t)1 << 15, "the gzip reader");
        else if (rc != Z_OK) status = fv_fail(ctx, FV_E_INTERNAL, "zlib cannot be used: %s", zError(rc));
    }
    if (status != FV_OK) fv_stream_close(s);
    return status;
}

/* One step of inflate into z.next_out. */
static fv_status inflate_some(fv_stream *s) {
    FV_TRY(refill(s));
    uInt in = s->z.avail_in, out = s->z.avail_out;
    int rc = inflate(&s->z, Z_NO_FLUSH);
    s->barren = s->z.avail_out < out ? 0 : s->barren + (in - s->z.avail_in);
    if (rc == Z_STREAM_END) {
        s->ended = true;
        return FV_OK;
    }
    if (rc == Z_MEM_ERROR) return fv_fail_memory(s->file.ctx, (size_t)1 << 15, "the gzip reader");
    if (rc == Z_BUF_ERROR && s->z.avail_in == 0) return stream_fail(s, "truncated gzip file");
    if (rc != Z_OK && rc != Z_BUF_ERROR) {
        char what[96];
        snprintf(what, sizeof what, "damaged gzip file: %s", s->z.msg ? s->z.msg : zError(rc));
        return stream_fail(s, what);
    }
    if (s->barren > MOST_BARREN) return stream_fail(s, "damaged gzip file: nothing comes out of it");
    return FV_OK;
}

fv_status fv_stream_some(fv_stream *s, void *buf, size_t bytes, size_t *got) {
    *got = 0;
    if (s->gzip) {
        size_t want = bytes < STEP_MOST ? bytes : STEP_MOST;
        s->z.next_out = buf;
        s->z.avail_out = (uInt)want;
        while (!s->ended && s->z.avail_out == want) FV_TRY(inflate_some(s));
        *got = want - s->z.avail_out;
        return FV_OK;
    }
    uint64_t left = s->file.size - stream_offset(s);
    if (bytes > left) bytes = (size_t)left;
    if (s->z.avail_in == 0) { /* straight into place */
        FV_TRY(fv_read(&s->file, buf, bytes));
    } else {
        if (bytes > s->z.avail_in) bytes = s->z.avail_in;
        memcpy(buf, s->z.next_in, bytes);
        s->z.next_in += bytes;
        s->z.avail_in -= (uInt)bytes;
    }
    *got = bytes;
    return FV_OK;
}

fv_status fv_stream_read(fv_stream *s, void *buf, size_t bytes) {
    unsigned char *to = buf;
    while (bytes > 0) {
        size_t got;
        FV_TRY(fv_stream_some(s, to, bytes, &got));
        if (got == 0) return stream_fail(s, s->gzip ? "the gzip file holds less than it should" : "truncated");
        to += got;
        bytes -= got;
    }
    return FV_OK;
}

fv_status fv_stream_finish(fv_stream *s) {
    unsigned char extra;
    size_t got;
    FV_TRY(fv_stream_some(s, &extra, 1, &got));
    if (got > 0 || stream_offset(s) != s->file.size) return stream_fail(s, "more bytes follow the data");
    return FV_OK;
}

uint64_t fv_stream_bound(const fv_stream *s) {
    uint64_t left = s->file.size - stream_offset(s);
    if (!s->gzip) return left;
    return left > UINT64_MAX / DEFLATE_RATIO - 1 ? UINT64_MAX : (left + 1) * DEFLATE_RATIO;
}

void fv_stream_close(fv_stream *s) {
    if (s->gzip) inflateEnd(&s->z);
    s->gzip = false;
    if (s->in) fv_free(s->file.ctx, s->in, STREAM_INPUT, 1);
    s->in = NULL;
    fv_reader_close(&s->file);
}
