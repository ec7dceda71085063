/* io.h: files, in and out. Reading is hostile-input work: every size is checked against the file before memory is
 * taken. Writing is temporary name (O_EXCL, same directory) -> write all -> fsync -> close -> rename -> fsync of the
 * directory; every step is checked. */
#ifndef FV_CORE_IO_IO_H
#define FV_CORE_IO_IO_H

#include "core/store.h"

/* ---- whole files */
/* Contents of a regular file of at most `limit` bytes, NUL-terminated (the NUL is not counted). Free with fv_free(ctx,
 * *data, *size + 1, 1). */
fv_status fv_read_file(fv_ctx *ctx, const char *path, size_t limit, void **data, size_t *size);

typedef struct fv_reader { /* a regular file, read from front to back */
    fv_ctx *ctx;
    char path[512];
    int fd;
    uint64_t size, offset; /* offset: bytes read so far */
} fv_reader;
/* FIFOs, devices and folders are refused without waiting for them. */
fv_status fv_reader_open(fv_reader *r, fv_ctx *ctx, const char *path);
/* Exactly `bytes` bytes; an early end of the file is an error. */
fv_status fv_read(fv_reader *r, void *data, size_t bytes);
void fv_reader_close(fv_reader *r); /* fine after a failed open */

typedef struct fv_writer { /* a file being written under a temporary name: "<path>.tmp-<process>-<n>" */
    fv_ctx *ctx;
    char path[512], temp[560];
    const char *keep; /* set after opening: what was at `path` gets this name; borrowed. NULL: it is replaced */
    int fd;
    fv_status status; /* sticky */
    uint64_t bytes;
} fv_writer;
fv_status fv_writer_open(fv_writer *w, fv_ctx *ctx, const char *path);
fv_status fv_write(fv_writer *w, const void *data, size_t bytes);
fv_status fv_writer_commit(fv_writer *w); /* durable under its name afterwards */
void fv_writer_abort(fv_writer *w);       /* removes the temporary file; fine after commit or a failed open */
fv_status fv_write_file(fv_ctx *ctx, const char *path, const void *data, size_t bytes);
/* Make the name of a new file or folder durable: syncs the folder that it is in. */
fv_status fv_sync_name(fv_ctx *ctx, const char *path);

/* ---- safetensors (https://huggingface.co/docs/safetensors, format section)
 *
 *   [ header bytes: u64, little endian | header: JSON, padded with spaces | data section ]
 *
 * The header is checked in full before the data section is read: offsets leave no holes and do not overlap, sizes
 * match. The specification allows 100 MB of header; these limits keep the refusal of a hostile file quick and below 64
 * MB of memory. */
#define FV_ST_MAX_HEADER ((size_t)8 << 20) /* bytes */
#define FV_ST_MAX_TENSORS 20000
typedef struct fv_st_entry {
    const char *name;
    fv_type type;
    uint64_t offset; /* from the start of the data section */
    size_t bytes;
} fv_st_entry;
typedef struct fv_st_file {
    fv_ctx *ctx;
    fv_arena arena;
    char path[512];
    int32_t count;
    const fv_st_entry *entry; /* in file order */
    int32_t n_meta;
    const char **meta_key, **meta_value; /* __metadata__ */
    unsigned char *data;                 /* data section, owned. Tensors in it need not be aligned: copy, do not cast */
    size_t data_bytes;
    const fv_st_entry **by_name_; /* sorted */
} fv_st_file;
/* Tensors of other types than fv_dtype's are FV_E_MODEL, as is everything that breaks the format; and a file of ours
 * (metadata "writer" begins with "fovea ") whose checksum is missing or wrong: not one bit of it may have changed. */
fv_status fv_st_open(fv_st_file *f, fv_ctx *ctx, const char *path);
void fv_st_close(fv_st_file *f);
const fv_st_entry *fv_st_find(const fv_st_file *f, const char *name);
const char *fv_st_meta(const fv_st_file *f, const char *key); /* NULL: none */

typedef struct fv_st_tensor { /* for writing */
    const char *name;
    fv_type type;
    const void *data;
} fv_st_tensor;
/* Tensors are written in the order given, but wider element types first, so that each is aligned; metadata as key,
 * value pairs, and a checksum of the whole file. */
fv_status fv_st_save(fv_ctx *ctx, const char *path, const fv_st_tensor *tensors, int32_t n,
                     const char *const (*meta)[2], int32_t n_meta);
/* The same with one tensor in memory at a time: those whose `data` is NULL are asked of `fill` when they are due, twice
 * (checksum, file) and the same each time. A status other than FV_OK from it ends the save, and an older file stays. */
typedef fv_status (*fv_st_fill)(void *user, int32_t index, void *data, size_t bytes);
fv_status fv_st_save_with(fv_ctx *ctx, const char *path, const fv_st_tensor *tensors, int32_t n,
                          const char *const (*meta)[2], int32_t n_meta, fv_st_fill fill, void *user);

/* ---- models */
/* Write weights and buffers (EMA values instead of the weights if ema) as safetensors in file layout. Refuses
 * non-finite values (FV_E_NUMERIC), leaving an older file as it is. float64 stores are written as float32. */
fv_status fv_model_save(fv_ctx *ctx, fv_store *store, const char *path, bool ema, const char *const (*meta)[2],
                        int32_t n_meta);
typedef struct fv_load_opts {
    bool allow_head_mismatch; /* a classifier of another class count keeps its initial values, with a warning */
    const char *head;         /* name prefix of the classifier, e.g. "fc" */
} fv_load_opts;
/* Read weights and buffers by name from .safetensors. Missing, unexpected or differently shaped tensors are FV_E_MODEL
 * with the first few named; num_batches_tracked may be missing. float16, bfloat16 and float64 files are converted. */
fv_status fv_model_load(fv_ctx *ctx, fv_store *store, const char *path, const fv_load_opts *opts);

/* ---- training state: everything of a store that a bit-exact resume needs, types as in the store
 *   "model.conv1.weight" weights and buffers   "opt.momentum.conv1.weight" moments   "ema.conv1.weight" averages */
/* The file that was there before stays as `prev` (NULL: it is replaced). Refuses non-finite values, as fv_model_save.
 */
fv_status fv_state_save(fv_ctx *ctx, fv_store *store, const char *path, const char *prev, const char *const (*meta)[2],
                        int32_t n_meta);
/* Put the tensors of an open state file into the store. All must be there, no others, of the same types and shapes
 * (FV_E_MODEL). */
fv_status fv_state_restore(fv_ctx *ctx, fv_store *store, const fv_st_file *file);

/* ---- config.json beside a model, in timm's form: architecture and how pictures are prepared */
#define FV_CONFIG_CHANNELS 16
typedef struct fv_model_config {
    const char *architecture; /* "resnet20" */
    int64_t num_classes;
    int32_t n_labels; /* num_classes, or 0: no names */
    const char *const *label_names;
    int64_t input_size[3]; /* channels, height, width; channels <= FV_CONFIG_CHANNELS */
    double mean[FV_CONFIG_CHANNELS], std[FV_CONFIG_CHANNELS]; /* per channel, of pixels in [0,1] */
    const char *interpolation;                                /* "bicubic" */
    double crop_pct;                                          /* in (0,1] */
    const char *without; /* ideas of the model that are left out of it, "dirac,trimming"; NULL: none */
    bool multi_label;    /* a sigmoid per class instead of a softmax: "problem_type": "multi_label_classification" */
} fv_model_config;
fv_status fv_config_save(fv_ctx *ctx, const char *path, const fv_model_config *cfg);
/* Strings live in `arena`. What the file leaves out is as timm has it: mean 0.485.., std 0.229.. for three channels
 * (else 0.5), bicubic, crop_pct 0.875; architecture and input_size must be there. */
fv_status fv_config_load(fv_ctx *ctx, fv_arena *arena, const char *path, fv_model_config *cfg);

#endif
