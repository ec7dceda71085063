/* state.c: a store's weights, buffers, moments, averages and slow copies to and from safetensors, bit for bit. */
#include "core/io/safetensors_internal.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* The name of a slot in a state file; NULL: it is not kept. Gradients are zero between steps. */
static const char *state_name(fv_arena *arena, const fv_slot *slot) {
    switch (slot->role) {
    case FV_ROLE_WEIGHT:
    case FV_ROLE_BUFFER: return fv_arena_printf(arena, "model.%s", slot->name);
    case FV_ROLE_MOMENT:
    case FV_ROLE_EMA:
    case FV_ROLE_SLOW: return slot->name; /* begins with "opt.", "ema." or "slow." */
    default: return NULL;
    }
}

static bool is_kept(const fv_slot *slot) {
    return slot->role == FV_ROLE_WEIGHT || slot->role == FV_ROLE_BUFFER || slot->role == FV_ROLE_MOMENT ||
           slot->role == FV_ROLE_EMA || slot->role == FV_ROLE_SLOW;
}

/* ---------------------------------------------------------------- save */

typedef struct saver {
    fv_ctx *ctx;
    fv_store *store;
    const char *path;
    const fv_st_tensor *tensors;
    const int32_t *source; /* per tensor: its slot */
} saver;

static bool all_finite(fv_dtype dtype, const void *data, int64_t count) {
    const float *single = data;
    const double *wide = data;
    bool finite = true;
    if (dtype == FV_F32)
        for (int64_t i = 0; i < count; i++) finite &= isfinite(single[i]) != 0;
    if (dtype == FV_F64)
        for (int64_t i = 0; i < count; i++) finite &= isfinite(wide[i]) != 0;
    return finite;
}

static fv_status fill_tensor(void *user, int32_t index, void *data, size_t bytes) {
    const saver *s = user;
    const fv_st_tensor *t = &s->tensors[index];
    FV_TRY(fv_store_read(s->store, s->source[index], data, bytes));
    if (all_finite(t->type.dtype, data, fv_count(t->type))) return FV_OK;
    fv_fail_at(s->ctx, FV_E_NUMERIC, s->path, -1, "not saved: tensor \"%.200s\" holds values that are not finite",
               t->name);
    return fv_hint(s->ctx, "the training has diverged; the state that was saved before is unharmed");
}

fv_status fv_state_save(fv_ctx *ctx, fv_store *store, const char *path, const char *prev, const char *const (*meta)[2],
                        int32_t n_meta) {
    int32_t slots = fv_store_count(store), n = 0;
    fv_arena arena;
    fv_arena_init(&arena, ctx);
    fv_st_tensor *tensors = fv_arena_alloc(&arena, (size_t)slots + 1, sizeof *tensors);
    int32_t *source = fv_arena_alloc(&arena, (size_t)slots + 1, sizeof *source);
    fv_status status = tensors && source ? FV_OK : FV_E_MEMORY;
    for (int32_t i = 0; i < slots && status == FV_OK; i++) {
        const fv_slot *slot = fv_store_slot(store, i);
        if (!is_kept(slot)) continue;
        const char *name = state_name(&arena, slot);
        if (!name) status = ctx->error.code;
        tensors[n] = (fv_st_tensor){.name = name, .type = fv_slot_file_type(slot)};
        source[n++] = i;
    }
    saver s = {ctx, store, path, tensors, source};
    if (status == FV_OK) status = fv_st_save_keeping(ctx, path, prev, tensors, n, meta, n_meta, fill_tensor, &s);
    fv_arena_free(&arena);
    return status;
}

/* ---------------------------------------------------------------- restore */

static fv_status restore_slot(fv_ctx *ctx, fv_store *store, int32_t i, const char *name, const fv_st_file *file) {
    const fv_slot *slot = fv_store_slot(store, i);
    fv_type want = fv_slot_file_type(slot);
    const fv_st_entry *entry = fv_st_find(file, name);
    char have[96], text[96];
    if (!entry) return fv_fail_at(ctx, FV_E_MODEL, file->path, -1, "there is no tensor \"%.200s\" in it", name);
    if (entry->type.dtype != want.dtype || !fv_same_shape(entry->type, want))
        return fv_fail_at(ctx, FV_E_MODEL, file->path, -1, "tensor \"%.200s\" is %s, the model wants %s", name,
                          fv_type_text(entry->type, have, sizeof have), fv_type_text(want, text, sizeof text));
    return fv_store_write(store, i, file->data + entry->offset, entry->bytes);
}

fv_status fv_state_restore(fv_ctx *ctx, fv_store *store, const fv_st_file *file) {
    fv_arena arena;
    fv_arena_init(&arena, ctx);
    int32_t found = 0;
    fv_status status = FV_OK;
    for (int32_t i = 0; i < fv_store_count(store) && status == FV_OK; i++) {
        const fv_slot *slot = fv_store_slot(store, i);
        if (!is_kept(slot)) continue;
        const char *name = state_name(&arena, slot);
        status = name ? restore_slot(ctx, store, i, name, file) : ctx->error.code;
        found++;
    }
    fv_arena_free(&arena);
    if (status == FV_OK && found != file->count)
        status = fv_fail_at(ctx, FV_E_MODEL, file->path, -1, "it holds %" PRId32 " tensors, the model %" PRId32,
                            file->count, found);
    return status;
}
