/* cache.c: pictures as they are after the evaluation resize, kept in memory or on disk so that files are decoded once.
 * Evaluation gives the same bits with it and without. */
#include "data/cache.h"

#include <string.h>
#include <unistd.h>
#include <xxhash.h>

const uint8_t *fv_cache_pixels(fv_picture_cache *cache, int64_t i) {
    const fv_kept *k = &cache->kept[i];
    const uint8_t *pixels = cache->pixels + k->offset;
    if (!cache->checked) return pixels;
    int state = atomic_load_explicit(&cache->checked[i], memory_order_relaxed);
    if (state == FV_UNCHECKED) { /* threads that come here at once find the same */
        size_t bytes = (size_t)k->h * (size_t)k->w * (size_t)cache->c;
        state = XXH3_64bits(pixels, bytes) == k->checksum ? FV_SOUND : FV_DAMAGED;
        unsigned char before = atomic_exchange(&cache->checked[i], (unsigned char)state);
        if (state == FV_DAMAGED && before == FV_UNCHECKED) atomic_fetch_add(&cache->damaged, 1);
    }
    return state == FV_SOUND ? pixels : NULL;
}

/* ---------------------------------------------------------------- making */

fv_status fv_cache_lay_out(fv_cache_maker *m, size_t *bytes) {
    *bytes = 0;
    for (int64_t i = 0; i < m->cache->count; i++) {
        const fv_known *known = &m->known[i];
        fv_kept *k = &m->cache->kept[i];
        *k = (fv_kept){.offset = *bytes, .full_h = known->h, .full_w = known->w};
        if (known->h > 0) fv_picture_kept_size(m->files, known->h, known->w, &k->h, &k->w);
        size_t size = (size_t)k->h * (size_t)k->w * (size_t)m->cache->c;
        if (!fv_size_add(*bytes, size, bytes)) return fv_fail_memory(m->ctx, SIZE_MAX, "the cache");
    }
    return FV_OK;
}

typedef struct decoding {
    fv_cache_maker *m;
    uint8_t *block;
    uint64_t offset;
    bool checked;
} decoding;

static fv_status decode_file(const decoding *d, fv_crew_member *member, int64_t i, uint8_t *dst) {
    const fv_file_set *files = d->m->files;
    fv_picture_file file;
    FV_TRY(fv_picture_read(files, member->decoder, i, &file));
    if (d->checked) {
        fv_hash128 content = fv_hash_bytes(file.data, file.bytes);
        if (memcmp(&content, &d->m->known[i].content, sizeof content) != 0)
            return fv_fail_at(&member->ctx, FV_E_IO, file.path, -1, "changed while the cache was being made");
    }
    return fv_picture_keep(files, member->decoder, &file, d->m->known[i].h, d->m->known[i].w, dst);
}

/* fv_crew_fn */
static fv_status decode_one(void *arg, fv_crew_member *member, int64_t i) {
    const decoding *d = arg;
    fv_kept *k = &d->m->cache->kept[i];
    size_t bytes = (size_t)k->h * (size_t)k->w * (size_t)d->m->cache->c;
    uint8_t *dst = d->block + (k->offset - d->offset);
    fv_status status = decode_file(d, member, i, dst);
    if (status == FV_E_DATA && d->m->opts->skip_bad) {
        memset(dst, 0, bytes);
        k->h = k->w = 0;
        return FV_OK;
    }
    if (status == FV_OK && d->checked) k->checksum = XXH3_64bits(dst, bytes);
    return status;
}

fv_status fv_cache_decode(fv_cache_maker *m, int64_t first, int64_t last, uint8_t *block, uint64_t offset,
                          bool checked) {
    decoding d = {.m = m, .block = block, .offset = offset, .checked = checked};
    return fv_crew_run(m->crew, first, last, decode_one, &d, "decoding pictures", m->cache->count);
}

/* fv_crew_fn */
static fv_status measure_one(void *arg, fv_crew_member *member, int64_t i) {
    const fv_cache_maker *m = arg;
    return fv_known_read(m->files, member->decoder, i, &m->known[i]);
}

/* The first file without a picture ends it all unless such files are left out: no more than up to there is decoded. */
static int64_t end_of_work(const fv_cache_maker *m) {
    for (int64_t i = 0; i < m->cache->count && !m->opts->skip_bad; i++)
        if (m->known[i].h == 0) return i + 1;
    return m->cache->count;
}

static fv_status make_in_memory(fv_cache_maker *m) {
    fv_picture_cache *cache = m->cache;
    size_t bytes;
    FV_TRY(fv_crew_run(m->crew, 0, cache->count, measure_one, m, "measuring pictures", cache->count));
    FV_TRY(fv_cache_lay_out(m, &bytes));
    size_t pages = (size_t)sysconf(_SC_PHYS_PAGES), page = (size_t)sysconf(_SC_PAGESIZE);
    bool fits = bytes / page < pages / 10 * 9; /* a system that lends more than it has kills the program later */
    cache->memory = fits ? fv_alloc(m->ctx, bytes, 1) : NULL;
    if (!cache->memory) {
        fv_fail_memory(m->ctx, bytes, "the decoded pictures");
        return fv_hint(m->ctx, "say --cache disk or --cache none");
    }
    cache->memory_bytes = bytes;
    cache->pixels = cache->memory;
    return fv_cache_decode(m, 0, end_of_work(m), cache->memory, 0, false);
}

/* ---------------------------------------------------------------- files that cannot be decoded */

/* fv_crew_fn: with no cache, kept[i].h only says whether the file can be decoded. */
static fv_status try_one(void *arg, fv_crew_member *member, int64_t i) {
    const fv_cache_maker *m = arg;
    fv_status status = fv_picture_try(m->files, member->decoder, i);
    m->cache->kept[i].h = status == FV_OK;
    return status == FV_E_DATA ? FV_OK : status;
}

/* A cache does not keep what was wrong with a file: look again, to say it or to fail with it. */
static fv_status tell_bad(fv_cache_maker *m, uint8_t *bad) {
    fv_decoder *decoder = fv_crew_decoder(m->crew);
    const fv_error *error = &fv_decoder_ctx(decoder)->error;
    for (int64_t i = 0; i < m->cache->count; i++) {
        if (m->cache->kept[i].h > 0) continue;
        fv_status status = fv_picture_try(m->files, decoder, i);
        if (status == FV_OK)
            return fv_fail_at(m->ctx, FV_E_IO, m->files->path[i], -1,
                              "could not be decoded a moment ago, and can be now: is it being written?");
        if (status != FV_E_DATA || !m->opts->skip_bad) {
            m->ctx->error = *error;
            return status;
        }
        bad[i] = 1;
        fv_log(m->ctx, FV_LOG_WARN, "left out %s: %s", error->path, error->message);
    }
    return FV_OK;
}

/* ---------------------------------------------------------------- opening and closing */

static fv_status fill(fv_cache_maker *m, uint8_t *bad) {
    size_t n = (size_t)m->files->count;
    m->cache->kept = fv_calloc(m->ctx, n, sizeof *m->cache->kept);
    m->known = fv_calloc(m->ctx, n, sizeof *m->known);
    if (!m->cache->kept || !m->known) return FV_E_MEMORY;
    FV_TRY(fv_crew_create(m->ctx, m->opts, &m->crew));
    switch (m->opts->cache) {
    case FV_CACHE_NONE:
        FV_TRY(fv_crew_run(m->crew, 0, m->cache->count, try_one, m, "checking pictures", m->cache->count));
        break;
    case FV_CACHE_RAM: FV_TRY(make_in_memory(m)); break;
    case FV_CACHE_DISK: FV_TRY(fv_cache_disk_open(m)); break;
    }
    return tell_bad(m, bad);
}

fv_status fv_picture_cache_open(fv_ctx *ctx, fv_file_set *files, const fv_dataset_opts *opts, uint8_t *bad) {
    files->cache = NULL;
    if (opts->cache == FV_CACHE_NONE && !opts->skip_bad) return FV_OK;
    fv_picture_cache *cache = fv_calloc(ctx, 1, sizeof *cache);
    if (!cache) return FV_E_MEMORY;
    cache->ctx = ctx;
    cache->count = files->count;
    cache->c = files->c;
    fv_cache_maker m = {.ctx = ctx, .files = files, .opts = opts, .cache = cache};
    fv_status status = fill(&m, bad);
    fv_crew_destroy(m.crew);
    fv_free(ctx, m.known, (size_t)files->count, sizeof *m.known);
    if (status == FV_OK && opts->cache != FV_CACHE_NONE) files->cache = cache;
    else fv_picture_cache_close(cache);
    return status;
}

void fv_picture_cache_close(fv_picture_cache *cache) {
    if (!cache) return;
    fv_cache_disk_close(cache);
    fv_free(cache->ctx, cache->checked, (size_t)cache->count, sizeof *cache->checked);
    fv_free(cache->ctx, cache->memory, cache->memory_bytes, 1);
    fv_free(cache->ctx, cache->kept, (size_t)cache->count, sizeof *cache->kept);
    fv_free(cache->ctx, cache, 1, sizeof *cache);
}
