/* listing.h: picture files on the way from a folder or a CSV file to a dataset.
 *
 *   folder.c  ─┐  path, bytes,
 *   csv_set.c ─┴─ labels, part ──► fv_listing ──► parts.c: which part ──► file_set.c ──► fv_dataset
 */
#ifndef FV_DATA_LISTING_H
#define FV_DATA_LISTING_H

#include "data/internal.h"

#define FV_FILES_MOST ((int64_t)16 << 20) /* pictures of a set, rows of a CSV file */
#define FV_FILES_MOST_CLASSES 100000

typedef struct fv_listed { /* one picture */
    const char *path;      /* below the root; absolute if a CSV file says so */
    int64_t bytes;         /* size of the file */
    int64_t line;          /* of the CSV file; 0: none */
    int64_t first;         /* its labels: listing.label[first..first+labels-1] */
    int32_t labels;
    uint8_t part; /* fv_part; FV_PART_COUNT: not known */
} fv_listed;

typedef struct fv_listing {
    fv_ctx *ctx;
    fv_arena *arena;           /* of paths and names: that of the dataset */
    char root[FV_DATA_PATH];   /* where paths begin */
    char source[FV_DATA_PATH]; /* the folder or CSV file, for messages */
    fv_listed *item;           /* [count] */
    int64_t count, room;
    int32_t *label; /* [labels] */
    int64_t labels, label_room;
    const char **class_names; /* [classes] */
    int32_t classes;
    bool several;                 /* labels per picture */
    bool has_part[FV_PART_COUNT]; /* what the files themselves divide */
} fv_listing;

void fv_listing_init(fv_listing *list, fv_ctx *ctx, fv_arena *arena);
void fv_listing_free(fv_listing *list);
/* Append a picture; its path is borrowed. */
fv_status fv_listing_add(fv_listing *list, const fv_listed *item, const int32_t *labels);
/* Label number of a picture as datasets of one label have it; -1: none. */
static inline int32_t fv_listing_label(const fv_listing *list, const fv_listed *item) {
    return item->labels ? list->label[item->first] : -1;
}

/* "train", "val", "valid", "validation" or "test" in either case; FV_PART_COUNT: none of them. */
fv_part fv_part_of(const char *word);
const char *fv_part_name(fv_part part);
/* Why a text cannot be the name of a class: "is no UTF-8"; NULL: it can. */
const char *fv_class_name_problem(const char *name);

/* The first three of many names, for a message. */
#define FV_FEW_ROOM 160 /* bytes of a name */
typedef struct fv_few {
    int64_t count;
    char text[3 * FV_FEW_ROOM + 32];
} fv_few;
void fv_few_add(fv_few *few, const char *fmt, ...) FV_PRINTF(2, 3);
/* "a, b, c and 4 more"; to be called once, at the end. */
const char *fv_few_text(fv_few *few);

/* ---- from texts to numbers 0, 1, ... in order of arrival; the texts are borrowed */
typedef struct fv_index {
    fv_ctx *ctx;
    const char **text; /* [count] */
    int32_t count, room;
    int32_t *slot; /* [slots] numbers, -1 where free; slots is a power of two, at most half of them taken */
    size_t slots;
} fv_index;
void fv_index_init(fv_index *index, fv_ctx *ctx);
void fv_index_free(fv_index *index);
/* The number of a text, which is added where it is new. */
fv_status fv_index_add(fv_index *index, const char *text, int32_t *number, bool *fresh);
int32_t fv_index_find(const fv_index *index, const char *text); /* -1: not there */

/* ---- CSV (csv.c): RFC 4180; UTF-8 with or without mark, any line ends, blanks around cells without quotes do not
 * count, empty lines neither */
#define FV_CSV_MOST_CELLS 256
#define FV_CSV_MOST_LINE ((size_t)64 << 10)
typedef struct fv_csv {
    fv_ctx *ctx;
    char path[FV_DATA_PATH];
    char *at, *end; /* what has not been read yet */
    int64_t line;   /* where the row in `cell` begins, from 1 */
    int64_t lines;  /* line breaks passed so far */
    int32_t cells;
    char *cell[FV_CSV_MOST_CELLS]; /* they live in the arena */
} fv_csv;
/* Reads the whole file into the arena. */
fv_status fv_csv_open(fv_csv *csv, fv_ctx *ctx, fv_arena *arena, const char *path);
fv_status fv_csv_next(fv_csv *csv, bool *more);
/* FV_E_DATA with the line of the row in hand. */
fv_status fv_csv_fail(const fv_csv *csv, const char *fmt, ...) FV_PRINTF(2, 3);

typedef struct fv_csv_columns {
    int32_t path, label, part; /* -1: there is none */
    int32_t cells;             /* of every row */
    bool header;               /* the first row names them and holds no data */
} fv_csv_columns;
/* From the first row, which has been read: a header, or path,label[,part] (`labels`), else path,part. */
fv_status fv_csv_find_columns(const fv_csv *csv, bool labels, fv_csv_columns *out);
/* Each row has as many cells as the first. */
fv_status fv_csv_check_cells(const fv_csv *csv, const fv_csv_columns *columns);
/* A path as sets have it: without ./ in front. */
const char *fv_csv_path(const char *cell);

/* ---- making lists */
fv_status fv_folder_list(fv_listing *list, const char *path);                           /* folder.c */
bool fv_folder_holds_pictures(const char *path);                                        /* folders, or pictures */
fv_status fv_csv_list(fv_listing *list, const char *path, const fv_dataset_opts *opts); /* csv_set.c */

/* ---- parts (parts.c) */
/* By a CSV file `path,part`: all parts are then as it says. Pictures that it lacks are left at FV_PART_COUNT. */
fv_status fv_parts_from_file(fv_listing *list, const char *path);
fv_status fv_parts_check(const fv_listing *list, const char *path); /* it lacks none */
/* What the files do not divide: stratified, by hash of the path. Per class of n pictures the first round(test * n) are
 * for test, the next round(val * n) for val; one at least stays in train, and one of each class. */
fv_status fv_parts_by_hash(fv_listing *list, double val, double test);

#endif
