/* faults.h: contexts whose memory or files fail on demand, and folders for tests to write in. */
#ifndef FV_TESTS_FAULTS_H
#define FV_TESTS_FAULTS_H

#include "core/core.h"

/* ---- memory: counts everything, fails the allocation with number `fail_at` */
typedef struct fvt_memory {
    int64_t calls, fail_at; /* from 1; 0: none fails */
    int64_t live;           /* blocks not yet given back */
    size_t bytes, peak;
} fvt_memory;
void fvt_memory_install(fvt_memory *m, fv_ctx *ctx);
/* The same for jansson, whose allocator is global to the process. NULL: back to malloc. */
void fvt_memory_install_json(fvt_memory *m);

/* ---- files */
typedef enum fvt_call {
    FVT_OPEN,
    FVT_READ,
    FVT_WRITE,
    FVT_SIZE,
    FVT_FSYNC,
    FVT_CLOSE,
    FVT_RENAME,
    FVT_UNLINK,
    FVT_CALLS
} fvt_call;
typedef struct fvt_files {
    int64_t calls[FVT_CALLS];
    fvt_call fail;   /* this call ... */
    int64_t fail_at; /* ... fails the fail_at-th time (from 1; 0: never) ... */
    int64_t times;   /* ... and so many times in all */
    int error;       /* ... with this errno */
    size_t short_by; /* > 0: reads and writes move at most so many bytes */
    int open_files;
    char log[512]; /* one letter per call, of "ORWSFCNU" (N: rename) */
} fvt_files;
void fvt_files_install(fvt_files *f, fv_ctx *ctx);

/* ---- folders */
/* A new folder for this test; path has room for 128 bytes. fvt_remove_folder removes it with the files in it. */
void fvt_make_folder(char *path);
void fvt_remove_folder(const char *path);
int fvt_count_files(const char *path);
void fvt_put_file(const char *path, const void *data, size_t bytes);

#endif
