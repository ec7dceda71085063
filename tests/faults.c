/* faults.c: see faults.h. */
#include "tests/faults.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---------------------------------------------------------------- memory */

/* Threads of the library share these counters. */
static pthread_mutex_t counting = PTHREAD_MUTEX_INITIALIZER;

static bool take(fvt_memory *m, size_t bytes) {
    pthread_mutex_lock(&counting);
    bool given = ++m->calls != m->fail_at;
    if (given) {
        m->live++;
        m->bytes += bytes;
        if (m->bytes > m->peak) m->peak = m->bytes;
    }
    pthread_mutex_unlock(&counting);
    return given;
}

static void put_back(fvt_memory *m, size_t bytes) {
    pthread_mutex_lock(&counting);
    m->live--;
    m->bytes -= bytes;
    pthread_mutex_unlock(&counting);
}

static void *memory_alloc(void *user, size_t bytes, size_t align) {
    fvt_memory *m = user;
    if (!take(m, bytes)) return NULL;
    void *ptr = NULL;
    ck_assert(posix_memalign(&ptr, align, bytes) == 0);
    memset(ptr, 0xa5, bytes < 1 << 20 ? bytes : 1 << 20); /* nobody may count on zeros */
    return ptr;
}

static void memory_free(void *user, void *ptr, size_t bytes) {
    put_back(user, bytes);
    free(ptr);
}

void fvt_memory_install(fvt_memory *m, fv_ctx *ctx) {
    *m = (fvt_memory){0};
    ctx->alloc = (fv_allocator){memory_alloc, memory_free, m};
}

/* jansson gives no context and no sizes: the context is static, the size stands before the block. */
static fvt_memory *json_memory;
#define JSON_HEADER 16

static void *json_alloc(size_t bytes) {
    if (!take(json_memory, bytes)) return NULL;
    char *ptr = malloc(bytes + JSON_HEADER);
    ck_assert_ptr_nonnull(ptr);
    memcpy(ptr, &bytes, sizeof bytes);
    return ptr + JSON_HEADER;
}

static void json_free(void *ptr) {
    size_t bytes;
    if (!ptr) return;
    memcpy(&bytes, (char *)ptr - JSON_HEADER, sizeof bytes);
    put_back(json_memory, bytes);
    free((char *)ptr - JSON_HEADER);
}

void fvt_memory_install_json(fvt_memory *m) {
    json_memory = m;
    if (m) json_set_alloc_funcs(json_alloc, json_free);
    else json_set_alloc_funcs(malloc, free);
}

/* ---------------------------------------------------------------- files */

static fv_io posix_io;

/* True when this call is to fail; errno is then set. */
static bool fails(fvt_files *f, fvt_call call) {
    pthread_mutex_lock(&counting);
    size_t used = strlen(f->log);
    if (used + 1 < sizeof f->log) f->log[used] = "ORWSFCNU"[call];
    int64_t number = ++f->calls[call];
    pthread_mutex_unlock(&counting);
    if (call != f->fail || !f->fail_at || number < f->fail_at || number - f->fail_at >= f->times) return false;
    errno = f->error;
    return true;
}

static size_t shorten(const fvt_files *f, size_t bytes) {
    return f->short_by && bytes > f->short_by ? f->short_by : bytes;
}

static void count_open(fvt_files *f, int by) {
    pthread_mutex_lock(&counting);
    f->open_files += by;
    pthread_mutex_unlock(&counting);
}

static int files_open(void *user, const char *path, int flags, int mode) {
    fvt_files *f = user;
    if (fails(f, FVT_OPEN)) return -1;
    int fd = posix_io.open(NULL, path, flags, mode);
    if (fd >= 0) count_open(f, 1);
    return fd;
}
static int64_t files_read(void *user, int fd, void *buf, size_t bytes) {
    return fails(user, FVT_READ) ? -1 : posix_io.read(NULL, fd, buf, shorten(user, bytes));
}
static int64_t files_write(void *user, int fd, const void *buf, size_t bytes) {
    return fails(user, FVT_WRITE) ? -1 : posix_io.write(NULL, fd, buf, shorten(user, bytes));
}
static int64_t files_size(void *user, int fd) {
    return fails(user, FVT_SIZE) ? -1 : posix_io.size(NULL, fd);
}
static int files_fsync(void *user, int fd) {
    (void)fd; /* nothing is synced: tests do not wait for the disk */
    return fails(user, FVT_FSYNC) ? -1 : 0;
}
static int files_close(void *user, int fd) { /* a close that fails has closed */
    fvt_files *f = user;
    bool failed = fails(f, FVT_CLOSE);
    int error = errno, result = posix_io.close(NULL, fd);
    count_open(f, -1);
    if (failed) errno = error;
    return failed ? -1 : result;
}
static int files_rename(void *user, const char *from, const char *to) {
    return fails(user, FVT_RENAME) ? -1 : posix_io.rename(NULL, from, to);
}
static int files_unlink(void *user, const char *path) {
    return fails(user, FVT_UNLINK) ? -1 : posix_io.unlink(NULL, path);
}

void fvt_files_install(fvt_files *f, fv_ctx *ctx) {
    fv_ctx plain;
    fv_ctx_init(&plain);
    posix_io = plain.io;
    *f = (fvt_files){.times = 1, .error = EIO};
    ctx->io = (fv_io){files_open,  files_read,   files_write,  files_size, files_fsync,
                      files_close, files_rename, files_unlink, f};
}

/* ---------------------------------------------------------------- folders */

void fvt_make_folder(char *path) {
    const char *base = getenv("TMPDIR");
    if (!base) base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp"; /* tests write thousands of small files */
    snprintf(path, 128, "%.100s/fovea-test-XXXXXX", base);
    ck_assert_msg(mkdtemp(path) != NULL, "%s: %s", path, strerror(errno));
}

void fvt_remove_folder(const char *path) {
    char name[512];
    DIR *dir = opendir(path);
    ck_assert_ptr_nonnull(dir);
    for (struct dirent *e; (e = readdir(dir));) {
        snprintf(name, sizeof name, "%s/%s", path, e->d_name);
        unlink(name);
    }
    closedir(dir);
    rmdir(path);
}

int fvt_count_files(const char *path) {
    int count = 0;
    DIR *dir = opendir(path);
    ck_assert_ptr_nonnull(dir);
    for (struct dirent *e; (e = readdir(dir));) count += e->d_name[0] != '.';
    closedir(dir);
    return count;
}

void fvt_put_file(const char *path, const void *data, size_t bytes) {
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(data, 1, bytes, file), bytes);
    ck_assert_int_eq(fclose(file), 0);
}
