/* resume.h: going on with an interrupted run.
 *
 *   run folder ─► lock ─► newest valid state ─► its options, with what may change taken from the command line
 *        ─► session as ever (data, model, programs) ─► tensors and progress put back
 */
#ifndef FV_TOOLS_TRAIN_RESUME_H
#define FV_TOOLS_TRAIN_RESUME_H

#include "tools/train/progress.h"
#include "tools/train/run_folder.h"

typedef struct fv_resume {
    fv_st_file state; /* open: state.ctx is set */
    json_t *changed;  /* options that differ from the saved ones: {name: [before, now]} */
    bool forced;
} fv_resume;

/* Everything that comes before data are opened: lock, state, options. FV_E_BUSY, FV_E_MODEL (no valid state),
 * FV_E_USAGE (an option that may not change). */
fv_status fv_resume_open(fv_resume *r, fv_session *s, fv_run_folder *run, const char *path);
/* When the training program is there: check that data and split are those of the run, then put state back. */
fv_status fv_resume_restore(fv_resume *r, fv_session *s, fv_progress *progress);
/* The entry for env.json. */
json_t *fv_resume_json(const fv_resume *r, const fv_progress *progress);
void fv_resume_close(fv_resume *r); /* fine if nothing was opened */

/* The newest valid state of a run, with a warning when the newest had to be passed over. FV_E_MODEL if there is none.
 */
fv_status fv_resume_find_state(fv_session *s, const fv_run_folder *run, fv_st_file *out);
/* The one before it; FV_E_MODEL, maybe without a message, if there is none. */
fv_status fv_resume_find_earlier(fv_session *s, const fv_run_folder *run, fv_st_file *out);

#endif
