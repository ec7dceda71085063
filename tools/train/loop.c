#include "tools/train/loop.h"
#include "tools/train/signals.h"

#include <math.h>
#include <string.h>

#define FV_DIVERGED 10 /* times the loss of guessing */
#define FV_OVERFIT_LOSS 1e-3
#define FV_OVERFIT_STEPS 1000
#define FV_OVERFIT_WARMUP 20

/* ---------------------------------------------------------------- set-up */

static void set_schedule(fv_loop *loop) {
    const fv_cli *cli = loop->s->cli;
    double per_epoch = (double)loop->steps_per_epoch;
    fv_sched_cfg *c = &loop->sched;
    *c = (fv_sched_cfg){.kind = (fv_sched_kind)fv_sched_from_name(fv_cli_text(cli, OPT_SCHED)),
                        .lr = fv_cli_float(cli, OPT_LR),
                        .min_lr = fv_cli_float(cli, OPT_MIN_LR),
                        .steps = loop->epochs * loop->steps_per_epoch,
                        .warmup_steps = llround(fv_cli_float(cli, OPT_WARMUP_EPOCHS) * per_epoch),
                        .decay_steps = llround(fv_cli_float(cli, OPT_DECAY_EPOCHS) * per_epoch),
                        .decay_rate = fv_cli_float(cli, OPT_DECAY_RATE)};
    if (c->decay_steps < 1) c->decay_steps = 1;
    if (fv_session_overfits(loop->s)) c->kind = FV_SCHED_CONSTANT, c->warmup_steps = FV_OVERFIT_WARMUP;
    const fv_cli_value *milestones = &cli->value[OPT_MILESTONES];
    for (int i = 0; i < milestones->count; i++)
        c->milestones[c->n_milestones++] = llround(milestones->number[i] * per_epoch);
}

fv_status fv_loop_begin(fv_loop *loop, fv_session *s) {
    const fv_cli *cli = s->cli;
    bool overfit = fv_session_overfits(s);
    memset(loop, 0, sizeof *loop);
    loop->s = s;
    loop->micro_steps = fv_cli_int(cli, OPT_GRAD_ACCUM_STEPS);
    loop->epochs = fv_cli_int(cli, OPT_EPOCHS);
    fv_augment_cfg augment = {.crop_pad = (int)fv_cli_int(cli, OPT_CROP_PAD),
                              .pad_mode = s->net.pad_mode,
                              .flip = fv_cli_float(cli, OPT_HFLIP),
                              .cutout = (int)fv_cli_int(cli, OPT_CUTOUT)};
    fv_loader_cfg cfg = {.batch = s->net.batch,
                         .train = true,
                         .augment = overfit ? NULL : &augment,
                         .seed = (uint64_t)fv_cli_int(cli, OPT_SEED),
                         .workers = (int)fv_cli_int(cli, OPT_WORKERS),
                         .shuffle_labels = fv_cli_bool(cli, OPT_SHUFFLE_LABELS)};
    FV_TRY(fv_loader_create(s->ctx, s->train, s->train_index, s->n_train, &cfg, &loop->loader));
    loop->steps_per_epoch = fv_loader_batches(loop->loader) / loop->micro_steps;
    if (loop->steps_per_epoch < 1)
        return fv_fail(s->ctx, FV_E_USAGE, "an epoch has fewer batches than --grad-accum-steps");
    set_schedule(loop);
    loop->began = fv_tool_now();
    return FV_OK;
}

void fv_loop_end(fv_loop *loop) {
    fv_loader_destroy(loop->loader);
}

/* ---------------------------------------------------------------- one step */

static fv_step step_data(const fv_loop *loop, int64_t epoch, double lr) {
    const fv_session *s = loop->s;
    fv_step step = {
        .seed = (uint64_t)fv_cli_int(s->cli, OPT_SEED), .step = loop->step, .epoch = epoch, .loss_scale = 1};
    step.lr[0] = step.lr[1] = lr;
    step.weight_decay[0] = s->net.optim.weight_decay; /* group 1 has none (optim.h) */
    step.ema_decay = fv_ema_decay(fv_cli_float(s->cli, OPT_MODEL_EMA_DECAY), true, loop->step);
    return step;
}

static const char *what_is_kept(const fv_loop *loop, char *buf, size_t size) {
    if (loop->run && loop->best_epoch)
        snprintf(buf, size, "the weights of earlier epochs are in %s/weights", loop->run->path);
    else snprintf(buf, size, "no weights had been saved yet");
    return buf;
}

static fv_status fail_non_finite(fv_loop *loop, const fv_batch *batch, const fv_step *step, double loss) {
    fv_session *s = loop->s;
    char where[256] = "", kept[600];
    fv_diagnose_non_finite(s, batch, step, where, sizeof where);
    fv_fail(s->ctx, FV_E_NUMERIC, "step %lld (epoch %lld): the %s is not finite%s%s; %s", (long long)loop->step + 1,
            (long long)step->epoch + 1, isfinite(loss) ? "gradient" : "loss",
            where[0] ? "; the first such value came out of " : "", where, what_is_kept(loop, kept, sizeof kept));
    return fv_hint(s->ctx, "a lower --lr (now %g), longer --warmup-epochs or --clip-grad 1 usually help", step->lr[0]);
}

fv_status fv_loop_step(fv_loop *loop, int64_t epoch, fv_step_result *out) {
    fv_session *s = loop->s;
    double lr = fv_sched_lr(&loop->sched, loop->step), stats[2], loss, top1;
    fv_step step = step_data(loop, epoch, lr);
    uint32_t forward = 1u << FV_SEG_FORWARD_BACKWARD;
    fv_batch batch = {0};
    *out = (fv_step_result){0};
    for (int64_t micro = 0; micro < loop->micro_steps; micro++) {
        FV_TRY(fv_loader_next(loop->loader, &batch));
        if (batch.size == 0) return fv_fail(s->ctx, FV_E_INTERNAL, "the loader ran out of batches within an epoch");
        FV_TRY(fv_network_feed(s->ctx, s->train_program, &s->net, &batch));
        bool last = micro + 1 == loop->micro_steps;
        FV_TRY(fv_program_run(s->train_program, &step, last ? FV_ALL_SEGMENTS : forward));
        FV_TRY(fv_network_output(s->ctx, s->train_program, "loss", &loss, 1));
        FV_TRY(fv_network_output(s->ctx, s->train_program, "top1", &top1, 1));
        out->loss += loss / (double)loop->micro_steps;
        out->top1 += top1;
    }
    FV_TRY(fv_network_output(s->ctx, s->train_program, "grad_stats", stats, 2));
    out->norm = stats[0];
    out->finite = stats[1] != 0 && isfinite(out->loss);
    if (!out->finite) return fail_non_finite(loop, &batch, &step, out->loss);
    loop->last_lr = lr;
    loop->recent_loss = loop->step ? 0.9 * loop->recent_loss + 0.1 * out->loss : out->loss;
    loop->step++;
    loop->steps_done++;
    loop->loss_sum += out->loss;
    loop->top1_sum += out->top1;
    loop->pictures += s->net.batch * loop->micro_steps;
    return FV_OK;
}

/* ---------------------------------------------------------------- what is shown */

static void show_bar(fv_loop *loop, int64_t epoch, int64_t done, double loss, double started) {
    char bar[32];
    int filled = (int)(24 * done / loop->steps_per_epoch);
    for (int i = 0; i < 24; i++) bar[i] = i < filled ? '=' : i == filled ? '>' : ' ';
    bar[24] = '\0';
    double now = fv_tool_now(), seconds = now - started;
    fv_console_bar(loop->s->con, now, "%3lld/%-3lld [%s] %lld/%lld  loss %.3f  %.0f img/s", (long long)epoch + 1,
                   (long long)loop->epochs, bar, (long long)done, (long long)loop->steps_per_epoch, loss,
                   seconds > 0 ? (double)loop->pictures / seconds : 0);
}

static void show_epoch(fv_loop *loop, const fv_epoch_row *r) {
    char count[24], val[16] = "-", top1[16] = "-", top5[16] = "-", eta[24];
    double left = (double)(loop->epochs - r->epoch) * (r->time / (double)r->epoch);
    if (r->epoch == 1)
        fv_console_say(loop->s->con, "  epoch   loss  val_loss   top1   top5      lr   img/s    mem     ETA");
    snprintf(count, sizeof count, "%lld/%lld", (long long)r->epoch, (long long)loop->epochs);
    if (isfinite(r->val_loss)) {
        snprintf(val, sizeof val, "%.3f", r->val_loss);
        snprintf(top1, sizeof top1, "%.2f", 100 * r->top1);
        snprintf(top5, sizeof top5, "%.2f", 100 * r->top5);
    }
    fv_console_say(loop->s->con, "%7s %6.3f %9s %6s %6s %7.4f %7.0f %5.2fG %7s%s", count, r->train_loss, val, top1,
                   top5, r->lr, r->images_per_s, r->mem_gb, fv_text_duration(left, eta, sizeof eta),
                   loop->best_epoch == r->epoch && loop->s->n_val ? "  *" : "");
}

static json_t *epoch_json(const fv_epoch_row *r) {
    return json_pack("{s:s, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "event", "epoch", "epoch",
                     (json_int_t)r->epoch, "time", fv_json_number(r->time, 7), "train_loss",
                     fv_json_number(r->train_loss, 7), "val_loss", fv_json_number(r->val_loss, 7), "top1",
                     fv_json_number(r->top1, 7), "top5", fv_json_number(r->top5, 7), "lr", fv_json_number(r->lr, 8),
                     "train_top1", fv_json_number(r->train_top1, 7), "ema_top1", fv_json_number(r->ema_top1, 7),
                     "images_per_s", fv_json_number(r->images_per_s, 6), "mem_gb", fv_json_number(r->mem_gb, 4));
}

/* ---------------------------------------------------------------- an epoch */

static fv_status save(fv_loop *loop, const char *which, bool ema, int64_t epoch) {
    fv_status status = fv_run_save(loop->run, loop->s, which, ema, epoch, loop->step);
    if (status == FV_E_IO && !loop->s->ctx->error.hint[0])
        fv_hint(loop->s->ctx, "what was saved before is as it was; make room, or choose another place with --output");
    return status;
}

static fv_status save_last(fv_loop *loop, int64_t epoch) {
    if (!loop->run) return FV_OK;
    FV_TRY(save(loop, "last", false, epoch));
    return loop->s->net.optim.ema ? save(loop, "ema", true, epoch) : FV_OK;
}

static fv_status train_epoch(fv_loop *loop, int64_t epoch, int64_t first) {
    fv_session *s = loop->s;
    int64_t log_every = fv_cli_int(s->cli, OPT_LOG_EVERY);
    double started = fv_tool_now();
    for (int64_t i = first; i < loop->steps_per_epoch && !fv_signal_pending(); i++) {
        fv_step_result r;
        FV_TRY(fv_loop_step(loop, epoch, &r));
        show_bar(loop, epoch, i + 1, r.loss, started);
        if (log_every && loop->step % log_every == 0)
            fv_console_say(s->con, "  step %lld  loss %.4f  grad norm %.3f  lr %.5f", (long long)loop->step, r.loss,
                           r.norm, loop->last_lr);
        if (fv_signal_take_save()) {
            FV_TRY(save_last(loop, epoch));
            fv_console_say(s->con, "saved weights/last at step %lld", (long long)loop->step);
        }
    }
    loop->train_seconds += fv_tool_now() - started;
    return FV_OK;
}

/* Figures on the validation split into the row; whether this epoch is the best so far. */
static fv_status validate(fv_loop *loop, fv_epoch_row *row, bool *best, bool *interrupted) {
    fv_session *s = loop->s;
    fv_evaluation e;
    FV_TRY(fv_session_build_eval(s));
    FV_TRY(fv_evaluate(s, s->eval_program, s->train, s->val_index, s->n_val, &e));
    *interrupted = e.interrupted;
    row->top1 = e.top1, row->top5 = e.top5, row->val_loss = e.loss;
    fv_evaluation_free(&e);
    double judged = row->top1;
    if (s->net.optim.ema && !*interrupted) {
        FV_TRY(fv_session_build_ema(s));
        FV_TRY(fv_evaluate(s, s->ema_program, s->train, s->val_index, s->n_val, &e));
        *interrupted = e.interrupted;
        judged = row->ema_top1 = e.top1;
        fv_evaluation_free(&e);
    }
    *best = !*interrupted && (!loop->best_epoch || judged > loop->best_top1);
    if (*best) loop->best_top1 = judged;
    return FV_OK;
}

static fv_status finish_epoch(fv_loop *loop, int64_t epoch) {
    fv_session *s = loop->s;
    bool last_epoch = epoch + 1 == loop->epochs, best = false, interrupted = false;
    bool evaluates = s->n_val && ((epoch + 1) % fv_cli_int(s->cli, OPT_EVAL_EVERY) == 0 || last_epoch);
    double n = loop->steps_done ? (double)loop->steps_done : 1;
    fv_epoch_row row = {.epoch = epoch + 1,
                        .train_loss = loop->loss_sum / n,
                        .train_top1 = loop->pictures ? loop->top1_sum / (double)loop->pictures : 0,
                        .lr = loop->last_lr,
                        .images_per_s = loop->train_seconds > 0 ? (double)loop->pictures / loop->train_seconds : 0,
                        .top1 = NAN,
                        .top5 = NAN,
                        .val_loss = NAN,
                        .ema_top1 = NAN};
    FV_TRY(save_last(loop, epoch + 1));
    if (evaluates) FV_TRY(validate(loop, &row, &best, &interrupted));
    if (interrupted) return FV_OK;
    if (!s->n_val) best = last_epoch;
    if (best) {
        loop->best_epoch = epoch + 1;
        if (loop->run) FV_TRY(save(loop, "best", s->net.optim.ema, epoch + 1));
    }
    row.mem_gb = fv_tool_peak_mb() / 1024;
    row.time = fv_tool_now() - loop->began;
    if (loop->run) FV_TRY(fv_run_add_row(loop->run, s->ctx, &row));
    show_epoch(loop, &row);
    FV_TRY(fv_console_check_log(s->con, s->ctx));
    return fv_console_json(s->con, s->ctx, epoch_json(&row));
}

/* The loss is many times that of guessing, and not for a moment: nothing will come of this run. */
static fv_status check_divergence(fv_loop *loop, int64_t epoch) {
    fv_session *s = loop->s;
    char kept[600];
    double guess = log((double)(s->net.cfg.num_classes > 2 ? s->net.cfg.num_classes : 2));
    if (loop->recent_loss <= FV_DIVERGED * guess) return FV_OK;
    fv_fail(s->ctx, FV_E_NUMERIC, "training diverged: the loss is %.4g at the end of epoch %lld, guessing has %.2f; %s",
            loop->recent_loss, (long long)epoch + 1, guess, what_is_kept(loop, kept, sizeof kept));
    return fv_hint(s->ctx, "a lower --lr (now %s), longer --warmup-epochs or --clip-grad 1 usually help",
                   fv_cli_text(s->cli, OPT_LR));
}

static void reset_epoch(fv_loop *loop) {
    loop->total_train_seconds += loop->train_seconds;
    loop->total_pictures += loop->pictures;
    loop->loss_sum = loop->top1_sum = loop->train_seconds = 0;
    loop->steps_done = loop->pictures = 0;
}

fv_status fv_loop_run(fv_loop *loop) {
    for (int64_t epoch = 0; epoch < loop->epochs; epoch++) {
        int64_t first = loop->steps_done; /* 1 when the first step was taken before (train.c), else 0 */
        if (epoch) FV_TRY(fv_loader_start(loop->loader, epoch, 0));
        FV_TRY(train_epoch(loop, epoch, first));
        if (fv_signal_pending()) {
            FV_TRY(save_last(loop, epoch));
            break;
        }
        FV_TRY(check_divergence(loop, epoch));
        FV_TRY(finish_epoch(loop, epoch));
        reset_epoch(loop);
    }
    reset_epoch(loop);
    return FV_OK;
}

/* ---------------------------------------------------------------- learning by heart */

fv_status fv_loop_overfit(fv_loop *loop) {
    fv_session *s = loop->s;
    int64_t batches = loop->steps_per_epoch, epoch = 0;
    double loss = INFINITY;
    while (loop->step < FV_OVERFIT_STEPS && !fv_signal_pending()) {
        if (epoch) FV_TRY(fv_loader_start(loop->loader, epoch, 0));
        for (; loop->steps_done < batches;) {
            fv_step_result r;
            FV_TRY(fv_loop_step(loop, epoch, &r));
            show_bar(loop, epoch, loop->steps_done, r.loss, loop->began);
        }
        loss = loop->loss_sum / (double)loop->steps_done;
        reset_epoch(loop);
        epoch++;
        if (epoch % 50 == 0 || loss < FV_OVERFIT_LOSS)
            fv_console_say(s->con, "  step %4lld  loss %.6f", (long long)loop->step, loss);
        if (loss < FV_OVERFIT_LOSS) break;
    }
    bool passed = loss < FV_OVERFIT_LOSS;
    FV_TRY(fv_console_json(s->con, s->ctx,
                           json_pack("{s:s, s:b, s:o, s:I}", "event", "overfit", "passed", (int)passed, "loss",
                                     fv_json_number(loss, 6), "steps", (json_int_t)loop->step)));
    if (passed) {
        fv_console_result(
            s->con, "overfit: passed. The model learned %lld batch%s by heart: loss %.2e after %lld steps (below %g)",
            (long long)batches, batches == 1 ? "" : "es", loss, (long long)loop->step, FV_OVERFIT_LOSS);
        return FV_OK;
    }
    if (fv_signal_pending()) return FV_OK;
    fv_fail(s->ctx, FV_E_GATE,
            "overfit: failed. The loss is %.4g after %lld steps on the same %lld batch%s; it should fall under %g",
            loss, (long long)loop->step, (long long)batches, batches == 1 ? "" : "es", FV_OVERFIT_LOSS);
    return fv_hint(s->ctx, "try a lower --lr (now %s); if that does not help, model, labels or gradients are wrong",
                   fv_cli_text(s->cli, OPT_LR));
}
