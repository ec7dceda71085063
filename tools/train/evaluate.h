/* evaluate.h: run a model over samples; figures from what came out. */
#ifndef FV_TOOLS_TRAIN_EVALUATE_H
#define FV_TOOLS_TRAIN_EVALUATE_H

#include "tools/train/session.h"
#include "tools/train/tta.h"

typedef struct fv_sample { /* one evaluated picture */
    int64_t index;         /* into the data set */
    double loss;
    bool correct; /* the likeliest class is the label; several labels: each class is rightly there or not */
    /* one label */
    bool in_top5;
    int32_t label, predicted;
    double p_label, p_predicted; /* softmax */
} fv_sample;

typedef struct fv_evaluation {
    fv_ctx *ctx;
    const fv_dataset *data;
    int32_t classes;
    int64_t count;
    fv_sample *samples;   /* [count], in order */
    int64_t capacity;     /* of samples */
    const fv_tta *tta;    /* the views that were averaged */
    bool multi_label;     /* several labels per picture */
    float *logits;        /* [count,classes], with several labels; else NULL */
    double loss;          /* mean over the samples */
    double score, second; /* what the best epoch is chosen by, and beside it: top1 and top5, or mAP and micro F1 */
    double top1, top5;    /* one label: accuracies from 0 to 1 */
    double map, micro_f1, macro_f1, exact; /* several labels (fv_label_metrics); share of pictures with all right */
    double seconds;
    bool interrupted; /* a signal came: the figures are not complete */
} fv_evaluation;

/* Over d[index[0..n)] (index NULL: all n), each picture in the views of `tta`. FV_E_NUMERIC if an output is not finite.
 * Free with fv_evaluation_free. */
fv_status fv_evaluate(fv_session *s, fv_program *program, const fv_dataset *d, const int64_t *index, int64_t n,
                      const fv_tta *tta, fv_evaluation *out);
void fv_evaluation_free(fv_evaluation *e);

/* What the two scores are called in JSON and on the console, and the first one of the averaged weights in JSON. */
typedef struct fv_score_names {
    const char *score, *second, *ema;
} fv_score_names;
const fv_score_names *fv_score_names_of(bool multi_label);

/* metrics.c */
typedef struct fv_class_metrics {
    int64_t count, predicted, correct;
    double precision, recall, f1; /* 0 where there is nothing to divide by */
} fv_class_metrics;
/* classes of them. */
void fv_metrics_by_class(const fv_evaluation *e, fv_class_metrics *out);
/* out[label * classes + predicted] */
void fv_metrics_confusion(const fv_evaluation *e, int64_t *out);
/* Expected calibration error, 15 bins of equal width (Guo et al. 2017). */
double fv_metrics_ece(const fv_evaluation *e);
/* Name of a class; "class 12" into buf where the data set has none. */
const char *fv_metrics_class_name(const fv_dataset *d, int32_t k, char *buf, size_t size);
/* The figures in a line: "top1 91.20%  top5 99.70%  loss 0.2931", "mAP 71.30%  f1 68.02%  exact 41.00%  loss 0.1204".
 */
const char *fv_evaluation_text(const fv_evaluation *e, char *buf, size_t size);
/* {top1, top5, loss, count, ece, tta} or {mAP, micro_f1, macro_f1, exact_match, loss, count, tta}; if `classes`,
 * per_class. */
json_t *fv_metrics_json(const fv_evaluation *e, bool classes);

/* multilabel.c: several labels per picture */
typedef struct fv_label_metrics {
    int64_t tp, fp, fn, tn;       /* at a probability of 0.5 */
    double precision, recall, f1; /* there; 0 where there is nothing to divide by */
    double average_precision;     /* sum of (recall step) * precision over the thresholds; NAN without positives */
    /* where F1 is best, the highest such: all of it NAN without positives */
    double threshold, best_precision, best_recall, best_f1;
} fv_label_metrics;
/* classes of them. */
fv_status fv_multilabel_by_class(const fv_evaluation *e, fv_label_metrics *out);
/* mAP and macro F1 (means over the classes with positives), micro F1 (of all decisions together) and exact matches. */
fv_status fv_multilabel_summarise(fv_evaluation *e);
/* Whether a sample has class k, and the model's probability for it. */
bool fv_multilabel_is(const fv_evaluation *e, int64_t sample, int32_t k);
double fv_multilabel_probability(const fv_evaluation *e, int64_t sample, int32_t k);

#endif
