/* multilabel.c: figures where a picture may have several labels: each class is a decision of its own. */
#include "tools/train/evaluate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool fv_multilabel_is(const fv_evaluation *e, int64_t sample, int32_t k) {
    const fv_dataset *d = e->data;
    return d->targets[e->samples[sample].index * d->classes + k] != 0;
}

double fv_multilabel_probability(const fv_evaluation *e, int64_t sample, int32_t k) {
    return 1 / (1 + exp(-(double)e->logits[sample * e->classes + k]));
}

/* A picture's score for one class, to be ranked. */
typedef struct ranked {
    float logit;
    bool positive;
} ranked;

static int falling(const void *a, const void *b) {
    float x = ((const ranked *)a)->logit, y = ((const ranked *)b)->logit;
    return (x < y) - (x > y);
}

static double ratio(double a, double b) {
    return b > 0 ? a / b : 0;
}

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

static void count_at_half(const ranked *r, int64_t n, fv_label_metrics *m) {
    for (int64_t i = 0; i < n; i++) {
        bool predicted = r[i].logit >= 0;
        if (r[i].positive) *(predicted ? &m->tp : &m->fn) += 1;
        else *(predicted ? &m->fp : &m->tn) += 1;
    }
    m->precision = ratio((double)m->tp, (double)(m->tp + m->fp));
    m->recall = ratio((double)m->tp, (double)(m->tp + m->fn));
    m->f1 = ratio(2 * (double)m->tp, (double)(2 * m->tp + m->fp + m->fn));
}

/* Down the ranking, one threshold per distinct score: pictures with the same score are taken together. A threshold lies
 * half way to the next score, so that rounding it changes nothing. */
static void sweep(const ranked *r, int64_t n, fv_label_metrics *m) {
    double positives = (double)(m->tp + m->fn), taken = 0;
    m->average_precision = m->threshold = m->best_precision = m->best_recall = m->best_f1 = NAN;
    if (positives == 0) return;
    m->average_precision = m->best_f1 = 0;
    for (int64_t i = 0; i < n;) {
        float score = r[i].logit;
        double before = taken;
        for (; i < n && r[i].logit == score; i++) taken += r[i].positive;
        double precision = taken / (double)i, recall = taken / positives, f1 = 2 * taken / ((double)i + positives);
        m->average_precision += (taken - before) / positives * precision;
        if (!(f1 > m->best_f1)) continue;
        m->best_f1 = f1, m->best_precision = precision, m->best_recall = recall;
        m->threshold = i < n ? (sigmoid(score) + sigmoid(r[i].logit)) / 2 : 0;
    }
}

fv_status fv_multilabel_by_class(const fv_evaluation *e, fv_label_metrics *out) {
    size_t n = (size_t)e->count;
    ranked *r = fv_alloc(e->ctx, n + 1, sizeof *r);
    if (!r) return e->ctx->error.code;
    memset(out, 0, (size_t)e->classes * sizeof *out);
    for (int32_t k = 0; k < e->classes; k++) {
        for (int64_t i = 0; i < e->count; i++)
            r[i] = (ranked){e->logits[i * e->classes + k], fv_multilabel_is(e, i, k)};
        qsort(r, n, sizeof *r, falling);
        count_at_half(r, e->count, &out[k]);
        sweep(r, e->count, &out[k]);
    }
    fv_free(e->ctx, r, n + 1, sizeof *r);
    return FV_OK;
}

fv_status fv_multilabel_summarise(fv_evaluation *e) {
    fv_label_metrics *m = fv_alloc(e->ctx, (size_t)e->classes, sizeof *m);
    if (!m) return e->ctx->error.code;
    fv_status status = fv_multilabel_by_class(e, m);
    double precision = 0, f1 = 0, tp = 0, wrong = 0, there = 0;
    for (int32_t k = 0; status == FV_OK && k < e->classes; k++) {
        tp += (double)m[k].tp;
        wrong += (double)(m[k].fp + m[k].fn);
        if (m[k].tp + m[k].fn == 0) continue;
        precision += m[k].average_precision;
        f1 += m[k].f1;
        there++;
    }
    e->map = ratio(precision, there);
    e->macro_f1 = ratio(f1, there);
    e->micro_f1 = ratio(2 * tp, 2 * tp + wrong);
    fv_free(e->ctx, m, (size_t)e->classes, sizeof *m);
    return status;
}
