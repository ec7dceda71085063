#include "tools/train/tta.h"

#include <string.h>

const fv_tta fv_tta_none = {"none", 1, {{0, 0, false, 1}}};
static const fv_tta flip = {"flip", 2, {{0, 0, false, 0.5}, {0, 0, true, 0.5}}};
static const fv_tta translate = {"translate",
                                 6,
                                 {{0, 0, false, 0.25},
                                  {0, 0, true, 0.25},
                                  {-1, -1, false, 0.125},
                                  {-1, -1, true, 0.125},
                                  {1, 1, false, 0.125},
                                  {1, 1, true, 0.125}}};

const fv_tta *fv_tta_of(const fv_cli *cli) {
    const fv_tta *all[] = {&fv_tta_none, &flip, &translate}; /* in the order of the option's choices */
    return all[fv_cli_int(cli, OPT_TTA)];
}

void fv_tta_record(const fv_tta_view *view, int64_t rows, float *record) {
    memset(record, 0, (size_t)rows * FV_AUG_FIELDS * sizeof *record);
    for (int64_t r = 0; r < rows; r++, record += FV_AUG_FIELDS) {
        record[FV_AUG_TOP] = (float)view->top;
        record[FV_AUG_LEFT] = (float)view->left;
        record[FV_AUG_FLIP] = view->flip ? 1.0f : 0.0f;
    }
}

void fv_tta_add(const fv_tta *tta, int v, const double *logits, int64_t n, double *out) {
    for (int64_t i = 0; i < n; i++) out[i] = (v ? out[i] : 0) + tta->view[v].weight * logits[i];
}
