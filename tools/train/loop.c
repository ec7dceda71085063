#include "tools/train/loop.h"
#include "tools/train/signals.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FV_DIVERGED 10 /* times the loss of guessing */
#define FV_OVERFIT_LOSS 1e-3
#define FV_OVERFIT_STEPS 1000
#define FV_OVERFIT_WARMUP 20
#define FV_MOST_ROLLBACKS 5

/* ---------------------------------------------------------------- set-up */

/* Steps of so many epochs, rounded up; 1.1 epochs of 10 steps are 11, not 12 for want of a binary 1.1. */
static int64_t steps_of(const fv_loop *loop, double epochs) {
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
    loop->epochs = fv_cli_float(cli, OPT_EPOCHS);
    fv_augment_cfg augment = augmentation(s);
    fv_loader_cfg cfg = {.batch = s->net.batch,
                         .train = true,
                         .augment = fv_session_overfits(s) ? NULL : &augment,
                         .seed = (uint64_t)fv_cli_int(cli, OPT_SEED),
                         .workers = (int)fv_cli_int(cli, OPT_WORKERS),
                         .balanced = !strcmp(fv_cli_text(cli, OPT_SAMPLER), "balanced"),
                         .shuffle_labels = fv_cli_bool(cli, OPT_SHUFFLE_LABELS)};
    FV_TRY(fv_loader_create(s->ctx, s->train, s->train_index, s->n_train, &cfg, &loop->loader));
    loop->steps_per_epoch = fv_loader_batches(loop->loader) / loop->micro_steps;
    if (loop->steps_per_epoch < 1)
        return fv_fail(s->ctx, FV_E_USAGE, "an epoch has fewer batches than --grad-accum-steps");
    loop->steps = steps_of(loop, loop->epochs);
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

/* ---------------------------------------------------------------- one step */

/* The first step that a param group no longer takes part in. */
static int64_t group_end(const fv_loop *loop, const fv_cli_group *group) {
    int64_t until = group->until > 0 ? steps_of(loop, group->until) : INT64_MAX;
    int64_t within = group->within > 0 ? steps_of(loop, group->within) : INT64_MAX;
    return until < within ? until : within;
}

/* What the schedule gives for a param group, times its factor. */
static double group_lr(const fv_loop *loop, const fv_cli_group *group) {
    int64_t step = loop->p.step;
    fv_sched_cfg sched = loop->sched;
    if (step >= group_end(loop, group)) return 0;
    if (group->within > 0) sched = fv_sched_within(&sched, steps_of(loop, group->within));
    return group->lr * fv_sched_lr(&sched, step) * loop->p.lr_factor;
}

/* Groups at their end cost nothing any more: bits by number, as fv_session_rest takes them. */
static uint32_t resting_groups(const fv_loop *loop) {
    uint32_t resting = 0;
    for (int i = 0; i < loop->s->net.optim.n_groups; i++)
        resting |= (uint32_t)(loop->p.step >= group_end(loop, &loop->s->groups[i])) << i;
    return resting;
}

/* lr: of the parameters that are in no param group. The numbers of groups: optim.h. */
static fv_step step_data(const fv_loop *loop, double lr) {
    const fv_session *s = loop->s;
    fv_lookahead_cfg lookahead = {.every = fv_cli_int(s->cli, OPT_LOOKAHEAD),
                                  .steps = loop->steps,
                                  .decay = fv_cli_float(s->cli, OPT_LOOKAHEAD_DECAY),
                                  .power = fv_cli_float(s->cli, OPT_LOOKAHEAD_POWER)};
    fv_step step = {.seed = (uint64_t)fv_cli_int(s->cli, OPT_SEED), .step = loop->p.step, .epoch = loop->p.epoch};
    step.loss_scale = loop->scales ? loop->p.loss_scale : 1;
    step.lr[0] = step.lr[1] = lr;
    step.weight_decay[0] = s->net.optim.weight_decay;
    for (int i = 0; i < s->net.optim.n_groups; i++) {
        const fv_cli_group *group = &s->groups[i];
        int k = 2 * (i + 1);
        bool own = group->weight_decay >= 0;
        step.lr[k] = step.lr[k + 1] = group_lr(loop, group);
        step.weight_decay[k] = own ? group->weight_decay : step.weight_decay[0];
        step.weight_decay[k + 1] = own ? group->weight_decay : 0;
    }
    step.lookahead = fv_lookahead_at(&lookahead, loop->p.step, &step.lookahead_decay);
    step.ema_decay = fv_ema_decay(fv_cli_float(s->cli, OPT_MODEL_EMA_DECAY), true, loop->p.step);
    return step;
}

static const char *what_is_kept(const fv_loop *loop, char *buf, size_t size) {
    if (loop->run && loop->p.best_epoch)
        snprintf(buf, size, "the best weights so far, of epoch %lld, are in %s/weights/best",
                 (long long)loop->p.best_epoch, loop->run->path);
    else snprintf(buf, size, "no weights had been saved yet");
    return buf;
}

/* Name step, layer and what is kept; FV_E_NUMERIC. */
static fv_status fail_non_finite(fv_loop *loop, const fv_batch *batch, const fv_step *step, double loss) {
    fv_session *s = loop->s;
    char where[256] = "", kept[600];
    fv_diagnose_non_finite(s, batch, step, where, sizeof where);
    fv_fail(s->ctx, FV_E_NUMERIC, "step %lld (epoch %lld): the %s is not finite%s%s; %s", (long long)loop->p.step + 1,
            (long long)step->epoch + 1, isfinite(loss) ? "gradient" : "loss",
            where[0] ? "; the first such value came out of " : "", where, what_is_kept(loop, kept, sizeof kept));
    if (loop->fixed_scale && isfinite(loss))
        return fv_hint(s->ctx, "a lower --loss-scale (now %g), or 'auto', keeps gradients within float16's range",
                       step->loss_scale);
    return fv_hint(s->ctx,
                   "a lower --lr (now %g), longer --warmup-epochs or --clip-grad 1 usually help; --on-nan says "
                   "what else to do",
                   step->lr[0]);
}

static bool may_roll_back(const fv_loop *loop) {
    return loop->on_nan == FV_ON_NAN_ROLLBACK && loop->saver && loop->p.rollbacks < FV_MOST_ROLLBACKS;
}

/* Nothing was updated: the update is predicated on the finite flag. */
static fv_status skip_step(fv_loop *loop, const fv_batch *batch, const fv_step *step, double loss) {
    fv_progress *p = &loop->p;
    if (loop->on_nan == FV_ON_NAN_STOP || ++p->skipped_in_a_row > loop->most_skips)
        return fail_non_finite(loop, batch, step, loss);
    fv_console_warn(loop->s->con, "step %lld (epoch %lld): the %s is not finite; the step is left out (%lld in a row)",
                    (long long)p->step + 1, (long long)p->epoch + 1, isfinite(loss) ? "gradient" : "loss",
                    (long long)p->skipped_in_a_row);
    p->step++;
    p->steps_done++;
    p->skipped++;
    return FV_OK;
}

/* The scale after a step; whether that is all there is to a step that was not finite. A loss that is not finite is not
 * the scale's work. */
static bool scale_loss(fv_loop *loop, const fv_step_result *r) {
    fv_progress *p = &loop->p;
    fv_loss_scaling scaling = {.scale = p->loss_scale, .good = p->scale_steps};
    if (!loop->scales || loop->fixed_scale || !isfinite(r->loss)) return false;
    if (!fv_loss_scaling_next(&scaling, r->finite, FV_LOSS_SCALE_STEPS)) return false;
    char text[160];
    snprintf(text, sizeof text,
             "step %lld: gradients past float16's range; the step is left out, the loss scale is %g now",
             (long long)p->step + 1, scaling.scale);
    if (!r->finite && loop->overflow_said) fv_console_detail(loop->s->con, "%s", text);
    else if (!r->finite) fv_console_say(loop->s->con, "%s (said once; each time with -v)", text);
    loop->overflow_said |= !r->finite;
    p->loss_scale = scaling.scale;
    p->scale_steps = scaling.good;
    return true;
}

/* Forward, backward and update over the micro-steps; batch: the last one. */
static fv_status run_batches(fv_loop *loop, const fv_step *step, fv_batch *batch, fv_step_result *out) {
    fv_session *s = loop->s;
    uint32_t forward = 1u << FV_SEG_FORWARD_BACKWARD;
    double stats[2], loss, top1;
    for (int64_t micro = 0; micro < loop->micro_steps; micro++) {
        FV_TRY(fv_loader_next(loop->loader, batch));
        if (batch->size == 0) return fv_fail(s->ctx, FV_E_INTERNAL, "the loader ran out of batches within an epoch");
        FV_TRY(fv_network_feed(s->ctx, s->train_program, &s->net, batch));
        bool last = micro + 1 == loop->micro_steps;
        FV_TRY(fv_program_run(s->train_program, step, last ? FV_ALL_SEGMENTS : forward));
        FV_TRY(fv_network_output(s->ctx, s->train_program, "loss", &loss, 1));
        FV_TRY(fv_network_correct(s->ctx, s->train_program, &s->net, batch, &top1));
        out->loss += loss / (double)loop->micro_steps;
        out->top1 += top1;
    }
    FV_TRY(fv_network_output(s->ctx, s->train_program, "grad_stats", stats, 2));
    out->norm = stats[0];
    out->finite = stats[1] != 0 && isfinite(out->loss);
    return FV_OK;
}

fv_status fv_loop_step(fv_loop *loop, fv_step_result *out) {
    fv_progress *p = &loop->p;
    double lr = fv_sched_lr(&loop->sched, p->step) * p->lr_factor;
    fv_step step = step_data(loop, lr);
    fv_batch batch = {0};
    *out = (fv_step_result){0};
    FV_TRY(fv_session_rest(loop->s, resting_groups(loop)));
    FV_TRY(run_batches(loop, &step, &batch, out));
    out->finite |= scale_loss(loop, out);
    if (!out->finite && may_roll_back(loop)) return FV_OK; /* fv_loop_run goes back */
    if (!out->finite && loop->on_nan == FV_ON_NAN_ROLLBACK) return fail_non_finite(loop, &batch, &step, out->loss);
    if (!out->finite) return skip_step(loop, &batch, &step, out->loss);
    loop->last_lr = lr;
    p->recent_loss = p->step ? 0.9 * p->recent_loss + 0.1 * out->loss : out->loss;
    p->skipped_in_a_row = 0;
    p->step++;
    p->steps_done++;
    p->loss_sum += out->loss;
    p->top1_sum += out->top1;
    p->pictures += loop->s->net.batch * loop->micro_steps;
    return FV_OK;
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

/* How long the training thread waited for pictures, in this process. */
static void show_waiting(fv_loop *loop) {
    double waited = fv_loader_wait_seconds(loop->loader), seconds = loop->p.train_seconds;
    fv_console_detail(loop->s->con, "loader waited for %.2f s, %.1f%% of the epoch's training", waited - loop->waited,
                      seconds > 0 ? 100 * (waited - loop->waited) / seconds : 0);
    loop->waited = waited;
}

/* ---------------------------------------------------------------- saving */

static fv_status save(fv_loop *loop, uint32_t what) {
    if (!loop->saver) return FV_OK;
    loop->p.elapsed = fv_tool_now() - loop->began;
    if (what & FV_SAVE_STATE) loop->last_save = fv_tool_now();
    return fv_saver_submit(loop->saver, what, &loop->p);
}

/* Between two steps: whether a save is due by count, time or signal. One that is still being written is not waited for.
 */
static fv_status save_if_due(fv_loop *loop) {
    const fv_cli *cli = loop->s->cli;
    int64_t every = fv_cli_int(cli, OPT_SAVE_STEPS);
    double minutes = fv_cli_float(cli, OPT_SAVE_MINUTES);
    if (!loop->saver) return FV_OK;
    loop->save_due |= every && loop->p.step % every == 0;
    loop->save_due |= minutes > 0 && fv_tool_now() - loop->last_save >= 60 * minutes;
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
    return fv_signal_pending() || (fv_cli_has(cli, OPT_MAX_STEPS) && loop->p.step >= fv_cli_int(cli, OPT_MAX_STEPS) &&
                                   loop->p.epoch < loop->n_epochs);
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

/* To the end of the epoch, or until something asks for an end. */
static fv_status train_epoch(fv_loop *loop) {
    fv_session *s = loop->s;
    fv_progress *p = &loop->p;
    int64_t log_every = fv_cli_int(s->cli, OPT_LOG_EVERY);
    double mark = fv_tool_now();
    while (p->steps_done < fv_loop_epoch_steps(loop, p->epoch) && !fv_loop_stopped(loop)) {
        fv_step_result r;
        FV_TRY(fv_loop_step(loop, &r));
        double now = fv_tool_now();
        p->train_seconds += now - mark;
        mark = now;
        if (!r.finite && loop->on_nan == FV_ON_NAN_ROLLBACK) {
            FV_TRY(roll_back(loop));
            mark = fv_tool_now();
            continue;
        }
        show_bar(loop, r.loss, p->train_seconds);
        if (log_every && p->step % log_every == 0)
            fv_console_say(s->con, "  step %lld  loss %.4f  grad norm %.3f  lr %.5f", (long long)p->step, r.loss,
                           r.norm, loop->last_lr);
        FV_TRY(save_if_due(loop));
    }
    return FV_OK;
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
            loop->p.recent_loss, (long long)loop->p.epoch + 1, guessing(loop), what_is_kept(loop, kept, sizeof kept));
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
        if (has_diverged(loop) && may_roll_back(loop)) {
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
