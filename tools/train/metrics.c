/* metrics.c: figures per class and of calibration; those of several labels per picture are in multilabel.c. */
#include "tools/train/evaluate.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const char *fv_metrics_class_name(const fv_dataset *d, int32_t k, char *buf, size_t size) {
    if (d->class_names && k < d->classes && d->class_names[k]) return d->class_names[k];
    snprintf(buf, size, "class %d", k);
    return buf;
}

const fv_score_names *fv_score_names_of(bool multi_label) {
    static const fv_score_names one = {"top1", "top5", "ema_top1"}, several = {"mAP", "f1", "ema_mAP"};
    return multi_label ? &several : &one;
}

void fv_metrics_by_class(const fv_evaluation *e, fv_class_metrics *out) {
    memset(out, 0, (size_t)e->classes * sizeof *out);
    for (int64_t i = 0; i < e->count; i++) {
        const fv_sample *s = &e->samples[i];
        out[s->label].count++;
        out[s->predicted].predicted++;
        out[s->label].correct += s->label == s->predicted;
    }
    for (int32_t k = 0; k < e->classes; k++) {
        fv_class_metrics *m = &out[k];
        if (m->predicted) m->precision = (double)m->correct / (double)m->predicted;
        if (m->count) m->recall = (double)m->correct / (double)m->count;
        if (m->correct) m->f1 = 2 * m->precision * m->recall / (m->precision + m->recall);
    }
}

void fv_metrics_confusion(const fv_evaluation *e, int64_t *out) {
    memset(out, 0, (size_t)e->classes * (size_t)e->classes * sizeof *out);
    for (int64_t i = 0; i < e->count; i++) out[(int64_t)e->samples[i].label * e->classes + e->samples[i].predicted]++;
}

double fv_metrics_ece(const fv_evaluation *e) {
    enum { BINS = 15 };
    double confidence[BINS] = {0}, correct[BINS] = {0}, ece = 0;
    for (int64_t i = 0; i < e->count; i++) {
        const fv_sample *s = &e->samples[i];
        int bin = (int)ceil(s->p_predicted * BINS) - 1; /* bins are (a, b] */
        bin = bin < 0 ? 0 : bin >= BINS ? BINS - 1 : bin;
        confidence[bin] += s->p_predicted;
        correct[bin] += s->label == s->predicted;
    }
    for (int b = 0; b < BINS; b++) ece += fabs(confidence[b] - correct[b]);
    return e->count ? ece / (double)e->count : 0;
}

static json_t *per_class_json(const fv_evaluation *e) {
    fv_class_metrics *m = fv_alloc(e->ctx, (size_t)e->classes, sizeof *m);
    json_t *list = m ? json_array() : NULL;
    if (list) {
        fv_metrics_by_class(e, m);
        for (int32_t k = 0; list && k < e->classes; k++) {
            char buf[32];
            fv_json_add(&list, json_pack("{s:s, s:I, s:I, s:o, s:o, s:o}", "class",
                                         fv_metrics_class_name(e->data, k, buf, sizeof buf), "count",
                                         (json_int_t)m[k].count, "predicted", (json_int_t)m[k].predicted, "precision",
                                         fv_json_number(m[k].precision, 6), "recall", fv_json_number(m[k].recall, 6),
                                         "f1", fv_json_number(m[k].f1, 6)));
        }
    }
    fv_free(e->ctx, m, (size_t)e->classes, sizeof *m);
    return list;
}

/* The same with several labels; a class without positives has no average precision. */
static json_t *per_label_json(const fv_evaluation *e) {
    fv_label_metrics *m = fv_alloc(e->ctx, (size_t)e->classes, sizeof *m);
    json_t *list = m && fv_multilabel_by_class(e, m) == FV_OK ? json_array() : NULL;
    for (int32_t k = 0; list && k < e->classes; k++) {
        char buf[32];
        fv_json_add(&list, json_pack("{s:s, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o}", "class",
                                     fv_metrics_class_name(e->data, k, buf, sizeof buf), "tp", (json_int_t)m[k].tp,
                                     "fp", (json_int_t)m[k].fp, "fn", (json_int_t)m[k].fn, "tn", (json_int_t)m[k].tn,
                                     "precision", fv_json_number(m[k].precision, 6), "recall",
                                     fv_json_number(m[k].recall, 6), "f1", fv_json_number(m[k].f1, 6),
                                     "average_precision", fv_json_number(m[k].average_precision, 6)));
    }
    if (m) fv_free(e->ctx, m, (size_t)e->classes, sizeof *m);
    return list;
}

static json_t *multilabel_json(const fv_evaluation *e, bool classes) {
    json_t *o = json_pack("{s:o, s:o, s:o, s:o, s:o, s:I, s:o, s:s}", "mAP", fv_json_number(e->map, 9), "micro_f1",
                          fv_json_number(e->micro_f1, 9), "macro_f1", fv_json_number(e->macro_f1, 9), "exact_match",
                          fv_json_number(e->exact, 9), "loss", fv_json_number(e->loss, 9), "count",
                          (json_int_t)e->count, "images_per_s",
                          fv_json_number(e->seconds > 0 ? (double)e->count / e->seconds : 0, 6), "tta", e->tta->name);
    if (classes) fv_json_set(&o, "per_class", per_label_json(e));
    return o;
}

json_t *fv_metrics_json(const fv_evaluation *e, bool classes) {
    if (e->multi_label) return multilabel_json(e, classes);
    json_t *o = json_pack("{s:o, s:o, s:o, s:I, s:o, s:o, s:s}", "top1", fv_json_number(e->top1, 9), "top5",
                          fv_json_number(e->top5, 9), "loss", fv_json_number(e->loss, 9), "count", (json_int_t)e->count,
                          "ece", fv_json_number(fv_metrics_ece(e), 6), "images_per_s",
                          fv_json_number(e->seconds > 0 ? (double)e->count / e->seconds : 0, 6), "tta", e->tta->name);
    if (classes) fv_json_set(&o, "per_class", per_class_json(e));
    return o;
}

const char *fv_evaluation_text(const fv_evaluation *e, char *buf, size_t size) {
    if (e->multi_label)
        snprintf(buf, size, "mAP %.2f%%  f1 %.2f%%  exact %.2f%%  loss %.4f", 100 * e->map, 100 * e->micro_f1,
                 100 * e->exact, e->loss);
    else snprintf(buf, size, "top1 %.2f%%  top5 %.2f%%  loss %.4f", 100 * e->top1, 100 * e->top5, e->loss);
    return buf;
}
