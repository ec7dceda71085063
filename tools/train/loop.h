/* loop.h: training, from the first step to the last. */
#ifndef FV_TOOLS_TRAIN_LOOP_H
#define FV_TOOLS_TRAIN_LOOP_H

#include "tools/train/resume.h"
#include "tools/train/saver.h"

typedef enum fv_on_nan { FV_ON_NAN_STOP, FV_ON_NAN_SKIP, FV_ON_NAN_ROLLBACK } fv_on_nan;

/* What one step gave. */
typedef struct fv_step_result {
    double loss, top1, norm; /* mean over its batches; right ones; gradient norm */
    /* false: nothing was updated, and --on-nan says to go on. Gradients that only the loss scale made infinite do not
     * count: nothing was updated, either, but the next scale is lower. */
    bool finite;
} fv_step_result;

/* A step that was begun (step.h). */
typedef struct fv_begun_step {
    fv_step step;
    double lr;             /* of parameters that are in no param group */
    int64_t runs, ended;   /* a run per micro-step: begun, and of those ended */
    fv_batch batch;        /* of the last of them */
    fv_step_result result; /* of those that have ended */
} fv_begun_step;

typedef struct fv_loop {
    fv_session *s;
    fv_run_folder *run; /* NULL: nothing is written (--dry-run, --overfit-batches) */
    fv_saver *saver;    /* likewise */
    fv_loader *loader;
    fv_sched_cfg sched;
    double epochs;                               /* the last may be a part of one */
    int64_t n_epochs;                            /* with that */
    int64_t steps, steps_per_epoch, micro_steps; /* a step is one update; micro-steps are its batches; steps: in all */
    fv_progress p;
    int ahead;              /* runs that are under way while the host goes on: 0 where the host computes */
    fv_begun_step begun[2]; /* not yet finished, the older one first */
    int n_begun;
    fv_batch running[FV_RUNS]; /* of the runs under way, the oldest first */
    double stepping, busy;     /* seconds: spent in steps by this process; in which the device computed */
    double began;     /* when training began, less what earlier processes trained: now - began is the time it took */
    double last_save; /* when the last state was handed to the saver */
    double last_lr;
    double waited;            /* for the loader, up to the end of the last epoch */
    bool scales, fixed_scale; /* float16: the loss is scaled; always by the same */
    bool overflow_said;
    fv_on_nan on_nan;
    int64_t most_skips;
    double rolled_back; /* when; 0: never */
    bool out_of_patience, save_due, header_shown;
    bool loader_started; /* within the epoch that `p` stands in */
    uint64_t hash;       /* of weights, buffers, moments and averages at the end of training */
} fv_loop;

fv_status fv_loop_begin(fv_loop *loop, fv_session *s);
void fv_loop_end(fv_loop *loop);

/* Steps of an epoch (from 0): of the last one maybe fewer. */
int64_t fv_loop_epoch_steps(const fv_loop *loop, int64_t epoch);
/* One update out of the next micro_steps batches, from beginning to end. The loader must have been started. */
fv_status fv_loop_step(fv_loop *loop, fv_step_result *out);
/* From where `p` stands to the last epoch. Stops early, with FV_OK and everything saved, when a signal comes, after
 * --max-steps, and when --patience is at its end. */
fv_status fv_loop_run(fv_loop *loop);
/* Which part of the time that its steps took the device waited for the host; below 0 where the device is the host. */
double fv_loop_waiting(const fv_loop *loop);
/* Whether it stopped before its end in a way that --resume goes on from. */
bool fv_loop_stopped(const fv_loop *loop);
/* --overfit-batches: FV_OK if the loss falls under 1e-3, else FV_E_GATE. */
fv_status fv_loop_overfit(fv_loop *loop);

/* diagnose.c: run the last batch again, forward and backward, with every value kept, and name the first that is not
 * finite: "layer1.0.conv1 (conv2d)" into buf; "" if none was found. */
void fv_diagnose_non_finite(fv_session *s, const fv_batch *batch, const fv_step *step, char *buf, size_t size);

#endif
