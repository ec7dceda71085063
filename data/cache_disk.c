/* cache_disk.c: the cache in a file. Its name is a hash of all that its pixels depend on, so a file that is there is
 * the right one or damaged, never out of date.
 *
 *   header | pixels of picture 0, 1, ... | fv_kept of picture 0, 1, ... | XXH3 of header and fv_kept
 *
 * The file is made under a temporary name while KEY.lock is held, so a second run waits for the first. */
#include "data/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define XXH_STATIC_LINKING_ONLY /* the state on the stack */
#include <xxhash.h>

#define MAGIC "FVCACHE1"
#define VERSION 1                      /* part of the key: one more when decoding or resizing gives other pixels */
#define BLOCK_BYTES ((size_t)64 << 20) /* pictures are decoded, then written, in blocks of about this size */
#define LOCK_POLL_NS 100000000L
#define ELSEWHERE "say --cache-dir for another place, or --cache ram"

typedef struct header { /* of a .fvc file; all numbers in the machine's byte order */
    char magic[8];
    fv_hash128 key;
    uint64_t count, bytes; /* pictures; bytes of their pixels */
    int32_t c;
    uint32_t reserved;
} header;

/* ---------------------------------------------------------------- names */

static fv_status default_folder(fv_ctx *ctx, char out[FV_DATA_PATH]) {
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (base && base[0] == '/') return fv_data_path(ctx, out, "%s/fovea", base);
    if (home && home[0]) return fv_data_path(ctx, out, "%s/.cache/fovea", home);
    return fv_fail(ctx, FV_E_USAGE, "there is no place for the cache: neither HOME nor XDG_CACHE_HOME is set");
}

fv_status fv_cache_file(fv_ctx *ctx, const char *name, char *out, size_t size) {
    char folder[FV_DATA_PATH];
    FV_TRY(default_folder(ctx, folder));
    FV_TRY(fv_data_mkdirs(ctx, folder));
    const int n = snprintf(out, size, "%s/%s", folder, name);
    if (n >= 0 && (size_t)n < size) return FV_OK;
    return fv_fail_at(ctx, FV_E_USAGE, folder, -1, "the path is too long");
}

static fv_status folder_of(fv_ctx *ctx, const fv_dataset_opts *opts, char out[FV_DATA_PATH]) {
    if (opts->cache_dir) return fv_data_path(ctx, out, "%s", opts->cache_dir);
    const fv_status status = default_folder(ctx, out);
    return status == FV_E_USAGE ? fv_hint(ctx, "say --cache-dir DIR, or --cache ram") : status;
}

/* Of everything that the pixels depend on. */
static fv_hash128 key_of(const fv_cache_maker *m) {
    const int64_t how[] = {VERSION, fv_picture_shorter_side(m->files), m->files->c, (int64_t)m->files->filter};
    XXH3_state_t state;
    XXH3_128bits_reset(&state);
    XXH3_128bits_update(&state, how, sizeof how);
    for (int64_t i = 0; i < m->files->count; i++) {
        XXH3_128bits_update(&state, &m->known[i].path, sizeof(fv_hash128));
        XXH3_128bits_update(&state, &m->known[i].content, sizeof(fv_hash128));
    }
    XXH128_hash_t h = XXH3_128bits_digest(&state);
    return (fv_hash128){{h.low64, h.high64}};
}

static fv_status cannot_write(fv_ctx *ctx, size_t bytes) {
    return fv_hint(ctx, "the cache needs %.2f GB there: say --cache-dir for another place, or --cache ram",
                   (double)bytes / 1e9);
}

/* ---------------------------------------------------------------- opening */

static uint64_t checksum_of(const header *h, const fv_kept *kept) {
    return XXH3_64bits_withSeed(h, sizeof *h, XXH3_64bits(kept, h->count * sizeof *kept));
}

static bool row_is_sound(const fv_file_set *files, const header *h, const fv_kept *k) {
    int32_t kept_h, kept_w;
    if (k->h == 0) return true;
    if (k->full_h < 1 || k->full_w < 1 || k->full_h > FV_IMAGE_MOST_SIDE || k->full_w > FV_IMAGE_MOST_SIDE)
        return false;
    fv_picture_kept_size(files, k->full_h, k->full_w, &kept_h, &kept_w);
    uint64_t bytes = (uint64_t)kept_h * (uint64_t)kept_w * (uint64_t)files->c;
    return k->h == kept_h && k->w == kept_w && k->offset <= h->bytes && bytes <= h->bytes - k->offset;
}

/* Everything but the pixels themselves; those are checked picture by picture when they are used. */
static bool is_sound(const fv_cache_maker *m, fv_hash128 key) {
    const fv_picture_cache *cache = m->cache;
    const unsigned char *map = cache->map;
    header h;
    uint64_t checksum;
    size_t table = (size_t)cache->count * sizeof(fv_kept);
    if (cache->map_bytes < sizeof h + table + sizeof checksum) return false;
    size_t pixels = cache->map_bytes - sizeof h - table - sizeof checksum;
    memcpy(&h, map, sizeof h);
    memcpy(cache->kept, map + sizeof h + pixels, table);
    memcpy(&checksum, map + sizeof h + pixels + table, sizeof checksum);
    if (memcmp(h.magic, MAGIC, sizeof h.magic) != 0 || memcmp(&h.key, &key, sizeof key) != 0 ||
        h.count != (uint64_t)cache->count || h.bytes != pixels || h.c != cache->c ||
        checksum != checksum_of(&h, cache->kept))
        return false;
    for (int64_t i = 0; i < cache->count; i++)
        if (!row_is_sound(m->files, &h, &cache->kept[i])) return false;
    return true;
}

/* *found: whether a sound one was there. */
static fv_status open_file(fv_cache_maker *m, fv_hash128 key, bool *found) {
    fv_ctx *ctx = m->ctx;
    fv_picture_cache *cache = m->cache;
    struct stat st;
    *found = false;
    int fd = ctx->io.open(ctx->io.user, cache->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
    if (fd < 0 && errno == ENOENT) return FV_OK;
    if (fd < 0) {
        fv_fail_at(ctx, FV_E_IO, cache->path, -1, "cannot open the cache: %s", strerror(errno));
        return fv_hint(ctx, ELSEWHERE);
    }
    bool regular = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
    if (regular && st.st_size > 0) {
        void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED) {
            fv_fail_at(ctx, FV_E_IO, cache->path, -1, "cannot map the cache: %s", strerror(errno));
            ctx->io.close(ctx->io.user, fd);
            return fv_hint(ctx, "say --cache ram");
        }
        cache->map = map;
        cache->map_bytes = (size_t)st.st_size;
        cache->device = st.st_dev;
        cache->inode = st.st_ino;
    }
    ctx->io.close(ctx->io.user, fd);
    if (!regular) return fv_fail_at(ctx, FV_E_IO, cache->path, -1, "is in the way of the cache: not a regular file");
    *found = cache->map && is_sound(m, key);
    if (*found) cache->pixels = (const uint8_t *)cache->map + sizeof(header);
    else fv_cache_disk_close(cache);
    return FV_OK;
}

/* A cache whose pictures were found damaged must not be there for the next run. */
static void remove_damaged(fv_picture_cache *cache) {
    struct stat st;
    fv_log(cache->ctx, FV_LOG_WARN,
           "%d pictures in %s were damaged and have been decoded from their files; it is made anew the next time",
           atomic_load(&cache->damaged), cache->path);
    bool same = stat(cache->path, &st) == 0 && st.st_dev == cache->device && st.st_ino == cache->inode;
    if (same) cache->ctx->io.unlink(cache->ctx->io.user, cache->path);
}

void fv_cache_disk_close(fv_picture_cache *cache) {
    if (!cache->map) return;
    if (atomic_load(&cache->damaged) > 0) remove_damaged(cache);
    munmap(cache->map, cache->map_bytes);
    cache->map = NULL;
    cache->pixels = NULL;
}

/* ---------------------------------------------------------------- making */

/* Whoever else makes this file is waited for. *fd is -1 where the file system has no locks: the work may then be done
 * twice, with the same result. */
static fv_status take_lock(fv_cache_maker *m, int *fd) {
    fv_ctx *ctx = m->ctx;
    char path[FV_DATA_PATH];
    const size_t stem = strlen(m->cache->path) - strlen(".fvc");
    FV_TRY(fv_data_path(ctx, path, "%.*s.lock", (int)stem, m->cache->path));
    *fd = ctx->io.open(ctx->io.user, path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (*fd < 0) return fv_fail_at(ctx, FV_E_IO, path, -1, "cannot create: %s", strerror(errno));
    int failed;
    while ((failed = flock(*fd, LOCK_EX | LOCK_NB)) != 0 && (errno == EWOULDBLOCK || errno == EINTR)) {
        const struct timespec pause = {.tv_nsec = LOCK_POLL_NS};
        if (m->opts->progress)
            m->opts->progress(m->opts->progress_user, "waiting for another run that makes this cache", 0,
                              m->files->count);
        nanosleep(&pause, NULL);
    }
    if (!failed) return FV_OK;
    ctx->io.close(ctx->io.user, *fd);
    *fd = -1;
    return FV_OK;
}

static size_t kept_bytes(const fv_picture_cache *cache, int64_t i) {
    return (size_t)cache->kept[i].h * (size_t)cache->kept[i].w * (size_t)cache->c;
}

/* The end of the block that begins at picture `first`: at least one picture. */
static int64_t block_end(const fv_picture_cache *cache, int64_t first, size_t *bytes) {
    int64_t last = first;
    *bytes = 0;
    while (last < cache->count && (last == first || *bytes + kept_bytes(cache, last) <= BLOCK_BYTES))
        *bytes += kept_bytes(cache, last++);
    return last;
}

static fv_status write_pixels(fv_cache_maker *m, fv_writer *w, uint8_t *block, bool *writing) {
    uint64_t offset = 0;
    for (int64_t first = 0; first < m->cache->count;) {
        size_t bytes; /* of the layout: a picture that fails leaves a gap of zeros */
        int64_t last = block_end(m->cache, first, &bytes);
        FV_TRY(fv_cache_decode(m, first, last, block, offset, true));
        *writing = true;
        FV_TRY(fv_write(w, block, bytes));
        *writing = false;
        offset += bytes;
        first = last;
    }
    return FV_OK;
}

static fv_status write_all(fv_cache_maker *m, fv_hash128 key, size_t pixels, uint8_t *block) {
    const fv_picture_cache *cache = m->cache;
    const header h = {.magic = MAGIC, .key = key, .count = (uint64_t)cache->count, .bytes = pixels, .c = cache->c};
    bool writing = true; /* else it is a picture that failed */
    fv_writer w;
    fv_status status = fv_writer_open(&w, m->ctx, cache->path);
    if (status == FV_OK) status = fv_write(&w, &h, sizeof h);
    if (status == FV_OK) {
        writing = false;
        status = write_pixels(m, &w, block, &writing);
    }
    if (status == FV_OK) {
        writing = true;
        uint64_t checksum = checksum_of(&h, cache->kept);
        fv_write(&w, cache->kept, (size_t)cache->count * sizeof *cache->kept);
        fv_write(&w, &checksum, sizeof checksum);
        status = fv_writer_commit(&w);
    }
    fv_writer_abort(&w);
    return status != FV_OK && writing ? cannot_write(m->ctx, pixels) : status;
}

static fv_status make_file(fv_cache_maker *m, fv_hash128 key) {
    size_t pixels, room = 1;
    FV_TRY(fv_cache_lay_out(m, &pixels));
    for (int64_t first = 0; first < m->cache->count;) {
        size_t bytes;
        first = block_end(m->cache, first, &bytes);
        if (bytes > room) room = bytes;
    }
    uint8_t *block = fv_alloc(m->ctx, room, 1);
    if (!block) return fv_fail_memory(m->ctx, room, "pictures on their way to the cache");
    fv_status status = write_all(m, key, pixels, block);
    fv_free(m->ctx, block, room, 1);
    return status;
}

static fv_status find_or_make(fv_cache_maker *m, fv_hash128 key) {
    bool found;
    int lock;
    FV_TRY(open_file(m, key, &found));
    if (found) return FV_OK;
    fv_status status = take_lock(m, &lock);
    if (status != FV_OK) return fv_hint(m->ctx, ELSEWHERE);
    status = open_file(m, key, &found); /* made in the meantime? */
    if (status == FV_OK && !found) {
        if (fv_data_exists(m->ctx, m->cache->path))
            fv_log(m->ctx, FV_LOG_WARN, "%s is damaged and is made anew", m->cache->path);
        status = make_file(m, key);
        if (status == FV_OK) status = open_file(m, key, &found);
        if (status == FV_OK && !found)
            status = fv_fail_at(m->ctx, FV_E_IO, m->cache->path, -1, "the cache is damaged although it was just made");
    }
    if (lock >= 0) m->ctx->io.close(m->ctx->io.user, lock);
    return status;
}

fv_status fv_cache_disk_open(fv_cache_maker *m) {
    fv_picture_cache *cache = m->cache;
    char folder[FV_DATA_PATH];
    FV_TRY(folder_of(m->ctx, m->opts, folder));
    if (fv_data_mkdirs(m->ctx, folder) != FV_OK) return fv_hint(m->ctx, ELSEWHERE);
    cache->checked = fv_calloc(m->ctx, (size_t)cache->count, sizeof *cache->checked);
    if (!cache->checked) return FV_E_MEMORY;
    FV_TRY(fv_known_update(m->ctx, m->files, m->crew, folder, m->known));
    fv_hash128 key = key_of(m);
    FV_TRY(fv_data_path(m->ctx, cache->path, "%s/%016llx%016llx.fvc", folder, (unsigned long long)key.v[1],
                        (unsigned long long)key.v[0]));
    return find_or_make(m, key);
}
