/* idx.c: a set of IDX files, plain or gzipped. Input: labels with their length in front, then images. */
#include "data/internal.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fvt_world w;
    fv_dataset *d;
    const fv_dataset_opts opts = {.root = "/m"};
    fvt_part labels = fvt_next_part(&data, &size);
    fvt_world_open(&w, FVT_WORLD_LIMIT);
    fvt_world_put(&w, "/m/mnist/t10k-labels-idx1-ubyte", labels.bytes, labels.size);
    fvt_world_put(&w, "/m/mnist/t10k-images-idx3-ubyte", data, size);
    fv_status status = fv_dataset_open(&w.ctx, "mnist", FV_SPLIT_TEST, &opts, &d);
    fvt_world_judge(&w, status, FVT_BIT(FV_E_DATA));
    if (status == FV_OK) {
        size_t bytes = (size_t)d->count * (size_t)d->h * (size_t)d->w;
        FVT_HOLDS(d->count > 0 && d->c == 1 && d->classes == 10 && d->fingerprint == fv_dataset_hash(d));
        for (int64_t i = 0; i < d->count; i++) FVT_HOLDS(d->labels[i] >= 0 && d->labels[i] < d->classes);
        if (data[0] == 0) FVT_HOLDS(size == 16 + bytes && memcmp(d->images, data + 16, bytes) == 0);
        if (labels.bytes[0] == 0)
            for (int64_t i = 0; i < d->count; i++) FVT_HOLDS(d->labels[i] == labels.bytes[8 + i]);
        fv_dataset_free(d);
    }
    fvt_world_close(&w);
    return 0;
}
