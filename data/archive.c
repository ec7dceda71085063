/* archive.c: the expected members of a .tar.gz, and nothing else: the names in the archive only choose among names that
 * we know, so they cannot lead anywhere. Format: POSIX.1-1988 ustar; what tar writes for longer names is passed over.
 */
#include "data/internal.h"

#include <stdio.h>
#include <string.h>

#define TAR_BLOCK 512
#define COPY_CHUNK ((size_t)256 << 10)
#define MOST_MEMBER ((uint64_t)512 << 20) /* bytes of one member; the largest expected has 155 MB */
#define MOST_ALL ((uint64_t)2 << 30)      /* bytes that may come out of the archive ... */
#define MOST_RATIO 16                     /* ... and per byte of it, pictures being hard to compress, ... */
#define MOST_FREE ((uint64_t)16 << 20)    /* ... beyond these */
#define MOST_MEMBERS 32

typedef struct unpacker {
    fv_ctx *ctx;
    const char *path;
    fv_stream stream;
    const char *const *members;
    const char *folder;
    bool seen[MOST_MEMBERS];
    uint64_t out, most; /* bytes that have come out, and that may */
    unsigned char *buf; /* [COPY_CHUNK] */
} unpacker;

static fv_status unpack_fail(unpacker *u, const char *what, const char *name) {
    return fv_fail_at(u->ctx, FV_E_DATA, u->path, (int64_t)u->out, "archive: %s%s%s (offset in the unpacked archive)",
                      what, name ? ": " : "", name ? name : "");
}

static fv_status next_bytes(unpacker *u, void *to, size_t bytes) {
    FV_TRY(fv_stream_read(&u->stream, to, bytes));
    u->out += bytes;
    return u->out <= u->most ? FV_OK : unpack_fail(u, "more comes out than can be right", NULL);
}

/* An octal number of `size` places, ended by a space or NUL. */
static bool octal(const unsigned char *p, size_t size, uint64_t *out) {
    size_t i = 0;
    *out = 0;
    while (i < size && p[i] == ' ') i++;
    size_t first = i;
    for (; i < size && p[i] >= '0' && p[i] <= '7'; i++) *out = *out << 3 | (uint64_t)(p[i] - '0');
    return i > first && (i == size || p[i] == ' ' || p[i] == 0);
}

/* The sum of all bytes of the header, its own field taken as spaces. */
static bool checksum_holds(const unsigned char *head) {
    uint64_t sum = 0, said;
    for (int i = 0; i < TAR_BLOCK; i++) sum += i >= 148 && i < 156 ? ' ' : head[i];
    return octal(head + 148, 8, &said) && said == sum;
}

/* Name of the member: prefix / name in ustar, without "./" in front. */
static void member_name(const unsigned char *head, char name[260]) {
    bool prefixed = memcmp(head + 257, "ustar", 5) == 0 && head[345];
    char full[260];
    snprintf(full, sizeof full, "%.155s%s%.100s", prefixed ? (const char *)head + 345 : "", prefixed ? "/" : "",
             (const char *)head);
    const char *from = full;
    while (from[0] == '.' && from[1] == '/') from += 2;
    snprintf(name, 260, "%s", from);
}

static fv_status skip(unpacker *u, uint64_t bytes) {
    while (bytes > 0) {
        size_t n = bytes < COPY_CHUNK ? (size_t)bytes : COPY_CHUNK;
        FV_TRY(next_bytes(u, u->buf, n));
        bytes -= n;
    }
    return FV_OK;
}

static fv_status copy_out(unpacker *u, const char *member, uint64_t bytes) {
    char path[FV_DATA_PATH];
    const char *slash = strrchr(member, '/');
    FV_TRY(fv_data_path(u->ctx, path, "%s/%s", u->folder, slash ? slash + 1 : member));
    fv_writer w;
    FV_TRY(fv_writer_open(&w, u->ctx, path));
    while (bytes > 0) {
        size_t n = bytes < COPY_CHUNK ? (size_t)bytes : COPY_CHUNK;
        fv_status status = next_bytes(u, u->buf, n);
        if (status == FV_OK) status = fv_write(&w, u->buf, n);
        if (status != FV_OK) {
            fv_writer_abort(&w);
            return status;
        }
        bytes -= n;
    }
    return fv_writer_commit(&w);
}

static fv_status unpack_member(unpacker *u, const unsigned char *head) {
    char name[260];
    uint64_t bytes;
    if (!checksum_holds(head)) return unpack_fail(u, "a damaged header", NULL);
    if (!octal(head + 124, 12, &bytes)) return unpack_fail(u, "a damaged size", NULL);
    member_name(head, name);
    int wanted = 0;
    while (u->members[wanted] && strcmp(u->members[wanted], name) != 0) wanted++;
    uint64_t padded = (bytes + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK;
    if (bytes > MOST_MEMBER) return unpack_fail(u, "a member larger than can be right", name);
    if (!u->members[wanted]) return skip(u, padded);
    if (head[156] != '0' && head[156] != 0) return unpack_fail(u, "not a plain file", name);
    if (u->seen[wanted]) return unpack_fail(u, "a member that is there twice", name);
    FV_TRY(copy_out(u, name, bytes));
    u->seen[wanted] = true;
    return skip(u, padded - bytes);
}

static fv_status unpack_all(unpacker *u) {
    unsigned char head[TAR_BLOCK];
    static const unsigned char zero[TAR_BLOCK];
    for (;;) {
        FV_TRY(next_bytes(u, head, sizeof head));
        if (memcmp(head, zero, sizeof head) == 0) break;
        FV_TRY(unpack_member(u, head));
    }
    for (size_t got = 1; got > 0; u->out += got) { /* tar fills up its last record */
        if (u->out > u->most) return unpack_fail(u, "more comes out than can be right", NULL);
        FV_TRY(fv_stream_some(&u->stream, u->buf, COPY_CHUNK, &got));
    }
    FV_TRY(fv_stream_finish(&u->stream));
    for (int i = 0; u->members[i]; i++)
        if (!u->seen[i]) return unpack_fail(u, "a member is missing", u->members[i]);
    return FV_OK;
}

fv_status fv_archive_unpack(fv_ctx *ctx, const char *path, const char *const *members, const char *folder) {
    unpacker u = {.ctx = ctx, .path = path, .members = members, .folder = folder};
    FV_TRY(fv_stream_open(&u.stream, ctx, path));
    u.most = u.stream.file.size < MOST_ALL / MOST_RATIO ? MOST_FREE + MOST_RATIO * u.stream.file.size : MOST_ALL;
    u.buf = fv_alloc(ctx, COPY_CHUNK, 1);
    fv_status status = u.buf ? unpack_all(&u) : FV_E_MEMORY;
    if (u.buf) fv_free(ctx, u.buf, COPY_CHUNK, 1);
    fv_stream_close(&u.stream);
    return status;
}
