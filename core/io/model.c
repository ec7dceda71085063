/* model.c: a store's weights and buffers to and from safetensors, by name and in file layout. */
#include "core/io/io.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define COUNTER "num_batches_tracked"
#define NAMED 3 /* so many tensors are named in a message, the others counted */

static bool in_file(const fv_slot *slot) {
    return slot->role == FV_ROLE_WEIGHT || slot->role == FV_ROLE_BUFFER;
}

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

/* ---------------------------------------------------------------- save */

typedef struct saver {
    fv_ctx *ctx;
    fv_store *store;
    const char *path;
    const fv_st_tensor *tensors;
    const int32_t *source; /* per tensor: the slot it is read from */
} saver;

static int32_t ema_of(const fv_store *store, int32_t slot) {
    for (int32_t i = 0; i < fv_store_count(store); i++) {
        const fv_slot *ema = fv_store_slot(store, i);
        if (ema->role == FV_ROLE_EMA && ema->of == slot) return i;
    }
    return -1;
}

static fv_status check_finite(const saver *s, const fv_st_tensor *t, const void *data) {
    const float *value = data;
    int64_t count = t->type.dtype == FV_F32 ? fv_count(t->type) : 0;
    for (int64_t i = 0; i < count; i++) {
        if (isfinite(value[i])) continue;
        fv_fail_at(s->ctx, FV_E_NUMERIC, s->path, -1, "not saved: tensor \"%.200s\" holds %s at element %" PRId64,
                   t->name, isnan(value[i]) ? "not-a-number" : "an infinite value", i);
        return fv_hint(s->ctx, "the training has diverged; a file that was there before is unharmed");
    }
    return FV_OK;
}

static fv_status read_narrowed(const saver *s, int32_t slot, float *data, size_t count) {
    double *wide = fv_alloc(s->ctx, count, sizeof *wide);
    if (!wide) return s->ctx->error.code;
    fv_status status = fv_store_read(s->store, slot, wide, count * sizeof *wide);
    for (size_t i = 0; i < count && status == FV_OK; i++) data[i] = (float)wide[i];
    fv_free(s->ctx, wide, count, sizeof *wide);
    return status;
}

static fv_status fill_tensor(void *user, int32_t index, void *data, size_t bytes) {
    const saver *s = user;
    int32_t slot = s->source[index];
    if (fv_store_slot(s->store, slot)->type.dtype == FV_F64)
        FV_TRY(read_narrowed(s, slot, data, bytes / sizeof(float)));
    else FV_TRY(fv_store_read(s->store, slot, data, bytes));
    return check_finite(s, &s->tensors[index], data);
}

fv_status fv_model_save(fv_ctx *ctx, fv_store *store, const char *path, bool ema, const char *const (*meta)[2],
                        int32_t n_meta) {
    int32_t slots = fv_store_count(store), n = 0, averages = 0;
    fv_arena arena;
    fv_arena_init(&arena, ctx);
    fv_st_tensor *tensors = fv_arena_alloc(&arena, (size_t)slots, sizeof *tensors);
    int32_t *source = fv_arena_alloc(&arena, (size_t)slots, sizeof *source);
    if (!tensors || !source) {
        fv_arena_free(&arena);
        return ctx->error.code;
    }
    for (int32_t i = 0; i < slots; i++) {
        const fv_slot *slot = fv_store_slot(store, i);
        if (!in_file(slot)) continue;
        int32_t average = ema ? ema_of(store, i) : -1; /* frozen weights and buffers have none */
        averages += average >= 0;
        tensors[n] = (fv_st_tensor){.name = slot->name, .type = fv_slot_file_type(slot)};
        if (tensors[n].type.dtype == FV_F64) tensors[n].type.dtype = FV_F32;
        source[n++] = average >= 0 ? average : i;
    }
    fv_status status = FV_OK;
    saver s = {ctx, store, path, tensors, source};
    if (ema && !averages)
        status = fv_fail_at(ctx, FV_E_MODEL, path, -1, "not saved: the model has no averaged weights");
    else status = fv_st_save_with(ctx, path, tensors, n, meta, n_meta, fill_tensor, &s);
    fv_arena_free(&arena);
    return status;
}

/* ---------------------------------------------------------------- conversion */

static double load_float(fv_dtype dtype, const unsigned char *from) {
    uint16_t h;
    float f;
    double d;
    switch (dtype) {
    case FV_F32: memcpy(&f, from, sizeof f); return (double)f;
    case FV_F64: memcpy(&d, from, sizeof d); return d;
    case FV_F16:
    case FV_BF16: memcpy(&h, from, sizeof h); return (double)fv_low_value(dtype, h);
    default: return 0.0;
    }
}

static int64_t load_integer(fv_dtype dtype, const unsigned char *from) {
    int64_t wide;
    int32_t narrow_value;
    switch (dtype) {
    case FV_I64: memcpy(&wide, from, sizeof wide); return wide;
    case FV_I32: memcpy(&narrow_value, from, sizeof narrow_value); return narrow_value;
    default: return *from;
    }
}

static bool is_float(fv_dtype dtype) {
    return dtype == FV_F32 || dtype == FV_F64 || fv_is_low(dtype);
}

/* Which types of a file a slot takes: floats for float32 and float64, integers for int64, else only its own. */
static bool is_convertible(fv_dtype from, fv_dtype to) {
    if (to == FV_F32 || to == FV_F64) return is_float(from);
    if (to == FV_I64) return from == FV_I64 || from == FV_I32 || from == FV_U8;
    return from == to;
}

/* Returns false when a value is not finite. */
static bool convert(void *to, fv_dtype to_type, const unsigned char *from, fv_dtype from_type, int64_t count) {
    size_t step = fv_dtype_size(from_type);
    float *singles = to;
    double *doubles = to;
    int64_t *integers = to;
    bool finite = true;
    if (to_type == FV_F32 || to_type == FV_F64) {
        for (int64_t i = 0; i < count; i++, from += step) {
            double value = load_float(from_type, from);
            if (to_type == FV_F32) value = singles[i] = (float)value;
            else doubles[i] = value;
            if (!isfinite(value)) finite = false;
        }
    } else if (to_type == FV_I64) {
        for (int64_t i = 0; i < count; i++, from += step) integers[i] = load_integer(from_type, from);
    } else {
        memcpy(to, from, (size_t)count * step);
    }
    return finite;
}

/* ---------------------------------------------------------------- load: matching by name */

typedef struct listing { /* "3 tensors missing (a, b, c ...)" */
    int32_t count;
    char text[256];
} listing;

typedef struct loader {
    fv_ctx *ctx;
    fv_store *store;
    const fv_load_opts *opts;
    fv_st_file file;
    int prefix;                /* bytes that all names of the file begin with, and that are left out */
    const fv_st_entry **entry; /* per slot; NULL: the slot stays as it is */
    bool *used;                /* per entry of the file */
    int32_t fitting, head_differs, others_differ;
    int64_t head_file, head_model; /* class counts */
    listing missing, unexpected, shapes, types;
} loader;

static void list_add(listing *list, const char *fmt, ...) FV_PRINTF(2, 3);
static void list_add(listing *list, const char *fmt, ...) {
    size_t used = strlen(list->text);
    if (list->count++ >= NAMED) return;
    if (list->count > 1) used += (size_t)snprintf(list->text + used, sizeof list->text - used, ", ");
    if (used >= sizeof list->text) return;
    va_list args;
    va_start(args, fmt);
    vsnprintf(list->text + used, sizeof list->text - used, fmt, args);
    va_end(args);
}

static const char *shape_text(fv_type type, char *buf, size_t size) {
    const char *text = fv_type_text(type, buf, size), *shape = strchr(text, '[');
    return shape ? shape : text;
}

/* What wrappers put before every name: DataParallel "module.", torch.compile "_orig_mod.". */
static int find_prefix(const fv_st_file *f) {
    static const char *const known[] = {"module.", "_orig_mod."};
    int prefix = 0;
    for (size_t k = 0; k < sizeof known / sizeof *known; k++) {
        size_t length = strlen(known[k]);
        bool all = f->count > 0;
        for (int32_t i = 0; i < f->count && all; i++) all = strncmp(f->entry[i].name + prefix, known[k], length) == 0;
        if (all) prefix += (int)length;
    }
    return prefix;
}

static bool in_head(const loader *l, const char *name) {
    size_t length = l->opts && l->opts->head ? strlen(l->opts->head) : 0;
    return length && strncmp(name, l->opts->head, length) == 0 && name[length] == '.';
}

/* One element is one element, be it [] or [1]. */
static bool fits(fv_type file, fv_type model) {
    return fv_same_shape(file, model) ||
           (file.rank <= 1 && model.rank <= 1 && fv_count(file) == 1 && fv_count(model) == 1);
}

static fv_status match_slot(loader *l, int32_t i) {
    const fv_slot *slot = fv_store_slot(l->store, i);
    char *name =
        fv_arena_printf(&l->file.arena, "%.*s%s", l->prefix, l->file.count ? l->file.entry[0].name : "", slot->name);
    if (!name) return l->ctx->error.code;
    const fv_st_entry *entry = fv_st_find(&l->file, name);
    if (!entry) {
        if (!ends_with(slot->name, COUNTER)) list_add(&l->missing, "%.60s", slot->name);
        return FV_OK;
    }
    l->used[entry - l->file.entry] = true;
    fv_type type = fv_slot_file_type(slot);
    if (!fits(entry->type, type)) {
        char have[96], want[96];
        bool head = in_head(l, slot->name);
        if (head && entry->type.rank && type.rank) {
            l->head_file = entry->type.dim[0];
            l->head_model = type.dim[0];
        }
        if (head) l->head_differs++;
        else l->others_differ++;
        if (head && l->opts->allow_head_mismatch) return FV_OK;
        list_add(&l->shapes, "%.40s: %.40s in the file, %.40s in the model", slot->name,
                 shape_text(entry->type, have, sizeof have), shape_text(type, want, sizeof want));
    } else if (!is_convertible(entry->type.dtype, type.dtype)) {
        list_add(&l->types, "%.60s: %s in the file, %s in the model", slot->name, fv_dtype_name(entry->type.dtype),
                 fv_dtype_name(type.dtype));
    } else {
        l->entry[i] = entry;
        l->fitting++;
    }
    return FV_OK;
}

static fv_status match_all(loader *l) {
    int32_t slots = fv_store_count(l->store);
    l->entry = fv_arena_alloc(&l->file.arena, (size_t)slots, sizeof *l->entry);
    l->used = fv_arena_alloc(&l->file.arena, (size_t)l->file.count, sizeof *l->used);
    if (!l->entry || !l->used) return l->ctx->error.code;
    l->prefix = find_prefix(&l->file);
    for (int32_t i = 0; i < slots; i++)
        if (in_file(fv_store_slot(l->store, i))) FV_TRY(match_slot(l, i));
    for (int32_t i = 0; i < l->file.count; i++)
        if (!l->used[i]) list_add(&l->unexpected, "%.60s", l->file.entry[i].name + l->prefix);
    return FV_OK;
}

/* ---------------------------------------------------------------- load: what does not fit */

static void append(char *text, size_t size, const listing *list, const char *what) {
    size_t used = strlen(text);
    if (!list->count || used >= size) return;
    snprintf(text + used, size - used, "%s %" PRId32 " %s (%s%s)", used ? ";" : "", list->count, what, list->text,
             list->count > NAMED ? ", ..." : "");
}

static fv_status report(loader *l) {
    if (!l->missing.count && !l->unexpected.count && !l->shapes.count && !l->types.count) return FV_OK;
    char text[700] = "";
    append(text, sizeof text, &l->missing, "missing");
    append(text, sizeof text, &l->unexpected, "unexpected");
    append(text, sizeof text, &l->shapes, "of another shape");
    append(text, sizeof text, &l->types, "of another element type");
    fv_fail_at(l->ctx, FV_E_MODEL, l->file.path, -1, "the tensors do not fit the model:%s", text);

    const char *architecture = fv_st_meta(&l->file, "architecture");
    if (!l->missing.count && !l->unexpected.count && !l->types.count && !l->others_differ && l->head_differs) {
        return fv_hint(l->ctx, "the file was made for %" PRId64 " classes, the model has %" PRId64, l->head_file,
                       l->head_model);
    }
    if (architecture) return fv_hint(l->ctx, "the file says that it holds the model \"%.100s\"", architecture);
    if (!l->fitting) return fv_hint(l->ctx, "no tensor fits: the file holds another model");
    return fv_hint(l->ctx, "%" PRId32 " tensors do fit: the file may hold a model of the same family, or another size",
                   l->fitting);
}

/* ---------------------------------------------------------------- load */

static fv_status write_slots(loader *l) {
    int32_t slots = fv_store_count(l->store), odd = 0;
    size_t largest = 0;
    for (int32_t i = 0; i < slots; i++)
        if (l->entry[i] && fv_bytes(fv_store_slot(l->store, i)->type) > largest)
            largest = fv_bytes(fv_store_slot(l->store, i)->type);
    void *scratch = fv_alloc(l->ctx, largest, 1);
    if (!scratch) return l->ctx->error.code;
    fv_status status = FV_OK;
    for (int32_t i = 0; i < slots && status == FV_OK; i++) {
        const fv_slot *slot = fv_store_slot(l->store, i);
        const fv_st_entry *entry = l->entry[i];
        if (!entry) continue;
        if (!convert(scratch, slot->type.dtype, l->file.data + entry->offset, entry->type.dtype,
                     fv_count(slot->type)) &&
            odd++ == 0)
            fv_log(l->ctx, FV_LOG_WARN, "%s: tensor \"%.200s\" holds values that are not finite", l->file.path,
                   entry->name);
        status = fv_store_write(l->store, i, scratch, fv_bytes(slot->type));
    }
    fv_free(l->ctx, scratch, largest, 1);
    return status;
}

fv_status fv_model_load(fv_ctx *ctx, fv_store *store, const char *path, const fv_load_opts *opts) {
    loader l = {.ctx = ctx, .store = store, .opts = opts};
    FV_TRY(fv_st_open(&l.file, ctx, path));
    fv_status status = match_all(&l);
    if (status == FV_OK) status = report(&l);
    if (status == FV_OK) status = write_slots(&l);
    if (status == FV_OK && l.head_differs) {
        fv_log(ctx, FV_LOG_WARN,
               "%s: the classifier \"%s\" has %" PRId64 " classes in the file, %" PRId64
               " in the model: it keeps its initial values",
               path, opts->head, l.head_file, l.head_model);
    }
    fv_st_close(&l.file);
    return status;
}
