/* prepare.c: a picture file that belongs to no data set. */
#include "data/files.h"

fv_status fv_picture_prepare(fv_decoder *decoder, const char *path, int32_t size, int32_t channels, double crop_pct,
                             fv_filter filter, uint8_t *out) {
    const fv_file_set files = {
        .count = 1, .path = &path, .size = size, .c = channels, .crop_pct = crop_pct, .filter = filter};
    return fv_picture_load(&files, decoder, 0, NULL, out);
}
