#include "tools/train/progress.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void fv_progress_write(const fv_progress *p, fv_progress_text *out) {
    int n = 0;
#define FV_PROGRESS_INT(name) \
    out->key[n] = #name; \
    snprintf(out->value[n++], FV_PROGRESS_TEXT, "%lld", (long long)p->name);
#define FV_PROGRESS_REAL(name) \
    out->key[n] = #name; \
    snprintf(out->value[n++], FV_PROGRESS_TEXT, "%a", p->name);
    FV_PROGRESS_TABLE(FV_PROGRESS_INT, FV_PROGRESS_REAL)
#undef FV_PROGRESS_INT
#undef FV_PROGRESS_REAL
    _Static_assert(FV_PROGRESS_COUNT == 20, "as many as the table has rows");
}

static fv_status bad_value(fv_ctx *ctx, const fv_st_file *file, const char *name) {
    const char *text = fv_st_meta(file, name);
    return fv_fail_at(ctx, FV_E_MODEL, file->path, -1, "'%s' of the training state is %s%.40s", name,
                      text ? "not a number that makes sense: " : "missing", text ? text : "");
}

/* Values that states of earlier versions lack; 0 there. */
static const char *saved_text(const fv_st_file *file, const char *name) {
    const char *text = fv_st_meta(file, name);
    return text || (strcmp(name, "loss_scale") != 0 && strcmp(name, "scale_steps") != 0) ? text : "0";
}

static fv_status read_int(fv_ctx *ctx, const fv_st_file *file, const char *name, int64_t *out) {
    const char *text = saved_text(file, name);
    char *end = NULL;
    errno = 0;
    long long v = text ? strtoll(text, &end, 10) : 0;
    if (!text || end == text || *end || errno || v < 0) return bad_value(ctx, file, name);
    *out = v;
    return FV_OK;
}

static fv_status read_real(fv_ctx *ctx, const fv_st_file *file, const char *name, double *out) {
    const char *text = saved_text(file, name);
    char *end = NULL;
    *out = text ? strtod(text, &end) : 0;
    return text && end != text && !*end && isfinite(*out) ? FV_OK : bad_value(ctx, file, name);
}

fv_status fv_progress_read(fv_ctx *ctx, const fv_st_file *file, fv_progress *out) {
#define FV_PROGRESS_INT(name) FV_TRY(read_int(ctx, file, #name, &out->name));
#define FV_PROGRESS_REAL(name) FV_TRY(read_real(ctx, file, #name, &out->name));
    FV_PROGRESS_TABLE(FV_PROGRESS_INT, FV_PROGRESS_REAL)
#undef FV_PROGRESS_INT
#undef FV_PROGRESS_REAL
    return FV_OK;
}
