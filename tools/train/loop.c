#include "tools/train/signals.h"
#include "tools/train/step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FV_DIVERGED 10 /* times the loss of guessing */
#define FV_OVERFIT_LOSS 1e-3
#define FV_OVERFIT_STEPS 1000
#define FV_OVERFIT_WARMUP 20

/* ---------------------------------------------------------------- set-up */

int64_t fv_loop_steps_of(const fv_loop *loop, double epochs) {
    double steps = ceil(epochs * (double)loop->steps_per_epoch - 1e-6);
    return steps > 1 ? (int64_t)steps : 1;
}

int64_t fv_loop_epoch_steps(const fv_loop *loop, int64_t epoch) {
    int64_t left = loop->steps - epoch * loop->steps_per_epoch;
    if (fv_session_overfits(loop->s)) return loop->steps_per_epoch; /* which has no last one */
    return left < 0 ? 0 : left < loop->steps_per_epoch ? left : loop->steps_per_epoch;
}

static void set_schedule(fv_loop *loop) {
    const fv_cli *cli = loop->s->cli;
    double per_epoch = (double)loop->steps_per_epoch;
    fv_sched_cfg *c = &loop->sched;
    *c = (fv_sched_cfg){.kind = (fv_sched_kind)fv_sched_from_name(fv_cli_text(cli, OPT_SCHED)),
                        .lr = fv_cli_float(cli, OPT_LR),
                        .min_lr = fv_cli_float(cli, OPT_MIN_LR),
                        .steps = loop->steps,
                        .warmup_lr = fv_cli_float(cli, OPT_WARMUP_LR),
                        .warmup_steps = llround(fv_cli_float(cli, OPT_WARMUP_EPOCHS) * per_epoch),
                        .decay_steps = llround(fv_cli_float(cli, OPT_DECAY_EPOCHS) * per_epoch),
                        .decay_rate = fv_cli_float(cli, OPT_DECAY_RATE)};
    if (c->decay_steps < 1) c->decay_steps = 1;
    if (fv_session_overfits(loop->s)) c->kind = FV_SCHED_CONSTANT, c->warmup_steps = FV_OVERFIT_WARMUP;
    const fv_cli_value *milestones = &cli->value[OPT_MILESTONES];
    for (int i = 0; i < milestones->count; i++)
        c->milestones[c->n_milestones++] = llround(milestones->number[i] * per_epoch);
}

static fv_augment_cfg augmentation(const fv_session *s) {
    const fv_cli *cli = s->cli;
    const char *crop = fv_cli_text(cli, OPT_TRAIN_CROP);
    const fv_cli_value *jitter = &cli->value[OPT_COLOR_JITTER], *scale = &cli->value[OPT_SCALE],
                       *ratio = &cli->value[OPT_RATIO];
    fv_augment_cfg a = {.crop_pad = !strcmp(crop, "pad") ? (int)fv_cli_int(cli, OPT_CROP_PAD) : 0,
                        .pad_mode = s->net.pad_mode,
                        .flip = fv_cli_float(cli, OPT_HFLIP),
                        .vflip = fv_cli_float(cli, OPT_VFLIP),
                        .alternate_flip = !strcmp(fv_cli_text(cli, OPT_FLIP_MODE), "alternate"),
                        .cutout = (int)fv_cli_int(cli, OPT_CUTOUT),
                        .cutout_inside = !strcmp(fv_cli_text(cli, OPT_CUTOUT_MODE), "inside"),
                        .erase = fv_cli_float(cli, OPT_REPROB),
                        .erase_noise = !strcmp(fv_cli_text(cli, OPT_REMODE), "pixel")};
    for (int i = 0; i < 4; i++) a.jitter[i] = jitter->count > 1 ? jitter->number[i] : i < 3 ? jitter->number[0] : 0;
    if (!strcmp(crop, "rrc"))
        for (int i = 0; i < 2; i++) a.scale[i] = scale->number[i], a.ratio[i] = ratio->number[i];
    return a;
}

/* The text was checked with the other options. */
static void set_on_nan(fv_loop *loop) {
    const char *text = fv_cli_text(loop->s->cli, OPT_ON_NAN);
    loop->on_nan = !strncmp(text, "skip:", 5)  ? FV_ON_NAN_SKIP
                   : !strcmp(text, "rollback") ? FV_ON_NAN_ROLLBACK
                                               : FV_ON_NAN_STOP;
    if (loop->on_nan == FV_ON_NAN_SKIP) loop->most_skips = strtoll(text + 5, NULL, 10);
}

/* p.loss_scale of a run that goes on is that of its state. */
static void set_loss_scale(fv_loop *loop) {
    const char *text = fv_cli_text(loop->s->cli, OPT_LOSS_SCALE);
    loop->scales = loop->s->net.precision == FV_F16;
    loop->fixed_scale = strcmp(text, "auto") != 0;
    loop->p.loss_scale = !loop->scales ? 0 : loop->fixed_scale ? strtod(text, NULL) : FV_LOSS_SCALE;
}

fv_status fv_loop_begin(fv_loop *loop, fv_session *s) {
    const fv_cli *cli = s->cli;
    memset(loop, 0, sizeof *loop);
    loop->s = s;
    loop->micro_steps = fv_cli_int(cli, OPT_GRAD_ACCUM_STEPS);
    loop->ahead = s->device->host_memory ? 0 : 1;
    loop->epochs = fv_cli_float(cli, OPT_EPOCHS);
    fv_augment_cfg augment = augmentation(s);
    fv_loader_cfg cfg = {.batch = s->net.batch,
                         .train = true,
                         .augment = fv_session_overfits(s) ? NULL : &augment,
                         .seed = (uint64_t)fv_cli_int(cli, OPT_SEED),
                         .workers = (int)fv_cli_int(cli, OPT_WORKERS),
                         .hold = 1 + loop->ahead,
                         .no_images = s->net.resident > 0,
                         .balanced = !strcmp(fv_cli_text(cli, OPT_SAMPLER), "balanced"),
                         .shuffle_labels = fv_cli_bool(cli, OPT_SHUFFLE_LABELS)};
    FV_TRY(fv_loader_create(s->ctx, s->train, s->train_index, s->n_train, &cfg, &loop->loader));
    FV_TRY(fv_resident_answer(&s->resident, loop->loader));
    loop->steps_per_epoch = fv_loader_batches(loop->loader) / loop->micro_steps;
    if (loop->steps_per_epoch < 1)
        return fv_fail(s->ctx, FV_E_USAGE, "an epoch has fewer batches than --grad-accum-steps");
    loop->steps = fv_loop_steps_of(loop, loop->epochs);
    loop->n_epochs = (loop->steps + loop->steps_per_epoch - 1) / loop->steps_per_epoch;
    set_schedule(loop);
    set_on_nan(loop);
    set_loss_scale(loop);
    loop->p.lr_factor = 1;
    loop->began = loop->last_save = fv_tool_now();
    return FV_OK;
}

void fv_loop_end(fv_loop *loop) {
    fv_saver_destroy(loop->saver);
    fv_loader_destroy(loop->loader);
}

/* ---------------------------------------------------------------- what is shown */

static void show_bar(fv_loop *loop, double loss, double seconds) {
    char bar[32];
    const fv_progress *p = &loop->p;
    int64_t steps = fv_loop_epoch_steps(loop, p->epoch);
    int filled = steps > 0 ? (int)(24 * p->steps_done / steps) : 24;
    for (int i = 0; i < 24; i++) bar[i] = (char)(i < filled ? '=' : i == filled ? '>' : ' ');
    bar[24] = '\0';
    fv_console_bar(loop->s->con, fv_tool_now(), "%3lld/%-3lld [%s] %lld/%lld  loss %.3f  %.0f img/s",
                   (long long)p->epoch + 1, (long long)loop->n_epochs, bar, (long long)p->steps_done, (long long)steps,
                   loss, seconds > 0 ? (double)p->pictures / seconds : 0);
}

static void show_epoch(fv_loop *loop, const fv_epoch_row *r) {
    const fv_score_names *names = fv_score_names_of(loop->s->net.multi_label);
    char count[24], val[16] = "-", top1[16] = "-", top5[16] = "-", eta[24];
    double done = fmin((double)r->epoch, loop->epochs), left = (loop->epochs - done) * (r->time / done);
    if (!loop->header_shown)
        fv_console_say(loop->s->con, "  epoch   loss  val_loss %6s %6s      lr   img/s    mem     ETA", names->score,
                       names->second);
    loop->header_shown = true;
    snprintf(count, sizeof count, "%lld/%lld", (long long)r->epoch, (long long)loop->n_epochs);
    if (isfinite(r->val_loss)) {
        snprintf(val, sizeof val, "%.3f", r->val_loss);
        snprintf(top1, sizeof top1, "%.2f", 100 * r->top1);
        snprintf(top5, sizeof top5, "%.2f", 100 * r->top5);
    }
    fv_console_say(loop->s->con, "%7s %6.3f %9s %6s %6s %7.4f %7.0f %5.2fG %7s%s", count, r->train_loss, val, top1,
                   top5, r->lr, r->images_per_s, r->mem_gb, fv_text_duration(left, eta, sizeof eta),
                   loop->p.best_epoch == r->epoch && loop->s->n_val ? "  *" : "");
}

static json_t *epoch_json(const fv_epoch_row *r, const fv_score_names *names) {
    return json_pack("{s:s, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "event", "epoch", "epoch",
                     (json_int_t)r->epoch, "time", fv_json_number(r->time, 7), "train_loss",
                     fv_json_number(r->train_loss, 7), "val_loss", fv_json_number(r->val_loss, 7), names->score,
                     fv_json_number(r->top1, 7), names->second, fv_json_number(r->top5, 7), "lr",
                     fv_json_number(r->lr, 8), "train_top1", fv_json_number(r->train_top1, 7), names->ema,
                     fv_json_number(r->ema_top1, 7), "images_per_s", fv_json_number(r->images_per_s, 6), "mem_gb",
                     fv_json_number(r->mem_gb, 4));
}

double fv_loop_waiting(const fv_loop *loop) {
    if (loop->s->device->host_memory || loop->stepping <= 0) return -1;
    return fmax(1 - loop->busy / loop->stepping, 0);
}

/* How long the training thread waited for pictures, in this process, and so far the device for the host. */
static void show_waiting(fv_loop *loop) {
    double waited = fv_loader_wait_seconds(loop->loader), seconds = loop->p.train_seconds;
    char device[80] = "";
    if (fv_loop_waiting(loop) >= 0)
        snprintf(device, sizeof device, "; so far the device for the host %.1f%%", 100 * fv_loop_waiting(loop));
    fv_console_detail(loop->s->con, "loader waited for %.2f s, %.1f%% of the epoch's training%s", waited - loop->waited,
                      seconds > 0 ? 100 * (waited - loop->waited) / seconds : 0, device);
    loop->waited = waited;
}

/* ---------------------------------------------------------------- saving */

static fv_status save(fv_loop *loop, uint32_t what) {
    if (!loop->saver) return FV_OK;
    loop->p.elapsed = fv_tool_now() - loop->began;
    if (what & FV_SAVE_STATE) loop->last_save = fv_tool_now();
    return fv_saver_submit(loop->saver, what, &loop->p);
}

/* Whether one is due by count or time at the end of step number `step`. */
static bool is_due(const fv_loop *loop, int64_t step) {
    const fv_cli *cli = loop->s->cli;
    int64_t every = fv_cli_int(cli, OPT_SAVE_STEPS);
    double minutes = fv_cli_float(cli, OPT_SAVE_MINUTES);
    return loop->save_due || (every && step % every == 0) ||
           (minutes > 0 && fv_tool_now() - loop->last_save >= 60 * minutes);
}

/* Whether the end of the step under way is to be saved: then no other may begin. A save that is still being written is
 * not waited for. */
static bool saves_next(const fv_loop *loop) {
    if (!loop->saver) return false;
    return fv_signal_wants_save() || (is_due(loop, loop->p.step + loop->n_begun) && !fv_saver_busy(loop->saver));
}

/* Between two steps: save, if that is due by count, time or signal. Later, when a step is under way already. */
static fv_status save_if_due(fv_loop *loop) {
    if (!loop->saver) return FV_OK;
    loop->save_due = is_due(loop, loop->p.step);
    if (loop->n_begun) return FV_OK;
    bool asked = fv_signal_take_save();
    if (asked || (loop->save_due && !fv_saver_busy(loop->saver))) {
        loop->save_due = false;
        FV_TRY(save(loop, FV_SAVE_STATE | (asked ? FV_SAVE_LAST | FV_SAVE_EMA : 0)));
        if (asked) fv_console_say(loop->s->con, "saving at step %lld, as asked", (long long)loop->p.step);
    }
    return FV_OK;
}

/* ---------------------------------------------------------------- an epoch */

bool fv_loop_stopped(const fv_loop *loop) {
    const fv_cli *cli = loop->s->cli;
    const int64_t step = loop->p.step + loop->n_begun;
    return fv_signal_pending() ||
           (fv_cli_has(cli, OPT_MAX_STEPS) && step >= fv_cli_int(cli, OPT_MAX_STEPS) && loop->p.epoch < loop->n_epochs);
}

static fv_status start_loader(fv_loop *loop) {
    return fv_loader_start(loop->loader, loop->p.epoch, loop->p.steps_done * loop->micro_steps);
}

/* Back to the last saved state, with half the learning rate; to the one before it when not a single step came of that.
 */
static fv_status roll_back(fv_loop *loop) {
    fv_session *s = loop->s;
    bool stuck = loop->rolled_back > loop->last_save;
    int64_t rollbacks = loop->p.rollbacks + 1, step = loop->p.step;
    double factor = loop->p.lr_factor / 2;
    fv_st_file state;
    fv_step_drop(loop);
    FV_TRY(fv_saver_wait(loop->saver));
    bool earlier = stuck && fv_resume_find_earlier(s, loop->run, &state) == FV_OK;
    if (!earlier) FV_TRY(fv_resume_find_state(s, loop->run, &state));
    fv_status status = fv_progress_read(s->ctx, &state, &loop->p);
    if (status == FV_OK) status = fv_state_restore(s->ctx, s->store, &state);
    fv_st_close(&state);
    FV_TRY(status);
    loop->p.rollbacks = rollbacks;
    loop->p.lr_factor = factor;
    loop->rolled_back = fv_tool_now();
    fv_run_truncate(loop->run, loop->p.epoch);
    fv_console_warn(
        s->con,
        "step %lld: not finite or diverged; back to step %lld, from here on with the learning rate times %g "
        "(rollback %lld of %d)",
        (long long)step + 1, (long long)loop->p.step, factor, (long long)rollbacks, FV_MOST_ROLLBACKS);
    return start_loader(loop);
}

/* Wait for the oldest step under way, and show it. */
static fv_status finish_step(fv_loop *loop, double *mark) {
    fv_session *s = loop->s;
    fv_progress *p = &loop->p;
    int64_t log_every = fv_cli_int(s->cli, OPT_LOG_EVERY);
    fv_step_result r;
    FV_TRY(fv_step_finish(loop, &r));
    double now = fv_tool_now();
    p->train_seconds += now - *mark;
    *mark = now;
    if (!r.finite && loop->on_nan == FV_ON_NAN_ROLLBACK) {
        FV_TRY(roll_back(loop));
        *mark = fv_tool_now();
        return FV_OK;
    }
    show_bar(loop, r.loss, p->train_seconds);
    if (log_every && p->step % log_every == 0)
        fv_console_say(s->con, "  step %lld  loss %.4f  grad norm %.3f  lr %.5f", (long long)p->step, r.loss, r.norm,
                       loop->last_lr);
    return save_if_due(loop);
}

/* A step more. What is wrong with it is told after those before it were shown. */
static fv_status begin_step(fv_loop *loop, double *mark) {
    fv_ctx *ctx = loop->s->ctx;
    fv_status status = fv_step_begin(loop);
    const fv_error error = ctx->error;
    if (status == FV_OK) return FV_OK;
    if (loop->n_begun) FV_TRY(finish_step(loop, mark));
    ctx->error = error;
    return status;
}

/* To the end of the epoch, or until something asks for an end; then no step is under way. */
static fv_status train_steps(fv_loop *loop) {
    const fv_progress *p = &loop->p;
    double mark = fv_tool_now();
    for (;;) {
        bool more = p->steps_done + loop->n_begun < fv_loop_epoch_steps(loop, p->epoch) && !fv_loop_stopped(loop);
        if (!more && !loop->n_begun) return FV_OK;
        if (loop->n_begun && (!more || saves_next(loop) || fv_step_waits(loop))) {
            FV_TRY(finish_step(loop, &mark));
            continue;
        }
        FV_TRY(begin_step(loop, &mark));
        if (loop->n_begun > loop->ahead) FV_TRY(finish_step(loop, &mark));
    }
}

static fv_status train_epoch(fv_loop *loop) {
    const fv_device *device = loop->s->device;
    const double start = fv_tool_now(), busy = device->busy_seconds;
    fv_status status = train_steps(loop);
    loop->stepping += fv_tool_now() - start;
    loop->busy += device->busy_seconds - busy;
    return status;
}

/* Figures on the validation split into the row; whether this epoch is the best so far. */
static fv_status validate(fv_loop *loop, fv_epoch_row *row, bool *best, bool *interrupted) {
    fv_session *s = loop->s;
    fv_progress *p = &loop->p;
    fv_evaluation e;
    FV_TRY(fv_session_build_eval(s));
    FV_TRY(fv_evaluate(s, s->eval_program, s->train, s->val_index, s->n_val, &fv_tta_none, &e));
    *interrupted = e.interrupted;
    row->top1 = e.score, row->top5 = e.second, row->val_loss = e.loss;
    fv_evaluation_free(&e);
    double judged = row->top1;
    if (s->net.optim.ema && !*interrupted) {
        FV_TRY(fv_session_build_ema(s));
        FV_TRY(fv_evaluate(s, s->ema_program, s->train, s->val_index, s->n_val, &fv_tta_none, &e));
        *interrupted = e.interrupted;
        judged = row->ema_top1 = e.score;
        fv_evaluation_free(&e);
    }
    if (*interrupted) return FV_OK;
    *best = !p->best_epoch || judged > p->best_score;
    p->stale = *best ? 0 : p->stale + 1;
    if (*best) p->best_score = judged;
    return FV_OK;
}

static fv_epoch_row new_row(const fv_loop *loop) {
    const fv_progress *p = &loop->p;
    double n = p->steps_done > p->skipped ? (double)(p->steps_done - p->skipped) : 1;
    return (fv_epoch_row){.epoch = p->epoch + 1,
                          .train_loss = p->loss_sum / n,
                          .train_top1 = p->pictures ? p->top1_sum / (double)p->pictures : 0,
                          .lr = fv_sched_lr(&loop->sched, p->step - 1) * p->lr_factor,
                          .images_per_s = p->train_seconds > 0 ? (double)p->pictures / p->train_seconds : 0,
                          .top1 = NAN,
                          .top5 = NAN,
                          .val_loss = NAN,
                          .ema_top1 = NAN};
}

static void begin_epoch(fv_progress *p, int64_t epoch) {
    p->total_train_seconds += p->train_seconds;
    p->total_pictures += p->pictures;
    p->loss_sum = p->top1_sum = p->train_seconds = 0;
    p->steps_done = p->pictures = p->skipped = 0;
    p->epoch = epoch;
}

/* Validate, choose, show, save. A signal in between leaves the epoch unfinished: a resumed run validates it anew. */
static fv_status finish_epoch(fv_loop *loop) {
    fv_session *s = loop->s;
    fv_progress *p = &loop->p;
    int64_t epoch = p->epoch, every = fv_cli_int(s->cli, OPT_SAVE_EPOCHS);
    bool last_epoch = epoch + 1 == loop->n_epochs, best = false, interrupted = false;
    bool evaluates = s->n_val && ((epoch + 1) % fv_cli_int(s->cli, OPT_EVAL_EVERY) == 0 || last_epoch);
    fv_epoch_row row = new_row(loop);
    if (evaluates) FV_TRY(validate(loop, &row, &best, &interrupted));
    if (interrupted) return FV_OK;
    if (!s->n_val) best = last_epoch;
    if (best) p->best_epoch = epoch + 1;
    row.mem_gb = fv_tool_peak_mb() / 1024;
    row.time = fv_tool_now() - loop->began;
    show_epoch(loop, &row);
    show_waiting(loop);
    begin_epoch(p, epoch + 1);
    if (loop->run) FV_TRY(fv_run_add_row(loop->run, s->ctx, &row));
    bool due = last_epoch || (every && (epoch + 1) % every == 0);
    FV_TRY(save(loop,
                FV_SAVE_RESULTS | (best ? FV_SAVE_BEST : 0) | (due ? FV_SAVE_STATE | FV_SAVE_LAST | FV_SAVE_EMA : 0)));
    FV_TRY(fv_console_check_log(s->con, s->ctx));
    return fv_console_json(s->con, s->ctx, epoch_json(&row, fv_score_names_of(s->net.multi_label)));
}

static double guessing(const fv_loop *loop) {
    return fmax(loop->s->net.guess_loss, log(2));
}

/* The loss is many times that of guessing, and not for a moment: nothing will come of this run. */
static bool has_diverged(const fv_loop *loop) {
    return loop->p.recent_loss > FV_DIVERGED * guessing(loop);
}

static fv_status fail_diverged(fv_loop *loop) {
    fv_session *s = loop->s;
    char kept[600];
    fv_fail(s->ctx, FV_E_NUMERIC, "training diverged: the loss is %.4g at the end of epoch %lld, guessing has %.2f; %s",
            loop->p.recent_loss, (long long)loop->p.epoch + 1, guessing(loop),
            fv_loop_what_is_kept(loop, kept, sizeof kept));
    return fv_hint(s->ctx, "a lower --lr (now %s), longer --warmup-epochs or --clip-grad 1 usually help",
                   fv_cli_text(s->cli, OPT_LR));
}

static fv_status run_epochs(fv_loop *loop) {
    fv_progress *p = &loop->p;
    int64_t patience = fv_cli_int(loop->s->cli, OPT_PATIENCE);
    bool started = p->steps_done > 0 && loop->loader_started;
    while (p->epoch < loop->n_epochs) {
        loop->out_of_patience = patience && p->stale >= patience;
        if (loop->out_of_patience) {
            fv_console_say(loop->s->con, "no improvement in %lld validations: stopping early, after epoch %lld",
                           (long long)p->stale, (long long)p->epoch);
            break;
        }
        if (!started) FV_TRY(start_loader(loop));
        started = false;
        FV_TRY(train_epoch(loop));
        if (p->steps_done < fv_loop_epoch_steps(loop, p->epoch) || fv_loop_stopped(loop)) break;
        if (has_diverged(loop) && fv_loop_may_roll_back(loop)) {
            FV_TRY(roll_back(loop));
            started = true; /* with the loader where it has to be */
            continue;
        }
        if (has_diverged(loop)) return fail_diverged(loop);
        FV_TRY(finish_epoch(loop));
        if (fv_signal_pending()) break;
    }
    return FV_OK;
}

fv_status fv_loop_run(fv_loop *loop) {
    FV_TRY(run_epochs(loop));
    if (fv_loop_stopped(loop)) FV_TRY(save(loop, FV_SAVE_STATE | FV_SAVE_LAST | FV_SAVE_EMA));
    if (loop->out_of_patience) FV_TRY(save(loop, FV_SAVE_STATE | FV_SAVE_LAST | FV_SAVE_EMA));
    if (loop->saver) FV_TRY(fv_saver_wait(loop->saver));
    return fv_store_hash(loop->s->store, &loop->hash);
}

/* ---------------------------------------------------------------- learning by heart */

fv_status fv_loop_overfit(fv_loop *loop) {
    fv_session *s = loop->s;
    fv_progress *p = &loop->p;
    int64_t batches = loop->steps_per_epoch;
    double loss = INFINITY;
    while (p->step < FV_OVERFIT_STEPS && !fv_signal_pending()) {
        if (p->epoch) FV_TRY(start_loader(loop));
        while (p->steps_done < batches) {
            fv_step_result r;
            FV_TRY(fv_loop_step(loop, &r));
            show_bar(loop, r.loss, fv_tool_now() - loop->began);
        }
        loss = p->loss_sum / (double)p->steps_done;
        begin_epoch(p, p->epoch + 1);
        if (p->epoch % 50 == 0 || loss < FV_OVERFIT_LOSS)
            fv_console_say(s->con, "  step %4lld  loss %.6f", (long long)p->step, loss);
        if (loss < FV_OVERFIT_LOSS) break;
    }
    bool passed = loss < FV_OVERFIT_LOSS;
    FV_TRY(fv_console_json(s->con, s->ctx,
                           json_pack("{s:s, s:b, s:o, s:I}", "event", "overfit", "passed", (int)passed, "loss",
                                     fv_json_number(loss, 6), "steps", (json_int_t)p->step)));
    if (passed) {
        fv_console_result(
            s->con, "overfit: passed. The model learned %lld batch%s by heart: loss %.2e after %lld steps (below %g)",
            (long long)batches, batches == 1 ? "" : "es", loss, (long long)p->step, FV_OVERFIT_LOSS);
        return FV_OK;
    }
    if (fv_signal_pending()) return FV_OK;
    fv_fail(s->ctx, FV_E_GATE,
            "overfit: failed. The loss is %.4g after %lld steps on the same %lld batch%s; it should fall under %g",
            loss, (long long)p->step, (long long)batches, batches == 1 ? "" : "es", FV_OVERFIT_LOSS);
    return fv_hint(s->ctx, "try a lower --lr (now %s); if that does not help, model, labels or gradients are wrong",
                   fv_cli_text(s->cli, OPT_LR));
}
