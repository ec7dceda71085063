/* schedule.c: learning rates as pure functions of the step. */
#include <math.h>
#include <string.h>

#include "optim/optim.h"

static const double pi = 3.14159265358979323846;

static const char *const names[] = {
    [FV_SCHED_CONSTANT] = "constant",   [FV_SCHED_COSINE] = "cosine", [FV_SCHED_STEP] = "step",
    [FV_SCHED_MULTISTEP] = "multistep", [FV_SCHED_POLY] = "poly",     [FV_SCHED_ONECYCLE] = "onecycle",
    [FV_SCHED_LINEAR] = "linear",
};
enum { KINDS = sizeof(names) / sizeof(names[0]) };

const char *fv_sched_name(fv_sched_kind kind) {
    return (unsigned)kind < KINDS ? names[kind] : "?";
}

int fv_sched_from_name(const char *name) {
    for (int i = 0; i < KINDS; i++)
        if (strcmp(names[i], name) == 0) return i;
    return -1;
}

/* Half a cosine wave from `from` at t = 0 to `to` at t = 1. */
static double cosine_between(double from, double to, double t) {
    return to + 0.5 * (from - to) * (1 + cos(pi * t));
}

/* Up to the peak for pct_start of the steps, then down to nearly nothing. Positions as in PyTorch's OneCycleLR with
 * anneal_strategy="cos": the peak is at step pct_start * steps - 1, the end at steps - 1. */
static double one_cycle(const fv_sched_cfg *cfg, int64_t step) {
    double pct_start = cfg->pct_start > 0 ? cfg->pct_start : 0.3;
    double first = cfg->lr / (cfg->div_factor > 0 ? cfg->div_factor : 25);
    double last = first / (cfg->final_div > 0 ? cfg->final_div : 1e4);
    double peak = pct_start * (double)cfg->steps - 1, end = (double)(cfg->steps - 1), at = (double)step;
    if (peak < 0) peak = 0;
    if (at < peak) return cosine_between(first, cfg->lr, at / peak);
    return end > peak ? cosine_between(cfg->lr, last, (at - peak) / (end - peak)) : cfg->lr;
}

static int milestones_passed(const fv_sched_cfg *cfg, int64_t step) {
    int passed = 0;
    for (int i = 0; i < cfg->n_milestones; i++) passed += step >= cfg->milestones[i];
    return passed;
}

double fv_sched_lr(const fv_sched_cfg *cfg, int64_t step) {
    if (step < 0) step = 0;
    if (cfg->kind == FV_SCHED_ONECYCLE) return one_cycle(cfg, step < cfg->steps ? step : cfg->steps - 1);
    if (step < cfg->warmup_steps)
        return cfg->warmup_lr > 0
                   ? cfg->warmup_lr + (cfg->lr - cfg->warmup_lr) * ((double)step / (double)cfg->warmup_steps)
                   : cfg->lr * ((double)(step + 1) / (double)cfg->warmup_steps);

    /* Part of the way from the end of the warm-up to the end. */
    double way = (double)(cfg->steps - cfg->warmup_steps);
    double t = way > 0 ? fmin(1, (double)(step - cfg->warmup_steps) / way) : 1;
    double rate = cfg->decay_rate > 0 ? cfg->decay_rate : 0.1;
    switch (cfg->kind) {
    case FV_SCHED_COSINE: return cosine_between(cfg->lr, cfg->min_lr, t);
    case FV_SCHED_LINEAR: return cfg->min_lr + (cfg->lr - cfg->min_lr) * (1 - t);
    case FV_SCHED_POLY: return cfg->min_lr + (cfg->lr - cfg->min_lr) * pow(1 - t, cfg->power > 0 ? cfg->power : 1);
    case FV_SCHED_STEP: {
        int64_t decays = cfg->decay_steps > 0 ? step / cfg->decay_steps : 0;
        return cfg->lr * pow(rate, (double)decays);
    }
    case FV_SCHED_MULTISTEP: return cfg->lr * pow(rate, milestones_passed(cfg, step));
    case FV_SCHED_CONSTANT:
    case FV_SCHED_ONECYCLE: break;
    }
    return cfg->lr;
}

fv_sched_cfg fv_sched_within(const fv_sched_cfg *cfg, int64_t steps) {
    fv_sched_cfg out = *cfg;
    double share = (double)steps / (double)cfg->steps;
    out.steps = steps;
    out.warmup_steps = llround((double)cfg->warmup_steps * share);
    out.decay_steps = llround((double)cfg->decay_steps * share);
    if (cfg->decay_steps > 0 && out.decay_steps < 1) out.decay_steps = 1;
    for (int i = 0; i < cfg->n_milestones; i++) out.milestones[i] = llround((double)cfg->milestones[i] * share);
    return out;
}
