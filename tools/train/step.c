/* step.c: one step of training, in two halves: what the device is given, and what came of it. A device that is not the
 * host computes while the next step is prepared:
 *
 *   host     feed 1, begin 1 │ feed 2, begin 2 │ finish 1 │ feed 3, begin 3 │ finish 2 │ ...
 *   device                    [ step 1         ........ ][ step 2           ........ ][ step 3 ...
 *
 * With micro-steps each is a run of its own; of the next step only the first is begun before this one is finished. */
#include "tools/train/step.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- what a step is told */

/* The first step that a param group no longer takes part in. */
static int64_t group_end(const fv_loop *loop, const fv_cli_group *group) {
    int64_t until = group->until > 0 ? fv_loop_steps_of(loop, group->until) : INT64_MAX;
    int64_t within = group->within > 0 ? fv_loop_steps_of(loop, group->within) : INT64_MAX;
    return until < within ? until : within;
}

/* What the schedule gives for a param group, times its factor. */
static double group_lr(const fv_loop *loop, int64_t step, const fv_cli_group *group) {
    fv_sched_cfg sched = loop->sched;
    if (step >= group_end(loop, group)) return 0;
    if (group->within > 0) sched = fv_sched_within(&sched, fv_loop_steps_of(loop, group->within));
    return group->lr * fv_sched_lr(&sched, step) * loop->p.lr_factor;
}

/* Groups at their end cost nothing any more: bits by number, as fv_session_rest takes them. */
static uint32_t resting_groups(const fv_loop *loop, int64_t step) {
    uint32_t resting = 0;
    for (int i = 0; i < loop->s->net.optim.n_groups; i++)
        resting |= (uint32_t)(step >= group_end(loop, &loop->s->groups[i])) << i;
    return resting;
}

/* float16: the scale of a step depends on how the one before it went. */
static bool scale_varies(const fv_loop *loop) {
    return loop->scales && !loop->fixed_scale;
}

/* lr: of the parameters that are in no param group. The numbers of groups: optim.h. */
static fv_step step_data(const fv_loop *loop, int64_t number, double lr) {
    const fv_session *s = loop->s;
    fv_lookahead_cfg lookahead = {.every = fv_cli_int(s->cli, OPT_LOOKAHEAD),
                                  .steps = loop->steps,
                                  .decay = fv_cli_float(s->cli, OPT_LOOKAHEAD_DECAY),
                                  .power = fv_cli_float(s->cli, OPT_LOOKAHEAD_POWER)};
    fv_step step = {.seed = (uint64_t)fv_cli_int(s->cli, OPT_SEED), .step = number, .epoch = loop->p.epoch};
    step.loss_scale = loop->scales ? loop->p.loss_scale : 1;
    /* As diagnose.c looks at the same weights again. Where the loss scale falls after an overflow, training goes on. */
    step.halts = loop->on_nan == FV_ON_NAN_STOP && !scale_varies(loop);
    step.lr[0] = step.lr[1] = lr;
    step.weight_decay[0] = s->net.optim.weight_decay;
    for (int i = 0; i < s->net.optim.n_groups; i++) {
        const fv_cli_group *group = &s->groups[i];
        int k = 2 * (i + 1);
        bool own = group->weight_decay >= 0;
        step.lr[k] = step.lr[k + 1] = group_lr(loop, number, group);
        step.weight_decay[k] = own ? group->weight_decay : step.weight_decay[0];
        step.weight_decay[k + 1] = own ? group->weight_decay : 0;
    }
    step.lookahead = fv_lookahead_at(&lookahead, number, &step.lookahead_decay);
    step.ema_decay = fv_ema_decay(fv_cli_float(s->cli, OPT_MODEL_EMA_DECAY), true, number);
    return step;
}

const char *fv_loop_what_is_kept(const fv_loop *loop, char *buf, size_t size) {
    if (loop->run && loop->p.best_epoch)
        snprintf(buf, size, "the best weights so far, of epoch %lld, are in %s/weights/best",
                 (long long)loop->p.best_epoch, loop->run->path);
    else snprintf(buf, size, "no weights had been saved yet");
    return buf;
}

/* ---------------------------------------------------------------- what came of it */

/* Name step, layer and what is kept; FV_E_NUMERIC. */
static fv_status fail_non_finite(fv_loop *loop, const fv_begun_step *b) {
    fv_session *s = loop->s;
    const fv_step *step = &b->step;
    const double loss = b->result.loss;
    char where[256] = "", kept[600];
    fv_step_drop(loop);
    fv_diagnose_non_finite(s, &b->batch, step, where, sizeof where);
    fv_fail(s->ctx, FV_E_NUMERIC, "step %lld (epoch %lld): the %s is not finite%s%s; %s", (long long)loop->p.step + 1,
            (long long)step->epoch + 1, isfinite(loss) ? "gradient" : "loss",
            where[0] ? "; the first such value came out of " : "", where,
            fv_loop_what_is_kept(loop, kept, sizeof kept));
    if (loop->fixed_scale && isfinite(loss))
        return fv_hint(s->ctx, "a lower --loss-scale (now %g), or 'auto', keeps gradients within float16's range",
                       step->loss_scale);
    return fv_hint(s->ctx,
                   "a lower --lr (now %g), longer --warmup-epochs or --clip-grad 1 usually help; --on-nan says "
                   "what else to do",
                   step->lr[0]);
}

bool fv_loop_may_roll_back(const fv_loop *loop) {
    return loop->on_nan == FV_ON_NAN_ROLLBACK && loop->saver && loop->p.rollbacks < FV_MOST_ROLLBACKS;
}

/* Nothing was updated: the update is predicated on the finite flag. */
static fv_status skip_step(fv_loop *loop, const fv_begun_step *b) {
    fv_progress *p = &loop->p;
    if (loop->on_nan == FV_ON_NAN_STOP || ++p->skipped_in_a_row > loop->most_skips) return fail_non_finite(loop, b);
    fv_console_warn(loop->s->con, "step %lld (epoch %lld): the %s is not finite; the step is left out (%lld in a row)",
                    (long long)p->step + 1, (long long)p->epoch + 1, isfinite(b->result.loss) ? "gradient" : "loss",
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
    if (!scale_varies(loop) || !isfinite(r->loss)) return false;
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

/* Into the figures of the epoch. */
static fv_status take_result(fv_loop *loop, const fv_begun_step *b, fv_step_result *out) {
    fv_progress *p = &loop->p;
    *out = b->result;
    out->finite |= scale_loss(loop, out);
    if (!out->finite && fv_loop_may_roll_back(loop)) return FV_OK; /* fv_loop_run goes back */
    if (!out->finite && loop->on_nan == FV_ON_NAN_ROLLBACK) return fail_non_finite(loop, b);
    if (!out->finite) return skip_step(loop, b);
    loop->last_lr = b->lr;
    p->recent_loss = p->step ? 0.9 * p->recent_loss + 0.1 * out->loss : out->loss;
    p->skipped_in_a_row = 0;
    p->step++;
    p->steps_done++;
    p->loss_sum += out->loss;
    p->top1_sum += out->top1;
    p->pictures += loop->s->net.batch * loop->micro_steps;
    return FV_OK;
}

/* ---------------------------------------------------------------- runs */

/* Feed the next batch and begin what the step does with it. */
static fv_status begin_run(fv_loop *loop, fv_begun_step *b) {
    fv_session *s = loop->s;
    const uint32_t forward = 1u << FV_SEG_FORWARD_BACKWARD;
    const bool last = b->runs + 1 == loop->micro_steps;
    fv_batch batch;
    FV_TRY(fv_loader_next(loop->loader, &batch));
    if (batch.size == 0) return fv_fail(s->ctx, FV_E_INTERNAL, "the loader ran out of batches within an epoch");
    FV_TRY(fv_network_feed(s->ctx, s->train_program, &s->net, &batch));
    FV_TRY(fv_program_begin(s->train_program, &b->step, last ? FV_ALL_SEGMENTS : forward));
    loop->running[fv_program_running(s->train_program) - 1] = b->batch = batch;
    b->runs++;
    return FV_OK;
}

static fv_status read_run(fv_loop *loop, fv_begun_step *b, const fv_batch *batch) {
    fv_session *s = loop->s;
    double stats[2], loss, top1;
    FV_TRY(fv_program_end(s->train_program));
    FV_TRY(fv_network_seen(s->ctx, s->train_program, "loss", &loss, 1));
    FV_TRY(fv_network_correct(s->ctx, s->train_program, &s->net, batch, &top1));
    b->result.loss += loss / (double)loop->micro_steps;
    b->result.top1 += top1;
    if (++b->ended < loop->micro_steps) return FV_OK;
    FV_TRY(fv_network_seen(s->ctx, s->train_program, "grad_stats", stats, 2));
    b->result.norm = stats[0];
    b->result.finite = stats[1] != 0 && isfinite(b->result.loss);
    return FV_OK;
}

/* The oldest run under way into the result of its step. After an error nothing more is expected of any. */
static fv_status end_run(fv_loop *loop) {
    const fv_batch batch = loop->running[0];
    loop->running[0] = loop->running[1];
    fv_status status = read_run(loop, &loop->begun[loop->begun[0].ended == loop->micro_steps], &batch);
    if (status != FV_OK) loop->n_begun = 0;
    return status;
}

/* Until no more than `most` are under way. */
static fv_status end_runs(fv_loop *loop, int most) {
    while (fv_program_running(loop->s->train_program) > most) FV_TRY(end_run(loop));
    return FV_OK;
}

static fv_status begin_rest(fv_loop *loop, fv_begun_step *b) {
    while (b->runs < loop->micro_steps) {
        FV_TRY(begin_run(loop, b));
        FV_TRY(end_runs(loop, loop->ahead));
    }
    return FV_OK;
}

/* ---------------------------------------------------------------- steps */

bool fv_step_waits(const fv_loop *loop) {
    const fv_progress *p = &loop->p;
    const int64_t next = p->step + loop->n_begun;
    if (loop->n_begun == 0) return false;
    if (scale_varies(loop)) return true;
    if (loop->on_nan == FV_ON_NAN_SKIP && p->skipped_in_a_row >= loop->most_skips) return true;
    /* Going back takes what the next step did with the weights, but not the gradients that it has summed so far. */
    if (loop->on_nan == FV_ON_NAN_ROLLBACK && (loop->micro_steps > 1 || !fv_loop_may_roll_back(loop))) return true;
    return resting_groups(loop, next) != resting_groups(loop, next - 1);
}

fv_status fv_step_begin(fv_loop *loop) {
    const int64_t number = loop->p.step + loop->n_begun;
    fv_begun_step *b = &loop->begun[loop->n_begun];
    if (loop->n_begun) FV_TRY(begin_rest(loop, &loop->begun[0]));
    *b = (fv_begun_step){.lr = fv_sched_lr(&loop->sched, number) * loop->p.lr_factor};
    b->step = step_data(loop, number, b->lr);
    FV_TRY(fv_session_rest(loop->s, resting_groups(loop, number)));
    FV_TRY(begin_run(loop, b));
    loop->n_begun++;
    return end_runs(loop, loop->ahead);
}

fv_status fv_step_finish(fv_loop *loop, fv_step_result *out) {
    FV_TRY(begin_rest(loop, &loop->begun[0]));
    while (loop->begun[0].ended < loop->micro_steps) FV_TRY(end_run(loop));
    const fv_begun_step done = loop->begun[0];
    loop->begun[0] = loop->begun[1];
    loop->n_begun--;
    return take_result(loop, &done, out);
}

void fv_step_drop(fv_loop *loop) {
    const fv_error before = loop->s->ctx->error;
    loop->n_begun = 0;
    while (fv_program_running(loop->s->train_program)) (void)fv_program_end(loop->s->train_program);
    loop->s->ctx->error = before;
}

fv_status fv_loop_step(fv_loop *loop, fv_step_result *out) {
    FV_TRY(fv_step_begin(loop));
    return fv_step_finish(loop, out);
}
