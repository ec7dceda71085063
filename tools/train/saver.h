/* saver.h: writes the files of a run in the background. A job takes a copy of the tensors; training goes on while a
 * thread of its own writes them, in this order, so that a kill between two files harms nothing:
 *
 *   weights/best ─► weights/ema ─► weights/last ─► results.csv ─► state/last (the one before becomes state/prev)
 *
 * State comes last: what it says is there is there. */
#ifndef FV_TOOLS_TRAIN_SAVER_H
#define FV_TOOLS_TRAIN_SAVER_H

#include "tools/train/progress.h"
#include "tools/train/run_folder.h"

typedef struct fv_saver fv_saver;

enum { FV_SAVE_STATE = 1, FV_SAVE_LAST = 2, FV_SAVE_EMA = 4, FV_SAVE_BEST = 8, FV_SAVE_RESULTS = 16 };

/* The run folder and the session's store, which has all its slots by now, must outlive it. */
fv_status fv_saver_create(fv_session *s, fv_run_folder *run, fv_saver **out);
/* Waits for the job before, and gives its error if it failed; then copies and starts this one. best: from averages if
 * the run keeps them. */
fv_status fv_saver_submit(fv_saver *saver, uint32_t what, const fv_progress *progress);
bool fv_saver_busy(fv_saver *saver);
/* Until everything is on the disk; the error of the last job. */
fv_status fv_saver_wait(fv_saver *saver);
void fv_saver_destroy(fv_saver *saver); /* finishes the job that is running. NULL is fine */

#endif
