/* internal.h: what the files of data/ share. Not installed; nothing outside data/ and its tests includes it.
 *
 *   kind    what a dataset is: name, shape, classes, published counts        (kinds.c)
 *   layout  how its files are laid out in a folder: names and format          (kinds.c)
 *   place   a layout that was found on this disk                              (locate.c)
 */
#ifndef FV_DATA_INTERNAL_H
#define FV_DATA_INTERNAL_H

#include "data/files.h"

#include <zlib.h>

#define FV_DATA_PATH 512 /* as fv_error.path */

/* ---- files (file.c) */
/* printf into a path; FV_E_USAGE when it does not fit. */
fv_status fv_data_path(fv_ctx *ctx, char out[FV_DATA_PATH], const char *fmt, ...) FV_PRINTF(3, 4);
bool fv_data_exists(fv_ctx *ctx, const char *path); /* a regular file that can be opened */
/* Create a folder and its parents where they are missing. */
fv_status fv_data_mkdirs(fv_ctx *ctx, const char *path);
/* The folder that holds a path: "." for a bare name. */
fv_status fv_data_parent(fv_ctx *ctx, const char *path, char out[FV_DATA_PATH]);
/* Make a rename inside a folder durable. */
fv_status fv_data_sync_folder(fv_ctx *ctx, const char *folder);

/* fv_reader_open, but a file that is not there is FV_E_DATA. */
fv_status fv_data_open(fv_reader *r, fv_ctx *ctx, const char *path);

typedef struct fv_stream { /* a file, unpacked on the way if it starts like a gzip file */
    fv_reader file;
    unsigned char *in; /* [STREAM_INPUT] */
    bool gzip, ended;  /* ended: zlib has seen the end of the stream and its checksum holds */
    size_t barren;     /* bytes of gzip read since the last that came out */
    z_stream z;        /* next_in, avail_in are the unread input in either case */
} fv_stream;
fv_status fv_stream_open(fv_stream *s, fv_ctx *ctx, const char *path);
/* At most `bytes` bytes; *got is 0 only at the end. FV_E_DATA, with the offset in the file, when it is damaged. */
fv_status fv_stream_some(fv_stream *s, void *buf, size_t bytes, size_t *got);
/* Exactly `bytes` bytes; an early end is FV_E_DATA. */
fv_status fv_stream_read(fv_stream *s, void *buf, size_t bytes);
/* Nothing may be left; for gzip this also verifies its checksum. */
fv_status fv_stream_finish(fv_stream *s);
/* The most bytes that can still come out: what is left of the file, times deflate's greatest ratio for gzip. */
uint64_t fv_stream_bound(const fv_stream *s);
void fv_stream_close(fv_stream *s); /* fine after a failed open and twice */

/* ---- MD5 (md5.c), RFC 1321: for published checksums only */
typedef struct fv_md5 {
    uint32_t state[4];
    uint64_t bytes;
    unsigned char block[64];
} fv_md5;
void fv_md5_init(fv_md5 *m);
void fv_md5_update(fv_md5 *m, const void *data, size_t bytes);
void fv_md5_final(fv_md5 *m, char hex[33]);
fv_status fv_md5_file(fv_ctx *ctx, const char *path, char hex[33]);

/* ---- kinds and layouts (kinds.c) */
typedef enum fv_data_format { FV_FORMAT_CIFAR_BINARY, FV_FORMAT_CIFAR_PYTHON, FV_FORMAT_IDX } fv_data_format;

typedef struct fv_data_file_name {
    const char *name;
    const char *md5; /* as published; NULL: none is */
} fv_data_file_name;

typedef struct fv_data_layout {
    fv_data_format format;
    const char *subfolder;         /* where the published archive puts the files */
    fv_data_file_name files[2][6]; /* per split, ended by name NULL. IDX: the stems of images and labels */
    const char *names_file;        /* class names; NULL: none */
    const char *names_key;         /* python archives: key of the list of names */
    const char *label_key;         /* python archives: key of the labels */
    int label_bytes, label_at;     /* binary archives: bytes before the pixels, and which of them is the label */
} fv_data_layout;

typedef struct fv_data_kind {
    const char *name;
    const char *folders[4];         /* below a root, ended by NULL; "": the root itself */
    fv_data_layout layout[3];       /* tried in order, ended by subfolder NULL */
    int32_t h, w, c, classes;       /* 0: as the files say */
    const char *const *class_names; /* [classes]; NULL: "0", "1"... */
    int64_t published[2];           /* images of train and test; 0: unknown */
} fv_data_kind;

const fv_data_kind *fv_data_kinds(void);                     /* ended by name NULL */
const fv_data_kind *fv_data_kind_find(const char *name);     /* NULL: none of this name */
const fv_data_kind *fv_data_kind_near(const char *name);     /* one that `name` may have meant, or NULL */
const fv_data_kind *fv_data_kind_of_idx(const char *folder); /* which IDX set a folder of its own holds */

/* ---- where datasets lie (locate.c) */
typedef enum fv_data_files { FV_FILES_NONE, FV_FILES_FOLDER, FV_FILES_CSV } fv_data_files;
typedef struct fv_data_place {
    fv_data_files files; /* pictures in files: `folder` is then that folder or CSV file, kind and layout are NULL */
    const fv_data_kind *kind;
    const fv_data_layout *layout;
    char folder[FV_DATA_PATH];
    bool named;     /* found by the kind's name below a root, not by a path */
    char label[64]; /* for fv_dataset.name */
} fv_data_place;
/* root: NULL for $FOVEA_DATA, else ./datasets. */
const char *fv_data_root(const char *root);
fv_status fv_data_locate(fv_ctx *ctx, const char *name, const char *root, fv_split split, fv_data_place *out);
/* The path of an IDX file by its stem ("train-images", rank 3) under any of its usual names. */
bool fv_idx_find(fv_ctx *ctx, const char *folder, const char *stem, int rank, char out[FV_DATA_PATH]);

/* ---- building a dataset (dataset.c and the readers) */
/* Memory for images and labels; FV_E_DATA with `path` when the sizes are absurd. */
fv_status fv_dataset_reserve(fv_dataset *d, const char *path, int64_t count, int64_t h, int64_t w, int64_t c,
                             uint8_t **images, int32_t **labels);
/* Class names into d: copied from `names`, or the numbers when it is NULL. */
fv_status fv_dataset_names(fv_dataset *d, int32_t classes, const char *const *names);
uint64_t fv_dataset_hash(const fv_dataset *d); /* XXH3 of images, then labels */

fv_status fv_cifar_binary_read(fv_dataset *d, const fv_data_place *place, fv_split split);
fv_status fv_cifar_python_read(fv_dataset *d, const fv_data_place *place, fv_split split);
fv_status fv_idx_read(fv_dataset *d, const fv_data_place *place, fv_split split);
fv_status fv_synthetic_make(fv_dataset *d, fv_split split, const fv_dataset_opts *opts);
fv_status fv_file_set_open(fv_dataset *d, const fv_data_place *place, const fv_dataset_opts *opts); /* file_set.c */
/* One picture of three planes to pixels of three bytes. src: [3,pixels]; dst: [pixels,3] */
void fv_planes_to_pixels(const uint8_t *src, uint8_t *dst, size_t pixels);

/* ---- archives (archive.c) */
/* Unpack the members named in `members` (paths inside the archive, ended by NULL) of a .tar.gz to folder/NAME, NAME
 * being what follows the last '/'. Everything else in the archive is passed over; all members must be there. */
fv_status fv_archive_unpack(fv_ctx *ctx, const char *path, const char *const *members, const char *folder);

/* ---- downloads (fetch.c, get.c) */
typedef struct fv_fetch_choice { /* one file, at one place */
    const char *url;
    const char *name; /* for messages and progress */
    const char *md5;  /* published checksum */
    int64_t bytes;    /* published size; 0: unknown */
    const char *path; /* where it goes; PATH.part while it is incomplete */
} fv_fetch_choice;
/* Fetch any one of the choices, the first that works, and say which. *fetched is false when its file was there already.
 */
fv_status fv_fetch_any(fv_ctx *ctx, const fv_fetch_choice *choices, int n, const fv_get_opts *opts, int *which,
                       bool *fetched);

typedef struct fv_source_file { /* one published file and where to have it */
    const char *name, *md5;
    int64_t bytes;
    const char *bases[5];   /* URLs without the name, ended by NULL, the fastest first */
    const char *folder;     /* archives: where its members go, below the dataset's folder */
    const char *members[9]; /* archives: what to unpack, ended by NULL; none: the file itself is the data */
} fv_source_file;
typedef struct fv_source {
    const char *name;        /* of the kind */
    bool any;                /* one of the files is enough; else all are needed */
    fv_source_file files[5]; /* ended by name NULL */
} fv_source;
const fv_source *fv_source_find(const char *name); /* of the built-in table; NULL: none */
/* What fv_data_get does with the built-in table, without looking at what is there as a dataset. */
fv_status fv_source_get(fv_ctx *ctx, const fv_source *source, const fv_get_opts *opts);

#endif
