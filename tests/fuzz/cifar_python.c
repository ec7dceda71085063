/* cifar_python.c: CIFAR-10 as Python pickled it. Input: batches.meta with its length in front, then a test batch. */
#include "data/internal.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fvt_world w;
    fv_dataset *d;
    const fv_dataset_opts opts = {.root = "/m"};
    fvt_part meta = fvt_next_part(&data, &size);
    fvt_world_open(&w, FVT_WORLD_LIMIT);
    if (meta.size) fvt_world_put(&w, "/m/batches.meta", meta.bytes, meta.size);
    fvt_world_put(&w, "/m/test_batch", data, size);
    fv_status status = fv_dataset_open(&w.ctx, "cifar10", FV_SPLIT_TEST, &opts, &d);
    fvt_world_judge(&w, status, FVT_BIT(FV_E_DATA));
    if (status == FV_OK) {
        FVT_HOLDS(d->count > 0 && d->h == 32 && d->w == 32 && d->c == 3 && d->fingerprint == fv_dataset_hash(d));
        for (int64_t i = 0; i < d->count; i++) FVT_HOLDS(d->labels[i] >= 0 && d->labels[i] < d->classes);
        for (int32_t i = 0; i < d->classes; i++) FVT_HOLDS(d->class_names[i] != NULL);
        fv_dataset_free(d);
    }
    fvt_world_close(&w);
    return 0;
}
