/* eval.c: the command `eval`. */
#include "tools/report/report.h"
#include "tools/train/run_folder.h"
#include "tools/train/source.h"

#include <string.h>

/* The positional argument, if there is one, into options and weights. */
static fv_status take_model(fv_session *s) {
    fv_cli *cli = s->cli;
    if (cli->positionals) {
        fv_model_source source;
        FV_TRY(fv_model_source_find(s->ctx, &s->arena, cli->positional[0], fv_cli_text(cli, OPT_WEIGHTS), &source));
        FV_TRY(fv_model_source_apply(&source, cli, true));
        memcpy(s->weights, source.weights, sizeof s->weights);
        if (!source.has_config && cli->value[OPT_MODEL].source <= FV_FROM_DEFAULT) {
            fv_fail_at(s->ctx, FV_E_USAGE, source.weights, -1,
                       "there is no config.json beside it that names the model");
            return fv_hint(s->ctx, "give --model NAME; 'fovea models' lists the names");
        }
    } else if (!fv_cli_has(cli, OPT_PRETRAINED)) {
        fv_fail(s->ctx, FV_E_USAGE, "no model given");
        return fv_hint(s->ctx, "'fovea eval runs/train', or 'fovea eval --model NAME --pretrained FILE --data NAME'");
    }
    if (!fv_cli_has(cli, OPT_DATA)) {
        fv_fail(s->ctx, FV_E_USAGE, "no data set given: --data NAME");
        return fv_hint(s->ctx, "only a run folder says what it was trained on");
    }
    return FV_OK;
}

static fv_status open_split(fv_session *s, const char *split, const fv_dataset **d, const int64_t **index, int64_t *n) {
    bool test = !strcmp(split, "test"), val = !strcmp(split, "val");
    FV_TRY(test ? fv_session_open_test(s) : fv_session_open_train(s));
    FV_TRY(fv_session_configure(s));
    *d = test ? s->test : s->train;
    *index = test ? s->test_index : val ? s->val_index : s->train_index;
    *n = test ? s->n_test : val ? s->n_val : s->n_train;
    if (*n) return FV_OK;
    if (test) {
        fv_fail_at(s->ctx, FV_E_DATA, s->test->path, -1, "it has no test pictures");
        return fv_hint(s->ctx, "'--split val' evaluates those that are held out of training");
    }
    fv_fail(s->ctx, FV_E_USAGE, "the %s split is empty", split);
    return fv_hint(
        s->ctx, val ? "--val-split says how much of the training set is held out; it is %s here" : "--val-split is %s",
        fv_cli_text(s->cli, OPT_VAL_SPLIT));
}

static int64_t count_correct(const fv_evaluation *e) {
    int64_t correct = 0;
    for (int64_t i = 0; i < e->count; i++) correct += e->samples[i].correct;
    return correct;
}

static json_t *result_json(const fv_session *s, const fv_evaluation *e, const char *split) {
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I}", "event", "done", "model", s->net.model->name, "weights",
                          s->weights, "data", e->data->name, "split", split, "correct", (json_int_t)count_correct(e));
    fv_json_merge(&o, fv_metrics_json(e, false));
    return o;
}

static fv_status write_reports(fv_session *s, const fv_evaluation *e, const char *split) {
    const char *folder = fv_cli_text(s->cli, OPT_SAVE_TO);
    char title[200], path[600];
    if (!folder) return FV_OK;
    FV_TRY(fv_make_folders(s->ctx, folder));
    snprintf(title, sizeof title, "%s on %s, %s", s->net.model->name, e->data->name, split);
    FV_TRY(fv_report_all(s->ctx, folder, e, title));
    snprintf(path, sizeof path, "%s/metrics.json", folder);
    FV_TRY(fv_write_json(s->ctx, path, fv_metrics_json(e, true)));
    fv_console_say(s->con, "saved  predictions.csv, confusion.csv,%s metrics.json and worst.html in %s",
                   e->multi_label ? " thresholds.csv," : "", folder);
    return FV_OK;
}

static fv_status check_gate(fv_session *s, const fv_evaluation *e) {
    if (!fv_cli_has(s->cli, OPT_MIN_TOP1) || e->top1 >= fv_cli_float(s->cli, OPT_MIN_TOP1)) return FV_OK;
    return fv_fail(s->ctx, FV_E_GATE, "top-1 accuracy %.4f is below --min-top1 %s", e->top1,
                   fv_cli_text(s->cli, OPT_MIN_TOP1));
}

static fv_status show(fv_session *s, const fv_evaluation *e, const char *split) {
    char figures[160], views[32] = "";
    if (e->tta->views > 1) snprintf(views, sizeof views, ", tta %s", e->tta->name);
    fv_console_result(s->con, "%-6s %s  (%lld of %lld pictures right, %.0f img/s%s)", split,
                      fv_evaluation_text(e, figures, sizeof figures), (long long)count_correct(e), (long long)e->count,
                      e->seconds > 0 ? (double)e->count / e->seconds : 0, views);
    FV_TRY(fv_console_json(s->con, s->ctx, result_json(s, e, split)));
    FV_TRY(write_reports(s, e, split));
    return check_gate(s, e);
}

static fv_status evaluate(fv_session *s) {
    const char *split = fv_cli_text(s->cli, OPT_SPLIT);
    const fv_dataset *d = NULL;
    const int64_t *index = NULL;
    int64_t n = 0;
    char params[24];
    fv_evaluation e;
    FV_TRY(take_model(s));
    FV_TRY(open_split(s, split, &d, &index, &n));
    if (s->net.multi_label && fv_cli_has(s->cli, OPT_MIN_TOP1))
        return fv_fail(s->ctx, FV_E_USAGE, "--min-top1 is for sets with one label per picture; '%s' has several",
                       d->name);
    FV_TRY(fv_session_open_device(s));
    FV_TRY(fv_session_build_eval(s));
    fv_console_say(s->con, "fovea %s · %s · %s params · %s · %s · %s", FV_VERSION, s->net.model->name,
                   fv_text_si((double)s->size.params, params, sizeof params), s->device->text,
                   fv_cli_text(s->cli, OPT_PRECISION), s->weights);
    fv_console_detail(s->con, "input  %s, %s split, %lldx%lld, mean %s, std %s", d->name, split,
                      (long long)s->net.img_size, (long long)s->net.img_size, fv_cli_text(s->cli, OPT_MEAN),
                      fv_cli_text(s->cli, OPT_STD));
    FV_TRY(fv_evaluate(s, s->eval_program, d, index, n, fv_tta_of(s->cli), &e));
    fv_status status = show(s, &e, split);
    fv_evaluation_free(&e);
    return status;
}

fv_status fv_cmd_eval(fv_tool *tool) {
    fv_session s;
    fv_session_init(&s, tool);
    fv_status status = evaluate(&s);
    fv_session_close(&s);
    return status;
}
