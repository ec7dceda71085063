/* data.h: pictures and their files, datasets, augmentation records, the loader, and download of the published sets.
 *
 *   dataset ── pictures in memory, or files that are decoded when they are due
 *      │       uint8 [h,w,c] + label (or one flag per class)
 *      ▼
 *   view (indices: train, val, test) ─► loader ─► fv_batch, one per step
 *
 * A batch depends only on (seed, epoch, batch number): never on workers, prefetch or where a run was interrupted, nor
 * on the cache, but for the sharpness of random resized crops: those are then cut from the smaller pictures in it. */
#ifndef FV_DATA_H
#define FV_DATA_H

#include "core/core.h"

/* ---- pictures in files */
typedef enum fv_image_format { FV_IMAGE_UNKNOWN, FV_IMAGE_JPEG, FV_IMAGE_PNG, FV_IMAGE_WEBP } fv_image_format;
typedef struct fv_image_info { /* of a file, from its header */
    fv_image_format format;
    int32_t h, w;        /* as shown: after the EXIF orientation */
    int32_t c;           /* as stored: 1 grey, 2 grey and alpha, 3 colour (palettes too), 4 colour and alpha, or CMYK */
    int32_t orientation; /* EXIF, 1 to 8; 1: none */
} fv_image_info;
typedef struct fv_image {  /* decoded; the pixels belong to the decoder and live until its next call */
    const uint8_t *pixels; /* [h,w,c] */
    int32_t h, w, c;
} fv_image;
#define FV_IMAGE_MOST_SIDE 65500
#define FV_IMAGE_MOST_PIXELS ((int64_t)100 << 20) /* larger pictures are taken for bombs and refused */
typedef struct fv_decode_opts {
    int32_t channels;     /* 1 grey (ITU-R 601 luma), 2 grey and alpha, 3 colour (alpha is dropped), 4 with alpha */
    int32_t min_h, min_w; /* > 0: a JPEG may be decoded at a reduced size of at least so many pixels, as shown */
} fv_decode_opts;
/* A decoder keeps its memory from picture to picture: one per thread. `name` is the path that messages name. Damaged,
 * truncated and unknown files are FV_E_DATA, with the offset or the row; too large ones too, before memory is taken. */
typedef struct fv_decoder fv_decoder;
fv_status fv_decoder_create(fv_ctx *ctx, fv_decoder **out);
void fv_decoder_destroy(fv_decoder *d); /* NULL is fine */
fv_status fv_image_probe(fv_decoder *d, const void *data, size_t bytes, const char *name, fv_image_info *out);
fv_status fv_image_decode(fv_decoder *d, const void *data, size_t bytes, const char *name, const fv_decode_opts *opts,
                          fv_image *out);
/* Extensions of files that are taken for pictures: .jpg .jpeg .png .webp, in either case. */
bool fv_image_name(const char *path);

typedef enum fv_filter { FV_FILTER_BILINEAR, FV_FILTER_BICUBIC } fv_filter; /* bicubic: a = -0.5, as Pillow */
typedef struct fv_box { /* in pixels of the source, fractions allowed */
    double top, left, h, w;
} fv_box;
/* The part `box` of the source, resized to dst [out_h,out_w,c] with antialiasing: Pillow's Image.resize(size, filter,
 * box). FV_E_USAGE for a box that is empty or not inside the source. */
fv_status fv_image_resize(fv_decoder *d, const fv_image *src, fv_box box, fv_filter filter, int32_t out_h,
                          int32_t out_w, uint8_t *dst);

/* A picture file as evaluation sees it: its shorter side resized to floor(size / crop_pct) pixels, then the middle
 * [size,size,channels]. crop_pct 0: 1. */
fv_status fv_picture_prepare(fv_decoder *decoder, const char *path, int32_t size, int32_t channels, double crop_pct,
                             fv_filter filter, uint8_t *out);

/* ---- datasets */
typedef struct fv_file_set fv_file_set; /* pictures in files (files.h) */
typedef enum fv_part { FV_PART_TRAIN, FV_PART_VAL, FV_PART_TEST, FV_PART_COUNT } fv_part;

typedef struct fv_dataset {
    fv_ctx *ctx;
    fv_arena arena;
    char name[64]; /* "cifar10" */
    char path[512];
    int64_t count;
    int32_t h, w, c, classes;     /* of a picture as fv_dataset_picture gives it */
    const uint8_t *images;        /* [count,h,w,c], owned; NULL: `files` */
    const int32_t *labels;        /* [count], owned; of several labels the first, -1: none */
    const uint8_t *targets;       /* [count,classes], 0 or 1: several labels per picture; NULL: one each */
    const char **class_names;     /* [classes] */
    uint64_t fingerprint;         /* XXH3 of images and labels; of files: of paths, sizes and labels */
    fv_file_set *files;           /* owned */
    const uint8_t *part;          /* [count] fv_part: one set holds all parts; NULL: a set per split */
    bool has_part[FV_PART_COUNT]; /* with `part`: what the files themselves divide */
    void *images_;
    size_t images_bytes_;
} fv_dataset;

typedef enum fv_cache { FV_CACHE_NONE, FV_CACHE_RAM, FV_CACHE_DISK } fv_cache;
typedef struct fv_dataset_opts {
    const char *root;                    /* NULL: $FOVEA_DATA, else ./datasets */
    int64_t synthetic_count;             /* "synthetic": 0 means 4096 train, 1024 test */
    int32_t img_size, in_chans, classes; /* "synthetic", 0: 32, 3, 10. Files: side and channels of the pictures given */
    uint64_t seed;                       /* "synthetic" */
    /* pictures in files */
    double crop_pct; /* the shorter side becomes img_size / crop_pct, then the middle is cut out; 0: 1 */
    fv_filter filter;
    const char *split_file; /* CSV `path,part` that says which file belongs where; NULL: the folders, else by hash */
    double val_split, test_split; /* shares of a set that does not divide itself; test_split only of one without test */
    bool skip_bad;                /* leave out files that cannot be decoded, with a warning each */
    fv_cache cache;
    const char *cache_dir; /* NULL: $XDG_CACHE_HOME/fovea, else ~/.cache/fovea */
    int workers;           /* threads that read files when the set is opened; 0: 1 */
    void (*progress)(void *user, const char *what, int64_t done, int64_t total);
    void *progress_user;
} fv_dataset_opts;

/* What `--data` names: cifar10, cifar100 (binary or python folders), mnist, fashion-mnist (IDX, .gz too), synthetic, or
 * a path: to a folder that holds one of these; to a folder of pictures, train/CLASS/x.jpg with val, valid or validation
 * and test beside train, or CLASS/x.jpg; or to a CSV file `path,label[,split]`, several labels divided by |. Sets of
 * pictures hold all their parts: `split` is not looked at, see `part`. FV_E_DATA says what was looked for and where,
 * with `fovea data get` as the hint. */
typedef enum fv_split { FV_SPLIT_TRAIN, FV_SPLIT_TEST } fv_split;
fv_status fv_dataset_open(fv_ctx *ctx, const char *name, fv_split split, const fv_dataset_opts *opts, fv_dataset **out);
void fv_dataset_free(fv_dataset *d);
/* Whether `name` means pictures in files: such a set needs opts.img_size. */
bool fv_dataset_is_files(fv_ctx *ctx, const char *name, const char *root);
/* One picture as evaluation sees it, [h,w,c]. Any thread may call it with its own decoder. */
fv_status fv_dataset_picture(const fv_dataset *d, fv_decoder *decoder, int64_t index, uint8_t *out);
/* Path of a sample's file below the set's folder; NULL if pictures are not files of their own. */
const char *fv_dataset_file(const fv_dataset *d, int64_t index);
/* Which part each sample of a set of files was given, as CSV `path,part`: the split, saved. */
fv_status fv_dataset_save_split(const fv_dataset *d, const char *path);
/* What reading the files of a set has shown. */
typedef struct fv_file_report {
    const char *problem; /* why it cannot be used; NULL: it can */
    fv_image_info info;  /* all 0 if the header cannot be read */
    int64_t copy_of;     /* the first sample with the same bytes; -1: none. Only with `decode` */
} fv_file_report;
/* Read every file of a set with opts->workers threads: only its header, or with `decode` all of it, which is decoded at
 * full size. out [count] and its texts live in the arena. FV_OK also when files are bad. */
fv_status fv_dataset_inspect(const fv_dataset *d, bool decode, const fv_dataset_opts *opts, fv_arena *arena,
                             fv_file_report **out);
/* Per-channel mean and standard deviation of pixels / 255 over the given indices (NULL: all); mean, std have d->c
 * places. Exact integer sums: the same in any order. The deviation of a constant channel is given as 1, so that one may
 * divide by it. For sets in memory only. */
void fv_dataset_stats(const fv_dataset *d, const int64_t *index, int64_t n, double *mean, double *std);

/* Held-out validation: a stratified choice of round(fraction * count) samples that depends on (seed, labels) only.
 * Arrays from arena; both sorted. fraction 0: everything trains. A set with `part` is divided already: its train and
 * val are given, whatever the fraction. */
fv_status fv_split_validation(fv_ctx *ctx, fv_arena *arena, const fv_dataset *d, double fraction, uint64_t seed,
                              int64_t **train, int64_t *n_train, int64_t **val, int64_t *n_val);

/* The path of a file of that name among those that may be deleted at any time: in $XDG_CACHE_HOME/fovea, else
 * ~/.cache/fovea, which is made if it is not there. */
fv_status fv_cache_file(fv_ctx *ctx, const char *name, char *out, size_t size);

/* ---- augmentation */
typedef struct fv_augment_cfg {
    int crop_pad; /* random crop out of the picture padded by so many pixels; 0: none */
    fv_pad_mode pad_mode;
    double flip, vflip; /* probability of a horizontal, a vertical flip */
    /* the horizontal flip of a sample is drawn once per run, and all are the other way round in odd epochs: two epochs
     * in a row show every picture both ways. Not with a balanced sampler */
    bool alternate_flip;
    int cutout;         /* side of the square set to zero after crop and normalising; 0: none */
    bool cutout_inside; /* its place is any in which all of it is in the picture; else its middle is any pixel */
    double jitter[4];   /* brightness, contrast, saturation: factor from [max(0, 1-x), 1+x]; hue: turns from [-x, x] */
    double erase;       /* probability of blanking a rectangle of 2% to 33% of the area (Zhong et al. 2017) */
    bool erase_noise;   /* ... filled with normal noise instead of zeros */
    /* random resized crop (Szegedy et al. 2015), taken when the file is decoded; scale[1] 0: none. Sets of files only
     */
    double scale[2], ratio[2]; /* share of the area; width / height */
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
    const float *targets;    /* [size,classes], 0 or 1; NULL unless the set has several labels per picture */
    const float *row_weight; /* [size] */
    const int64_t
        *row_key;         /* [size]: what augmentation and dropout depend on: sample index; balanced: place in epoch */
    const int64_t *index; /* [size]: into the dataset */
} fv_batch;

typedef struct fv_loader_cfg {
    int64_t batch;
    bool train;                    /* shuffle each epoch, drop the last partial batch; else in order, pad the last */
    const fv_augment_cfg *augment; /* train only; copied */
    uint64_t seed;
    int workers;         /* threads; 0: the caller does the work */
    int prefetch;        /* batches ahead; 0: 2 per worker */
    int hold;            /* so many of the last batches stay valid; 0: 1 */
    bool balanced;       /* training: each place of an epoch draws a class, then one of its samples, with replacement */
    bool no_images;      /* batches have none (images NULL): the caller has them all, and takes them by `index` */
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
/* The next batch, or FV_OK with out->size = 0 at the end of the epoch. Valid until the next call; cfg.hold of them:
 * until so many calls later. */
fv_status fv_loader_next(fv_loader *l, fv_batch *out);
/* For each sample of the set that whose label it is given: its own, but with shuffle_labels; `index` must not name a
 * sample twice. out [d->count] */
void fv_loader_lenders(const fv_loader *l, int64_t *out);
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
/* Verify a dataset's files: sizes, records, label ranges, checksums where published. Pictures in files: decode them
 * all; bad ones, copies and counts are told to the log. */
fv_status fv_data_check(fv_ctx *ctx, const char *name, const char *root);

#endif
