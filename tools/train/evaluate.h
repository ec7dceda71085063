/* evaluate.h: run a model over samples; figures from what came out. */
#ifndef FV_TOOLS_TRAIN_EVALUATE_H
#define FV_TOOLS_TRAIN_EVALUATE_H

#include "tools/train/session.h"

typedef struct fv_sample { /* one evaluated picture */
    int64_t index;         /* into the data set */
    int32_t label, predicted;
    bool in_top5;
    double p_label, p_predicted; /* softmax */
    double loss;
} fv_sample;

typedef struct fv_evaluation {
    fv_ctx *ctx;
    const fv_dataset *data;
    int32_t classes;
    int64_t count;
    fv_sample *samples;      /* [count], in order */
    int64_t capacity;        /* of samples */
    double loss, top1, top5; /* means over the samples; accuracies from 0 to 1 */
    double seconds;
    bool interrupted; /* a signal came: the figures are not complete */
} fv_evaluation;

/* Over d[index[0..n)] (index NULL: all n). FV_E_NUMERIC if an output is not finite. Free with fv_evaluation_free. */
fv_status fv_evaluate(fv_session *s, fv_program *program, const fv_dataset *d, const int64_t *index, int64_t n,
                      fv_evaluation *out);
void fv_evaluation_free(fv_evaluation *e);

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
/* {top1, top5, loss, count, ece} and, if `classes`, per_class. */
json_t *fv_metrics_json(const fv_evaluation *e, bool classes);

#endif
