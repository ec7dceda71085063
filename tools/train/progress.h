/* progress.h: where a run stands: all that training state holds beside the tensors. Doubles are kept as hexadecimal
 * floats, so that a resumed run prints what the uninterrupted one would have printed. */
#ifndef FV_TOOLS_TRAIN_PROGRESS_H
#define FV_TOOLS_TRAIN_PROGRESS_H

#include "fovea.h"

/* I(name): int64_t, R(name): double */
#define FV_PROGRESS_TABLE(I, R) \
    I(step)       /* updates so far, of the whole run: the number of the next one, from 0 */ \
    I(epoch)      /* the running epoch, from 0 */ \
    I(steps_done) /* of it */ \
    I(skipped)    /* of those, steps that were left out because they were not finite (--on-nan skip) */ \
    I(pictures)   /* of it */ \
    I(skipped_in_a_row) \
    I(rollbacks) \
    I(best_epoch)     /* from 1; 0: none yet */ \
    I(stale)          /* validations since the best one */ \
    I(total_pictures) /* of earlier epochs */ \
    R(loss_sum)       /* over the epoch's steps */ \
    R(top1_sum) \
    R(recent_loss) /* average that forgets: 0.9 of itself + 0.1 of the newest */ \
    R(best_score) \
    R(lr_factor)           /* 1, halved by each rollback */ \
    R(train_seconds)       /* of the epoch, without evaluation */ \
    R(total_train_seconds) /* of earlier epochs */ \
    R(loss_scale)          /* float16; 0: none */ \
    I(scale_steps)         /* good ones since the loss scale changed */ \
    R(elapsed)             /* since training began, without the time between a kill and the resume */

typedef struct fv_progress {
#define FV_PROGRESS_INT(name) int64_t name;
#define FV_PROGRESS_REAL(name) double name;
    FV_PROGRESS_TABLE(FV_PROGRESS_INT, FV_PROGRESS_REAL)
#undef FV_PROGRESS_INT
#undef FV_PROGRESS_REAL
} fv_progress;

#define FV_PROGRESS_COUNT 20
#define FV_PROGRESS_TEXT 48
typedef struct fv_progress_text { /* key, value pairs for metadata */
    const char *key[FV_PROGRESS_COUNT];
    char value[FV_PROGRESS_COUNT][FV_PROGRESS_TEXT];
} fv_progress_text;

void fv_progress_write(const fv_progress *p, fv_progress_text *out);
/* From the metadata of a state file; FV_E_MODEL if a value is missing, no number or makes no sense. */
fv_status fv_progress_read(fv_ctx *ctx, const fv_st_file *file, fv_progress *out);

#endif
