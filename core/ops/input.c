/* input.c: from bytes to the network's input, on the device. */
#include "core/ops/ops_internal.h"

bool fv_infer_augment(fv_infer *i) {
    const fv_augment_attr *a = &i->attr->augment;
    if (!fv_expect_dtype(i, 0, "images", FV_U8, 4) || !fv_expect_float(i, 1, "record", 2, 2)) return false;
    const int64_t *images = i->in[0].dim, *record = i->in[1].dim;
    if (record[0] != images[0] || record[1] != FV_AUG_FIELDS)
        return fv_infer_fail(i, "record is %s, expected [%lld,%d]", FV_TEXT(i->in[1]), (long long)images[0],
                             FV_AUG_FIELDS);
    if (a->out_h < 1 || a->out_w < 1)
        return fv_infer_fail(i, "size %lldx%lld must be positive", (long long)a->out_h, (long long)a->out_w);
    if (a->pad_mode != FV_PAD_ZERO && a->pad_mode != FV_PAD_REFLECT)
        return fv_infer_fail(i, "%d is no padding mode", (int)a->pad_mode);
    return fv_expect_given_vector(i, 2, "mean", images[3]) && fv_expect_given_vector(i, 3, "std", images[3]) &&
           fv_set_result(i, 0, 4, (int64_t[]){images[0], a->out_h, a->out_w, images[3]});
}

bool fv_infer_gather(fv_infer *i) {
    if (!fv_expect_any(i, 0, "table") || !fv_expect_dtype(i, 1, "index", FV_I32, 1)) return false;
    fv_type y = i->in[0];
    if (y.dtype != FV_U8 && y.dtype != FV_I32 && y.dtype != FV_F32 && y.dtype != FV_F64)
        return fv_infer_fail(i, "table must be u8, i32, f32 or f64, it is %s", FV_TEXT(y));
    if (y.rank < 1) return fv_infer_fail(i, "table must have rows, it is %s", FV_TEXT(y));
    y.dim[0] = i->in[1].dim[0];
    return fv_set_result_type(i, 0, y);
}

fv_value fv_gather(fv_scope s, fv_value table, fv_value index) {
    return fv_op_node(s, FV_OP_GATHER, (fv_value[]){table, index}, 2, NULL);
}

fv_value fv_augment(fv_scope s, fv_value images, fv_value record, fv_value mean, fv_value std, fv_augment_attr attr) {
    return fv_op_node(s, FV_OP_AUGMENT, (fv_value[]){images, record, mean, std}, 4, &(fv_attr){.augment = attr});
}
