/* config.c: config.json beside a model, in timm's form.
 *
 *   {"architecture": "resnet20", "num_classes": 10, "label_names": [...],
 *    "pretrained_cfg": {"input_size": [3,32,32], "interpolation": "bicubic", "crop_pct": 1.0, "mean": [...], "std":
 * [...]}} */
#include "core/io/io.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CONFIG_BYTES ((size_t)2 << 20) /* the names of 20,000 classes; parsed, at most about 60 MB */
#define MAX_CLASSES 1000000
#define MAX_INPUT_SIDE 65536
#define MULTI_LABEL "multi_label_classification" /* as the transformers library calls it */

static fv_status bad(fv_ctx *ctx, const char *path, const char *why) {
    return fv_fail_at(ctx, FV_E_MODEL, path, -1, "%s", why);
}

/* ---------------------------------------------------------------- save */

/* The fewest digits (15 to 17) at which every number is read back as it was. */
static size_t precision_for(const fv_model_config *cfg) {
    size_t precision = 15;
    for (int64_t i = 0; i < 2 * cfg->input_size[0] + 1; i++) {
        double value = cfg->crop_pct;
        char text[40];
        if (i < 2 * cfg->input_size[0]) value = i % 2 ? cfg->std[i / 2] : cfg->mean[i / 2];
        for (; precision < 17; precision++) {
            snprintf(text, sizeof text, "%.*g", (int)precision, value);
            if (strtod(text, NULL) == value) break;
        }
    }
    return precision;
}

static fv_status check(fv_ctx *ctx, const char *path, const fv_model_config *cfg) {
    if (!cfg->architecture || !cfg->interpolation)
        return bad(ctx, path, "the architecture or interpolation is missing");
    if (cfg->num_classes < 0 || cfg->num_classes > MAX_CLASSES) return bad(ctx, path, "num_classes is out of range");
    if (cfg->n_labels && cfg->n_labels != cfg->num_classes) {
        return fv_fail_at(ctx, FV_E_MODEL, path, -1, "%" PRId32 " label_names for %" PRId64 " classes", cfg->n_labels,
                          cfg->num_classes);
    }
    if (cfg->input_size[0] < 1 || cfg->input_size[0] > FV_CONFIG_CHANNELS)
        return bad(ctx, path, "input_size: the number of channels must be between 1 and 16");
    for (int i = 1; i < 3; i++)
        if (cfg->input_size[i] < 1 || cfg->input_size[i] > MAX_INPUT_SIDE)
            return bad(ctx, path, "input_size: height and width must be between 1 and 65536");
    for (int64_t i = 0; i < cfg->input_size[0]; i++)
        if (!isfinite(cfg->mean[i]) || !isfinite(cfg->std[i]) || cfg->std[i] <= 0)
            return bad(ctx, path, "mean must be finite, std finite and positive");
    if (!(cfg->crop_pct > 0 && cfg->crop_pct <= 1)) return bad(ctx, path, "crop_pct must be above 0 and at most 1");
    return FV_OK;
}

static json_t *labels_json(const fv_model_config *cfg) {
    json_t *list = json_array();
    for (int32_t i = 0; i < cfg->n_labels; i++)
        if (json_array_append_new(list, json_string(cfg->label_names[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}

static json_t *reals_json(const double *values, int64_t n) {
    json_t *list = json_array();
    for (int64_t i = 0; i < n; i++)
        if (json_array_append_new(list, json_real(values[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}

/* NULL: out of memory, or a text is not UTF-8. A NULL member makes json_object_set_new fail, as does a NULL object. */
static json_t *config_json(const fv_model_config *cfg) {
    json_t *root = json_object(), *pre = json_object();
    const int64_t *size = cfg->input_size;
    int failed = json_object_set_new(
        pre, "input_size", json_pack("[I,I,I]", (json_int_t)size[0], (json_int_t)size[1], (json_int_t)size[2]));
    failed |= json_object_set_new(pre, "interpolation", json_string(cfg->interpolation));
    failed |= json_object_set_new(pre, "crop_pct", json_real(cfg->crop_pct));
    failed |= json_object_set_new(pre, "mean", reals_json(cfg->mean, size[0]));
    failed |= json_object_set_new(pre, "std", reals_json(cfg->std, size[0]));
    failed |= json_object_set_new(pre, "num_classes", json_integer(cfg->num_classes));
    failed |= json_object_set_new(root, "architecture", json_string(cfg->architecture));
    failed |= json_object_set_new(root, "num_classes", json_integer(cfg->num_classes));
    if (cfg->without) failed |= json_object_set_new(root, "without", json_string(cfg->without));
    if (cfg->multi_label) failed |= json_object_set_new(root, "problem_type", json_string(MULTI_LABEL));
    if (cfg->n_labels) failed |= json_object_set_new(root, "label_names", labels_json(cfg));
    failed |= json_object_set_new(root, "pretrained_cfg", pre);
    if (!failed) return root;
    json_decref(root);
    return NULL;
}

/* Why config_json returned NULL. */
static fv_status explain_failure(fv_ctx *ctx, const char *path, const fv_model_config *cfg) {
    for (int32_t i = 0; i < cfg->n_labels; i++) {
        json_t *text = json_string(cfg->label_names[i]);
        if (!text) return fv_fail_at(ctx, FV_E_DATA, path, -1, "label name %" PRId32 " is not UTF-8: not written", i);
        json_decref(text);
    }
    return fv_fail_memory(ctx, sizeof *cfg, "config.json");
}

fv_status fv_config_save(fv_ctx *ctx, const char *path, const fv_model_config *cfg) {
    FV_TRY(check(ctx, path, cfg));
    json_t *root = config_json(cfg);
    if (!root) return explain_failure(ctx, path, cfg);
    size_t flags = JSON_INDENT(2) | JSON_REAL_PRECISION(precision_for(cfg));
    size_t bytes = json_dumpb(root, NULL, 0, flags);  /* 0: jansson had no memory */
    if (bytes >= MAX_CONFIG_BYTES && cfg->n_labels) { /* nobody could load it again */
        fv_log(ctx, FV_LOG_WARN, "%s: the names of %" PRId32 " classes take more than %zu bytes and are left out", path,
               cfg->n_labels, MAX_CONFIG_BYTES);
        json_object_del(root, "label_names");
        bytes = json_dumpb(root, NULL, 0, flags);
    }
    char *text = bytes ? fv_alloc(ctx, bytes + 1, 1) : NULL;
    bool dumped = text && json_dumpb(root, text, bytes, flags) == bytes;
    json_decref(root);
    fv_status status;
    if (dumped) {
        text[bytes] = '\n';
        status = fv_write_file(ctx, path, text, bytes + 1);
    } else {
        status = fv_fail_memory(ctx, bytes, "config.json");
    }
    fv_free(ctx, text, bytes + 1, 1);
    return status;
}

/* ---------------------------------------------------------------- load */

typedef struct source {
    fv_ctx *ctx;
    fv_arena *arena;
    const char *path;
    const json_t *root, *pre; /* pre: pretrained_cfg, or root where a file has its fields there */
} source;

static const json_t *field(const source *s, const char *key) {
    const json_t *value = json_object_get(s->pre, key);
    if (!value) value = json_object_get(s->root, key);
    return json_is_null(value) ? NULL : value;
}

static fv_status read_string(const source *s, const char *key, const char *absent, const char **out) {
    const json_t *value = field(s, key);
    const char *text = value ? json_string_value(value) : absent;
    if (!text) return fv_fail_at(s->ctx, FV_E_MODEL, s->path, -1, "\"%s\" is missing or no text", key);
    *out = fv_arena_strdup(s->arena, text);
    return *out ? FV_OK : s->ctx->error.code;
}

static fv_status read_reals(const source *s, const char *key, int64_t n, double *out) {
    const json_t *list = field(s, key);
    if (!list) return FV_OK;
    if (json_array_size(list) != (size_t)n)
        return fv_fail_at(s->ctx, FV_E_MODEL, s->path, -1, "\"%s\" is no list of %" PRId64 " numbers", key, n);
    for (int64_t i = 0; i < n; i++) {
        const json_t *value = json_array_get(list, (size_t)i);
        if (!json_is_number(value))
            return fv_fail_at(s->ctx, FV_E_MODEL, s->path, -1, "\"%s\" holds something that is no number", key);
        out[i] = json_number_value(value);
    }
    return FV_OK;
}

static fv_status read_labels(const source *s, fv_model_config *cfg) {
    const json_t *list = json_object_get(s->root, "label_names");
    if (!list || json_is_null(list)) return FV_OK;
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n > MAX_CLASSES) return bad(s->ctx, s->path, "\"label_names\" is no list of texts");
    const char **names = fv_arena_alloc(s->arena, n, sizeof *names);
    if (!names) return s->ctx->error.code;
    for (size_t i = 0; i < n; i++) {
        const char *text = json_string_value(json_array_get(list, i));
        if (!text) return bad(s->ctx, s->path, "\"label_names\" is no list of texts");
        names[i] = fv_arena_strdup(s->arena, text);
        if (!names[i]) return s->ctx->error.code;
    }
    cfg->label_names = names;
    cfg->n_labels = (int32_t)n;
    return FV_OK;
}

static fv_status read_input_size(const source *s, fv_model_config *cfg) {
    const json_t *list = field(s, "input_size");
    for (int i = 0; i < 3; i++) {
        const json_t *value = json_array_get(list, (size_t)i);
        if (json_array_size(list) != 3 || !json_is_integer(value))
            return bad(s->ctx, s->path, "\"input_size\" is missing or no list of three integers");
        cfg->input_size[i] = json_integer_value(value);
    }
    if (cfg->input_size[0] < 1 || cfg->input_size[0] > FV_CONFIG_CHANNELS)
        return bad(s->ctx, s->path, "input_size: the number of channels must be between 1 and 16");
    return FV_OK;
}

static fv_status read_config(const source *s, fv_model_config *cfg) {
    static const double mean[3] = {0.485, 0.456, 0.406}, std[3] = {0.229, 0.224, 0.225}; /* ImageNet's */
    FV_TRY(read_string(s, "architecture", NULL, &cfg->architecture));
    FV_TRY(read_string(s, "interpolation", "bicubic", &cfg->interpolation));
    FV_TRY(read_input_size(s, cfg));
    FV_TRY(read_labels(s, cfg));
    for (int64_t i = 0; i < cfg->input_size[0]; i++) {
        cfg->mean[i] = cfg->input_size[0] == 3 ? mean[i] : 0.5;
        cfg->std[i] = cfg->input_size[0] == 3 ? std[i] : 0.5;
    }
    FV_TRY(read_reals(s, "mean", cfg->input_size[0], cfg->mean));
    FV_TRY(read_reals(s, "std", cfg->input_size[0], cfg->std));

    if (json_object_get(s->root, "without")) FV_TRY(read_string(s, "without", NULL, &cfg->without));
    const char *problem = json_string_value(json_object_get(s->root, "problem_type"));
    cfg->multi_label = problem && (!strcmp(problem, MULTI_LABEL) || !strcmp(problem, "multi_label"));
    const json_t *classes = json_object_get(s->root, "num_classes"), *crop = field(s, "crop_pct");
    if (!classes) classes = field(s, "num_classes");
    if (classes && !json_is_integer(classes)) return bad(s->ctx, s->path, "\"num_classes\" is no integer");
    if (crop && !json_is_number(crop)) return bad(s->ctx, s->path, "\"crop_pct\" is no number");
    cfg->num_classes = classes ? json_integer_value(classes) : cfg->n_labels;
    cfg->crop_pct = crop ? json_number_value(crop) : 0.875;
    return check(s->ctx, s->path, cfg);
}

fv_status fv_config_load(fv_ctx *ctx, fv_arena *arena, const char *path, fv_model_config *cfg) {
    void *text;
    size_t size;
    json_error_t error;
    *cfg = (fv_model_config){0};
    fv_status status = fv_read_file(ctx, path, MAX_CONFIG_BYTES, &text, &size);
    if (status == FV_E_DATA) ctx->error.code = status = FV_E_MODEL; /* too large: it is no data set's file */
    FV_TRY(status);
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    fv_free(ctx, text, size + 1, 1);
    if (!root && !error.text[0]) return fv_fail_memory(ctx, size, "config.json"); /* jansson gives no reason then */
    if (!root) {
        return fv_fail_at(ctx, FV_E_MODEL, path, error.position, "not valid JSON: line %d, column %d: %s", error.line,
                          error.column, error.text);
    }
    const json_t *pre = json_object_get(root, "pretrained_cfg");
    source s = {ctx, arena, path, root, json_is_object(pre) ? pre : root};
    status = json_is_object(root) ? read_config(&s, cfg) : bad(ctx, path, "not a JSON object");
    json_decref(root);
    return status;
}
