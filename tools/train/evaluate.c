#include "tools/train/evaluate.h"
#include "tools/train/signals.h"

#include <math.h>
#include <string.h>

/* Fill a sample of one label from its logits [classes], which are finite. `loss`: its loss, too. */
static void judge(fv_sample *sample, const double *logits, int32_t classes, bool loss) {
    double max = -INFINITY, sum = 0;
    for (int32_t k = 0; k < classes; k++)
        if (logits[k] > max) max = logits[k], sample->predicted = k;
    int32_t before = 0; /* classes ranked above the right one; the lower number goes first among equals */
    double right = logits[sample->label];
    for (int32_t k = 0; k < classes; k++) {
        sum += exp(logits[k] - max);
        before += logits[k] > right || (logits[k] == right && k < sample->label);
    }
    sample->in_top5 = before < 5;
    sample->p_label = exp(right - max) / sum;
    sample->p_predicted = 1 / sum;
    sample->correct = sample->predicted == sample->label;
    if (loss) sample->loss = log(sum) - (right - max);
}

/* Keep the logits, and see whether all their signs are as the targets ask. `loss`: its mean over the classes, too. */
static void judge_labels(fv_evaluation *e, int64_t i, const double *logits, bool loss) {
    double sum = 0;
    e->samples[i].correct = true;
    for (int32_t k = 0; k < e->classes; k++) {
        float logit = e->logits[i * e->classes + k] = (float)logits[k];
        bool there = fv_multilabel_is(e, i, k);
        if ((logit >= 0) != there) e->samples[i].correct = false;
        sum += log1p(exp(-fabs(logits[k]))) + fmax(there ? -logits[k] : logits[k], 0);
    }
    if (loss) e->samples[i].loss = sum / e->classes;
}

static bool all_finite(const double *x, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i])) return false;
    return true;
}

typedef struct scratch {              /* of one batch */
    double *logits, *view, *row_loss; /* averaged; of one view; of the last view */
    float *record;
    size_t n_logits, n_rows;
} scratch;

/* The batch in each view, into w->logits. */
static fv_status run_views(fv_session *s, fv_program *program, const fv_batch *batch, scratch *w, const fv_tta *tta) {
    fv_step step = {.seed = (uint64_t)fv_cli_int(s->cli, OPT_SEED), .loss_scale = 1};
    fv_batch shown = *batch;
    shown.record = w->record; /* an evaluation's own are plain */
    for (int v = 0; v < tta->views; v++) {
        fv_tta_record(&tta->view[v], batch->size, w->record);
        FV_TRY(fv_network_feed(s->ctx, program, &s->net, &shown));
        FV_TRY(fv_program_run(program, &step, FV_ALL_SEGMENTS));
        FV_TRY(fv_network_output(s->ctx, program, "logits", w->view, (int64_t)w->n_logits));
        fv_tta_add(tta, v, w->view, (int64_t)w->n_logits, w->logits);
    }
    return fv_network_output(s->ctx, program, "row_loss", w->row_loss, (int64_t)w->n_rows);
}

static fv_status run_batch(fv_session *s, fv_program *program, const fv_batch *batch, scratch *w, fv_evaluation *e) {
    bool averaged = e->tta->views > 1; /* the program knows the loss of one view only */
    FV_TRY(run_views(s, program, batch, w, e->tta));
    for (int64_t r = 0; r < batch->valid; r++) {
        const double *logits = w->logits + r * e->classes;
        fv_sample *sample = &e->samples[e->count++];
        *sample = (fv_sample){.index = batch->index[r], .label = batch->labels[r], .loss = w->row_loss[r]};
        if (!all_finite(logits, e->classes) || !isfinite(sample->loss))
            return fv_fail(s->ctx, FV_E_NUMERIC, "the model's output for picture %lld of '%s' is not finite",
                           (long long)sample->index, e->data->name);
        if (e->multi_label) judge_labels(e, e->count - 1, logits, averaged);
        else judge(sample, logits, e->classes, averaged);
    }
    return FV_OK;
}

static fv_status run_loader(fv_session *s, fv_program *program, fv_loader *loader, int64_t n, scratch *w,
                            fv_evaluation *e) {
    FV_TRY(fv_loader_start(loader, 0, 0));
    for (;;) {
        fv_batch batch;
        FV_TRY(fv_loader_next(loader, &batch));
        if (batch.size == 0) return FV_OK;
        if (fv_signal_pending()) {
            e->interrupted = true;
            return FV_OK;
        }
        if (e->count + batch.valid > n)
            return fv_fail(s->ctx, FV_E_INTERNAL, "the loader gave more samples than there are");
        FV_TRY(run_batch(s, program, &batch, w, e));
        fv_console_bar(s->con, fv_tool_now(), "evaluating  %lld/%lld", (long long)e->count, (long long)n);
    }
}

static fv_status summarise(fv_evaluation *e) {
    int64_t correct = 0, top5 = 0;
    double loss = 0;
    for (int64_t i = 0; i < e->count; i++) {
        correct += e->samples[i].correct;
        top5 += e->samples[i].in_top5;
        loss += e->samples[i].loss;
    }
    double n = e->count ? (double)e->count : 1;
    e->loss = loss / n;
    if (e->multi_label) {
        e->exact = (double)correct / n;
        FV_TRY(fv_multilabel_summarise(e));
        e->score = e->map, e->second = e->micro_f1;
    } else {
        e->score = e->top1 = (double)correct / n;
        e->second = e->top5 = (double)top5 / n;
    }
    return FV_OK;
}

static fv_status evaluate_with(fv_session *s, fv_program *program, const int64_t *index, int64_t n, scratch *w,
                               fv_evaluation *e) {
    fv_loader_cfg cfg = {.batch = s->net.batch,
                         .seed = (uint64_t)fv_cli_int(s->cli, OPT_SEED),
                         .workers = (int)fv_cli_int(s->cli, OPT_WORKERS)};
    fv_loader *loader = NULL;
    if (!w->logits || !w->view || !w->row_loss || !w->record || !e->samples || (e->multi_label && !e->logits))
        return s->ctx->error.code;
    FV_TRY(fv_loader_create(s->ctx, e->data, index, n, &cfg, &loader));
    fv_status status = run_loader(s, program, loader, n, w, e);
    fv_loader_destroy(loader);
    return status;
}

fv_status fv_evaluate(fv_session *s, fv_program *program, const fv_dataset *d, const int64_t *index, int64_t n,
                      const fv_tta *tta, fv_evaluation *out) {
    double start = fv_tool_now();
    scratch w = {.n_logits = (size_t)(s->net.batch * s->net.cfg.num_classes), .n_rows = (size_t)s->net.batch};
    if (!index) n = d->count;
    *out = (fv_evaluation){.ctx = s->ctx,
                           .data = d,
                           .classes = (int32_t)s->net.cfg.num_classes,
                           .capacity = n + 1,
                           .tta = tta,
                           .multi_label = s->net.multi_label};
    w.logits = fv_alloc(s->ctx, w.n_logits, sizeof *w.logits);
    w.view = fv_alloc(s->ctx, w.n_logits, sizeof *w.view);
    w.row_loss = fv_alloc(s->ctx, w.n_rows, sizeof *w.row_loss);
    w.record = fv_alloc(s->ctx, w.n_rows, FV_AUG_FIELDS * sizeof *w.record);
    out->samples = fv_calloc(s->ctx, (size_t)out->capacity, sizeof *out->samples);
    if (out->multi_label)
        out->logits = fv_alloc(s->ctx, (size_t)out->capacity, (size_t)out->classes * sizeof *out->logits);
    fv_status status = evaluate_with(s, program, index, n, &w, out);
    fv_free(s->ctx, w.logits, w.n_logits, sizeof *w.logits);
    fv_free(s->ctx, w.view, w.n_logits, sizeof *w.view);
    fv_free(s->ctx, w.row_loss, w.n_rows, sizeof *w.row_loss);
    fv_free(s->ctx, w.record, w.n_rows, FV_AUG_FIELDS * sizeof *w.record);
    out->seconds = fv_tool_now() - start;
    if (status == FV_OK) status = summarise(out);
    if (status != FV_OK) fv_evaluation_free(out);
    return status;
}

void fv_evaluation_free(fv_evaluation *e) {
    if (e->samples) fv_free(e->ctx, e->samples, (size_t)e->capacity, sizeof *e->samples);
    if (e->logits) fv_free(e->ctx, e->logits, (size_t)e->capacity, (size_t)e->classes * sizeof *e->logits);
    e->samples = NULL;
    e->logits = NULL;
}
