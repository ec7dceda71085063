/* picture.c: where pictures enter a model. */
#include "layers/layers.h"

fv_value fv_picture_input(fv_scope s, int64_t n, int64_t h, int64_t w, int64_t c, const double *mean, const double *std,
                          fv_pad_mode pad_mode) {
    fv_type channels = fv_shape(FV_F32, c);
    fv_value images = fv_input(s, "images", fv_shape(FV_U8, n, h, w, c));
    fv_value record = fv_input(s, "record", fv_shape(FV_F32, n, FV_AUG_FIELDS));
    return fv_augment(fv_in(s, "augment"), images, record, fv_const(s, channels, mean), fv_const(s, channels, std),
                      (fv_augment_attr){.out_h = h, .out_w = w, .pad_mode = pad_mode});
}
