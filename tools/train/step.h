/* step.h: the halves of a step (step.c), for the loop. */
#ifndef FV_TOOLS_TRAIN_STEP_H
#define FV_TOOLS_TRAIN_STEP_H

#include "tools/train/loop.h"

#define FV_MOST_ROLLBACKS 5

/* Begin the step after those that are begun; at most two are at a time. The loader must have been started. After an
 * error, loop->n_begun steps can still be finished. */
fv_status fv_step_begin(fv_loop *loop);
/* Whether that has to wait until the step under way is finished, because what it gives decides how the next one is. */
bool fv_step_waits(const fv_loop *loop);
/* Wait for the step that was begun first, and take its result into loop->p. */
fv_status fv_step_finish(fv_loop *loop, fv_step_result *out);
/* Forget those that are under way, when they have ended. */
void fv_step_drop(fv_loop *loop);

/* Steps of so many epochs, rounded up; 1.1 epochs of 10 steps are 11, not 12 for want of a binary 1.1. */
int64_t fv_loop_steps_of(const fv_loop *loop, double epochs);
bool fv_loop_may_roll_back(const fv_loop *loop);
/* Where the best weights so far are, into buf. */
const char *fv_loop_what_is_kept(const fv_loop *loop, char *buf, size_t size);

#endif
