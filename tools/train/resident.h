/* resident.h: a training set that lives on the device. Its pictures are copied there once, and their labels. A batch is
 * then only a list of rows, which the training program gathers (network.h) and augments there.
 *
 *   pictures  u8  [rows,h,w,c]   row i is sample i of the set, also of those that do not train
 *   answers   i32 [rows]         the label that it is given */
#ifndef FV_TOOLS_TRAIN_RESIDENT_H
#define FV_TOOLS_TRAIN_RESIDENT_H

#include "fovea.h"

#define FV_RESIDENT_TABLES 2

typedef struct fv_resident {
    fv_ctx *ctx;
    fv_device *dev;
    const fv_dataset *data;
    int64_t rows;                             /* 0: the set is not on the device; nothing else is set then */
    fv_bound_input bound[FV_RESIDENT_TABLES]; /* pictures, answers */
} fv_resident;

/* Memory for both tables, and the pictures into it, if all this holds: it is wanted, the device has memory of its own,
 * the pictures lie in an array, with one label each, and need at most a quarter of the free memory and
 * FV_RESIDENT_MOST. Else rows stays 0. */
fv_status fv_resident_open(fv_resident *r, fv_ctx *ctx, fv_device *dev, const fv_dataset *data, bool wanted);
/* The labels, as the loader gives them. */
fv_status fv_resident_answer(fv_resident *r, const fv_loader *loader);
void fv_resident_close(fv_resident *r); /* one that was never opened, too */

#endif
