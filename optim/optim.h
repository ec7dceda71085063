/* optim.h: optimizers as update nodes in the graph, learning-rate schedules, clipping, averages of weights. */
#ifndef FV_OPTIM_H
#define FV_OPTIM_H

#include "core/core.h"

/* muon (Jordan et al. 2024): the weights of convolutions and linear layers but the classifier's; the rest by sgd. */
typedef enum fv_opt_kind { FV_OPT_SGD, FV_OPT_ADAM, FV_OPT_ADAMW, FV_OPT_MUON } fv_opt_kind;

/* Parameters that are trained in their own way. `pattern` says which:
 *
 *   "norm"     scale and shift of the norm layers
 *   "bias"     names that end in "bias": of layers and of norms
 *   "head"     below fv_optim_cfg.head
 *   "matrix"   weights of convolutions and linear layers: rank >= 2, with weight decay by default
 *   else       a name or the beginning of one, component by component (fv_name_below) */
typedef struct fv_param_group {
    const char *pattern;
    double momentum; /* sgd, muon; < 0: as fv_optim_cfg has it */
    /* No gradient and no update: what a learning rate of 0 gives, without its cost. Averages and slow copies go on, and
     * moments stay as they are. Where all that is trained would rest, nothing does. */
    bool rests;
} fv_param_group;

/* Update groups, of which fv_step has a learning rate and a weight decay each: 2 * k for parameters that have weight
 * decay by default, 2 * k + 1 for those that have none (norms, biases, tokens, positions); k = i + 1 for param group i,
 * k = 0 for what is in none. */
enum { FV_MAX_PARAM_GROUPS = FV_MAX_GROUPS / 2 - 1 };
/* Whether a pattern is one of the words above. */
bool fv_param_group_is_class(const char *pattern);

typedef struct fv_optim_cfg {
    fv_opt_kind kind;
    double momentum; /* sgd, muon */
    bool nesterov;
    double beta1, beta2, eps;     /* adam, adamw; 0: 0.9, 0.999, 1e-8 */
    int ns_steps;                 /* muon: Newton-Schulz iterations; 0: 3 */
    bool renormalise;             /* muon: weights to a norm of sqrt(rows) before each update */
    double weight_decay;          /* of weights; norms, biases, tokens and positions are left out (decl.no_decay) */
    bool decay_all;               /* ... or not left out */
    double clip_grad;             /* > 0: by global L2 norm */
    bool ema;                     /* keep averages (step.ema_decay) */
    bool lookahead;               /* keep slow copies of weights and running statistics (step.lookahead) */
    int accumulate;               /* micro-steps per update; 0, 1: none. Gradients are averaged */
    bool sum_micro_steps;         /* ... or added: for a loss that is a sum over the pictures */
    bool loss_scaling;            /* differentiate the loss times step.loss_scale; for f16 */
    const fv_param_group *groups; /* a parameter belongs to the first that takes it in */
    int n_groups;
    const char *head; /* prefix of the classifier's parameters */
} fv_optim_cfg;

/* Append backward pass, gradient statistics and updates for all parameters of the graph that neither are frozen nor
 * rest (fv_param_group). Adds the output "grad_stats" [2] (norm, finite). With accumulate > 1, segment FORWARD_BACKWARD
 * adds into GRAD slots and UPDATE clears them at its end. FV_E_USAGE if a group takes in no parameter, or none that is
 * left to it. */
fv_status fv_optim_build(fv_graph *g, fv_value loss, const fv_optim_cfg *cfg);
/* Dynamic loss scaling (Micikevicius et al. 2018): the scale that small gradients need to survive in f16 and that large
 * ones allow. A step whose gradients are not finite changes nothing (fv_optim_build), and halves the scale; so many
 * good steps in a row double it. Start with {FV_LOSS_SCALE, 0}. */
#define FV_LOSS_SCALE 65536.0
#define FV_LOSS_SCALE_STEPS 2000
typedef struct fv_loss_scaling {
    double scale; /* for step.loss_scale */
    int64_t good; /* steps since it changed, all of them finite */
} fv_loss_scaling;
/* After a step, by the flag in "grad_stats". False if it was not finite although the scale was below 1: smaller ones
 * would not help. */
bool fv_loss_scaling_next(fv_loss_scaling *s, bool finite, int64_t steps);

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
    int64_t warmup_steps; /* linear: lr * (step + 1) / warmup_steps; with warmup_lr, from that at step 0 to lr */
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
/* The same course within so many steps: warm-up, decays and milestones keep their share of it. */
fv_sched_cfg fv_sched_within(const fv_sched_cfg *cfg, int64_t steps);
const char *fv_sched_name(fv_sched_kind kind);
int fv_sched_from_name(const char *name);
/* Decay of the weight average at a step: min(decay, (1 + step) / (10 + step)) with warm-up, else decay. */
double fv_ema_decay(double decay, bool warmup, int64_t step);

/* Lookahead (Zhang et al. 2019): after every `every` steps the slow copies go towards the weights and the weights start
 * again from them. After t steps of T they keep decay * (t / T)^power of themselves (power 0: always `decay`). After
 * the last step, where it is none of those, they keep all: the run ends with the slow copies. */
typedef struct fv_lookahead_cfg {
    int64_t every, steps; /* every 0: never; steps: in all */
    double decay, power;
} fv_lookahead_cfg;
/* Whether they meet at the end of a step (0-based), and what the slow copies then keep. */
bool fv_lookahead_at(const fv_lookahead_cfg *cfg, int64_t step, double *decay);

#endif
