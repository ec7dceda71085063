/* safetensors.c: reading safetensors.
 *
 *   length -> header text -> entries -> layout check -> data section
 *
 * The header is JSON of a fixed form, so it is read in one pass without a tree: strings are decoded where they stand,
 * and the entries point at them. Nothing recurses, and time and memory are proportional to the header's size. */
#include "core/io/safetensors_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_STATIC_LINKING_ONLY /* the state on the stack */
#include <xxhash.h>

#define MAX_METADATA 1000

/* ---------------------------------------------------------------- shared with the writer */

const char *fv_st_dtype_name(fv_dtype dtype) {
    switch (dtype) {
#define ST_NAME(name, text, bytes, st) \
    case name: return st;
        FV_DTYPE_TABLE(ST_NAME)
#undef ST_NAME
    case FV_DTYPE_COUNT: break;
    }
    return "unknown";
}

bool fv_st_printable(const char *s) {
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f) return false;
    return true;
}

/* ---------------------------------------------------------------- errors */

static fv_status bad(const fv_st_file *f, int64_t offset, const char *why) {
    return fv_fail_at(f->ctx, FV_E_MODEL, f->path, offset, "not a valid safetensors file: %s", why);
}

static fv_status bad_tensor(const fv_st_file *f, const char *name, const char *why) {
    return fv_fail_at(f->ctx, FV_E_MODEL, f->path, -1, "tensor \"%.200s\": %s", name, why);
}

/* ---------------------------------------------------------------- the header's JSON */

typedef struct cursor {
    fv_st_file *f;
    char *text; /* NUL-terminated: looking at text[at] is always safe */
    size_t at, size;
} cursor;

static fv_status not_json(const cursor *c, const char *expected) {
    return fv_fail_at(c->f->ctx, FV_E_MODEL, c->f->path, (int64_t)(FV_ST_LENGTH + c->at),
                      "not a valid safetensors file: the header is not as it should be: %s expected", expected);
}

static char peek(cursor *c) {
    while (c->text[c->at] == ' ' || c->text[c->at] == '\n' || c->text[c->at] == '\r' || c->text[c->at] == '\t') c->at++;
    return c->text[c->at];
}

static bool accept(cursor *c, char wanted) {
    if (peek(c) != wanted) return false;
    c->at++;
    return true;
}

static fv_status expect(cursor *c, char wanted) {
    char text[] = {'\'', wanted, '\'', '\0'};
    return accept(c, wanted) ? FV_OK : not_json(c, text);
}

/* Four hexadecimal digits; -1 if they are none. */
static int32_t hex4(const char *s) {
    int32_t value = 0;
    for (int i = 0; i < 4; i++) {
        char d = s[i];
        int digit = d >= '0' && d <= '9'   ? d - '0'
                    : d >= 'a' && d <= 'f' ? d - 'a' + 10
                    : d >= 'A' && d <= 'F' ? d - 'A' + 10
                                           : -1;
        if (digit < 0) return -1;
        value = value << 4 | digit;
    }
    return value;
}

static size_t put_utf8(char *to, int32_t code) {
    size_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const int lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = n - 1; i > 0; i--, code >>= 6) to[i] = (char)(0x80 | (code & 0x3F));
    to[0] = (char)(lead[n] | code);
    return n;
}

/* The escape behind a backslash at c->at; what it stands for is at most as long as it is. */
static fv_status read_escape(cursor *c, char *to, size_t *length) {
    static const char letters[] = "\"\\/bfnrt", meaning[] = "\"\\/\b\f\n\r\t";
    const char *s = c->text + c->at + 1, *letter = *s ? strchr(letters, *s) : NULL;
    if (letter) {
        *to = meaning[letter - letters];
        *length = 1;
        c->at += 2;
        return FV_OK;
    }
    int32_t code = *s == 'u' ? hex4(s + 1) : -1;
    size_t taken = 6;
    if (code >= 0xD800 && code < 0xDC00 && s[5] == '\\' && s[6] == 'u') { /* a pair of surrogates */
        int32_t low = hex4(s + 7);
        code = low >= 0xDC00 && low < 0xE000 ? 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00) : -1;
        taken = 12;
    }
    if (code <= 0 || (code >= 0xD800 && code < 0xE000)) return not_json(c, "a valid escape");
    *length = put_utf8(to, code);
    c->at += taken;
    return FV_OK;
}

/* A string, decoded in place; *out lies in the header's text. */
static fv_status read_string(cursor *c, const char **out) {
    if (!accept(c, '"')) return not_json(c, "a string");
    char *to = c->text + c->at;
    *out = to;
    while (c->text[c->at] != '"') {
        size_t n = 0;
        if (c->text[c->at] == '\\') {
            FV_TRY(read_escape(c, to, &n));
        } else {
            const char *from = c->text + c->at;
            n = (unsigned char)*from < 0x20 ? 0 : fv_utf8_length((const unsigned char *)from);
            if (!n) return not_json(c, "UTF-8 text without control characters, and a closing quote,");
            memmove(to, from, n);
            c->at += n;
        }
        to += n;
    }
    c->at++;
    *to = '\0';
    return FV_OK;
}

/* A non-negative integer. Nothing else is a size or an offset. */
static fv_status read_integer(cursor *c, int64_t *out) {
    int64_t value = 0;
    peek(c);
    size_t start = c->at;
    for (char d; (d = c->text[c->at]) >= '0' && d <= '9'; c->at++)
        if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, d - '0', &value))
            return not_json(c, "an integer below 2^63");
    char next = c->text[c->at];
    if (c->at == start || next == '.' || next == 'e' || next == 'E' || (c->text[start] == '0' && c->at > start + 1))
        return not_json(c, "a non-negative integer");
    *out = value;
    return FV_OK;
}

/* "[" integers "]"; at most `max` of them. */
static fv_status read_integers(cursor *c, int64_t *out, int32_t max, int32_t *count) {
    *count = 0;
    FV_TRY(expect(c, '['));
    if (accept(c, ']')) return FV_OK;
    do {
        if (*count == max) return not_json(c, max == 2 ? "a list of two integers" : "a list of at most 6 integers");
        FV_TRY(read_integer(c, &out[(*count)++]));
    } while (accept(c, ','));
    return expect(c, ']');
}

/* ---------------------------------------------------------------- entries */

static fv_status read_dtype(cursor *c, const char *name, fv_dtype *out) {
    const char *text = "";
    FV_TRY(read_string(c, &text));
    for (int i = 0; i < FV_DTYPE_COUNT; i++) {
        *out = (fv_dtype)i;
        if (strcmp(fv_st_dtype_name(*out), text) == 0) return FV_OK;
    }
    return fv_fail_at(c->f->ctx, FV_E_MODEL, c->f->path, -1, "tensor \"%.200s\": element type %.20s is not supported",
                      name, fv_st_printable(text) ? text : "(unprintable)");
}

static fv_status check_entry(const fv_st_file *f, fv_st_entry *e, const int64_t range[2]) {
    if (!fv_type_check(e->type, &e->bytes)) return bad_tensor(f, e->name, "the product of its dimensions overflows");
    if (range[1] < range[0] || (uint64_t)range[1] > f->data_bytes) {
        return fv_fail_at(f->ctx, FV_E_MODEL, f->path, -1,
                          "tensor \"%.200s\": its bytes %" PRId64 " to %" PRId64
                          " do not lie in the data section of %zu bytes",
                          e->name, range[0], range[1], f->data_bytes);
    }
    if ((uint64_t)(range[1] - range[0]) != e->bytes) {
        return fv_fail_at(f->ctx, FV_E_MODEL, f->path, -1,
                          "tensor \"%.200s\": %" PRId64 " bytes, but its shape needs %zu", e->name, range[1] - range[0],
                          e->bytes);
    }
    e->offset = (uint64_t)range[0];
    return FV_OK;
}

/* {"dtype": "F32", "shape": [2,3], "data_offsets": [0,24]} in any order */
static fv_status read_entry(cursor *c, const char *name, fv_st_entry *e) {
    static const char *const fields[] = {"dtype", "shape", "data_offsets"};
    int64_t range[2];
    int32_t pair = 0;
    unsigned seen = 0;
    e->name = name;
    if (!fv_st_printable(name)) return bad(c->f, -1, "the name of a tensor holds control characters");
    FV_TRY(expect(c, '{'));
    do {
        const char *key = "";
        unsigned field = 0;
        FV_TRY(read_string(c, &key));
        while (field < 3 && strcmp(key, fields[field]) != 0) field++;
        if (field == 3 || (seen & 1u << field)) return bad_tensor(c->f, name, "an unknown or repeated field");
        seen |= 1u << field;
        FV_TRY(expect(c, ':'));
        if (field == 0) FV_TRY(read_dtype(c, name, &e->type.dtype));
        else if (field == 1) FV_TRY(read_integers(c, e->type.dim, FV_MAX_RANK, &e->type.rank));
        else FV_TRY(read_integers(c, range, 2, &pair));
    } while (accept(c, ','));
    FV_TRY(expect(c, '}'));
    if (seen != 7 || pair != 2) return bad_tensor(c->f, name, "its dtype, shape or data_offsets are missing");
    return check_entry(c->f, e, range);
}

static fv_status read_metadata(cursor *c) {
    fv_st_file *f = c->f;
    if (f->meta_key) return bad(f, -1, "\"" FV_ST_METADATA "\" is there twice");
    f->meta_key = fv_arena_alloc(&f->arena, MAX_METADATA, sizeof *f->meta_key);
    f->meta_value = fv_arena_alloc(&f->arena, MAX_METADATA, sizeof *f->meta_value);
    if (!f->meta_key || !f->meta_value) return f->ctx->error.code;
    FV_TRY(expect(c, '{'));
    if (accept(c, '}')) return FV_OK;
    do {
        if (f->n_meta == MAX_METADATA) return bad(f, -1, "too much metadata");
        FV_TRY(read_string(c, &f->meta_key[f->n_meta]));
        if (fv_st_meta(f, f->meta_key[f->n_meta])) return bad(f, -1, "a key of the metadata is there twice");
        FV_TRY(expect(c, ':'));
        FV_TRY(read_string(c, &f->meta_value[f->n_meta]));
        f->n_meta++;
    } while (accept(c, ','));
    return expect(c, '}');
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

/* Every entry has a brace of its own: an upper bound on their number. */
static int32_t count_braces(const char *text) {
    int32_t count = 0;
    for (const char *s = text; count < FV_ST_MAX_TENSORS && (s = strchr(s, '{')); s++) count++;
    return count;
}

static fv_status read_entries(cursor *c) {
    fv_st_file *f = c->f;
    int32_t capacity = count_braces(c->text);
    fv_st_entry *entry = fv_arena_alloc(&f->arena, (size_t)capacity, sizeof *entry);
    if (!entry) return f->ctx->error.code;
    f->entry = entry;
    if (c->text[0] != '{') return bad(f, FV_ST_LENGTH, "the header does not begin with '{'");
    c->at = 1;
    for (bool more = !accept(c, '}'); more;) {
        const char *name = "";
        FV_TRY(read_string(c, &name));
        FV_TRY(expect(c, ':'));
        if (strcmp(name, FV_ST_METADATA) == 0) {
            FV_TRY(read_metadata(c));
        } else {
            if (f->count == capacity) return bad(f, -1, "too many tensors");
            FV_TRY(read_entry(c, name, &entry[f->count]));
            f->count++;
        }
        more = accept(c, ',');
        if (!more) FV_TRY(expect(c, '}'));
    }
    peek(c);
    if (c->at != c->size) return not_json(c, "the end of the header");
    qsort(entry, (size_t)f->count, sizeof *entry, by_offset);
    return FV_OK;
}

static fv_status index_names(fv_st_file *f) {
    f->by_name_ = fv_arena_alloc(&f->arena, (size_t)f->count, sizeof *f->by_name_);
    if (!f->by_name_) return f->ctx->error.code;
    for (int32_t i = 0; i < f->count; i++) f->by_name_[i] = &f->entry[i];
    qsort(f->by_name_, (size_t)f->count, sizeof *f->by_name_, by_name);
    for (int32_t i = 1; i < f->count; i++)
        if (strcmp(f->by_name_[i - 1]->name, f->by_name_[i]->name) == 0)
            return bad_tensor(f, f->by_name_[i]->name, "it is there twice");
    return FV_OK;
}

/* Every byte of the data section belongs to exactly one tensor. */
static fv_status check_layout(const fv_st_file *f) {
    uint64_t end = 0;
    for (int32_t i = 0; i < f->count; i++) {
        if (f->entry[i].offset < end) return bad_tensor(f, f->entry[i].name, "it overlaps another tensor");
        if (f->entry[i].offset > end) return bad_tensor(f, f->entry[i].name, "there is a hole in the data before it");
        end += f->entry[i].bytes;
    }
    if (end < f->data_bytes) {
        return fv_fail_at(f->ctx, FV_E_MODEL, f->path, (int64_t)end,
                          "not a valid safetensors file: the last %" PRIu64 " bytes belong to no tensor",
                          (uint64_t)f->data_bytes - end);
    }
    return FV_OK;
}

/* ---------------------------------------------------------------- open */

static uint64_t load_u64(const unsigned char bytes[FV_ST_LENGTH]) {
    uint64_t value = 0;
    for (int i = FV_ST_LENGTH - 1; i >= 0; i--) value = value << 8 | bytes[i];
    return value;
}

typedef struct checksum {
    XXH3_state_t sum;
    bool there;
    char digits[FV_ST_DIGITS]; /* as the file has them */
} checksum;

/* Begin the sum over length and header; to be called before the header is parsed in place. */
static void begin_checksum(checksum *c, const unsigned char *length, const char *text, size_t size) {
    XXH3_64bits_reset(&c->sum);
    XXH3_64bits_update(&c->sum, length, FV_ST_LENGTH);
    const char *mark = memmem(text, size, FV_ST_CHECKSUM_MARK, strlen(FV_ST_CHECKSUM_MARK));
    size_t before = mark ? (size_t)(mark - text) + strlen(FV_ST_CHECKSUM_MARK) : 0;
    c->there = mark && size - before >= FV_ST_DIGITS;
    if (c->there) {
        memcpy(c->digits, text + before, FV_ST_DIGITS);
        XXH3_64bits_update(&c->sum, text, before);
        XXH3_64bits_update(&c->sum, FV_ST_ZEROS, FV_ST_DIGITS);
        text += before + FV_ST_DIGITS;
        size -= before + FV_ST_DIGITS;
    }
    XXH3_64bits_update(&c->sum, text, size);
}

/* Files of other writers have no checksum of ours. */
static fv_status check_checksum(const fv_st_file *f, checksum *c) {
    const char *writer = fv_st_meta(f, "writer");
    char digits[FV_ST_DIGITS + 1];
    if (!c->there && (!writer || strncmp(writer, "fovea ", 6) != 0)) return FV_OK;
    XXH3_64bits_update(&c->sum, f->data, f->data_bytes);
    snprintf(digits, sizeof digits, "%016" PRIx64, (uint64_t)XXH3_64bits_digest(&c->sum));
    if (c->there && memcmp(digits, c->digits, FV_ST_DIGITS) == 0) return FV_OK;
    fv_fail_at(f->ctx, FV_E_MODEL, f->path, -1, "the file is damaged: its checksum is %s, its contents give %s",
               c->there ? "another" : "missing", digits);
    return fv_hint(f->ctx, "a program that changes a file of ours must leave out \"" FV_ST_CHECKSUM
                           "\" and \"writer\" of its metadata");
}

static fv_status read_header(fv_st_file *f, fv_reader *reader, checksum *sum) {
    unsigned char length[FV_ST_LENGTH];
    if (reader->size < FV_ST_LENGTH) return bad(f, -1, "it is shorter than 8 bytes");
    FV_TRY(fv_read(reader, length, sizeof length));
    uint64_t bytes = load_u64(length), rest = reader->size - FV_ST_LENGTH;
    if (bytes < 2 || bytes > rest)
        return bad(f, 0, "the header does not fit in the file (cut short, or another format?)");
    if (bytes > FV_ST_MAX_HEADER) return bad(f, 0, "the header is larger than 8 MiB");
    if (rest - bytes > SIZE_MAX - 1) return fv_fail_memory(f->ctx, SIZE_MAX, "a model file");
    f->data_bytes = (size_t)(rest - bytes);

    cursor c = {.f = f, .size = (size_t)bytes};
    c.text = fv_arena_alloc(&f->arena, c.size + 1, 1); /* zeroed: the terminator is there */
    if (!c.text) return f->ctx->error.code;
    FV_TRY(fv_read(reader, c.text, c.size));
    begin_checksum(sum, length, c.text, c.size);
    FV_TRY(read_entries(&c));
    FV_TRY(index_names(f));
    return check_layout(f);
}

fv_status fv_st_open(fv_st_file *f, fv_ctx *ctx, const char *path) {
    *f = (fv_st_file){.ctx = ctx};
    fv_arena_init(&f->arena, ctx);
    fv_reader reader;
    checksum sum = {.there = false};
    FV_TRY(fv_reader_open(&reader, ctx, path));
    snprintf(f->path, sizeof f->path, "%s", path);
    fv_status status = read_header(f, &reader, &sum);
    if (status == FV_OK) {
        f->data = fv_alloc(ctx, f->data_bytes, 1);
        status = f->data ? fv_read(&reader, f->data, f->data_bytes) : ctx->error.code;
    }
    fv_reader_close(&reader);
    if (status == FV_OK) status = check_checksum(f, &sum);
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
