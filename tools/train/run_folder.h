/* run_folder.h: runs/NAME[-N]/ and what lies in it. */
#ifndef FV_TOOLS_TRAIN_RUN_FOLDER_H
#define FV_TOOLS_TRAIN_RUN_FOLDER_H

#include "tools/train/evaluate.h"

typedef struct fv_run_folder {
    char path[400];
    FILE *results; /* results.csv */
} fv_run_folder;

/* One row of results.csv; NAN leaves a field empty. */
typedef struct fv_epoch_row {
    int64_t epoch; /* 1-based */
    double time;   /* seconds since training began */
    double train_loss, top1, top5, val_loss, lr, train_top1, ema_top1, images_per_s, mem_gb;
} fv_epoch_row;

/* Make the folder (--output, --name; -2, -3, ... if taken), results.csv and log.txt. */
fv_status fv_run_create(fv_run_folder *run, fv_session *s);
void fv_run_close(fv_run_folder *run);
/* args.yaml and env.json */
fv_status fv_run_describe(fv_run_folder *run, fv_session *s);
fv_status fv_run_add_row(fv_run_folder *run, fv_ctx *ctx, const fv_epoch_row *row);
/* weights/<which>/model.safetensors and config.json */
fv_status fv_run_save(fv_run_folder *run, fv_session *s, const char *which, bool ema, int64_t epoch, int64_t step);
/* A file of the folder, of 512 bytes. */
fv_status fv_run_path(const fv_run_folder *run, fv_ctx *ctx, const char *name, char *out);
fv_status fv_run_write_json(fv_run_folder *run, fv_ctx *ctx, const char *name,
                            json_t *object); /* takes the reference */

/* Make a folder and those above it; one that is there is fine. */
fv_status fv_make_folders(fv_ctx *ctx, const char *path);
/* Write an object as indented JSON; takes the reference. */
fv_status fv_write_json(fv_ctx *ctx, const char *path, json_t *object);

#endif
