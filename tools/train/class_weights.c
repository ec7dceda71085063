#include "tools/train/class_weights.h"
#include "tools/train/evaluate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NAMED = 3 }; /* so many classes are named in a message, the others counted */

/* Training pictures of each class; [num_classes]. */
static void count_pictures(const fv_session *s, int64_t *count) {
    const fv_dataset *d = s->train;
    for (int64_t i = 0; i < s->n_train; i++) {
        int64_t sample = s->train_index[i];
        if (!d->targets) {
            if (d->labels[sample] >= 0) count[d->labels[sample]]++;
            continue;
        }
        for (int32_t k = 0; k < d->classes; k++) count[k] += d->targets[sample * d->classes + k] != 0;
    }
}

static void warn_of_empty(const fv_session *s, const int64_t *count, int64_t classes) {
    char names[256] = "", buf[32];
    size_t used = 0;
    int64_t empty = 0;
    for (int64_t k = 0; k < classes; k++) {
        if (count[k] || empty++ >= NAMED || used >= sizeof names) continue;
        used += (size_t)snprintf(names + used, sizeof names - used, "%s'%s'", empty > 1 ? ", " : "",
                                 fv_metrics_class_name(s->train, (int32_t)k, buf, sizeof buf));
    }
    if (!empty) return;
    fv_console_warn(s->con, "--class-weights: %lld class%s no training pictures (%s%s)", (long long)empty,
                    empty == 1 ? " has" : "es have", names, empty > NAMED ? ", ..." : "");
}

static void balance(const fv_session *s, const int64_t *count, int64_t classes, double *weight) {
    double sum = 0;
    int64_t there = 0;
    for (int64_t k = 0; k < classes; k++) {
        double with = (double)count[k], without = (double)(s->n_train - count[k]);
        if (s->net.multi_label) weight[k] = with > 0 && without > 0 ? without / with : 1;
        else weight[k] = with > 0 ? 1 / with : 0;
        sum += weight[k];
        there += with > 0;
    }
    for (int64_t k = 0; k < classes && !s->net.multi_label; k++) weight[k] *= (double)there / sum;
}

/* "1,2.5,0": checked with the other options but for how many there are. */
static fv_status read_list(const fv_session *s, const char *text, int64_t classes, double *weight) {
    int64_t n = 1;
    for (const char *p = text; *p; p++) n += *p == ',';
    if (n != classes) {
        fv_fail(s->ctx, FV_E_USAGE, "--class-weights has %lld numbers, the model has %lld classes", (long long)n,
                (long long)classes);
        return fv_hint(s->ctx, "one per class, in the order of confusion.csv; or 'balanced'");
    }
    for (int64_t k = 0; k < classes; k++) {
        char *end;
        weight[k] = strtod(text, &end);
        text = *end ? end + 1 : end;
    }
    return FV_OK;
}

/* What logits of 0 cost: ln K whatever the weights; several labels: ln 2 per class, more where it is there and weighs
 * more. */
static double loss_of_guessing(const fv_session *s, const int64_t *count, int64_t classes, const double *weight) {
    if (!s->net.multi_label) return log((double)classes);
    double sum = 0;
    for (int64_t k = 0; k < classes; k++)
        sum += 1 + (weight ? weight[k] - 1 : 0) * (double)count[k] / (double)(s->n_train ? s->n_train : 1);
    return log(2) * sum / (double)classes;
}

static fv_status configure(fv_session *s, int64_t *count) {
    const char *text = fv_session_overfits(s) ? NULL : fv_cli_text(s->cli, OPT_CLASS_WEIGHTS);
    int64_t classes = s->net.cfg.num_classes;
    double *weight = NULL;
    count_pictures(s, count);
    if (text) {
        weight = fv_arena_alloc(&s->arena, (size_t)classes, sizeof *weight);
        if (!weight) return s->ctx->error.code;
        warn_of_empty(s, count, classes);
        if (!strcmp(text, "balanced")) balance(s, count, classes, weight);
        else FV_TRY(read_list(s, text, classes, weight));
    }
    s->net.class_weight = weight;
    s->net.guess_loss = loss_of_guessing(s, count, classes, weight);
    return FV_OK;
}

fv_status fv_class_weights_configure(fv_session *s) {
    size_t classes = (size_t)s->net.cfg.num_classes;
    int64_t *count = fv_calloc(s->ctx, classes, sizeof *count);
    if (!count) return s->ctx->error.code;
    fv_status status = configure(s, count);
    fv_free(s->ctx, count, classes, sizeof *count);
    return status;
}
