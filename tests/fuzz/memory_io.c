/* memory_io.c: see memory_io.h. */
#include "tests/fuzz/memory_io.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EXACT_SIZES 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define EXACT_SIZES 1
#endif
#define FIRST_HANDLE 1000
#define FILES (sizeof((fvt_world *)0)->file / sizeof(fvt_world_file))
#define HANDLES (sizeof((fvt_world *)0)->handle / sizeof(fvt_world_handle))
#define FILL_MOST ((size_t)1 << 16)

_Noreturn void fvt_world_broken(const char *file, int line, const char *what) {
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
    abort();
}

/* ---------------------------------------------------------------- memory */

static void *world_alloc(void *user, size_t bytes, size_t align) {
    fvt_world *w = user;
    void *ptr = NULL;
    if (bytes > w->limit - w->bytes) {
        w->refused = true;
        return NULL;
    }
    FVT_HOLDS(posix_memalign(&ptr, align < sizeof ptr ? sizeof ptr : align, bytes) == 0);
    memset(ptr, 0xa5, bytes < FILL_MOST ? bytes : FILL_MOST); /* nobody may count on zeros */
    w->live++;
    w->bytes += bytes;
    if (w->bytes > w->peak) w->peak = w->bytes;
    return ptr;
}

static void world_free(void *user, void *ptr, size_t bytes) {
    fvt_world *w = user;
#ifdef EXACT_SIZES
    FVT_HOLDS(malloc_usable_size(ptr) == bytes); /* AddressSanitizer knows the exact size */
#endif
    w->live--;
    w->bytes -= bytes;
    free(ptr);
}

/* ---------------------------------------------------------------- files */

static fvt_world_file *find(const fvt_world *w, const char *path) {
    for (size_t i = 0; i < FILES; i++)
        if (strcmp(w->file[i].path, path) == 0) return (fvt_world_file *)(uintptr_t)&w->file[i];
    return NULL;
}

static fvt_world_file *add(fvt_world *w, const char *path) {
    fvt_world_file *f = find(w, path);
    if (!f) f = find(w, "");
    FVT_HOLDS(f != NULL && strlen(path) < sizeof f->path);
    free(f->written);
    *f = (fvt_world_file){.size = 0};
    memcpy(f->path, path, strlen(path) + 1);
    return f;
}

static fvt_world_handle *handle_of(fvt_world *w, int fd) {
    int i = fd - FIRST_HANDLE;
    FVT_HOLDS(i >= 0 && (size_t)i < HANDLES && w->handle[i].open);
    return &w->handle[i];
}

static int world_open(void *user, const char *path, int flags, int mode) {
    fvt_world *w = user;
    (void)mode;
    bool folder = flags & O_DIRECTORY, create = flags & O_CREAT;
    fvt_world_file *f = folder ? NULL : find(w, path);
    if ((f && create && (flags & O_EXCL)) || (!f && !create && !folder) || !path[0]) {
        errno = f ? EEXIST : ENOENT;
        return -1;
    }
    if (create) f = add(w, path);
    for (int i = 0; (size_t)i < HANDLES; i++) {
        if (w->handle[i].open) continue;
        w->handle[i] = (fvt_world_handle){.file = f, .open = true};
        return FIRST_HANDLE + i;
    }
    errno = EMFILE;
    return -1;
}

static int64_t world_read(void *user, int fd, void *buf, size_t bytes) {
    fvt_world_handle *h = handle_of(user, fd);
    fvt_world_file *f = h->file;
    FVT_HOLDS(f != NULL);
    uint64_t left = h->at < f->size ? f->size - h->at : 0;
    if (bytes > left) bytes = (size_t)left;
    if (f->make) f->make(h->at, buf, bytes);
    else if (bytes) memcpy(buf, (f->written ? f->written : f->given) + h->at, bytes);
    h->at += bytes;
    return (int64_t)bytes;
}

static int64_t world_write(void *user, int fd, const void *buf, size_t bytes) {
    fvt_world_handle *h = handle_of(user, fd);
    fvt_world_file *f = h->file;
    FVT_HOLDS(f != NULL && !f->given && !f->make);
    if (h->at + bytes > f->room) {
        size_t room = 2 * ((size_t)h->at + bytes);
        uint8_t *grown = realloc(f->written, room);
        FVT_HOLDS(grown != NULL);
        f->written = grown;
        f->room = room;
    }
    if (bytes) memcpy(f->written + h->at, buf, bytes);
    h->at += bytes;
    if (h->at > f->size) f->size = h->at;
    return (int64_t)bytes;
}

static int64_t world_size(void *user, int fd) {
    fvt_world_handle *h = handle_of(user, fd);
    errno = EINVAL;
    return h->file ? (int64_t)h->file->size : -1;
}

static int world_fsync(void *user, int fd) {
    handle_of(user, fd);
    return 0;
}

static int world_close(void *user, int fd) {
    handle_of(user, fd)->open = false;
    return 0;
}

static int world_unlink(void *user, const char *path) {
    fvt_world_file *f = find(user, path);
    if (!f || !path[0]) {
        errno = ENOENT;
        return -1;
    }
    free(f->written);
    *f = (fvt_world_file){.size = 0};
    return 0;
}

static int world_rename(void *user, const char *from, const char *to) {
    fvt_world_file *f = find(user, from);
    FVT_HOLDS(f != NULL && strlen(to) < sizeof f->path);
    if (find(user, to)) world_unlink(user, to);
    memcpy(f->path, to, strlen(to) + 1);
    return 0;
}

/* ---------------------------------------------------------------- the world */

void fvt_world_open(fvt_world *w, size_t limit) {
    memset(w, 0, sizeof *w);
    w->limit = limit;
    fv_ctx_init(&w->ctx);
    w->ctx.alloc = (fv_allocator){.alloc = world_alloc, .free = world_free, .user = w};
    w->ctx.io = (fv_io){world_open,  world_read,   world_write,  world_size, world_fsync,
                        world_close, world_rename, world_unlink, w};
}

void fvt_world_put(fvt_world *w, const char *path, const void *bytes, size_t size) {
    fvt_world_file *f = add(w, path);
    f->given = size ? bytes : (const uint8_t *)"";
    f->size = size;
}

void fvt_world_put_made(fvt_world *w, const char *path, fvt_make make, uint64_t size) {
    fvt_world_file *f = add(w, path);
    f->make = make;
    f->size = size;
}

const fvt_world_file *fvt_world_find(const fvt_world *w, const char *path) {
    return find(w, path);
}

void fvt_world_close(fvt_world *w) {
    FVT_HOLDS(w->live == 0 && w->bytes == 0);
    for (size_t i = 0; i < HANDLES; i++) FVT_HOLDS(!w->handle[i].open);
    for (size_t i = 0; i < FILES; i++) {
        FVT_HOLDS(!strstr(w->file[i].path, ".tmp-"));
        free(w->file[i].written);
    }
}

/* ---------------------------------------------------------------- judging */

/* No control characters (C0, DEL, C1), and UTF-8 throughout: what a terminal and a JSON reader may be given. */
static bool fit_to_show(const char *text) {
    const unsigned char *s = (const unsigned char *)text;
    while (*s) {
        size_t n = *s < 0x80 ? 1 : *s >= 0xF0 ? 4 : *s >= 0xE0 ? 3 : 2;
        if (*s < 0x20 || *s == 0x7f || (*s >= 0x80 && *s < 0xC2) || *s > 0xF4) return false;
        for (size_t i = 1; i < n; i++)
            if ((s[i] & 0xC0) != 0x80) return false;
        if ((s[0] == 0xC2 && s[1] < 0xA0) || (s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] > 0x9F) ||
            (s[0] == 0xF0 && s[1] < 0x90) || (s[0] == 0xF4 && s[1] > 0x8F))
            return false;
        s += n;
    }
    return true;
}

void fvt_world_judge(const fvt_world *w, fv_status status, unsigned allowed) {
    const fv_error *e = &w->ctx.error;
    FVT_HOLDS(!w->refused || (allowed & 1u << FV_E_MEMORY));
    if (status == FV_OK) return;
    if (status < 0 || status > FV_E_GATE || !(allowed & 1u << status)) {
        fprintf(stderr, "status %d: %s: %s\n", (int)status, e->path, e->message);
        FVT_HOLDS(!"the status is one of those allowed");
    }
    FVT_HOLDS(e->code == status);
    FVT_HOLDS(e->message[0] != '\0');
    FVT_HOLDS(fit_to_show(e->message) && fit_to_show(e->hint) && fit_to_show(e->path));
    FVT_HOLDS(e->offset >= -1);
}

fvt_part fvt_next_part(const uint8_t **data, size_t *size) {
    size_t length = *size >= 2 ? (size_t)(*data)[0] | (size_t)(*data)[1] << 8 : 0, skip = *size >= 2 ? 2 : *size;
    *data += skip;
    *size -= skip;
    if (length > *size) length = *size;
    fvt_part part = {*data, length};
    *data += length;
    *size -= length;
    return part;
}
