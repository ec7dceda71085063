/* file_sets.h: sets of picture files in the folder of the running test (data_sets.h). Most files hold no picture:
 * listing a set does not look into them. Names are below the folder. */
#ifndef FV_TESTS_FILE_SETS_H
#define FV_TESTS_FILE_SETS_H

#include "data/listing.h"
#include "tests/data_sets.h"

extern char fvt_log[8192];              /* all lines of the running test; warnings begin with "W " */
extern const fv_dataset_opts fvt_plain; /* 8 pixels, nothing held out */
void fvt_files_setup(void);             /* with fvt_sets_teardown behind it */

/* ---- files, with the folders above them */
void fvt_put(const char *name, const void *data, size_t bytes);
void fvt_put_text(const char *name, const char *text);
void fvt_put_png(const char *name, uint8_t value);       /* grey, 2 x 2 pixels of one value */
void fvt_put_many(const char *folder, int first, int n); /* FOLDER/0.jpg ..., of different sizes */
void fvt_put_pictures(
    void); /* a.jpg to d.jpg, sub/e.jpg, and two whose names need quotes in a CSV file; 7 bytes each */

/* ---- sets */
fv_status fvt_open_files(const char *name, const fv_dataset_opts *opts, fv_dataset **d);
fv_dataset *fvt_opened(const char *name, const fv_dataset_opts *opts); /* it must work */
/* It must fail so, and give all memory back. */
void fvt_refused(const char *name, const fv_dataset_opts *opts, fv_status expected, const char *path,
                 const char *message);
int64_t fvt_in_part(const fv_dataset *d, int32_t label, fv_part part); /* label -1: of all classes */
int64_t fvt_find_file(const fv_dataset *d, const char *path);
void fvt_keep_progress(void *user, const char *what, int64_t done, int64_t total); /* user: int64_t, the last `done` */
/* Open a set with the first, then the second ... allocation failing. */
void fvt_fail_each_allocation(const char *name, const fv_dataset_opts *opts);

#endif
