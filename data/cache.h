/* cache.h: what picture.c, crew.c and the files of the cache share. Not installed.
 *
 *   crew    threads that go over all files once, to hash, probe or decode them           (crew.c)
 *   known   .fvi: what is known of each file, so that unchanged ones are not read again   (cache_known.c)
 *   cache   pictures in one block of memory (cache.c) or of a mapped .fvc file            (cache_disk.c)
 */
#ifndef FV_DATA_CACHE_H
#define FV_DATA_CACHE_H

#include "data/internal.h"

#include <stdatomic.h>

typedef struct fv_hash128 { /* XXH3, 128 bits, low word first */
    uint64_t v[2];
} fv_hash128;
fv_hash128 fv_hash_bytes(const void *data, size_t bytes);

/* ---- one picture (picture.c) */
typedef struct fv_picture_file { /* the bytes of a file, in the decoder's buffer */
    char path[FV_DATA_PATH];
    void *data;
    size_t bytes;
} fv_picture_file;
fv_status fv_picture_read(const fv_file_set *files, fv_decoder *decoder, int64_t i, fv_picture_file *out);
/* Whether file i can be decoded: FV_E_DATA says why not. */
fv_status fv_picture_try(const fv_file_set *files, fv_decoder *decoder, int64_t i);
/* The shorter side after the evaluation resize. */
int64_t fv_picture_shorter_side(const fv_file_set *files);
/* What the cache keeps of a picture of h x w: its size after the evaluation resize, or its own if that is smaller. */
void fv_picture_kept_size(const fv_file_set *files, int32_t h, int32_t w, int32_t *kept_h, int32_t *kept_w);
/* Decode a file to what is kept of a picture of h x w. dst: [kept_h,kept_w,c]. FV_E_IO if it has another size by now.
 */
fv_status fv_picture_keep(const fv_file_set *files, fv_decoder *decoder, const fv_picture_file *file, int32_t h,
                          int32_t w, uint8_t *dst);

/* ---- threads over files (crew.c) */
typedef struct fv_crew fv_crew;
typedef struct fv_crew_member {
    fv_ctx ctx; /* its own, without log */
    fv_decoder *decoder;
    fv_crew *crew;
} fv_crew_member;
/* Work on file i, on any thread and in any order. */
typedef fv_status (*fv_crew_fn)(void *arg, fv_crew_member *member, int64_t i);
fv_status fv_crew_create(fv_ctx *ctx, const fv_dataset_opts *opts, fv_crew **out);
void fv_crew_destroy(fv_crew *crew); /* NULL is fine */
/* fn over [first, last). If some fail, the error of the lowest i is reported, whichever thread was first. The thread of
 * the caller waits and reports progress: `what`, i of total. */
fv_status fv_crew_run(fv_crew *crew, int64_t first, int64_t last, fv_crew_fn fn, void *arg, const char *what,
                      int64_t total);
/* For a few files on the caller's thread. */
fv_decoder *fv_crew_decoder(fv_crew *crew);

/* ---- what is known of files (cache_known.c) */
typedef struct fv_known { /* one file; also a row of a .fvi file */
    fv_hash128 path;      /* as the set names it */
    fv_hash128 content;
    int64_t bytes, modified, changed; /* the last two in ns since 1970 */
    uint64_t inode;
    int32_t h, w; /* as shown; 0: no picture */
} fv_known;
/* Read a file and fill in content, h and w. */
fv_status fv_known_read(const fv_file_set *files, fv_decoder *decoder, int64_t i, fv_known *known);
/* Fill known[count]: from the index that `folder` has of the set's root where a file is as it was, else by reading the
 * file. The index is then written anew; if it cannot be, that is only a warning. */
fv_status fv_known_update(fv_ctx *ctx, const fv_file_set *files, fv_crew *crew, const char *folder, fv_known *known);

/* ---- the cache */
typedef struct fv_kept {    /* one picture; also a row of the table of a .fvc file */
    uint64_t offset;        /* from the first byte of the first picture */
    uint64_t checksum;      /* XXH3 of the pixels; only on disk */
    int32_t h, w;           /* as kept; 0: the file cannot be decoded */
    int32_t full_h, full_w; /* of the file */
} fv_kept;

struct fv_picture_cache {
    fv_ctx *ctx;
    int64_t count; /* files, also those that cannot be decoded */
    int32_t c;
    fv_kept *kept; /* [count] */
    const uint8_t *pixels;
    void *memory; /* owned; NULL: on disk */
    size_t memory_bytes;
    /* on disk */
    char path[FV_DATA_PATH];
    void *map;
    size_t map_bytes;
    uint64_t device, inode;
    atomic_uchar *checked; /* [count] FV_UNCHECKED...: a picture is checked when it is first used */
    atomic_int damaged;    /* how many were found damaged */
};
enum { FV_UNCHECKED, FV_SOUND, FV_DAMAGED };
/* Picture i, NULL if it is damaged. Any thread may call it. */
const uint8_t *fv_cache_pixels(fv_picture_cache *cache, int64_t i);

typedef struct fv_cache_maker {
    fv_ctx *ctx;
    const fv_file_set *files;
    const fv_dataset_opts *opts;
    fv_crew *crew;
    fv_picture_cache *cache;
    fv_known *known; /* [count] */
} fv_cache_maker;
/* Fill `kept` from `known`, but for the checksums. *bytes: of all pixels. */
fv_status fv_cache_lay_out(fv_cache_maker *m, size_t *bytes);
/* Decode pictures [first, last) to `block`, where the picture at `offset` begins. With `checked` each file must have
 * the contents that are known, and its checksum is filled in. */
fv_status fv_cache_decode(fv_cache_maker *m, int64_t first, int64_t last, uint8_t *block, uint64_t offset,
                          bool checked);
/* Open <cache_dir>/<key>.fvc, made anew if it is not there or damaged. */
fv_status fv_cache_disk_open(fv_cache_maker *m);
void fv_cache_disk_close(fv_picture_cache *cache);

#endif
