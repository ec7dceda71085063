/* tables.c: predictions.csv and confusion.csv. */
#include "tools/report/report.h"

#include <stdlib.h>
#include <string.h>

fv_status fv_text_file_open(fv_text_file *f, fv_ctx *ctx) {
    *f = (fv_text_file){0};
    f->to = open_memstream(&f->text, &f->bytes);
    return f->to ? FV_OK : fv_fail_memory(ctx, 4096, "a report");
}

fv_status fv_text_file_close(fv_text_file *f, fv_ctx *ctx, const char *path, fv_status status) {
    bool failed = ferror(f->to) != 0;
    failed |= fclose(f->to) != 0;
    if (status == FV_OK && failed) status = fv_fail_memory(ctx, f->bytes, "a report");
    if (status == FV_OK) status = fv_write_file(ctx, path, f->text, f->bytes);
    free(f->text);
    return status;
}

static void class_name(FILE *to, const fv_evaluation *e, int32_t k) {
    char buf[32];
    fv_text_csv(to, fv_metrics_class_name(e->data, k, buf, sizeof buf));
}

fv_status fv_report_predictions(fv_ctx *ctx, const char *path, const fv_evaluation *e) {
    fv_text_file f;
    FV_TRY(fv_text_file_open(&f, ctx));
    fputs("index,label,label_name,predicted,predicted_name,correct,probability,label_probability,loss\n", f.to);
    for (int64_t i = 0; i < e->count; i++) {
        const fv_sample *s = &e->samples[i];
        fprintf(f.to, "%lld,%d,", (long long)s->index, s->label);
        class_name(f.to, e, s->label);
        fprintf(f.to, ",%d,", s->predicted);
        class_name(f.to, e, s->predicted);
        fprintf(f.to, ",%d,%.6f,%.6f,%.6g\n", s->label == s->predicted, s->p_predicted, s->p_label, s->loss);
    }
    return fv_text_file_close(&f, ctx, path, FV_OK);
}

static void print_confusion(FILE *to, const fv_evaluation *e, const int64_t *matrix, const fv_class_metrics *m) {
    fputs("true\\predicted", to);
    for (int32_t k = 0; k < e->classes; k++) {
        fputc(',', to);
        class_name(to, e, k);
    }
    fputs(",count,precision,recall,f1\n", to);
    for (int32_t i = 0; i < e->classes; i++) {
        class_name(to, e, i);
        for (int32_t j = 0; j < e->classes; j++) fprintf(to, ",%lld", (long long)matrix[(int64_t)i * e->classes + j]);
        fprintf(to, ",%lld,%.6f,%.6f,%.6f\n", (long long)m[i].count, m[i].precision, m[i].recall, m[i].f1);
    }
}

fv_status fv_report_confusion(fv_ctx *ctx, const char *path, const fv_evaluation *e) {
    size_t k = (size_t)e->classes, cells;
    if (!fv_size_mul(k, k, &cells)) return fv_fail_memory(ctx, SIZE_MAX, "the confusion matrix");
    fv_text_file f;
    FV_TRY(fv_text_file_open(&f, ctx));
    int64_t *matrix = fv_alloc(ctx, cells, sizeof *matrix);
    fv_class_metrics *m = fv_alloc(ctx, k, sizeof *m);
    fv_status status = matrix && m ? FV_OK : ctx->error.code;
    if (status == FV_OK) {
        fv_metrics_confusion(e, matrix);
        fv_metrics_by_class(e, m);
        print_confusion(f.to, e, matrix, m);
    }
    fv_free(ctx, matrix, cells, sizeof *matrix);
    fv_free(ctx, m, k, sizeof *m);
    return fv_text_file_close(&f, ctx, path, status);
}

fv_status fv_report_all(fv_ctx *ctx, const char *folder, const fv_evaluation *e, const char *title) {
    char path[600];
    snprintf(path, sizeof path, "%s/predictions.csv", folder);
    FV_TRY(fv_report_predictions(ctx, path, e));
    snprintf(path, sizeof path, "%s/confusion.csv", folder);
    FV_TRY(fv_report_confusion(ctx, path, e));
    snprintf(path, sizeof path, "%s/worst.html", folder);
    return fv_report_worst(ctx, path, e, title);
}
