/* tables.c: predictions.csv, confusion.csv and thresholds.csv. */
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

/* ---------------------------------------------------------------- predictions.csv */

static void print_prediction(FILE *to, const fv_evaluation *e, const fv_sample *s) {
    fprintf(to, ",%d,", s->label);
    class_name(to, e, s->label);
    fprintf(to, ",%d,", s->predicted);
    class_name(to, e, s->predicted);
    fprintf(to, ",%d,%.6f,%.6f,%.6g\n", s->correct, s->p_predicted, s->p_label, s->loss);
}

/* Names of the classes that sample i has, or that were predicted, as one field: "cat|dog". In quotes, since a name may
 * hold anything. */
static void class_set(FILE *to, const fv_evaluation *e, int64_t i, bool predicted) {
    char buf[32];
    bool first = true;
    fputs(",\"", to);
    for (int32_t k = 0; k < e->classes; k++) {
        if (predicted ? e->logits[i * e->classes + k] < 0 : !fv_multilabel_is(e, i, k)) continue;
        if (!first) fputc('|', to);
        first = false;
        for (const char *p = fv_metrics_class_name(e->data, k, buf, sizeof buf); *p; p++) {
            if (*p == '"') fputc('"', to);
            fputc(*p, to);
        }
    }
    fputc('"', to);
}

static void print_label_prediction(FILE *to, const fv_evaluation *e, int64_t i) {
    class_set(to, e, i, false);
    class_set(to, e, i, true);
    fprintf(to, ",%d,%.6g", e->samples[i].correct, e->samples[i].loss);
    for (int32_t k = 0; k < e->classes; k++) fprintf(to, ",%.6g", fv_multilabel_probability(e, i, k));
    fputc('\n', to);
}

static void print_prediction_header(FILE *to, const fv_evaluation *e) {
    fputs(e->data->files ? "index,file," : "index,", to);
    if (!e->multi_label) {
        fputs("label,label_name,predicted,predicted_name,correct,probability,label_probability,loss\n", to);
        return;
    }
    fputs("labels,predicted,correct,loss", to);
    for (int32_t k = 0; k < e->classes; k++) {
        char buf[32], name[300];
        snprintf(name, sizeof name, "p/%s", fv_metrics_class_name(e->data, k, buf, sizeof buf));
        fputc(',', to);
        fv_text_csv(to, name);
    }
    fputc('\n', to);
}

fv_status fv_report_predictions(fv_ctx *ctx, const char *path, const fv_evaluation *e) {
    fv_text_file f;
    FV_TRY(fv_text_file_open(&f, ctx));
    print_prediction_header(f.to, e);
    for (int64_t i = 0; i < e->count; i++) {
        const fv_sample *s = &e->samples[i];
        const char *file = e->data->files ? fv_dataset_file(e->data, s->index) : NULL;
        fprintf(f.to, "%lld", (long long)s->index);
        if (e->data->files) fputc(',', f.to);
        if (file) fv_text_csv(f.to, file);
        if (e->multi_label) print_label_prediction(f.to, e, i);
        else print_prediction(f.to, e, s);
    }
    return fv_text_file_close(&f, ctx, path, FV_OK);
}

/* ---------------------------------------------------------------- several labels, per class */

static void print_counts(FILE *to, const fv_evaluation *e, const fv_label_metrics *m) {
    fputs("class,tp,fp,fn,tn,count,precision,recall,f1\n", to);
    for (int32_t k = 0; k < e->classes; k++) {
        class_name(to, e, k);
        fprintf(to, ",%lld,%lld,%lld,%lld,%lld,%.6f,%.6f,%.6f\n", (long long)m[k].tp, (long long)m[k].fp,
                (long long)m[k].fn, (long long)m[k].tn, (long long)(m[k].tp + m[k].fn), m[k].precision, m[k].recall,
                m[k].f1);
    }
}

/* A class without positives has a name and a count of 0. */
static void print_thresholds(FILE *to, const fv_evaluation *e, const fv_label_metrics *m) {
    fputs("class,count,threshold,precision,recall,f1,average_precision\n", to);
    for (int32_t k = 0; k < e->classes; k++) {
        long long count = (long long)(m[k].tp + m[k].fn);
        class_name(to, e, k);
        if (count)
            fprintf(to, ",%lld,%.9g,%.6f,%.6f,%.6f,%.6f\n", count, m[k].threshold, m[k].best_precision,
                    m[k].best_recall, m[k].best_f1, m[k].average_precision);
        else fputs(",0,,,,,\n", to);
    }
}

/* A file that `print` makes of the figures per class. */
static fv_status report_labels(fv_ctx *ctx, const char *path, const fv_evaluation *e,
                               void (*print)(FILE *to, const fv_evaluation *e, const fv_label_metrics *m)) {
    fv_text_file f;
    size_t k = (size_t)e->classes;
    fv_label_metrics *m = fv_alloc(ctx, k, sizeof *m);
    fv_status status = m ? fv_multilabel_by_class(e, m) : FV_E_MEMORY;
    if (status == FV_OK) status = fv_text_file_open(&f, ctx);
    if (status == FV_OK) {
        print(f.to, e, m);
        status = fv_text_file_close(&f, ctx, path, FV_OK);
    }
    fv_free(ctx, m, k, sizeof *m);
    return status;
}

fv_status fv_report_thresholds(fv_ctx *ctx, const char *path, const fv_evaluation *e) {
    return report_labels(ctx, path, e, print_thresholds);
}

/* ---------------------------------------------------------------- confusion.csv */

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
    if (e->multi_label) return report_labels(ctx, path, e, print_counts);
    if (!fv_size_mul(k, k, &cells)) return fv_fail_memory(ctx, SIZE_MAX, "the confusion matrix");
    fv_text_file f;
    FV_TRY(fv_text_file_open(&f, ctx));
    int64_t *matrix = fv_alloc(ctx, cells, sizeof *matrix);
    fv_class_metrics *m = fv_alloc(ctx, k, sizeof *m);
    fv_status status = matrix && m ? FV_OK : FV_E_MEMORY;
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
    snprintf(path, sizeof path, "%s/thresholds.csv", folder);
    if (e->multi_label) FV_TRY(fv_report_thresholds(ctx, path, e));
    snprintf(path, sizeof path, "%s/worst.html", folder);
    return fv_report_worst(ctx, path, e, title);
}
