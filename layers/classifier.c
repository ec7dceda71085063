/* classifier.c: a saved model as a function from a picture to a class. */
#include "layers/layers.h"

#include <stdio.h>
#include <string.h>

struct fv_classifier {
    fv_ctx *ctx;
    fv_arena arena;
    fv_model_config config;
    fv_store *store;
    fv_program *program;
    float *probability; /* [num_classes] */
    char label[64];
};

static fv_graph *build_graph(fv_ctx *ctx, const fv_model_config *config) {
    fv_graph *g = fv_graph_new(ctx, false);
    if (!g) return NULL;
    const int64_t *size = config->input_size; /* c, h, w */
    fv_value x = fv_picture_input(fv_root(g), 1, size[1], size[2], size[0], config->mean, config->std, FV_PAD_ZERO);
    fv_model_cfg cfg = {
        .num_classes = config->num_classes, .img_size = size[1], .in_chans = size[0], .without = config->without};
    fv_value logits = fv_model_build(g, config->architecture, x, &cfg);
    if (g->error == FV_OK) fv_set_output(g, "probability", fv_softmax(fv_root(g), logits));
    fv_graph_fuse(g);
    return g;
}

static fv_status load(fv_classifier *c, fv_device *dev, const char *folder) {
    char path[512];
    if ((size_t)snprintf(path, sizeof path, "%s/config.json", folder) >= sizeof path)
        return fv_fail_at(c->ctx, FV_E_USAGE, folder, -1, "the path is too long");
    FV_TRY(fv_config_load(c->ctx, &c->arena, path, &c->config));
    if (!fv_model_find(c->config.architecture))
        return fv_fail_at(c->ctx, FV_E_MODEL, path, -1, "unknown architecture '%s'", c->config.architecture);
    c->probability = fv_arena_alloc(&c->arena, (size_t)c->config.num_classes, sizeof *c->probability);
    if (!c->probability) return c->ctx->error.code;
    fv_graph *g = build_graph(c->ctx, &c->config);
    if (!g) return c->ctx->error.code;
    FV_TRY(fv_program_create(c->ctx, g, dev, 0, NULL, &c->store, &c->program));
    if ((size_t)snprintf(path, sizeof path, "%s/model.safetensors", folder) >= sizeof path)
        return fv_fail_at(c->ctx, FV_E_USAGE, folder, -1, "the path is too long");
    return fv_model_load(c->ctx, c->store, path, NULL);
}

fv_status fv_classifier_open(fv_ctx *ctx, fv_device *dev, const char *folder, fv_classifier **out) {
    *out = NULL;
    fv_classifier *c = fv_calloc(ctx, 1, sizeof *c);
    if (!c) return ctx->error.code;
    c->ctx = ctx;
    fv_arena_init(&c->arena, ctx);
    fv_status status = load(c, dev, folder);
    if (status == FV_OK) *out = c;
    else fv_classifier_close(c);
    return status;
}

void fv_classifier_close(fv_classifier *c) {
    if (!c) return;
    fv_program_destroy(c->program);
    fv_store_destroy(c->store);
    fv_arena_free(&c->arena);
    fv_free(c->ctx, c, 1, sizeof *c);
}

fv_status fv_classify(fv_classifier *c, const uint8_t *pixels, int64_t *class_index, float *probability) {
    const int64_t *size = c->config.input_size;
    const float plain[FV_AUG_FIELDS] = {0};
    size_t classes = (size_t)c->config.num_classes;
    FV_TRY(fv_program_input(c->program, "images", pixels, (size_t)(size[0] * size[1] * size[2])));
    FV_TRY(fv_program_input(c->program, "record", plain, sizeof plain));
    FV_TRY(fv_program_run(c->program, NULL, FV_ALL_SEGMENTS));
    FV_TRY(fv_program_output(c->program, "probability", c->probability, classes * sizeof *c->probability));
    *class_index = 0;
    for (size_t k = 1; k < classes; k++)
        if (c->probability[k] > c->probability[*class_index]) *class_index = (int64_t)k;
    if (probability) memcpy(probability, c->probability, classes * sizeof *probability);
    return FV_OK;
}

const fv_model_config *fv_classifier_config(const fv_classifier *c) {
    return &c->config;
}

const char *fv_classifier_label(fv_classifier *c, int64_t class_index) {
    if (class_index >= 0 && class_index < c->config.n_labels) return c->config.label_names[class_index];
    snprintf(c->label, sizeof c->label, "class %lld", (long long)class_index);
    return c->label;
}
