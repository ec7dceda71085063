/* optim.h: optimizers as update nodes in the graph, learning-rate schedules, clipping, averages of weights. */
#ifndef FV_OPTIM_H
#define FV_OPTIM_H

#include "core/core.h"

typedef enum fv_opt_kind { FV_OPT_SGD, FV_OPT_ADAM, FV_OPT_ADAMW } fv_opt_kind;

typedef struct fv_optim_cfg {
    fv_opt_kind kind;
    double momentum; /* sgd */
    bool nesterov;
    double beta1, beta2, eps; /* adam, adamw; 0: 0.9, 0.999, 1e-8 */
    double weight_decay;      /* of weights; norms, biases, tokens and positions are left out (decl.no_decay) */
    bool decay_all;           /* ... or not left out */
    double clip_grad;         /* > 0: by global L2 norm */
    bool ema;                 /* keep averages (step.ema_decay) */
    int accumulate;           /* micro-steps per update; 0, 1: none. Gradients are averaged */
} fv_optim_cfg;

/* Append backward pass, gradient statistics and updates for all parameters of the graph that are not frozen. Adds the
 * output "grad_stats" [2] (norm, finite). Update group 0 has weight decay, group 1 has none. With accumulate > 1,
 * segment FORWARD_BACKWARD adds into GRAD slots and UPDATE clears them at its end. */
fv_status fv_optim_build(fv_graph *g, fv_value loss, const fv_optim_cfg *cfg);
/* Name of a kind ("sgd"), kind of a name (-1: unknown). */
const char *fv_opt_name(fv_opt_kind kind);
int fv_opt_from_name(const char *name);

typedef enum fv_sched_kind {
    FV_SCHED_CONSTANT,
    FV_SCHED_COSINE,
    FV_SCHED_STEP,
    FV_SCHED_MULTISTEP,
    FV_SCHED_POLY,
    FV_SCHED_ONECYCLE,
    FV_SCHED_LINEAR
} fv_sched_kind;

typedef struct fv_sched_cfg {
    fv_sched_kind kind;
    double lr;            /* peak */
    double min_lr;        /* cosine, poly, linear end here */
    int64_t steps;        /* in all */
    int64_t warmup_steps; /* linear: lr * (step + 1) / warmup_steps, from warmup_lr if that is larger */
    double warmup_lr;
    int64_t decay_steps;    /* step: every so many steps times decay_rate */
    double decay_rate;      /* step, multistep; 0: 0.1 */
    int64_t milestones[16]; /* multistep, in steps */
    int n_milestones;
    double power; /* poly; 0: 1 */
    /* onecycle (Smith and Topin; PyTorch's OneCycleLR, cosine), which has its own warm-up; 0: 0.3, 25, 1e4 */
    double pct_start, div_factor, final_div;
} fv_sched_cfg;

/* The learning rate of a step (0-based): a pure function. */
double fv_sched_lr(const fv_sched_cfg *cfg, int64_t step);
const char *fv_sched_name(fv_sched_kind kind);
int fv_sched_from_name(const char *name);
/* Decay of the weight average at a step: min(decay, (1 + step) / (10 + step)) with warm-up, else decay. */
double fv_ema_decay(double decay, bool warmup, int64_t step);

#endif
