/* cifar.c: CIFAR binary files. Input: one byte (odd: CIFAR-100), the names of the classes with their length in front,
 * then a test batch. */
#include "data/internal.h"
#include "tests/fuzz/fuzz.h"

enum { PLANE = 1024, PICTURE = 3 * PLANE };

/* Every picture and label is where the file has it. */
static void compare(const fv_dataset *d, const uint8_t *data, size_t size, int label_bytes) {
    size_t record = PICTURE + (size_t)label_bytes;
    FVT_HOLDS(d->h == 32 && d->w == 32 && d->c == 3 && size == (size_t)d->count * record);
    FVT_HOLDS(d->fingerprint == fv_dataset_hash(d));
    for (size_t i = 0; i < (size_t)d->count; i++) {
        const uint8_t *from = data + i * record + label_bytes;
        FVT_HOLDS(d->labels[i] == from[-1] && d->labels[i] < d->classes);
        for (size_t j = 0; j < PICTURE; j++) FVT_HOLDS(d->images[i * PICTURE + j] == from[j % 3 * PLANE + j / 3]);
    }
    for (int32_t i = 0; i < d->classes; i++) FVT_HOLDS(d->class_names[i] != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fvt_world w;
    fv_dataset *d;
    const fv_dataset_opts opts = {.root = "/m"};
    bool hundred = size > 0 && data[0] % 2;
    data += size > 0;
    size -= size > 0;
    fvt_part names = fvt_next_part(&data, &size);
    fvt_world_open(&w, FVT_WORLD_LIMIT);
    if (names.size)
        fvt_world_put(&w, hundred ? "/m/fine_label_names.txt" : "/m/batches.meta.txt", names.bytes, names.size);
    fvt_world_put(&w, hundred ? "/m/test.bin" : "/m/test_batch.bin", data, size);
    fv_status status = fv_dataset_open(&w.ctx, hundred ? "cifar100" : "cifar10", FV_SPLIT_TEST, &opts, &d);
    fvt_world_judge(&w, status, FVT_BIT(FV_E_DATA));
    if (status == FV_OK) {
        compare(d, data, size, hundred ? 2 : 1);
        fv_dataset_free(d);
    }
    fvt_world_close(&w);
    return 0;
}
