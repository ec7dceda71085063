/* report.h: files about an evaluation. */
#ifndef FV_TOOLS_REPORT_REPORT_H
#define FV_TOOLS_REPORT_REPORT_H

#include "tools/train/evaluate.h"

/* predictions.csv: index,label,label_name,predicted,predicted_name,correct,probability,label_probability,loss; with
 * several labels: index,labels,predicted,correct,loss, then p/CLASS for each class. `file` behind index where pictures
 * are files. */
fv_status fv_report_predictions(fv_ctx *ctx, const char *path, const fv_evaluation *e);
/* confusion.csv: a row per true class, a column per predicted one, then count, precision, recall, f1; with several
 * labels a row per class: class,tp,fp,fn,tn,count,precision,recall,f1. */
fv_status fv_report_confusion(fv_ctx *ctx, const char *path, const fv_evaluation *e);
/* thresholds.csv, several labels only: class,count,threshold,precision,recall,f1,average_precision at the threshold of
 * the best F1. */
fv_status fv_report_thresholds(fv_ctx *ctx, const char *path, const fv_evaluation *e);
/* worst.html: the pictures with the largest loss, in one file that needs no other. */
fv_status fv_report_worst(fv_ctx *ctx, const char *path, const fv_evaluation *e, const char *title);
/* All of them into a folder. */
fv_status fv_report_all(fv_ctx *ctx, const char *folder, const fv_evaluation *e, const char *title);

/* png.c. A picture [h,w,c] of bytes (1: grey, 2: grey and alpha, 3: colour, 4: colour and alpha) as PNG; free with
 * free(). */
fv_status fv_png_encode(fv_ctx *ctx, const uint8_t *pixels, int32_t h, int32_t w, int32_t c, void **png, size_t *bytes);
/* Append data as base64. */
void fv_base64_write(FILE *to, const void *data, size_t bytes);

/* A file composed in memory and then written whole: open, print to `to`, close. */
typedef struct fv_text_file {
    char *text;
    size_t bytes;
    FILE *to;
} fv_text_file;
fv_status fv_text_file_open(fv_text_file *f, fv_ctx *ctx);
/* `status` is that of what was printed; nothing is written unless it is FV_OK. */
fv_status fv_text_file_close(fv_text_file *f, fv_ctx *ctx, const char *path, fv_status status);

#endif
