/* pickle.c: the pickle machine. Everything in the value that it gives can be looked at. */
#include "data/pickle.h"
#include "tests/fuzz/fuzz.h"

enum { DEEPEST = 8, MOST_LOOKS = 20000 };
unsigned fvt_pickle_sum; /* external, so that no compiler leaves the reads out */

static unsigned sum_bytes(const unsigned char *bytes, size_t size) {
    unsigned sum = 0;
    for (size_t i = 0; i < size; i++) sum += bytes[i];
    return sum;
}

/* Values may hold themselves: only so deep, and only so many. */
static unsigned look(const fv_pickle *v, int depth, int *looks) {
    unsigned sum = 0;
    if (depth > DEEPEST || ++*looks > MOST_LOOKS) return 0;
    switch (v->kind) {
    case FV_PICKLE_TEXT: return sum_bytes(v->text, v->size);
    case FV_PICKLE_ARRAY: {
        size_t bytes = (size_t)v->array->item;
        for (int i = 0; i < v->array->rank; i++) FVT_HOLDS(fv_size_mul(bytes, (size_t)v->array->dim[i], &bytes));
        FVT_HOLDS(v->array->type == 0 || bytes == v->array->bytes);
        return sum_bytes(v->array->data, v->array->bytes);
    }
    case FV_PICKLE_LIST:
    case FV_PICKLE_TUPLE:
    case FV_PICKLE_DICT:
        FVT_HOLDS(v->count <= v->capacity && (v->kind != FV_PICKLE_DICT || v->count % 2 == 0));
        for (uint32_t i = 0; i < v->count; i++) sum += look(v->item[i], depth + 1, looks);
        return sum;
    case FV_PICKLE_MARK: FVT_HOLDS(!"a mark is no value"); return 0;
    case FV_PICKLE_NONE:
    case FV_PICKLE_INT:
    case FV_PICKLE_GLOBAL:
    case FV_PICKLE_DTYPE: return 1;
    }
    FVT_HOLDS(!"the kind is known");
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fvt_world w;
    fv_arena arena;
    fv_pickle *value;
    int looks = 0;
    fvt_world_open(&w, FVT_WORLD_LIMIT);
    fv_arena_init(&arena, &w.ctx);
    fv_status status = fv_pickle_read(&w.ctx, &arena, "/m/batch", data, size, &value);
    fvt_world_judge(&w, status, FVT_BIT(FV_E_DATA));
    if (status == FV_OK) { fvt_pickle_sum = look(value, 0, &looks) + (fv_pickle_get(value, "data") != NULL); }
    FVT_HOLDS(status == FV_OK || w.ctx.error.offset >= 0);
    fv_arena_free(&arena);
    fvt_world_close(&w);
    return 0;
}
