/* store.c: slots and their memory. Within a role, decayed parameters come first and the others after, so that an
 * optimizer's update of one group runs over one flat range. */
#include "core/store.h"

#include <math.h>
#include <string.h>
#include <xxhash.h>

typedef struct chunk { /* one allocation on the device */
    void *data;
    size_t bytes;
    fv_role role;
} chunk;

#define MAX_CHUNKS 64

struct fv_store {
    fv_ctx *ctx;
    fv_device *dev;
    fv_arena arena;
    fv_slot *slots;
    int32_t count, cap;
    chunk chunks[MAX_CHUNKS];
    int n_chunks;
    uint64_t version;
};

fv_status fv_store_create(fv_ctx *ctx, fv_device *dev, fv_store **out) {
    fv_store *s = fv_calloc(ctx, 1, sizeof *s);
    if (!s) return FV_E_MEMORY;
    s->ctx = ctx;
    s->dev = dev;
    s->version = 1;
    fv_arena_init(&s->arena, ctx);
    *out = s;
    return FV_OK;
}

void fv_store_destroy(fv_store *s) {
    if (!s) return;
    fv_ctx *ctx = s->ctx;
    for (int i = 0; i < s->n_chunks; i++) s->dev->backend->free(s->dev, s->chunks[i].data, s->chunks[i].bytes);
    fv_free(ctx, s->slots, (size_t)s->cap, sizeof *s->slots);
    fv_arena_free(&s->arena);
    fv_free(ctx, s, 1, sizeof *s);
}

int32_t fv_store_count(const fv_store *s) {
    return s->count;
}
const fv_slot *fv_store_slot(const fv_store *s, int32_t i) {
    return i >= 0 && i < s->count ? &s->slots[i] : NULL;
}

int32_t fv_store_find(const fv_store *s, const char *name) {
    for (int32_t i = 0; i < s->count; i++)
        if (!strcmp(s->slots[i].name, name)) return i;
    return -1;
}

size_t fv_store_role_bytes(const fv_store *s, fv_role role) {
    size_t bytes = 0;
    for (int i = 0; i < s->n_chunks; i++)
        if (s->chunks[i].role == role) bytes += s->chunks[i].bytes;
    return bytes;
}

uint64_t fv_store_version(const fv_store *s) {
    return s->version;
}
void fv_store_touch(fv_store *s) {
    s->version++;
}

/* ---------------------------------------------------------------- binding */

static fv_status check_same(fv_store *s, const fv_slot *slot, const fv_decl *decl) {
    char have[96], want[96];
    if (fv_same_type(slot->type, decl->type) && slot->role == decl->role && slot->layout.kind == decl->layout.kind)
        return FV_OK;
    return fv_fail(s->ctx, FV_E_MODEL, "parameter '%s' is %s in the store, but %s in the graph", slot->name,
                   fv_type_text(slot->type, have, sizeof have), fv_type_text(decl->type, want, sizeof want));
}

static fv_status grow(fv_store *s) {
    if (s->count < s->cap) return FV_OK;
    int32_t cap = s->cap ? s->cap * 2 : 128;
    fv_slot *bigger = fv_calloc(s->ctx, (size_t)cap, sizeof *bigger);
    if (!bigger) return s->ctx->error.code;
    if (s->slots) memcpy(bigger, s->slots, (size_t)s->count * sizeof *bigger);
    fv_free(s->ctx, s->slots, (size_t)s->cap, sizeof *s->slots);
    s->slots = bigger;
    s->cap = cap;
    return FV_OK;
}

static fv_status add_slot(fv_store *s, const fv_graph *g, const fv_decl *decl) {
    FV_TRY(grow(s));
    fv_slot slot = {.name = fv_arena_strdup(&s->arena, decl->name),
                    .type = decl->type,
                    .role = decl->role,
                    .layout = decl->layout,
                    .init = decl->init,
                    .no_decay = decl->no_decay,
                    .frozen = decl->frozen,
                    .of = -1};
    if (!slot.name) return s->ctx->error.code;
    if (decl->init.kind == FV_INIT_DATA) {
        size_t n = (size_t)fv_count(decl->type);
        double *copy = fv_arena_alloc(&s->arena, n, sizeof *copy);
        if (!copy) return s->ctx->error.code;
        memcpy(copy, decl->init.data, n * sizeof *copy);
        slot.init.data = copy;
    }
    const fv_decl *of = fv_decl_of(g, decl->of);
    if (of) slot.of = fv_store_find(s, of->name);
    s->slots[s->count++] = slot;
    return FV_OK;
}

fv_status fv_store_bind(fv_store *s, const fv_graph *g) {
    for (int32_t i = 0; i < g->n_decls; i++) {
        int32_t have = fv_store_find(s, g->decls[i].name);
        if (have >= 0) FV_TRY(check_same(s, &s->slots[have], &g->decls[i]));
        else FV_TRY(add_slot(s, g, &g->decls[i]));
    }
    return FV_OK;
}

/* ---------------------------------------------------------------- layouts */

/* File shape of a slot; [k,r,s,c] -> [k,c,r,s]. */
fv_type fv_slot_file_type(const fv_slot *slot) {
    fv_type t = slot->type;
    if (slot->layout.kind == FV_LAYOUT_OIHW && t.rank == 4)
        t = fv_shape(t.dtype, t.dim[0], t.dim[3], t.dim[1], t.dim[2]);
    return t;
}

/* Memory index of file element i. */
static size_t memory_index(const fv_slot *slot, size_t i) {
    size_t rows, cols, c;
    switch (slot->layout.kind) {
    case FV_LAYOUT_OIHW: /* file [k][c][rs], memory [k][rs][c] */
        c = (size_t)slot->type.dim[3];
        rows = (size_t)(slot->type.dim[1] * slot->type.dim[2]);
        break;
    case FV_LAYOUT_LINEAR_CHW: /* file [out][c][hw], memory [out][hw][c] */
        c = (size_t)slot->layout.c;
        rows = (size_t)slot->layout.h * (size_t)slot->layout.w;
        break;
    default: return i;
    }
    cols = rows * c;
    size_t k = i / cols, in_row = i % cols;
    return k * cols + (in_row % rows) * c + in_row / rows;
}

/* Copy between file order and memory order, element by element. */
static void convert(const fv_slot *slot, void *to, const void *from, bool to_file) {
    size_t n = (size_t)fv_count(slot->type), size = fv_dtype_size(slot->type.dtype);
    if (slot->layout.kind == FV_LAYOUT_PLAIN) {
        memcpy(to, from, n * size);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        size_t m = memory_index(slot, i);
        if (to_file) memcpy((char *)to + i * size, (const char *)from + m * size, size);
        else memcpy((char *)to + m * size, (const char *)from + i * size, size);
    }
}

static fv_status transfer(fv_store *s, int32_t index, void *host, const void *from, size_t bytes) {
    if (index < 0 || index >= s->count || !s->slots[index].data)
        return fv_fail(s->ctx, FV_E_INTERNAL, "store: no such slot %d", index);
    const fv_slot *slot = &s->slots[index];
    if (bytes != fv_bytes(slot->type))
        return fv_fail(s->ctx, FV_E_INTERNAL, "store: '%s' has %zu bytes, not %zu", slot->name, fv_bytes(slot->type),
                       bytes);
    if (bytes == 0) return FV_OK;
    if (!host && !from) return fv_fail(s->ctx, FV_E_INTERNAL, "store: nothing to copy '%s' to or from", slot->name);
    char *temp = fv_alloc(s->ctx, bytes, 1);
    if (!temp) return s->ctx->error.code;
    fv_status status;
    if (host) {
        status = s->dev->backend->copy(s->dev, temp, slot->data, bytes, FV_COPY_TO_HOST);
        if (status == FV_OK) convert(slot, host, temp, true);
    } else {
        fv_store_touch(s);
        convert(slot, temp, from, false);
        status = s->dev->backend->copy(s->dev, slot->data, temp, bytes, FV_COPY_TO_DEVICE);
    }
    fv_free(s->ctx, temp, bytes, 1);
    return status;
}

fv_status fv_store_read(fv_store *s, int32_t slot, void *host, size_t bytes) {
    return transfer(s, slot, host, NULL, bytes);
}
fv_status fv_store_write(fv_store *s, int32_t slot, const void *host, size_t bytes) {
    return transfer(s, slot, NULL, host, bytes);
}

/* ---------------------------------------------------------------- memory and initial values */

/* A standard normal for element e: four per Philox block, Box-Muller pairs. */
static double draw_normal(uint64_t seed, uint64_t e, uint64_t attempt, uint32_t stream) {
    fv_philox w = fv_random(seed, e / 4, attempt, 0, stream);
    uint32_t a = w.v[(e % 4) & ~1u], b = w.v[((e % 4) & ~1u) + 1];
    double r = sqrt(-2.0 * log(fv_uniform_f64(a))), angle = 6.283185307179586 * fv_uniform_f64(b);
    return e % 2 ? r * sin(angle) : r * cos(angle);
}

static double draw_uniform(const fv_init *init, uint64_t seed, uint64_t e, uint32_t stream) {
    return init->a + (init->b - init->a) * fv_uniform_f64(fv_random(seed, e / 4, 0, 0, stream).v[e % 4]);
}

/* Element e, in file order [k][c][r][s], of filters of which the first hand a channel through. */
static double draw_dirac(const fv_slot *slot, uint64_t seed, uint64_t e, uint32_t stream) {
    const int64_t *d = slot->type.dim; /* [k,r,s,c] */
    uint64_t window = (uint64_t)(d[1] * d[2]), centre = (uint64_t)(d[1] / 2 * d[2] + d[2] / 2);
    uint64_t filter = e / window / (uint64_t)d[3], channel = e / window % (uint64_t)d[3];
    if (filter >= (uint64_t)d[3]) return draw_uniform(&slot->init, seed, e, stream);
    return filter == channel && e % window == centre ? 1 : 0;
}

static double draw(const fv_slot *slot, uint64_t seed, uint64_t e, uint32_t stream) {
    const fv_init *init = &slot->init;
    switch (init->kind) {
    case FV_INIT_CONSTANT: return init->a;
    case FV_INIT_UNIFORM: return draw_uniform(init, seed, e, stream);
    case FV_INIT_NORMAL: return init->a + init->b * draw_normal(seed, e, 0, stream);
    case FV_INIT_TRUNC_NORMAL:
        for (uint64_t attempt = 0;; attempt++) {
            double z = draw_normal(seed, e, attempt, stream);
            if (fabs(z) <= 2.0) return init->a + init->b * z;
        }
    case FV_INIT_DIRAC: return draw_dirac(slot, seed, e, stream);
    case FV_INIT_DATA: return init->data[e];
    }
    return 0.0;
}

/* Draws are numbered in file order, so they do not depend on how memory is laid out. DATA is in memory order. */
static fv_status initialise(fv_store *s, int32_t index, uint64_t seed) {
    fv_slot *slot = &s->slots[index];
    size_t n = (size_t)fv_count(slot->type), bytes = fv_bytes(slot->type);
    if (n == 0 || (slot->init.kind == FV_INIT_CONSTANT && slot->init.a == 0.0)) return FV_OK; /* memory comes zeroed */
    char *temp = fv_alloc(s->ctx, bytes, 1);
    if (!temp) return s->ctx->error.code;
    uint32_t stream = fv_hash_name(slot->name);
    for (size_t i = 0; i < n; i++) {
        double value = draw(slot, seed, i, stream);
        size_t m = slot->init.kind == FV_INIT_DATA ? i : memory_index(slot, i);
        switch (slot->type.dtype) {
        case FV_F32: ((float *)(void *)temp)[m] = (float)value; break;
        case FV_F64:
            ((double *)(void *)temp)[m] = (double)(float)value;
            break; /* the same weights in both precisions */
        case FV_I64: ((int64_t *)(void *)temp)[m] = (int64_t)value; break;
        case FV_I32: ((int32_t *)(void *)temp)[m] = (int32_t)value; break;
        case FV_U8: ((uint8_t *)temp)[m] = (uint8_t)value; break;
        default: memset(temp, 0, bytes); break; /* no backend computes in it (supports) */
        }
    }
    fv_status status = s->dev->backend->copy(s->dev, slot->data, temp, bytes, FV_COPY_TO_DEVICE);
    fv_free(s->ctx, temp, bytes, 1);
    return status;
}

static size_t padded(const fv_slot *slot) {
    return (fv_bytes(slot->type) + 63) & ~(size_t)63;
}

/* One allocation for all slots of a role that have no memory yet. */
static fv_status allocate_role(fv_store *s, fv_role role) {
    size_t total = 0;
    for (int32_t i = 0; i < s->count; i++)
        if (s->slots[i].role == role && !s->slots[i].data && !fv_size_add(total, padded(&s->slots[i]), &total))
            return fv_fail(s->ctx, FV_E_MEMORY, "the model does not fit in the address space");
    if (total == 0) return FV_OK;
    if (s->n_chunks == MAX_CHUNKS) return fv_fail(s->ctx, FV_E_INTERNAL, "store: too many allocations");
    void *data;
    FV_TRY(s->dev->backend->alloc(s->dev, total, &data));
    s->chunks[s->n_chunks++] = (chunk){data, total, role};
    size_t offset = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int32_t i = 0; i < s->count; i++) {
            fv_slot *slot = &s->slots[i];
            if (slot->role != role || slot->data || slot->no_decay != (pass == 1)) continue;
            slot->data = (char *)data + offset;
            offset += padded(slot);
        }
    return FV_OK;
}

/* What follows a parameter begins where that is. */
static fv_status copy_to_follower(fv_store *s, const fv_slot *slot) {
    if ((slot->role != FV_ROLE_EMA && slot->role != FV_ROLE_SLOW) || slot->of < 0) return FV_OK;
    return s->dev->backend->copy(s->dev, slot->data, s->slots[slot->of].data, fv_bytes(slot->type), FV_COPY_ON_DEVICE);
}

fv_status fv_store_commit(fv_store *s, uint64_t seed) {
    bool *fresh = fv_arena_alloc(&s->arena, (size_t)s->count + 1, sizeof *fresh);
    if (!fresh) return s->ctx->error.code;
    fv_store_touch(s);
    for (int32_t i = 0; i < s->count; i++) fresh[i] = s->slots[i].data == NULL;
    for (int role = 0; role < FV_ROLE_COUNT; role++) FV_TRY(allocate_role(s, (fv_role)role));
    for (int32_t i = 0; i < s->count; i++)
        if (fresh[i]) FV_TRY(initialise(s, i, seed));
    for (int32_t i = 0; i < s->count; i++)
        if (fresh[i]) FV_TRY(copy_to_follower(s, &s->slots[i]));
    return FV_OK;
}

fv_status fv_store_reset_ema(fv_store *s) {
    fv_store_touch(s);
    for (int32_t i = 0; i < s->count; i++) FV_TRY(copy_to_follower(s, &s->slots[i]));
    return FV_OK;
}

fv_status fv_store_clone(fv_ctx *ctx, const fv_store *from, fv_device *host, fv_store **out) {
    fv_store *s;
    *out = NULL;
    FV_TRY(fv_store_create(ctx, host, &s));
    s->slots = fv_alloc(ctx, (size_t)from->count, sizeof *s->slots);
    fv_status status = s->slots ? FV_OK : FV_E_MEMORY;
    if (s->slots) s->cap = s->count = from->count;
    for (int32_t i = 0; i < s->count && s->slots; i++) {
        s->slots[i] = from->slots[i];
        s->slots[i].data = NULL;
    }
    for (int role = 0; role < FV_ROLE_COUNT && status == FV_OK; role++)
        if (role != FV_ROLE_GRAD) status = allocate_role(s, (fv_role)role);
    if (status == FV_OK) *out = s;
    else fv_store_destroy(s);
    return status;
}

fv_status fv_store_copy(fv_store *clone, const fv_store *from) {
    if (clone->count != from->count) return fv_fail(clone->ctx, FV_E_INTERNAL, "store: the clone has other slots");
    fv_store_touch(clone);
    for (int32_t i = 0; i < clone->count; i++)
        if (clone->slots[i].data && fv_bytes(clone->slots[i].type) > 0)
            FV_TRY(from->dev->backend->copy(from->dev, clone->slots[i].data, from->slots[i].data,
                                            fv_bytes(clone->slots[i].type), FV_COPY_TO_HOST));
    return FV_OK;
}

fv_status fv_store_hash(fv_store *s, uint64_t *out) {
    uint64_t hash = 0;
    for (int32_t i = 0; i < s->count; i++) {
        size_t bytes = fv_bytes(s->slots[i].type);
        if (bytes == 0 || s->slots[i].role == FV_ROLE_GRAD) continue;
        char *temp = fv_alloc(s->ctx, bytes, 1);
        if (!temp) return s->ctx->error.code;
        fv_status status = s->dev->backend->copy(s->dev, temp, s->slots[i].data, bytes, FV_COPY_TO_HOST);
        hash = XXH3_64bits_withSeed(temp, bytes, hash);
        fv_free(s->ctx, temp, bytes, 1);
        FV_TRY(status);
    }
    *out = hash;
    return FV_OK;
}
