/* loop.h: training, from the first step to the last. */
#ifndef FV_TOOLS_TRAIN_LOOP_H
#define FV_TOOLS_TRAIN_LOOP_H

#include "tools/train/run_folder.h"

typedef struct fv_loop {
    fv_session *s;
    fv_run_folder *run; /* NULL: nothing is written (--dry-run, --overfit-batches) */
    fv_loader *loader;
    fv_sched_cfg sched;
    int64_t epochs, steps_per_epoch, micro_steps; /* a step is one update; micro-steps are its batches */
    int64_t step;                                 /* of the whole run, 0-based */
    double began;                                 /* when training began */
    double last_lr;
    double recent_loss; /* average that forgets: 0.9 of itself + 0.1 of the newest */
    int64_t best_epoch; /* 1-based; 0: none yet */
    double best_top1;
    /* of the epoch so far */
    double loss_sum, top1_sum;
    int64_t steps_done, pictures;
    double train_seconds; /* without evaluation */
    double total_train_seconds;
    int64_t total_pictures;
} fv_loop;

/* What one step gave. */
typedef struct fv_step_result {
    double loss, top1, norm; /* mean over its batches; right ones; gradient norm */
    bool finite;
} fv_step_result;

fv_status fv_loop_begin(fv_loop *loop, fv_session *s);
void fv_loop_end(fv_loop *loop);

/* One update out of the next micro_steps batches. The loader must have been started. */
fv_status fv_loop_step(fv_loop *loop, int64_t epoch, fv_step_result *out);
/* All epochs. Stops early, with FV_OK, when a signal comes; weights/last is then saved. */
fv_status fv_loop_run(fv_loop *loop);
/* --overfit-batches: FV_OK if the loss falls under 1e-3, else FV_E_GATE. */
fv_status fv_loop_overfit(fv_loop *loop);

/* diagnose.c: run the last batch again, forward and backward, with every value kept, and name the first that is not
 * finite: "layer1.0.conv1 (conv2d)" into buf; "" if none was found. */
void fv_diagnose_non_finite(fv_session *s, const fv_batch *batch, const fv_step *step, char *buf, size_t size);

#endif
