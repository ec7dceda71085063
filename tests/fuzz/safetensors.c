/* safetensors.c: a weights file. What opens can be written and is read again as the same tensors and metadata. */
#include "core/io/safetensors_internal.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

enum { MOST = 256 };

static void compare(const fv_st_file *a, const fv_st_file *b) {
    FVT_HOLDS(a->count == b->count);
    for (int32_t i = 0; i < a->count; i++) {
        const fv_st_entry *x = &a->entry[i], *y = fv_st_find(b, x->name);
        FVT_HOLDS(y && x->bytes == y->bytes && fv_same_type(x->type, y->type));
        FVT_HOLDS(x->bytes == 0 || memcmp(a->data + x->offset, b->data + y->offset, x->bytes) == 0);
    }
    for (int32_t i = 0; i < a->n_meta; i++) {
        const char *value = fv_st_meta(b, a->meta_key[i]);
        FVT_HOLDS(value && (strcmp(a->meta_key[i], FV_ST_CHECKSUM) == 0 || strcmp(value, a->meta_value[i]) == 0));
    }
}

static void write_again(fvt_world *w, const fv_st_file *f) {
    fv_st_tensor tensor[MOST];
    const char *meta[MOST][2];
    fv_st_file again;
    int32_t n_meta = 0;
    if (f->count > MOST || f->n_meta > MOST) return;
    for (int32_t i = 0; i < f->count; i++)
        tensor[i] = (fv_st_tensor){f->entry[i].name, f->entry[i].type, f->data + f->entry[i].offset};
    for (int32_t i = 0; i < f->n_meta; i++) {
        if (strcmp(f->meta_key[i], FV_ST_CHECKSUM) == 0) continue; /* the writer puts in its own */
        meta[n_meta][0] = f->meta_key[i];
        meta[n_meta++][1] = f->meta_value[i];
    }
    FVT_HOLDS(fv_st_save(&w->ctx, "/m/again", tensor, f->count, (const char *const(*)[2])meta, n_meta) == FV_OK);
    FVT_HOLDS(fv_st_open(&again, &w->ctx, "/m/again") == FV_OK);
    compare(f, &again);
    fv_st_close(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fvt_world w;
    fv_st_file f;
    fvt_world_open(&w, FVT_WORLD_LIMIT);
    fvt_world_put(&w, "/m/file", data, size);
    fv_status status = fv_st_open(&f, &w.ctx, "/m/file");
    fvt_world_judge(&w, status, FVT_BIT(FV_E_MODEL));
    if (status == FV_OK) {
        write_again(&w, &f);
        fv_st_close(&f);
    }
    fvt_world_close(&w);
    return 0;
}
