/* data_sets.h: small datasets for the tests of data/, in a folder of the test's own. Record i has label (7 i) % 10. */
#ifndef FV_TESTS_DATA_SETS_H
#define FV_TESTS_DATA_SETS_H

#include "data/internal.h"
#include "tests/faults.h"

extern struct fvt_sets { /* of the running test */
    char folder[128];
    fv_ctx ctx;
    fvt_files files;
    fvt_memory memory;
} fvt_sets;

/* Fixtures. Whatever a test did: afterwards no memory and no open file may be left. */
void fvt_sets_setup(void);
void fvt_sets_teardown(void);

const char *fvt_in_folder(const char *name); /* one of the last eight such paths */
void fvt_make_dirs(const char *name);
fv_status fvt_open_set(const char *name, fv_split split, fv_dataset **d); /* the folder is the root */
/* A call failed as expected, and names its place; path NULL: any. */
void fvt_ck_refused(fv_status got, fv_status expected, const char *path, const char *message);

/* ---- CIFAR */
uint8_t fvt_pixel(int64_t record, int64_t j); /* j counts in planes, as CIFAR does */
int32_t fvt_label_of(int64_t record);
/* Records first..first+n-1 as a binary file; label_bytes 2 puts a coarse label in front. */
size_t fvt_cifar_bytes(uint8_t *out, int64_t first, int64_t n, int label_bytes);
/* All six files, of two records each, into a folder below the folder. */
void fvt_put_cifar10(const char *below);
void fvt_ck_cifar_records(const fv_dataset *d, int64_t count);

/* ---- CIFAR as pickles: tests/vectors/pickles, made by tests/peers/make_pickles.py */
#define FVT_PICKLES 9
extern const char *const fvt_pickles[FVT_PICKLES]; /* batches of records 0 and 1, each pickled in another way */
size_t fvt_read_pickle(const char *name, uint8_t *to, size_t room);

/* ---- IDX: n images of h x w, and n labels */
void fvt_put_number(uint8_t *to, uint32_t n); /* big-endian */
size_t fvt_idx_images(uint8_t *out, uint32_t n, uint32_t h, uint32_t w);
size_t fvt_idx_labels(uint8_t *out, uint32_t n);
size_t fvt_gzip(const uint8_t *from, size_t bytes, uint8_t *to, size_t room);
void fvt_put_idx(const char *images, const char *labels, bool packed, uint32_t n);

#endif
