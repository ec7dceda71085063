/* pickle.h: a reader of Python pickles, protocols 0 to 4, that executes nothing. It knows the opcodes that lists,
 * dictionaries, strings, whole numbers and NumPy arrays of them are written with, and takes the calls by which NumPy
 * arrays are rebuilt as a notation for an array: by their names and the shapes of their arguments. Everything else is
 * refused with FV_E_DATA and the offset. */
#ifndef FV_DATA_PICKLE_H
#define FV_DATA_PICKLE_H

#include "core/core.h"

typedef enum fv_pickle_kind {
    FV_PICKLE_NONE,
    FV_PICKLE_INT,  /* also True and False */
    FV_PICKLE_TEXT, /* str or bytes: Python 2 does not tell them apart */
    FV_PICKLE_LIST,
    FV_PICKLE_TUPLE,
    FV_PICKLE_DICT,
    FV_PICKLE_ARRAY,
    /* only inside the reader: */
    FV_PICKLE_MARK,
    FV_PICKLE_GLOBAL,
    FV_PICKLE_DTYPE,
} fv_pickle_kind;

typedef struct fv_pickle_array {
    char type; /* 'u', 'i' or 'b', 0 until the array is built */
    bool big_endian, fortran;
    int item, rank; /* bytes of an element, number of dimensions */
    int64_t dim[4];
    const unsigned char *data; /* into the pickle or the arena */
    size_t bytes;
} fv_pickle_array;

typedef struct fv_pickle {
    fv_pickle_kind kind;
    uint32_t count, capacity; /* of item. A dictionary holds key, value, key, value */
    union {
        int64_t number; /* INT, and which GLOBAL */
        struct fv_pickle **item;
        struct {
            const unsigned char *text;
            size_t size;
        };
        fv_pickle_array *array; /* ARRAY and DTYPE */
    };
} fv_pickle;

/* Read data[size], which must outlive the result. path is for messages. */
fv_status fv_pickle_read(fv_ctx *ctx, fv_arena *arena, const char *path, const void *data, size_t size,
                         fv_pickle **out);
/* The value of a key of a dictionary; NULL: no such key, or no dictionary. */
const fv_pickle *fv_pickle_get(const fv_pickle *dict, const char *key);

#endif
