/* cache_known.c: contents and size of every picture file of a set, remembered in an index beside the caches, as git
 * remembers those of a work tree: a file whose size, times and inode are as they were is not read again. A file that
 * was changed just before the index was made could be changed once more without another time to show for it; such files
 * are read again. */
#include "data/cache.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <xxhash.h>

#define MAGIC "FVINDEX1"
#define RACY_NS ((int64_t)2000000000) /* file systems round times by up to two seconds */
#define MOST_INDEX ((size_t)4 << 30)

typedef struct header { /* of a .fvi file; all numbers in the machine's byte order */
    char magic[8];
    uint64_t count;
    int64_t made;      /* ns since 1970 */
    uint64_t checksum; /* XXH3 of the three fields above and of the rows */
} header;

typedef struct update {
    const fv_file_set *files;
    fv_known *known;
    const fv_known *old; /* sorted by path */
    uint64_t n_old;
    int64_t made; /* the old index */
    atomic_bool read;
} update;

fv_hash128 fv_hash_bytes(const void *data, size_t bytes) {
    XXH128_hash_t h = XXH3_128bits(data, bytes);
    return (fv_hash128){{h.low64, h.high64}};
}

static int by_path(const void *a, const void *b) {
    return memcmp(&((const fv_known *)a)->path, &((const fv_known *)b)->path, sizeof(fv_hash128));
}

fv_status fv_known_read(const fv_file_set *files, fv_decoder *decoder, int64_t i, fv_known *known) {
    fv_picture_file file;
    fv_image_info info = {0};
    fv_status status = fv_picture_read(files, decoder, i, &file);
    if (status == FV_OK) {
        known->content = fv_hash_bytes(file.data, file.bytes);
        status = fv_image_probe(decoder, file.data, file.bytes, file.path, &info);
    }
    if (status != FV_OK && status != FV_E_DATA) return status;
    known->h = status == FV_OK ? info.h : 0; /* what is wrong with it is told when it is decoded */
    known->w = status == FV_OK ? info.w : 0;
    return FV_OK;
}

static int64_t nanoseconds(struct timespec t) {
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* fv_crew_fn. The file's state is taken before its contents: a change in between shows the next time. */
static fv_status look_at(void *arg, fv_crew_member *member, int64_t i) {
    update *u = arg;
    fv_known *k = &u->known[i];
    const char *name = u->files->path[i];
    char path[FV_DATA_PATH];
    struct stat st;
    *k = (fv_known){.path = fv_hash_bytes(name, strlen(name))};
    FV_TRY(fv_file_path(&member->ctx, u->files, i, path));
    if (stat(path, &st) == 0) {
        k->bytes = st.st_size;
        k->modified = nanoseconds(st.st_mtim);
        k->changed = nanoseconds(st.st_ctim);
        k->inode = st.st_ino;
        const fv_known *old = u->n_old ? bsearch(k, u->old, u->n_old, sizeof *k, by_path) : NULL;
        int64_t newest = k->modified > k->changed ? k->modified : k->changed;
        if (old && old->bytes == k->bytes && old->modified == k->modified && old->changed == k->changed &&
            old->inode == k->inode && newest < u->made - RACY_NS) {
            *k = *old;
            return FV_OK;
        }
    }
    atomic_store_explicit(&u->read, true, memory_order_relaxed);
    return fv_known_read(u->files, member->decoder, i, k);
}

/* ---------------------------------------------------------------- the index */

static fv_status index_path(fv_ctx *ctx, const fv_file_set *files, const char *folder, char out[FV_DATA_PATH]) {
    char real[PATH_MAX]; /* "photos" and "./photos" are one folder */
    const char *root = realpath(files->root[0] ? files->root : ".", real) ? real : files->root;
    uint64_t hash = XXH3_64bits(root, strlen(root));
    return fv_data_path(ctx, out, "%s/index-%016llx.fvi", folder, (unsigned long long)hash);
}

static uint64_t checksum_of(const header *h, const fv_known *rows) {
    uint64_t rows_hash = XXH3_64bits(rows, h->count * sizeof *rows);
    return XXH3_64bits_withSeed(h, offsetof(header, checksum), rows_hash);
}

/* Whether the bytes are an index, whole and as it was written. */
static bool is_index(const void *data, size_t bytes, header *h) {
    if (bytes < sizeof *h) return false;
    memcpy(h, data, sizeof *h);
    if (memcmp(h->magic, MAGIC, sizeof h->magic) != 0 || h->count != (bytes - sizeof *h) / sizeof(fv_known) ||
        (bytes - sizeof *h) % sizeof(fv_known) != 0)
        return false;
    return h->checksum == checksum_of(h, (const fv_known *)(const void *)((const char *)data + sizeof *h));
}

static fv_status write_index(fv_ctx *ctx, const char *path, const fv_known *known, int64_t count, int64_t made) {
    size_t n = (size_t)count;
    header h = {.magic = MAGIC, .count = n, .made = made};
    fv_known *sorted = fv_alloc(ctx, n, sizeof *sorted);
    if (!sorted) return FV_E_MEMORY;
    memcpy(sorted, known, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, by_path);
    h.checksum = checksum_of(&h, sorted);
    fv_writer w;
    fv_status status = fv_writer_open(&w, ctx, path);
    if (status == FV_OK) {
        fv_write(&w, &h, sizeof h);
        fv_write(&w, sorted, n * sizeof *sorted);
        status = fv_writer_commit(&w);
    }
    fv_free(ctx, sorted, n, sizeof *sorted);
    return status;
}

fv_status fv_known_update(fv_ctx *ctx, const fv_file_set *files, fv_crew *crew, const char *folder, fv_known *known) {
    char path[FV_DATA_PATH];
    void *data = NULL;
    size_t bytes = 0;
    header h = {0};
    struct timespec now;
    update u = {.files = files, .known = known};
    clock_gettime(CLOCK_REALTIME, &now);
    FV_TRY(index_path(ctx, files, folder, path));
    if (fv_data_exists(ctx, path) && fv_read_file(ctx, path, MOST_INDEX, &data, &bytes) == FV_OK) {
        if (is_index(data, bytes, &h)) {
            u.old = (const fv_known *)(const void *)((const char *)data + sizeof h);
            u.n_old = h.count;
            u.made = h.made;
        } else {
            fv_log(ctx, FV_LOG_WARN, "%s is damaged; all picture files are read again", path);
        }
    }
    fv_status status = fv_crew_run(crew, 0, files->count, look_at, &u, "reading pictures", files->count);
    if (data) fv_free(ctx, data, bytes + 1, 1);
    FV_TRY(status);
    if (!atomic_load(&u.read)) return FV_OK;
    if (write_index(ctx, path, known, files->count, nanoseconds(now)) != FV_OK)
        fv_log(ctx, FV_LOG_WARN, "cannot remember the contents of the pictures: %s: %s; the next run reads them again",
               path, ctx->error.message);
    return FV_OK;
}
