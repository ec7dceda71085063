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
    if (s->net.resident)
        fv_console_say(s->con, "device holds the %lld pictures of the training set: %.1f MB",
                       (long long)s->net.resident, 1e-6 * (double)s->resident.bound[0].bytes);
}

/* The first loss of a fresh classifier is near that of guessing: ln K; several labels: ln 2, more with class weights.
 */
static void show_first_loss(fv_session *s, double loss) {
    char data[256];
    double guess = s->net.guess_loss;
    bool close = fabs(loss - guess) <= 0.25 * guess + 0.1;
    fv_console_say(s->con, "data   %s", fv_session_data_text(s, data, sizeof data));
    const char *recipe = fv_cli_text(s->cli, OPT_RECIPE);
    fv_console_say(s->con, "recipe %s%s%s, lr %s %s, warm-up %s, weight decay %s, batch %s · mean %s std %s",
                   recipe ? recipe : "", recipe ? " · " : "", fv_cli_text(s->cli, OPT_OPTIMIZER),
                   fv_cli_text(s->cli, OPT_LR), fv_cli_text(s->cli, OPT_SCHED), fv_cli_text(s->cli, OPT_WARMUP_EPOCHS),
                   fv_cli_text(s->cli, OPT_WEIGHT_DECAY), fv_cli_text(s->cli, OPT_BATCH_SIZE),
                   fv_cli_text(s->cli, OPT_MEAN), fv_cli_text(s->cli, OPT_STD));
    const char *verdict = s->weights[0] || s->net.class_weight ? ""
                          : close                              ? " ✓"
                                  : " ! far from guessing: look at the normalisation and the last layer";
    char guessing[40] = "guessing";
    if (!s->net.multi_label) snprintf(guessing, sizeof guessing, "ln %lld", (long long)s->net.cfg.num_classes);
    fv_console_say(s->con, "init   loss %.2f (%s = %.2f)%s · first step %.2f s after launch", loss, guessing, guess,
                   verdict, fv_tool_now() - s->tool->launched);
}

static void show_plan(fv_session *s) {
    const fv_plan *plan = fv_program_plan(s->train_program);
    fv_console_detail(
        s->con,
        "memory arena %.1f MB (%.1f MB without reuse), with a workspace of up to %.1f MB; parameters and state %.1f MB",
        (double)plan->arena_bytes / 1e6, (double)plan->naive_bytes / 1e6, (double)plan->workspace_bytes / 1e6,
        (double)(fv_store_role_bytes(s->store, FV_ROLE_WEIGHT) + fv_store_role_bytes(s->store, FV_ROLE_BUFFER) +
                 fv_store_role_bytes(s->store, FV_ROLE_GRAD) + fv_store_role_bytes(s->store, FV_ROLE_MOMENT) +
                 fv_store_role_bytes(s->store, FV_ROLE_EMA) + fv_store_role_bytes(s->store, FV_ROLE_SLOW)) /
            1e6);
    for (int i = 0; i < OPT_COUNT; i++)
        if (fv_cli_applies(s->cli, (fv_cli_id)i) && fv_cli_has(s->cli, (fv_cli_id)i))
            fv_console_detail(s->con, "  %-18s %s", fv_cli_options[i].name, fv_cli_text(s->cli, (fv_cli_id)i));
}

/* first_loss: NAN in a resumed run. */
static fv_status send_run_event(fv_loop *loop, double first_loss) {
    fv_session *s = loop->s;
    const fv_run_folder *run = loop->run;
    if (!s->con->json) return FV_OK;
    json_t *args = json_object();
    for (int i = 0; args && i < OPT_COUNT; i++)
        if (fv_cli_applies(s->cli, (fv_cli_id)i) && fv_cli_has(s->cli, (fv_cli_id)i) && i != OPT_HELP &&
            i != OPT_CONFIG && i != OPT_RESUME && i != OPT_FORCE)
            fv_json_set(&args, fv_cli_options[i].name, json_string(fv_cli_text(s->cli, (fv_cli_id)i)));
    json_t *event =
        json_pack("{s:s, s:s, s:s?, s:s, s:I, s:o, s:s, s:I, s:I, s:I, s:I, s:o, s:o, s:o?}", "event", "run", "version",
                  FV_VERSION, "folder", run ? run->path : NULL, "model", s->net.model->name, "params",
                  (json_int_t)s->size.params, "macs", fv_json_number(s->size.macs, 12), "device", s->device->text,
                  "train", (json_int_t)s->n_train, "val", (json_int_t)s->n_val, "test", (json_int_t)s->n_test, "step",
                  (json_int_t)loop->p.step, "first_loss", fv_json_number(first_loss, 7), "first_step_s",
                  fv_json_number(fv_tool_now() - s->tool->launched, 4), "args", args);
    return fv_console_json(s->con, s->ctx, event);
}

/* ---------------------------------------------------------------- the end of a run */

typedef struct final_test {
    const char *split; /* "test", or "val" where there is no test set; NULL: there is neither */
    fv_evaluation plain, averaged;
    bool has_averaged; /* --tta */
} final_test;

/* Which part of its steps' time the device waited: for pictures, for learning rates, for a save. */
static void show_device_waiting(const fv_loop *loop) {
    const double waiting = fv_loop_waiting(loop);
    if (waiting < 0) return;
    fv_console_say(loop->s->con,
                   "device computed for %.1f%% of the time that steps took, and waited for the host for %.1f%%",
                   100 * (1 - waiting), 100 * waiting);
}

static json_t *metrics_json(const fv_loop *loop, const final_test *t, bool classes) {
    const fv_session *s = loop->s;
    const fv_progress *p = &loop->p;
    char hash[24];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)loop->hash);
    json_t *o = json_pack(
        "{s:s, s:I, s:I, s:o, s:o, s:o, s:s}", "model", s->net.model->name, "epochs", (json_int_t)p->epoch,
        "best_epoch", (json_int_t)p->best_epoch, "images_per_s",
        fv_json_number(p->total_train_seconds > 0 ? (double)p->total_pictures / p->total_train_seconds : 0, 6),
        "peak_mem_gb", fv_json_number(fv_tool_peak_mb() / 1024, 4), "seconds",
        fv_json_number(fv_tool_now() - loop->began, 7), "hash", hash);
    if (t->split) {
        fv_json_set(&o, "split", json_string(t->split));
        fv_json_set(&o, t->split, fv_metrics_json(&t->plain, classes));
    }
    if (t->has_averaged) fv_json_set(&o, s->n_test ? "test_tta" : "val_tta", fv_metrics_json(&t->averaged, classes));
    if (s->n_val)
        fv_json_set(&o, s->train->targets ? "best_val_mAP" : "best_val_top1", fv_json_number(p->best_score, 9));
    if (loop->out_of_patience) fv_json_set(&o, "stopped_early", json_true());
    if (fv_loop_waiting(loop) >= 0) fv_json_set(&o, "device_wait_share", fv_json_number(fv_loop_waiting(loop), 4));
    return o;
}

static fv_status evaluate_best(fv_loop *loop, const fv_tta *tta, fv_evaluation *e) {
    fv_session *s = loop->s;
    if (s->n_test) return fv_evaluate(s, s->eval_program, s->test, s->test_index, s->n_test, tta, e);
    return fv_evaluate(s, s->eval_program, s->train, s->val_index, s->n_val, tta, e);
}

/* The best model, as saved, on the test split; on validation if there is none. */
static fv_status test_best(fv_loop *loop, final_test *t) {
    fv_session *s = loop->s;
    const fv_tta *tta = fv_tta_of(s->cli);
    char path[512];
    FV_TRY(fv_run_path(loop->run, s->ctx, "weights/best/model.safetensors", path));
    FV_TRY(fv_session_build_eval(s));
    FV_TRY(fv_session_load(s, path));
    t->split = s->n_test ? "test" : "val";
    if (!s->n_test)
        fv_console_warn(s->con,
                        "there is no test set: these are figures on the validation set, by which the best epoch was "
                        "chosen; they flatter");
    FV_TRY(evaluate_best(loop, &fv_tta_none, &t->plain));
    if (tta->views == 1 || t->plain.interrupted) return FV_OK;
    t->has_averaged = true;
    return evaluate_best(loop, tta, &t->averaged);
}

static fv_status send_done(fv_loop *loop, const final_test *t) {
    fv_session *s = loop->s;
    json_t *done = json_pack("{s:s, s:s}", "event", "done", "folder", loop->run->path);
    fv_json_merge(&done, metrics_json(loop, t, false));
    return fv_console_json(s->con, s->ctx, done);
}

/* The files are about the model without test-time augmentation: what one looks at is what it does. */
static fv_status report(fv_loop *loop, const final_test *t) {
    fv_session *s = loop->s;
    char title[200], path[512], figures[160], tta[32] = "";
    snprintf(title, sizeof title, "%s on %s, %s", s->net.model->name, s->train->name, t->split);
    FV_TRY(fv_report_all(s->ctx, loop->run->path, &t->plain, title));
    FV_TRY(fv_run_write_json(loop->run, s->ctx, "metrics.json", metrics_json(loop, t, true)));
    FV_TRY(fv_run_path(loop->run, s->ctx, "worst.html", path));
    fv_console_result(s->con, "%-6s %s  (%lld pictures, weights of epoch %lld)", t->split,
                      fv_evaluation_text(&t->plain, figures, sizeof figures), (long long)t->plain.count,
                      (long long)loop->p.best_epoch);
    if (t->has_averaged) {
        fv_console_result(s->con, "%-6s %s  (%s, %d views of each)", "tta",
                          fv_evaluation_text(&t->averaged, figures, sizeof figures), t->averaged.tta->name,
                          t->averaged.tta->views);
        snprintf(tta, sizeof tta, " --tta %s", t->averaged.tta->name);
    }
    fv_console_say(s->con, "saved  %s/weights/best · look at %s", loop->run->path, path);
    fv_console_say(s->con, "next   fovea eval %s --split %s%s", loop->run->path, t->split, tta);
    return send_done(loop, t);
}

static fv_status report_stop(fv_loop *loop) {
    fv_session *s = loop->s;
    char hash[24], by[48] = "as --max-steps says";
    if (fv_signal_pending()) snprintf(by, sizeof by, "by signal %d", fv_signal_pending());
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)loop->hash);
    fv_console_say(s->con, "stopped %s after step %lld; saved. Go on with 'fovea train --resume %s'", by,
                   (long long)loop->p.step, loop->run->path);
    json_t *done = json_pack("{s:s, s:s, s:I, s:s, s:b}", "event", "done", "folder", loop->run->path, "steps",
                             (json_int_t)loop->p.step, "hash", hash, "resumable", 1);
    if (fv_signal_pending()) fv_json_set(&done, "stopped_by_signal", json_integer(fv_signal_pending()));
    return fv_console_json(s->con, s->ctx, done);
}

static fv_status finish(fv_loop *loop) {
    fv_session *s = loop->s;
    final_test t = {0};
    if (fv_loop_stopped(loop)) return report_stop(loop);
    if (!s->n_test && !s->n_val) {
        fv_console_warn(s->con,
                        "there is neither a test nor a validation set: nothing is known about pictures that the "
                        "model has not seen");
        return send_done(loop, &t);
    }
    fv_status status = test_best(loop, &t);
    bool interrupted = t.plain.interrupted || t.averaged.interrupted;
    if (status == FV_OK) status = interrupted ? report_stop(loop) : report(loop, &t);
    fv_evaluation_free(&t.plain);
    fv_evaluation_free(&t.averaged);
    return status;
}

/* ---------------------------------------------------------------- the command */

static fv_status dry_run(fv_loop *loop) {
    fv_session *s = loop->s;
    fv_evaluation e;
    FV_TRY(fv_session_build_eval(s));
    int64_t n = s->n_train < s->net.batch ? s->n_train : s->net.batch;
    FV_TRY(fv_evaluate(s, s->eval_program, s->train, s->train_index, n, &fv_tta_none, &e));
    fv_console_result(
        s->con, "dry run: everything fits. One step and one evaluated batch; nothing was written (peak memory %.2f GB)",
        fv_tool_peak_mb() / 1024);
    fv_evaluation_free(&e);
    return fv_console_json(s->con, s->ctx,
                           json_pack("{s:s, s:b, s:o}", "event", "done", "dry_run", 1, "peak_mem_gb",
                                     fv_json_number(fv_tool_peak_mb() / 1024, 4)));
}

/* What the programs of a run need, and its loader. */
static fv_status set_up(fv_loop *loop, fv_session *s) {
    FV_TRY(fv_session_open_train(s));
    FV_TRY(fv_session_configure(s));
    FV_TRY(fv_session_open_device(s));
    FV_TRY(fv_session_build_train(s));
    show_header(s);
    FV_TRY(fv_loop_begin(loop, s));
    fv_signal_watch();
    return FV_OK;
}

/* The run folder, and the first state: from here on nothing is lost. */
static fv_status begin_run(fv_loop *loop, fv_run_folder *run) {
    fv_session *s = loop->s;
    FV_TRY(fv_run_create(run, s));
    loop->run = run;
    FV_TRY(fv_run_describe(run, s, NULL));
    fv_console_say(s->con, "folder %s", run->path);
    FV_TRY(fv_saver_create(s, run, &loop->saver));
    return fv_saver_submit(loop->saver, FV_SAVE_STATE, &loop->p);
}

/* Everything up to the end of the first step; the test set is opened after it, so that what is wrong with it shows now.
 */
static fv_status begin(fv_loop *loop, fv_session *s, fv_run_folder *run) {
    fv_step_result first;
    bool writes = !fv_session_overfits(s) && !fv_cli_bool(s->cli, OPT_DRY_RUN);
    if (writes) FV_TRY(fv_run_check_output(s));
    FV_TRY(set_up(loop, s));
    FV_TRY(fv_loader_start(loop->loader, 0, 0));
    loop->loader_started = true;
    double started = fv_tool_now();
    FV_TRY(fv_loop_step(loop, &first));
    loop->p.train_seconds = fv_tool_now() - started;
    if (!fv_session_overfits(s)) FV_TRY(fv_session_open_test(s));
    show_first_loss(s, first.loss);
    show_plan(s);
    if (writes) FV_TRY(begin_run(loop, run));
    return send_run_event(loop, first.loss);
}

/* The same for a run that goes on: its state in the place of the first step. */
static fv_status begin_again(fv_loop *loop, fv_session *s, fv_run_folder *run, fv_resume *resume) {
    char data[256];
    FV_TRY(fv_resume_open(resume, s, run, fv_cli_text(s->cli, OPT_RESUME)));
    FV_TRY(set_up(loop, s));
    FV_TRY(fv_resume_restore(resume, s, &loop->p));
    FV_TRY(fv_session_open_test(s));
    int64_t steps = fv_loop_epoch_steps(loop, loop->p.epoch);
    if (loop->p.epoch > loop->n_epochs || loop->p.steps_done > steps)
        return fv_fail_at(s->ctx, FV_E_MODEL, run->path, -1,
                          "its state stands in epoch %lld, step %lld of it; the options give %lld epochs of %lld steps",
                          (long long)loop->p.epoch + 1, (long long)loop->p.steps_done, (long long)loop->n_epochs,
                          (long long)loop->steps_per_epoch);
    loop->began = fv_tool_now() - loop->p.elapsed;
    fv_console_say(s->con, "data   %s", fv_session_data_text(s, data, sizeof data));
    show_plan(s);
    FV_TRY(fv_run_continue(run, s, loop->p.epoch));
    loop->run = run;
    json_t *resumed = fv_resume_json(resume, &loop->p);
    if (!resumed) return fv_fail_memory(s->ctx, 4096, "env.json");
    FV_TRY(fv_run_describe(run, s, resumed));
    fv_st_close(&resume->state);
    fv_console_say(s->con, "resume %s at step %lld, epoch %lld of %lld", run->path, (long long)loop->p.step,
                   (long long)(loop->p.epoch < loop->n_epochs ? loop->p.epoch + 1 : loop->n_epochs),
                   (long long)loop->n_epochs);
    FV_TRY(fv_saver_create(s, run, &loop->saver));
    return send_run_event(loop, NAN);
}

static fv_status train(fv_session *s, fv_loop *loop, fv_run_folder *run, fv_resume *resume) {
    if (fv_cli_has(s->cli, OPT_RESUME)) FV_TRY(begin_again(loop, s, run, resume));
    else FV_TRY(begin(loop, s, run));
    if (fv_session_overfits(s)) return fv_loop_overfit(loop);
    if (fv_cli_bool(s->cli, OPT_DRY_RUN)) return dry_run(loop);
    FV_TRY(fv_loop_run(loop));
    show_device_waiting(loop);
    return finish(loop);
}

fv_status fv_cmd_train(fv_tool *tool) {
    fv_session s;
    fv_loop loop = {0};
    fv_run_folder run;
    fv_resume resume = {0};
    fv_signal_prepare();
    fv_session_init(&s, tool);
    fv_run_init(&run);
    fv_status status = train(&s, &loop, &run, &resume);
    fv_loop_end(&loop);
    fv_resume_close(&resume);
    fv_run_close(&run);
    fv_session_close(&s);
    return status;
}
