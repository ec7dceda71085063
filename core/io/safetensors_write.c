/* safetensors_write.c: order by element size -> header text -> checksum -> tensors one by one -> commit. */
#include "core/io/safetensors_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_STATIC_LINKING_ONLY /* the state on the stack */
#include <xxhash.h>

typedef struct header { /* growing text; `failed` is sticky */
    fv_ctx *ctx;
    char *text;
    size_t size, capacity;
    bool failed;
} header;

static void put(header *h, const char *s, size_t bytes) {
    if (h->failed) return;
    if (h->capacity - h->size < bytes) {
        size_t capacity = h->capacity ? h->capacity : 4096;
        while (capacity - h->size < bytes) capacity *= 2;
        char *text = fv_alloc(h->ctx, capacity, 1);
        if (!text) {
            h->failed = true;
            return;
        }
        if (h->size) memcpy(text, h->text, h->size);
        fv_free(h->ctx, h->text, h->capacity, 1);
        h->text = text;
        h->capacity = capacity;
    }
    memcpy(h->text + h->size, s, bytes);
    h->size += bytes;
}

static void put_text(header *h, const char *s) {
    put(h, s, strlen(s));
}

/* A JSON string. Bytes that are no UTF-8 (file names in metadata) become U+FFFD: no reader would take them. */
static void put_string(header *h, const char *s) {
    put(h, "\"", 1);
    for (const unsigned char *p = (const unsigned char *)s; *p;) {
        size_t n = fv_utf8_length(p);
        char escape[8];
        if (n == 0) put_text(h, "\xEF\xBF\xBD");
        else if (*p == '"' || *p == '\\') put(h, escape, (size_t)snprintf(escape, sizeof escape, "\\%c", *p));
        else if (*p < 0x20) put(h, escape, (size_t)snprintf(escape, sizeof escape, "\\u%04x", *p));
        else put(h, (const char *)p, n);
        p += n ? n : 1;
    }
    put(h, "\"", 1);
}

static void put_tensor(header *h, const fv_st_tensor *t, uint64_t offset) {
    char number[64];
    put_string(h, t->name);
    put_text(h, ":{\"dtype\":");
    put_string(h, fv_st_dtype_name(t->type.dtype));
    put_text(h, ",\"shape\":[");
    for (int i = 0; i < t->type.rank; i++) {
        snprintf(number, sizeof number, "%s%" PRId64, i ? "," : "", t->type.dim[i]);
        put_text(h, number);
    }
    snprintf(number, sizeof number, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", offset,
             offset + fv_bytes(t->type));
    put_text(h, number);
}

/* Length, JSON, spaces up to a multiple of 8 bytes. */
static void put_header(header *h, const fv_st_tensor *tensors, int32_t n, const int32_t *order,
                       const char *const (*meta)[2], int32_t n_meta) {
    put(h, "\0\0\0\0\0\0\0\0", FV_ST_LENGTH);
    put_text(h, "{");
    put_text(h, "\"" FV_ST_METADATA "\":{" FV_ST_CHECKSUM_MARK FV_ST_ZEROS "\"");
    for (int32_t i = 0; i < n_meta; i++) {
        put_text(h, ",");
        put_string(h, meta[i][0]);
        put_text(h, ":");
        put_string(h, meta[i][1]);
    }
    put_text(h, n ? "}," : "}");
    uint64_t offset = 0;
    for (int32_t i = 0; i < n; i++) {
        if (i) put_text(h, ",");
        put_tensor(h, &tensors[order[i]], offset);
        offset += fv_bytes(tensors[order[i]].type);
    }
    put_text(h, "}");
    while (!h->failed && h->size % 8) put(h, " ", 1);
    for (int i = 0; i < FV_ST_LENGTH && !h->failed; i++) h->text[i] = (char)((h->size - FV_ST_LENGTH) >> 8 * i);
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Names are the caller's: two alike, or the reserved one, would make a file that nobody can read. */
static fv_status check_names(fv_ctx *ctx, const char *path, const fv_st_tensor *tensors, int32_t n) {
    const char **names = fv_alloc(ctx, (size_t)n, sizeof *names);
    if (!names) return ctx->error.code;
    fv_status status = FV_OK;
    for (int32_t i = 0; i < n; i++) names[i] = tensors[i].name;
    qsort(names, (size_t)n, sizeof *names, compare_names);
    for (int32_t i = 0; i < n && status == FV_OK; i++) {
        if (strcmp(names[i], FV_ST_METADATA) == 0 || !fv_st_printable(names[i]) ||
            (i && strcmp(names[i - 1], names[i]) == 0)) {
            status = fv_fail_at(ctx, FV_E_INTERNAL, path, -1,
                                "cannot be written: tensor name \"%.200s\" is reserved, unprintable or used twice",
                                names[i]);
        }
    }
    fv_free(ctx, names, (size_t)n, sizeof *names);
    return status;
}

typedef struct source { /* where the contents of the tensors come from */
    fv_ctx *ctx;
    const fv_st_tensor *tensors;
    const int32_t *order;
    int32_t n;
    fv_st_fill fill;
    void *user;
    unsigned char *scratch;
    size_t scratch_bytes;
} source;

/* Every tensor in order, into the file or into the checksum. */
static fv_status pass(source *s, fv_writer *w, XXH3_state_t *sum) {
    for (int32_t i = 0; i < s->n; i++) {
        const fv_st_tensor *t = &s->tensors[s->order[i]];
        size_t bytes = fv_bytes(t->type);
        if (!t->data && bytes) FV_TRY(s->fill(s->user, s->order[i], s->scratch, bytes));
        const void *data = t->data ? t->data : s->scratch;
        if (sum && bytes) XXH3_64bits_update(sum, data, bytes);
        if (w) FV_TRY(fv_write(w, data, bytes));
    }
    return FV_OK;
}

static fv_status seal(header *h, source *s) {
    XXH3_state_t sum;
    char digits[FV_ST_DIGITS + 1];
    XXH3_64bits_reset(&sum);
    XXH3_64bits_update(&sum, h->text, h->size);
    FV_TRY(pass(s, NULL, &sum));
    snprintf(digits, sizeof digits, "%016" PRIx64, (uint64_t)XXH3_64bits_digest(&sum));
    memcpy(h->text + FV_ST_LENGTH + strlen("{\"" FV_ST_METADATA "\":{" FV_ST_CHECKSUM_MARK), digits, FV_ST_DIGITS);
    return FV_OK;
}

static fv_status save(source *s, header *h, const char *path, const char *keep) {
    fv_writer w;
    for (int32_t i = 0; i < s->n; i++)
        if (!s->tensors[i].data && fv_bytes(s->tensors[i].type) > s->scratch_bytes)
            s->scratch_bytes = fv_bytes(s->tensors[i].type);
    s->scratch = fv_alloc(s->ctx, s->scratch_bytes, 1);
    fv_status status = s->scratch ? seal(h, s) : s->ctx->error.code;
    if (status == FV_OK) status = fv_writer_open(&w, s->ctx, path);
    if (status == FV_OK) {
        w.keep = keep;
        status = fv_write(&w, h->text, h->size);
        if (status == FV_OK) status = pass(s, &w, NULL);
        if (status == FV_OK) status = fv_writer_commit(&w);
        else fv_writer_abort(&w);
    }
    fv_free(s->ctx, s->scratch, s->scratch_bytes, 1);
    return status;
}

fv_status fv_st_save_keeping(fv_ctx *ctx, const char *path, const char *keep, const fv_st_tensor *tensors, int32_t n,
                             const char *const (*meta)[2], int32_t n_meta, fv_st_fill fill, void *user) {
    FV_TRY(check_names(ctx, path, tensors, n));
    int32_t *order = fv_alloc(ctx, (size_t)n, sizeof *order), placed = 0;
    if (!order) return ctx->error.code;
    for (size_t size = 8; size; size /= 2)
        for (int32_t i = 0; i < n; i++)
            if (fv_dtype_size(tensors[i].type.dtype) == size) order[placed++] = i;

    header h = {.ctx = ctx};
    put_header(&h, tensors, n, order, meta, n_meta);
    source from = {.ctx = ctx, .tensors = tensors, .order = order, .n = n, .fill = fill, .user = user};
    fv_status status = h.failed ? ctx->error.code : save(&from, &h, path, keep);
    fv_free(ctx, h.text, h.capacity, 1);
    fv_free(ctx, order, (size_t)n, sizeof *order);
    return status;
}

fv_status fv_st_save_with(fv_ctx *ctx, const char *path, const fv_st_tensor *tensors, int32_t n,
                          const char *const (*meta)[2], int32_t n_meta, fv_st_fill fill, void *user) {
    return fv_st_save_keeping(ctx, path, NULL, tensors, n, meta, n_meta, fill, user);
}

fv_status fv_st_save(fv_ctx *ctx, const char *path, const fv_st_tensor *tensors, int32_t n,
                     const char *const (*meta)[2], int32_t n_meta) {
    return fv_st_save_with(ctx, path, tensors, n, meta, n_meta, NULL, NULL);
}
