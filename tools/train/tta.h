/* tta.h: test-time augmentation: a picture is shown in several views, and the logits are averaged.
 *
 *   none        the picture
 *   flip        ½ it, ½ its mirror image
 *   translate   ¼ each of these two; ⅛ each of both moved by a pixel up left, and by a pixel down right (airbench)
 *
 * Beyond the border the picture is reflected. A view is a record of the `augment` operation, so that one program serves
 * all of them. */
#ifndef FV_TOOLS_TRAIN_TTA_H
#define FV_TOOLS_TRAIN_TTA_H

#include "tools/cli/options.h"

typedef struct fv_tta_view {
    int32_t top, left; /* where the view begins, in pixels of the picture */
    bool flip;
    double weight;
} fv_tta_view;

typedef struct fv_tta {
    const char *name;
    int views;
    fv_tta_view view[6]; /* weights sum to 1 */
} fv_tta;

/* The picture as it is. */
extern const fv_tta fv_tta_none;
/* What --tta says. */
const fv_tta *fv_tta_of(const fv_cli *cli);
/* Records [rows,FV_AUG_FIELDS] of a view. */
void fv_tta_record(const fv_tta_view *view, int64_t rows, float *record);
/* The weighted sum of logits, view by view: out[0..n) = (first view: 0, else out) + weight * logits. */
void fv_tta_add(const fv_tta *tta, int v, const double *logits, int64_t n, double *out);

#endif
