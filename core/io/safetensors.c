/* safetensors.c: reading and writing safetensors.
 *
 *   open   length -> header text -> scan (bounds the parser's work) -> jansson -> entries -> layout check -> data
 * section save   order by element size -> header text -> tensors one by one -> commit
 */
#include "core/io/io.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LENGTH_BYTES 8
#define MAX_DEPTH 16
#define MAX_JSON_VALUES ((size_t)16 * FV_ST_MAX_TENSORS) /* a tensor of rank 6 is 13 values */
#define METADATA "__metadata__"

static const char *st_dtype_name(fv_dtype dtype) {
    switch (dtype) {
#define ST_NAME(name, text, bytes, st) \
    case name: return st;
        FV_DTYPE_TABLE(ST_NAME)
#undef ST_NAME
    case FV_DTYPE_COUNT: break;
    }
    return "unknown";
}

static fv_dtype st_dtype_find(const char *name) {
    for (int i = 0; i < FV_DTYPE_COUNT; i++)
        if (strcmp(st_dtype_name((fv_dtype)i), name) == 0) return (fv_dtype)i;
    return FV_DTYPE_COUNT;
}

/* ---------------------------------------------------------------- header to JSON */

static fv_status bad(const fv_st_file *f, int64_t offset, const char *why) {
    return fv_fail_at(f->ctx, FV_E_MODEL, f->path, offset, "not a valid safetensors file: %s", why);
}

/* A quick look at the header before the parser builds a tree of it: depth and number of values are limited, so that
 * time and memory are. Offsets in messages are from the start of the file. */
static fv_status scan_header(const fv_st_file *f, const char *text, size_t size) {
    size_t values = 0;
    int depth = 0;
    bool in_string = false;
    if (text[0] != '{') return bad(f, LENGTH_BYTES, "the header does not begin with '{'");
    for (size_t i = 0; i < size; i++) {
        int64_t offset = (int64_t)(LENGTH_BYTES + i);
        char c = text[i];
        if (in_string) {
            if (c == '\\') i++;
            else if (c == '"') in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > MAX_DEPTH) return bad(f, offset, "the header is nested too deeply");
            values++;
        } else if (c == '}' || c == ']') {
            depth--;
        } else if (c == ',' || c == ':') {
            values++;
        }
        if (values > MAX_JSON_VALUES) return bad(f, offset, "the header has too many tensors or values");
    }
    return FV_OK;
}

static fv_status parse_json(const fv_st_file *f, const char *text, size_t size, json_t **out) {
    json_error_t error;
    FV_TRY(scan_header(f, text, size));
    *out = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    if (*out) return FV_OK;
    if (json_error_code(&error) == json_error_out_of_memory)
        return fv_fail_memory(f->ctx, size, "a safetensors header");
    return fv_fail_at(f->ctx, FV_E_MODEL, f->path, LENGTH_BYTES + error.position,
                      "not a valid safetensors file: the header is not JSON: %s", error.text);
}

/* ---------------------------------------------------------------- JSON to entries */

static fv_status bad_tensor(const fv_st_file *f, const char *name, const char *why) {
    return fv_fail_at(f->ctx, FV_E_MODEL, f->path, -1, "tensor \"%.200s\": %s", name, why);
}

static bool is_printable(const char *s) {
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f) return false;
    return true;
}

static fv_status read_shape(const fv_st_file *f, const char *name, const json_t *shape, fv_type *type) {
    if (!json_is_array(shape)) return bad_tensor(f, name, "\"shape\" is missing or no list");
    if (json_array_size(shape) > FV_MAX_RANK) return bad_tensor(f, name, "more than 6 dimensions");
    type->rank = (int32_t)json_array_size(shape);
    for (int i = 0; i < type->rank; i++) {
        const json_t *dim = json_array_get(shape, (size_t)i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0)
            return bad_tensor(f, name, "a dimension is not a non-negative integer");
        type->dim[i] = json_integer_value(dim);
    }
    return FV_OK;
}

static fv_status read_entry(const fv_st_file *f, const char *name, const json_t *json, fv_st_entry *entry) {
    if (!is_printable(name)) return bad(f, -1, "a tensor's name holds control characters");
    if (!json_is_object(json)) return bad_tensor(f, name, "its description is no JSON object");
    const char *dtype = json_string_value(json_object_get(json, "dtype"));
    if (!dtype) return bad_tensor(f, name, "\"dtype\" is missing or no string");
    entry->type.dtype = st_dtype_find(dtype);
    if (entry->type.dtype == FV_DTYPE_COUNT) {
        return fv_fail_at(f->ctx, FV_E_MODEL, f->path, -1, "tensor \"%.200s\": element type %.20s is not supported",
                          name, is_printable(dtype) ? dtype : "(unprintable)");
    }
    FV_TRY(read_shape(f, name, json_object_get(json, "shape"), &entry->type));
    if (!fv_type_check(entry->type, &entry->bytes))
        return bad_tensor(f, name, "the product of its dimensions overflows");

    const json_t *offsets = json_object_get(json, "data_offsets");
    const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last))
        return bad_tensor(f, name, "\"data_offsets\" is missing or no pair of integers");
    int64_t begin = json_integer_value(first), end = json_integer_value(last);
    if (begin < 0 || end < begin || (uint64_t)end > f->data_bytes) {
        return fv_fail_at(f->ctx, FV_E_MODEL, f->path, -1,
                          "tensor \"%.200s\": its bytes %" PRId64 " to %" PRId64
                          " do not lie in the data section of %zu bytes",
                          name, begin, end, f->data_bytes);
    }
    if ((uint64_t)(end - begin) != entry->bytes) {
        return fv_fail_at(f->ctx, FV_E_MODEL, f->path, -1,
                          "tensor \"%.200s\": %" PRId64 " bytes, but its shape needs %zu", name, end - begin,
                          entry->bytes);
    }
    entry->offset = (uint64_t)begin;
    entry->name = name;
    return FV_OK;
}

static fv_status read_metadata(fv_st_file *f, json_t *json) {
    if (!json) return FV_OK;
    if (!json_is_object(json)) return bad(f, -1, "\"" METADATA "\" is no JSON object");
    size_t n = json_object_size(json);
    f->meta_key = fv_arena_alloc(&f->arena, n, sizeof *f->meta_key);
    f->meta_value = fv_arena_alloc(&f->arena, n, sizeof *f->meta_value);
    if (!f->meta_key || !f->meta_value) return f->ctx->error.code;
    const char *key;
    json_t *value;
    json_object_foreach(json, key, value) {
        if (!json_is_string(value)) return bad(f, -1, "a value in \"" METADATA "\" is no string");
        char *k = fv_arena_strdup(&f->arena, key), *v = fv_arena_strdup(&f->arena, json_string_value(value));
        if (!k || !v) return f->ctx->error.code;
        f->meta_key[f->n_meta] = k;
        f->meta_value[f->n_meta++] = v;
    }
    return FV_OK;
}

static int by_offset(const void *a, const void *b) {
    const fv_st_entry *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return (x->bytes > y->bytes) - (x->bytes < y->bytes); /* empty tensors before the one that begins there */
}

static int by_name(const void *a, const void *b) {
    const fv_st_entry *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* Every byte of the data section belongs to exactly one tensor. */
static fv_status check_layout(const fv_st_file *f, const fv_st_entry *entry) {
    uint64_t end = 0;
    for (int32_t i = 0; i < f->count; i++) {
        if (entry[i].offset < end) return bad_tensor(f, entry[i].name, "it overlaps another tensor");
        if (entry[i].offset > end) return bad_tensor(f, entry[i].name, "there is a hole in the data before it");
        end += entry[i].bytes;
    }
    if (end < f->data_bytes) {
        return fv_fail_at(f->ctx, FV_E_MODEL, f->path, (int64_t)end,
                          "not a valid safetensors file: the last %" PRIu64 " bytes belong to no tensor",
                          (uint64_t)f->data_bytes - end);
    }
    return FV_OK;
}

static fv_status read_entries(fv_st_file *f, json_t *root) {
    json_t *meta = json_object_get(root, METADATA);
    size_t n = json_object_size(root) - (meta != NULL);
    if (n > FV_ST_MAX_TENSORS) return bad(f, -1, "the header has too many tensors");
    FV_TRY(read_metadata(f, meta));
    fv_st_entry *entry = fv_arena_alloc(&f->arena, n, sizeof *entry);
    f->by_name_ = fv_arena_alloc(&f->arena, n, sizeof *f->by_name_);
    if (!entry || !f->by_name_) return f->ctx->error.code;

    const char *key;
    json_t *value;
    json_object_foreach(root, key, value) {
        if (value == meta) continue;
        fv_st_entry *e = &entry[f->count];
        FV_TRY(read_entry(f, key, value, e));
        e->name = fv_arena_strdup(&f->arena, key);
        if (!e->name) return f->ctx->error.code;
        f->count++;
    }
    qsort(entry, (size_t)f->count, sizeof *entry, by_offset);
    for (int32_t i = 0; i < f->count; i++) f->by_name_[i] = &entry[i];
    qsort(f->by_name_, (size_t)f->count, sizeof *f->by_name_, by_name);
    f->entry = entry;
    return check_layout(f, entry);
}

/* ---------------------------------------------------------------- open */

static uint64_t load_u64(const unsigned char bytes[LENGTH_BYTES]) {
    uint64_t value = 0;
    for (int i = LENGTH_BYTES - 1; i >= 0; i--) value = value << 8 | bytes[i];
    return value;
}

static fv_status read_header(fv_st_file *f, fv_reader *reader) {
    unsigned char length[LENGTH_BYTES];
    if (reader->size < LENGTH_BYTES) return bad(f, -1, "it is shorter than 8 bytes");
    FV_TRY(fv_read(reader, length, sizeof length));
    uint64_t bytes = load_u64(length), rest = reader->size - LENGTH_BYTES;
    if (bytes < 2 || bytes > rest)
        return bad(f, 0, "the header does not fit in the file (cut short, or another format?)");
    if (bytes > FV_ST_MAX_HEADER) return bad(f, 0, "the header is larger than 8 MiB");
    if (rest - bytes > SIZE_MAX - 1) return fv_fail_memory(f->ctx, SIZE_MAX, "a model file");
    f->data_bytes = (size_t)(rest - bytes);

    size_t size = (size_t)bytes;
    char *text = fv_alloc(f->ctx, size, 1);
    if (!text) return f->ctx->error.code;
    json_t *root = NULL;
    fv_status status = fv_read(reader, text, size);
    if (status == FV_OK) status = parse_json(f, text, size, &root);
    fv_free(f->ctx, text, size, 1);
    if (status == FV_OK) status = read_entries(f, root);
    json_decref(root);
    return status;
}

fv_status fv_st_open(fv_st_file *f, fv_ctx *ctx, const char *path) {
    *f = (fv_st_file){.ctx = ctx};
    fv_arena_init(&f->arena, ctx);
    fv_reader reader;
    FV_TRY(fv_reader_open(&reader, ctx, path));
    snprintf(f->path, sizeof f->path, "%s", path);
    fv_status status = read_header(f, &reader);
    if (status == FV_OK) {
        f->data = fv_alloc(ctx, f->data_bytes, 1);
        status = f->data ? fv_read(&reader, f->data, f->data_bytes) : ctx->error.code;
    }
    fv_reader_close(&reader);
    if (status != FV_OK) fv_st_close(f);
    return status;
}

void fv_st_close(fv_st_file *f) {
    if (!f->ctx) return;
    fv_free(f->ctx, f->data, f->data_bytes, 1);
    fv_arena_free(&f->arena);
    *f = (fv_st_file){.ctx = f->ctx, .arena = f->arena};
}

const fv_st_entry *fv_st_find(const fv_st_file *f, const char *name) {
    int32_t low = 0, high = f->count;
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        int order = strcmp(name, f->by_name_[middle]->name);
        if (order == 0) return f->by_name_[middle];
        if (order < 0) high = middle;
        else low = middle + 1;
    }
    return NULL;
}

const char *fv_st_meta(const fv_st_file *f, const char *key) {
    for (int32_t i = 0; i < f->n_meta; i++)
        if (strcmp(f->meta_key[i], key) == 0) return f->meta_value[i];
    return NULL;
}

/* ---------------------------------------------------------------- save */

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

/* Length of the UTF-8 character at s, 0 if it is none (RFC 3629: shortest form, no surrogates, at most U+10FFFF). */
static size_t utf8_length(const unsigned char *s) {
    if (s[0] < 0x80) return 1;
    size_t n = s[0] >= 0xF0 ? 4 : s[0] >= 0xE0 ? 3 : 2;
    if (s[0] < 0xC2 || s[0] > 0xF4) return 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xC0) != 0x80) return 0;
    bool bad_second = (s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] > 0x9F) || (s[0] == 0xF0 && s[1] < 0x90) ||
                      (s[0] == 0xF4 && s[1] > 0x8F);
    return bad_second ? 0 : n;
}

/* A JSON string. Bytes that are no UTF-8 (file names in metadata) become U+FFFD: no reader would take them. */
static void put_string(header *h, const char *s) {
    put(h, "\"", 1);
    for (const unsigned char *p = (const unsigned char *)s; *p;) {
        size_t n = utf8_length(p);
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
    put_string(h, st_dtype_name(t->type.dtype));
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
    put(h, "\0\0\0\0\0\0\0\0", LENGTH_BYTES);
    put_text(h, "{");
    if (n_meta) put_text(h, "\"" METADATA "\":{");
    for (int32_t i = 0; i < n_meta; i++) {
        if (i) put_text(h, ",");
        put_string(h, meta[i][0]);
        put_text(h, ":");
        put_string(h, meta[i][1]);
    }
    if (n_meta) put_text(h, n ? "}," : "}");
    uint64_t offset = 0;
    for (int32_t i = 0; i < n; i++) {
        if (i) put_text(h, ",");
        put_tensor(h, &tensors[order[i]], offset);
        offset += fv_bytes(tensors[order[i]].type);
    }
    put_text(h, "}");
    while (!h->failed && h->size % 8) put(h, " ", 1);
    for (int i = 0; i < LENGTH_BYTES && !h->failed; i++) h->text[i] = (char)((h->size - LENGTH_BYTES) >> 8 * i);
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
        if (strcmp(names[i], METADATA) == 0 || !is_printable(names[i]) || (i && strcmp(names[i - 1], names[i]) == 0)) {
            status = fv_fail_at(ctx, FV_E_INTERNAL, path, -1,
                                "cannot be written: tensor name \"%.200s\" is reserved, unprintable or used twice",
                                names[i]);
        }
    }
    fv_free(ctx, names, (size_t)n, sizeof *names);
    return status;
}

static fv_status write_tensors(fv_writer *w, const fv_st_tensor *tensors, int32_t n, const int32_t *order,
                               fv_st_fill fill, void *user) {
    size_t largest = 0;
    for (int32_t i = 0; i < n; i++)
        if (!tensors[i].data && fv_bytes(tensors[i].type) > largest) largest = fv_bytes(tensors[i].type);
    unsigned char *scratch = fv_alloc(w->ctx, largest, 1);
    fv_status status = scratch ? FV_OK : w->ctx->error.code;
    for (int32_t i = 0; i < n && status == FV_OK; i++) {
        const fv_st_tensor *t = &tensors[order[i]];
        size_t bytes = fv_bytes(t->type);
        if (!t->data && bytes) status = fill(user, order[i], scratch, bytes);
        if (status == FV_OK) status = fv_write(w, t->data ? t->data : scratch, bytes);
    }
    fv_free(w->ctx, scratch, largest, 1);
    return status;
}

fv_status fv_st_save_with(fv_ctx *ctx, const char *path, const fv_st_tensor *tensors, int32_t n,
                          const char *const (*meta)[2], int32_t n_meta, fv_st_fill fill, void *user) {
    FV_TRY(check_names(ctx, path, tensors, n));
    int32_t *order = fv_alloc(ctx, (size_t)n, sizeof *order), placed = 0;
    if (!order) return ctx->error.code;
    for (size_t size = 8; size; size /= 2)
        for (int32_t i = 0; i < n; i++)
            if (fv_dtype_size(tensors[i].type.dtype) == size) order[placed++] = i;

    header h = {.ctx = ctx};
    fv_writer w;
    put_header(&h, tensors, n, order, meta, n_meta);
    fv_status status = h.failed ? ctx->error.code : fv_writer_open(&w, ctx, path);
    if (status == FV_OK) {
        status = fv_write(&w, h.text, h.size);
        if (status == FV_OK) status = write_tensors(&w, tensors, n, order, fill, user);
        if (status == FV_OK) status = fv_writer_commit(&w);
        else fv_writer_abort(&w);
    }
    fv_free(ctx, h.text, h.capacity, 1);
    fv_free(ctx, order, (size_t)n, sizeof *order);
    return status;
}

fv_status fv_st_save(fv_ctx *ctx, const char *path, const fv_st_tensor *tensors, int32_t n,
                     const char *const (*meta)[2], int32_t n_meta) {
    return fv_st_save_with(ctx, path, tensors, n, meta, n_meta, NULL, NULL);
}
