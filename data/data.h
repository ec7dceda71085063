/* data.h: datasets, augmentation records, the loader, and download of the published sets.
 *
 *   dataset (images in memory, uint8 [h,w,c] + label) ─► view (indices: train, val, test) ─► loader ─► fv_batch, one
 * per step
 *
 * A batch depends only on (seed, epoch, batch number): never on workers, prefetch or where a run was interrupted. */
#ifndef FV_DATA_H
#define FV_DATA_H

#include "core/core.h"

typedef struct fv_dataset {
    fv_ctx *ctx;
    fv_arena arena;
    char name[64]; /* "cifar10" */
    char path[512];
    int64_t count;
    int32_t h, w, c, classes;
    const uint8_t *images;    /* [count,h,w,c], owned */
    const int32_t *labels;    /* [count], owned */
    const char **class_names; /* [classes] */
    uint64_t fingerprint;     /* XXH3 of images and labels */
    void *images_;
    size_t images_bytes_;
} fv_dataset;

typedef struct fv_dataset_opts {
    const char *root;                    /* NULL: $FOVEA_DATA, else ./datasets */
    int64_t synthetic_count;             /* "synthetic": 0 means 4096 train, 1024 test */
    int32_t img_size, in_chans, classes; /* "synthetic"; 0: 32, 3, 10 */
    uint64_t seed;                       /* "synthetic" */
} fv_dataset_opts;

/* What `--data` names: cifar10, cifar100 (binary or python folders), mnist, fashion-mnist (IDX, .gz too), synthetic, or
 * a path to a folder that holds one of these. FV_E_DATA says what was looked for and where, with `fovea data get` as
 * the hint. */
typedef enum fv_split { FV_SPLIT_TRAIN, FV_SPLIT_TEST } fv_split;
fv_status fv_dataset_open(fv_ctx *ctx, const char *name, fv_split split, const fv_dataset_opts *opts, fv_dataset **out);
void fv_dataset_free(fv_dataset *d);
/* Per-channel mean and standard deviation of pixels / 255 over the given indices (NULL: all); mean, std have d->c
 * places. Exact integer sums: the same in any order. The deviation of a constant channel is given as 1, so that one may
 * divide by it. */
void fv_dataset_stats(const fv_dataset *d, const int64_t *index, int64_t n, double *mean, double *std);

/* Held-out validation: a stratified choice of round(fraction * count) samples that depends on (seed, labels) only.
 * Arrays from arena; both sorted. fraction 0: everything trains. */
fv_status fv_split_validation(fv_ctx *ctx, fv_arena *arena, const fv_dataset *d, double fraction, uint64_t seed,
                              int64_t **train, int64_t *n_train, int64_t **val, int64_t *n_val);

/* ---- augmentation */
typedef struct fv_augment_cfg {
    int crop_pad; /* random crop out of the picture padded by so many pixels; 0: none */
    fv_pad_mode pad_mode;
    double flip; /* probability of a horizontal flip */
    int cutout;  /* side of the square set to zero after normalising; 0: none */
} fv_augment_cfg;
/* Fill the record (FV_AUG_*) of one sample: a pure function of (seed, epoch, index). cfg NULL: the plain picture. */
void fv_augment_record(const fv_augment_cfg *cfg, uint64_t seed, int64_t epoch, int64_t index, int32_t h, int32_t w,
                       float *record);

/* ---- the loader */
typedef struct fv_batch {
    int64_t size, valid;     /* rows; the last batch of an evaluation is padded: rows past `valid` have row_weight 0 */
    const uint8_t *images;   /* [size,h,w,c] */
    const float *record;     /* [size,FV_AUG_FIELDS] */
    const int32_t *labels;   /* [size] */
    const float *row_weight; /* [size] */
    const int64_t *row_key;  /* [size]: sample index, for dropout */
    const int64_t *index;    /* [size]: into the dataset */
} fv_batch;

typedef struct fv_loader_cfg {
    int64_t batch;
    bool train;                    /* shuffle each epoch, drop the last partial batch; else in order, pad the last */
    const fv_augment_cfg *augment; /* train only; copied */
    uint64_t seed;
    int workers;         /* threads; 0: the caller does the work */
    int prefetch;        /* batches ahead; 0: 2 per worker */
    bool shuffle_labels; /* a fixed random permutation of the labels: a net must then stay at chance on held-out data */
} fv_loader_cfg;

typedef struct fv_loader fv_loader;
/* index: which samples (borrowed; NULL: all). */
fv_status fv_loader_create(fv_ctx *ctx, const fv_dataset *d, const int64_t *index, int64_t n, const fv_loader_cfg *cfg,
                           fv_loader **out);
void fv_loader_destroy(fv_loader *l);
int64_t fv_loader_batches(const fv_loader *l); /* per epoch */
/* Begin an epoch at a batch (0 at its start). Stops what was in flight. */
fv_status fv_loader_start(fv_loader *l, int64_t epoch, int64_t first_batch);
/* The next batch, or FV_OK with out->size = 0 at the end of the epoch. Valid until the next call. */
fv_status fv_loader_next(fv_loader *l, fv_batch *out);
double fv_loader_wait_seconds(const fv_loader *l); /* time that fv_loader_next spent waiting */

/* Give a batch to the inputs of a float32 program that has them: images, record, labels, row_weight, row_key. */
fv_status fv_batch_feed(const fv_batch *batch, fv_program *p);

/* ---- download */
typedef struct fv_get_opts {
    const char *root;           /* as above */
    const char *const *mirrors; /* NULL-terminated base URLs tried instead of the built-in ones (tests, --mirror) */
    long low_speed_bytes, low_speed_seconds; /* give up on a mirror below this rate for so long; 0: 128 kB/s, 15 s */
    void (*progress)(void *user, const char *file, const char *url, int64_t done, int64_t total);
    void *user;
} fv_get_opts;
/* cifar10, cifar100, mnist, fashion-mnist: fetch, check against the published checksum, unpack, skip what is already
 * there, continue what was cut short, next mirror on errors, wrong contents or a low rate. Nothing else in the library
 * touches the network. */
fv_status fv_data_get(fv_ctx *ctx, const char *name, const fv_get_opts *opts);
/* Verify a dataset's files: sizes, records, label ranges, checksums where published. */
fv_status fv_data_check(fv_ctx *ctx, const char *name, const char *root);

#endif
