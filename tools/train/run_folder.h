/* run_folder.h: runs/NAME[-N]/ and what lies in it. */
#ifndef FV_TOOLS_TRAIN_RUN_FOLDER_H
#define FV_TOOLS_TRAIN_RUN_FOLDER_H

#include "tools/train/evaluate.h"

typedef struct fv_run_folder {
    char path[400];
    int lock; /* RUN/lock, held while the run is worked on; -1: none. The lock goes with the process, however it ends */
    struct {
        char *text; /* results.csv, as it is to be written */
        size_t bytes, capacity;
    } results;
} fv_run_folder;

/* One row of results.csv; NAN leaves a field empty. */
typedef struct fv_epoch_row {
    int64_t epoch; /* 1-based */
    double time;   /* seconds since training began */
    double train_loss, top1, top5, val_loss, lr, train_top1, ema_top1, images_per_s, mem_gb;
} fv_epoch_row;

/* Whether a folder can be made below --output: to be known before anything is trained. */
fv_status fv_run_check_output(fv_session *s);
void fv_run_init(fv_run_folder *run);
/* Make the folder (--output, --name; -2, -3, ... if taken), lock it, begin results.csv and log.txt. */
fv_status fv_run_create(fv_run_folder *run, fv_session *s);
/* Lock the folder of an earlier run: FV_E_BUSY at once if another process has it. Leftovers of a killed process go. */
fv_status fv_run_reopen(fv_run_folder *run, fv_session *s, const char *path);
/* Take over results.csv up to an epoch, and go on with log.txt. */
fv_status fv_run_continue(fv_run_folder *run, fv_session *s, int64_t epochs);
void fv_run_close(fv_run_folder *run);
/* args.yaml and env.json. resumed: an entry for env.json's list of that name, or NULL; takes the reference. */
fv_status fv_run_describe(fv_run_folder *run, fv_session *s, json_t *resumed);
/* A row for results.csv; the saver writes it. */
fv_status fv_run_add_row(fv_run_folder *run, fv_ctx *ctx, const fv_epoch_row *row);
/* Forget the rows after so many epochs. */
void fv_run_truncate(fv_run_folder *run, int64_t epochs);
/* weights/<which>/model.safetensors and config.json, from `store`. Nothing of the session changes. */
fv_status fv_run_save(const fv_run_folder *run, fv_ctx *ctx, const fv_session *s, fv_store *store, const char *which,
                      bool ema, int64_t epoch, int64_t step);
/* A file of the folder, of 512 bytes. */
fv_status fv_run_path(const fv_run_folder *run, fv_ctx *ctx, const char *name, char *out);
fv_status fv_run_write_json(fv_run_folder *run, fv_ctx *ctx, const char *name,
                            json_t *object); /* takes the reference */

/* Make a folder and those above it; one that is there is fine. */
fv_status fv_make_folders(fv_ctx *ctx, const char *path);
/* Write an object as indented JSON; takes the reference. */
fv_status fv_write_json(fv_ctx *ctx, const char *path, json_t *object);

#endif
