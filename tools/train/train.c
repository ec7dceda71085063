/* train.c: the command `train`: set up, train, test, report. */
#include "tools/report/report.h"
#include "tools/train/loop.h"
#include "tools/train/signals.h"

#include <math.h>
#include <string.h>

static void show_header(fv_session *s) {
    char params[24], macs[24];
    fv_console_say(s->con, "fovea %s · %s · %s params · %s MACs · %s · %s · seed %s", FV_VERSION, s->net.model->name,
                   fv_text_si((double)s->size.params, params, sizeof params),
                   fv_text_si(s->size.macs, macs, sizeof macs), s->device->text, fv_cli_text(s->cli, OPT_PRECISION),
                   fv_cli_text(s->cli, OPT_SEED));
    if (s->weights[0]) fv_console_say(s->con, "weights %s", s->weights);
}

/* The first loss of a fresh classifier is near that of guessing: ln K. */
static void show_first_loss(fv_session *s, double loss) {
    char data[256];
    double guess = log((double)s->net.cfg.num_classes);
    bool close = fabs(loss - guess) <= 0.25 * guess + 0.1;
    fv_console_say(s->con, "data   %s", fv_session_data_text(s, data, sizeof data));
    fv_console_say(s->con, "recipe %s, lr %s %s, warm-up %s, weight decay %s, batch %s · mean %s std %s",
                   fv_cli_text(s->cli, OPT_OPTIMIZER), fv_cli_text(s->cli, OPT_LR), fv_cli_text(s->cli, OPT_SCHED),
                   fv_cli_text(s->cli, OPT_WARMUP_EPOCHS), fv_cli_text(s->cli, OPT_WEIGHT_DECAY),
                   fv_cli_text(s->cli, OPT_BATCH_SIZE), fv_cli_text(s->cli, OPT_MEAN), fv_cli_text(s->cli, OPT_STD));
    const char *verdict = s->weights[0] ? ""
                          : close       ? " ✓"
                                        : " ! far from guessing: look at the normalisation and the last layer";
    fv_console_say(s->con, "init   loss %.2f (ln %lld = %.2f)%s · first step %.2f s after launch", loss,
                   (long long)s->net.cfg.num_classes, guess, verdict, fv_tool_now() - s->tool->launched);
}

static void show_plan(fv_session *s) {
    const fv_plan *plan = fv_program_plan(s->train_program);
    fv_console_detail(
        s->con, "memory arena %.1f MB (%.1f MB without reuse), workspace %.1f MB, parameters and state %.1f MB",
        (double)plan->arena_bytes / 1e6, (double)plan->naive_bytes / 1e6, (double)plan->workspace_bytes / 1e6,
        (double)(fv_store_role_bytes(s->store, FV_ROLE_WEIGHT) + fv_store_role_bytes(s->store, FV_ROLE_BUFFER) +
                 fv_store_role_bytes(s->store, FV_ROLE_GRAD) + fv_store_role_bytes(s->store, FV_ROLE_MOMENT) +
                 fv_store_role_bytes(s->store, FV_ROLE_EMA)) /
            1e6);
    for (int i = 0; i < OPT_COUNT; i++)
        if (fv_cli_applies(s->cli, (fv_cli_id)i) && fv_cli_has(s->cli, (fv_cli_id)i))
            fv_console_detail(s->con, "  %-18s %s", fv_cli_options[i].name, fv_cli_text(s->cli, (fv_cli_id)i));
}

static fv_status send_run_event(fv_session *s, const fv_run_folder *run, double first_loss) {
    if (!s->con->json) return FV_OK;
    json_t *args = json_object();
    for (int i = 0; args && i < OPT_COUNT; i++)
        if (fv_cli_applies(s->cli, (fv_cli_id)i) && fv_cli_has(s->cli, (fv_cli_id)i) && i != OPT_HELP &&
            i != OPT_CONFIG)
            json_object_set_new(args, fv_cli_options[i].name, json_string(fv_cli_text(s->cli, (fv_cli_id)i)));
    json_t *event = json_pack("{s:s, s:s, s:s?, s:s, s:I, s:o, s:s, s:I, s:I, s:I, s:o, s:o, s:o?}", "event", "run",
                              "version", FV_VERSION, "folder", run ? run->path : NULL, "model", s->net.model->name,
                              "params", (json_int_t)s->size.params, "macs", fv_json_number(s->size.macs, 12), "device",
                              s->device->text, "train", (json_int_t)s->n_train, "val", (json_int_t)s->n_val, "test",
                              (json_int_t)(s->test ? s->test->count : 0), "first_loss", fv_json_number(first_loss, 7),
                              "first_step_s", fv_json_number(fv_tool_now() - s->tool->launched, 4), "args", args);
    return fv_console_json(s->con, s->ctx, event);
}

/* ---------------------------------------------------------------- the end of a run */

static json_t *metrics_json(const fv_loop *loop, const fv_evaluation *e, bool classes) {
    const fv_session *s = loop->s;
    json_t *o = json_pack(
        "{s:s, s:I, s:I, s:s, s:o, s:o, s:o}", "model", s->net.model->name, "epochs", (json_int_t)loop->epochs,
        "best_epoch", (json_int_t)loop->best_epoch, "split", "test", "test", fv_metrics_json(e, classes),
        "images_per_s",
        fv_json_number(loop->total_train_seconds > 0 ? (double)loop->total_pictures / loop->total_train_seconds : 0, 6),
        "peak_mem_gb", fv_json_number(fv_tool_peak_mb() / 1024, 4));
    if (o && s->n_val) json_object_set_new(o, "best_val_top1", fv_json_number(loop->best_top1, 9));
    if (o) json_object_set_new(o, "seconds", fv_json_number(fv_tool_now() - loop->began, 7));
    return o;
}

/* The best model, as saved, on the test split. */
static fv_status test_best(fv_loop *loop, fv_evaluation *e) {
    fv_session *s = loop->s;
    char path[512];
    FV_TRY(fv_run_path(loop->run, s->ctx, "weights/best/model.safetensors", path));
    FV_TRY(fv_session_build_eval(s));
    FV_TRY(fv_session_load(s, path));
    return fv_evaluate(s, s->eval_program, s->test, NULL, 0, e);
}

static fv_status report(fv_loop *loop, const fv_evaluation *e) {
    fv_session *s = loop->s;
    char title[200], path[512];
    snprintf(title, sizeof title, "%s on %s, test", s->net.model->name, s->test->name);
    FV_TRY(fv_report_all(s->ctx, loop->run->path, e, title));
    FV_TRY(fv_run_write_json(loop->run, s->ctx, "metrics.json", metrics_json(loop, e, true)));
    FV_TRY(fv_run_path(loop->run, s->ctx, "worst.html", path));
    fv_console_result(s->con, "test   top1 %.2f%%  top5 %.2f%%  loss %.4f  (%lld pictures, weights of epoch %lld)",
                      100 * e->top1, 100 * e->top5, e->loss, (long long)e->count, (long long)loop->best_epoch);
    fv_console_say(s->con, "saved  %s/weights/best · look at %s", loop->run->path, path);
    fv_console_say(s->con, "next   fovea eval %s --split test", loop->run->path);
    json_t *done = json_pack("{s:s, s:s}", "event", "done", "folder", loop->run->path),
           *metrics = metrics_json(loop, e, false);
    if (done && metrics) json_object_update(done, metrics);
    json_decref(metrics);
    return fv_console_json(s->con, s->ctx, done);
}

static fv_status finish(fv_loop *loop) {
    fv_session *s = loop->s;
    fv_evaluation e;
    if (fv_signal_pending()) {
        fv_console_say(s->con, "stopped by a signal after step %lld; weights are in %s/weights/last",
                       (long long)loop->step, loop->run->path);
        return fv_console_json(s->con, s->ctx,
                               json_pack("{s:s, s:s, s:I, s:i}", "event", "done", "folder", loop->run->path, "steps",
                                         (json_int_t)loop->step, "stopped_by_signal", fv_signal_pending()));
    }
    FV_TRY(test_best(loop, &e));
    fv_status status = e.interrupted ? FV_OK : report(loop, &e);
    fv_evaluation_free(&e);
    return status;
}

/* ---------------------------------------------------------------- the command */

static fv_status dry_run(fv_loop *loop) {
    fv_session *s = loop->s;
    fv_evaluation e;
    FV_TRY(fv_session_build_eval(s));
    int64_t n = s->n_train < s->net.batch ? s->n_train : s->net.batch;
    FV_TRY(fv_evaluate(s, s->eval_program, s->train, s->train_index, n, &e));
    fv_console_result(
        s->con, "dry run: everything fits. One step and one evaluated batch; nothing was written (peak memory %.2f GB)",
        fv_tool_peak_mb() / 1024);
    fv_evaluation_free(&e);
    return fv_console_json(s->con, s->ctx,
                           json_pack("{s:s, s:b, s:o}", "event", "done", "dry_run", 1, "peak_mem_gb",
                                     fv_json_number(fv_tool_peak_mb() / 1024, 4)));
}

/* Everything up to the end of the first step; the test set is opened after it, so that what is wrong with it shows now.
 */
static fv_status begin(fv_loop *loop, fv_session *s, fv_run_folder *run) {
    fv_step_result first;
    bool writes = !fv_session_overfits(s) && !fv_cli_bool(s->cli, OPT_DRY_RUN);
    FV_TRY(fv_session_open_train(s));
    FV_TRY(fv_session_configure(s));
    FV_TRY(fv_session_open_device(s));
    FV_TRY(fv_session_build_train(s));
    show_header(s);
    FV_TRY(fv_loop_begin(loop, s));
    fv_signal_watch();
    FV_TRY(fv_loader_start(loop->loader, 0, 0));
    double started = fv_tool_now();
    FV_TRY(fv_loop_step(loop, 0, &first));
    loop->train_seconds = fv_tool_now() - started;
    if (!fv_session_overfits(s)) FV_TRY(fv_session_open_test(s));
    show_first_loss(s, first.loss);
    show_plan(s);
    if (writes) {
        loop->run = run;
        FV_TRY(fv_run_create(run, s));
        FV_TRY(fv_run_describe(run, s));
        fv_console_say(s->con, "folder %s", run->path);
    }
    return send_run_event(s, loop->run, first.loss);
}

static fv_status train(fv_session *s, fv_loop *loop, fv_run_folder *run) {
    FV_TRY(begin(loop, s, run));
    if (fv_session_overfits(s)) return fv_loop_overfit(loop);
    if (fv_cli_bool(s->cli, OPT_DRY_RUN)) return dry_run(loop);
    FV_TRY(fv_loop_run(loop));
    return finish(loop);
}

fv_status fv_cmd_train(fv_tool *tool) {
    fv_session s;
    fv_loop loop = {0};
    fv_run_folder run = {0};
    fv_session_init(&s, tool);
    fv_status status = train(&s, &loop, &run);
    fv_loop_end(&loop);
    fv_run_close(&run);
    fv_session_close(&s);
    return status;
}
