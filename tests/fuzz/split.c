/* split.c: a CSV file `path,part` for a set of four pictures. Once it is taken, each picture has its part. */
#include "data/listing.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

static void make_list(fv_listing *list, fvt_world *w, fv_arena *arena) {
    static const char *const paths[] = {"cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/a \"b\".png"};
    fv_listing_init(list, &w->ctx, arena);
    strcpy(list->root, "/m");
    strcpy(list->source, "/m");
    for (int32_t i = 0; i < 4; i++) {
        const fv_listed item = {.path = paths[i], .labels = 1};
        const int32_t label = i / 2;
        FVT_HOLDS(fv_listing_add(list, &item, &label) == FV_OK);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fvt_world w;
    fv_listing list;
    fv_arena arena;
    fvt_world_open(&w, FVT_WORLD_LIMIT);
    fvt_world_put(&w, "/m/split.csv", data, size);
    fv_arena_init(&arena, &w.ctx);
    make_list(&list, &w, &arena);
    fv_status status = fv_parts_from_file(&list, "/m/split.csv");
    fvt_world_judge(&w, status, FVT_BIT(FV_E_DATA));
    if (status == FV_OK) {
        status = fv_parts_check(&list, "/m/split.csv");
        fvt_world_judge(&w, status, FVT_BIT(FV_E_DATA));
        for (int i = 0; i < 4; i++) FVT_HOLDS(status != FV_OK || list.item[i].part < FV_PART_COUNT);
    }
    fv_listing_free(&list);
    fv_arena_free(&arena);
    fvt_world_close(&w);
    return 0;
}
