/* memory_io.h: a context for hostile input: its files lie in memory, and its own memory is counted and limited. Fuzz
 * targets and tests/test_hostile.c use it. What breaks a promise ends the process with a message (libFuzzer and Check
 * both take that for a failure). */
#ifndef FV_TESTS_FUZZ_MEMORY_IO_H
#define FV_TESTS_FUZZ_MEMORY_IO_H

#include "core/core.h"

#define FVT_WORLD_LIMIT ((size_t)256 << 20)

/* Contents that are made when they are read: files too large to be kept. */
typedef void (*fvt_make)(uint64_t offset, uint8_t *to, size_t bytes);

typedef struct fvt_world_file {
    char path[512]; /* "": this place is free */
    const uint8_t *given;
    fvt_make make;
    uint8_t *written; /* by the library; owned */
    uint64_t size;
    size_t room; /* of `written` */
} fvt_world_file;

typedef struct fvt_world_handle {
    fvt_world_file *file; /* NULL: a folder */
    uint64_t at;
    bool open;
} fvt_world_handle;

typedef struct fvt_world {
    fv_ctx ctx;
    fvt_world_file file[24];
    fvt_world_handle handle[16];
    size_t limit, bytes, peak; /* of memory */
    int64_t live;              /* blocks */
    bool refused;              /* an allocation went past the limit */
} fvt_world;

/* An empty world. Its context allocates at most `limit` bytes. */
void fvt_world_open(fvt_world *w, size_t limit);
/* A file to be read; the bytes are borrowed. */
void fvt_world_put(fvt_world *w, const char *path, const void *bytes, size_t size);
void fvt_world_put_made(fvt_world *w, const char *path, fvt_make make, uint64_t size);
/* What the library wrote under this name; NULL: nothing. */
const fvt_world_file *fvt_world_find(const fvt_world *w, const char *path);

/* `status` is FV_OK or one of `allowed` (bits 1 << code; memory never is, unless it is among them); an error has a code
 * that agrees, a message, and no text with control characters or bytes that are no UTF-8. */
void fvt_world_judge(const fvt_world *w, fv_status status, unsigned allowed);
/* Afterwards nothing may be left: no memory, no open file, no temporary file. */
void fvt_world_close(fvt_world *w);

/* A property that must hold for every input. */
#define FVT_HOLDS(condition) \
    do { \
        if (!(condition)) fvt_world_broken(__FILE__, __LINE__, #condition); \
    } while (0)
_Noreturn void fvt_world_broken(const char *file, int line, const char *what);

/* The next part of a fuzz input that stands for several files: its length in two bytes, little endian, then its bytes.
 */
typedef struct fvt_part {
    const uint8_t *bytes;
    size_t size;
} fvt_part;
fvt_part fvt_next_part(const uint8_t **data, size_t *size);

#endif
