/* config.c: config.json beside a model. What loads can be written and is read again as the same values. */
#include "core/io/io.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

static void compare(const fv_model_config *a, const fv_model_config *b) {
    size_t channels = (size_t)a->input_size[0];
    FVT_HOLDS(strcmp(a->architecture, b->architecture) == 0 && strcmp(a->interpolation, b->interpolation) == 0);
    FVT_HOLDS(a->num_classes == b->num_classes && a->n_labels == b->n_labels && a->multi_label == b->multi_label &&
              a->crop_pct == b->crop_pct);
    FVT_HOLDS(memcmp(a->input_size, b->input_size, sizeof a->input_size) == 0);
    FVT_HOLDS(memcmp(a->mean, b->mean, channels * sizeof *a->mean) == 0);
    FVT_HOLDS(memcmp(a->std, b->std, channels * sizeof *a->std) == 0);
    for (int32_t i = 0; i < a->n_labels; i++) FVT_HOLDS(strcmp(a->label_names[i], b->label_names[i]) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fvt_world w;
    fv_arena arena;
    fv_model_config cfg, again;
    fvt_world_open(&w, FVT_WORLD_LIMIT);
    fvt_world_put(&w, "/m/config.json", data, size);
    fv_arena_init(&arena, &w.ctx);
    fv_status status = fv_config_load(&w.ctx, &arena, "/m/config.json", &cfg);
    fvt_world_judge(&w, status, FVT_BIT(FV_E_MODEL));
    if (status == FV_OK) {
        FVT_HOLDS(fv_config_save(&w.ctx, "/m/again.json", &cfg) == FV_OK);
        FVT_HOLDS(fv_config_load(&w.ctx, &arena, "/m/again.json", &again) == FV_OK);
        compare(&cfg, &again);
    }
    fv_arena_free(&arena);
    fvt_world_close(&w);
    return 0;
}
