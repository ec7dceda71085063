/* csv.c: rows of a CSV file (RFC 4180). The file is read into memory whole, once it is known to have lines; cells are
 * cut out of it in place, quotes taken off:
 *
 *   a.jpg,"big ""old"" dog"\n     ->     a.jpg\0"big "old" dog\0 ...
 *   ^cell[0]                            ^cell[0]^cell[1]
 */
#include "data/listing.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#define MOST_FILE ((uint64_t)4 << 30)
#define CHUNK ((size_t)64 << 10)

/* ---------------------------------------------------------------- opening */

static bool begins(const char *data, size_t bytes, const char *mark, size_t n) {
    return bytes >= n && memcmp(data, mark, n) == 0;
}

/* A NUL would end a cell early: what was checked would not be what is used. */
static fv_status check_bytes(fv_ctx *ctx, const char *path, const char *data, size_t bytes) {
    bool utf16 = begins(data, bytes, "\xff\xfe", 2) || begins(data, bytes, "\xfe\xff", 2);
    const char *nul = memchr(data, 0, bytes);
    if (utf16) fv_fail_at(ctx, FV_E_DATA, path, 0, "is UTF-16 text, not UTF-8");
    else if (nul) fv_fail_at(ctx, FV_E_DATA, path, nul - data, "holds a byte 0: it is no text file");
    else return FV_OK;
    return fv_hint(ctx, "save it as 'CSV UTF-8'");
}

/* Lengths of lines, before memory is taken for the file: a picture or an archive under the name of a list has none. */
static fv_status check_lines(fv_reader *reader, char *chunk, size_t room) {
    size_t length = 0;
    int64_t line = 1;
    char before = 0;
    while (reader->offset < reader->size) {
        uint64_t left = reader->size - reader->offset;
        size_t n = left < room ? (size_t)left : room;
        FV_TRY(fv_read(reader, chunk, n));
        for (size_t i = 0; i < n; before = chunk[i++]) {
            if (chunk[i] != '\n' && chunk[i] != '\r') {
                if (++length <= FV_CSV_MOST_LINE) continue;
                return fv_fail_at(reader->ctx, FV_E_DATA, reader->path, -1, "line %lld: longer than %zu bytes",
                                  (long long)line, FV_CSV_MOST_LINE);
            }
            line += chunk[i] == '\r' || before != '\r';
            length = 0;
        }
    }
    return FV_OK;
}

static fv_status check_file(fv_ctx *ctx, const char *path) {
    fv_reader reader;
    FV_TRY(fv_data_open(&reader, ctx, path));
    fv_status status = FV_OK;
    char *chunk = NULL;
    if (reader.size > MOST_FILE)
        status = fv_fail_at(ctx, FV_E_DATA, path, -1, "%llu bytes; at most %llu can be read",
                            (unsigned long long)reader.size, (unsigned long long)MOST_FILE);
    else if (!(chunk = fv_alloc(ctx, CHUNK, 1))) status = FV_E_MEMORY;
    else status = check_lines(&reader, chunk, CHUNK);
    fv_free(ctx, chunk, CHUNK, 1);
    fv_reader_close(&reader);
    return status;
}

fv_status fv_csv_open(fv_csv *csv, fv_ctx *ctx, fv_arena *arena, const char *path) {
    memset(csv, 0, sizeof *csv);
    csv->ctx = ctx;
    FV_TRY(fv_data_path(ctx, csv->path, "%s", path));
    FV_TRY(check_file(ctx, path));
    fv_reader reader;
    FV_TRY(fv_data_open(&reader, ctx, path));
    size_t bytes = (size_t)reader.size;
    char *data = fv_arena_alloc(arena, bytes + 1, 1);
    fv_status status = data ? fv_read(&reader, data, bytes) : FV_E_MEMORY;
    fv_reader_close(&reader);
    if (status != FV_OK) return status;
    data[bytes] = 0;
    FV_TRY(check_bytes(ctx, path, data, bytes));
    csv->at = data + (begins(data, bytes, "\xef\xbb\xbf", 3) ? 3 : 0);
    csv->end = data + bytes;
    return FV_OK;
}

fv_status fv_csv_fail(const fv_csv *csv, const char *fmt, ...) {
    char text[640];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return fv_fail_at(csv->ctx, FV_E_DATA, csv->path, -1, "line %lld: %s", (long long)csv->line, text);
}

/* ---------------------------------------------------------------- rows */

static bool blank(char c) {
    return c == ' ' || c == '\t';
}

/* Step over the line break at p, if there is one: \r\n, \n, or the \r of old. */
static char *pass_break(fv_csv *csv, char *p) {
    if (p == csv->end || (*p != '\n' && *p != '\r')) return p;
    csv->lines++;
    return p + (p[0] == '\r' && p[1] == '\n' ? 2 : 1);
}

/* A cell in quotes, p at the first of them. *length: without them. */
static fv_status quoted_cell(fv_csv *csv, char **at, size_t *length) {
    char *from = *at + 1, *to = *at;
    for (;; from++) {
        if (from == csv->end) return fv_csv_fail(csv, "a quote is opened and never closed");
        if (*from == '"' && *++from != '"') break; /* two quotes stand for one */
        if (*from == '\n' || (*from == '\r' && from[1] != '\n')) csv->lines++;
        *to++ = *from;
    }
    *length = (size_t)(to - *at);
    while (blank(*from)) from++;
    *at = from;
    if (from == csv->end || *from == ',' || *from == '\n' || *from == '\r') return FV_OK;
    return fv_csv_fail(csv, "text behind a closing quote");
}

static fv_status plain_cell(fv_csv *csv, char **at, size_t *length) {
    char *p = *at;
    size_t n = strcspn(p, ",\r\n\"");
    if (p[n] == '"') {
        fv_csv_fail(csv, "a quote inside a cell that does not begin with one");
        return fv_hint(csv->ctx, "put the whole cell into quotes, and write each quote in it twice");
    }
    *at = p + n;
    while (n > 0 && blank(p[n - 1])) n--;
    *length = n;
    return FV_OK;
}

/* One cell and the comma or line break behind it; *last: no comma followed. */
static fv_status next_cell(fv_csv *csv, bool *last) {
    if (csv->cells == FV_CSV_MOST_CELLS) return fv_csv_fail(csv, "more than %d columns", FV_CSV_MOST_CELLS);
    char *p = csv->at;
    while (blank(*p)) p++;
    char *cell = p;
    size_t length = 0;
    FV_TRY(*p == '"' ? quoted_cell(csv, &p, &length) : plain_cell(csv, &p, &length));
    *last = p == csv->end || *p != ',';
    csv->at = *last ? pass_break(csv, p) : p + 1;
    cell[length] = 0; /* at or before what has just been passed */
    csv->cell[csv->cells++] = cell;
    return FV_OK;
}

fv_status fv_csv_next(fv_csv *csv, bool *more) {
    *more = false;
    for (char *p = csv->at;;) { /* empty lines */
        while (blank(*p)) p++;
        char *next = pass_break(csv, p);
        if (next == p) break;
        csv->at = p = next;
    }
    char *from = csv->at;
    while (blank(*from)) from++;
    if (from == csv->end) return FV_OK;
    csv->line = csv->lines + 1;
    csv->cells = 0;
    for (bool last = false; !last;) {
        fv_status status = next_cell(csv, &last);
        if (csv->at - from > (ptrdiff_t)FV_CSV_MOST_LINE) /* a row of several lines */
            return fv_csv_fail(csv, "longer than %zu bytes", FV_CSV_MOST_LINE);
        if (status != FV_OK) return status;
    }
    *more = true;
    return FV_OK;
}

const char *fv_csv_path(const char *cell) {
    while (cell[0] == '.' && cell[1] == '/') {
        cell += 2;
        while (*cell == '/') cell++;
    }
    return cell;
}

/* ---------------------------------------------------------------- columns */

static bool is_one_of(const char *cell, const char *const *words) {
    for (; *words; words++)
        if (strcasecmp(cell, *words) == 0) return true;
    return false;
}

/* The only cell of the header that is one of the words; -1: none is. */
static fv_status find_column(const fv_csv *csv, const char *const *words, int32_t *out) {
    *out = -1;
    for (int32_t i = 0; i < csv->cells; i++) {
        if (!is_one_of(csv->cell[i], words)) continue;
        if (*out >= 0) {
            fv_csv_fail(csv, "the columns '%s' and '%s' mean the same", csv->cell[*out], csv->cell[i]);
            return fv_hint(csv->ctx, "rename the one that is not meant");
        }
        *out = i;
    }
    return FV_OK;
}

/* The usual reasons why a file has one column only. */
static fv_status wrong_count(const fv_csv *csv, const char *wanted) {
    const char *other = strpbrk(csv->cell[0], ";\t");
    fv_csv_fail(csv, "%d columns, where %s are expected", csv->cells, wanted);
    if (csv->cells == 1 && other)
        return fv_hint(csv->ctx, "columns are divided by commas, not by %s", *other == ';' ? "semicolons" : "tabs");
    return fv_hint(csv->ctx,
                   "a comma within a path or label needs quotes around the cell; further columns need a header "
                   "line that names them");
}

fv_status fv_csv_find_columns(const fv_csv *csv, bool labels, fv_csv_columns *out) {
    static const char *const paths[] = {"path", "file", "image", "filename", NULL};
    static const char *const label_words[] = {"label", "labels", "class", NULL};
    static const char *const parts[] = {"split", "part", "subset", NULL};
    *out = (fv_csv_columns){.path = -1, .label = -1, .part = -1, .cells = csv->cells};
    for (int32_t i = 0; i < csv->cells && !fv_image_name(csv->cell[0]); i++)
        out->header |=
            is_one_of(csv->cell[i], paths) || is_one_of(csv->cell[i], label_words) || is_one_of(csv->cell[i], parts);
    if (!out->header) {
        out->path = 0;
        out->label = labels ? 1 : -1;
        out->part = labels ? (csv->cells == 3 ? 2 : -1) : 1;
        bool right = csv->cells == 2 || (labels && csv->cells == 3);
        return right ? FV_OK : wrong_count(csv, labels ? "'path,label' or 'path,label,split'" : "'path,part'");
    }
    FV_TRY(find_column(csv, paths, &out->path));
    FV_TRY(find_column(csv, label_words, &out->label));
    FV_TRY(find_column(csv, parts, &out->part));
    const char *missing = NULL;
    if (out->path < 0) missing = "of paths ('path', 'file', 'image' or 'filename')";
    else if (labels && out->label < 0) missing = "of labels ('label', 'labels' or 'class')";
    else if (!labels && out->part < 0) missing = "of parts ('part', 'split' or 'subset')";
    return missing ? fv_csv_fail(csv, "the header names no column %s", missing) : FV_OK;
}

fv_status fv_csv_check_cells(const fv_csv *csv, const fv_csv_columns *columns) {
    if (csv->cells == columns->cells) return FV_OK;
    fv_csv_fail(csv, "%d columns, where the first line has %d", csv->cells, columns->cells);
    return fv_hint(csv->ctx, "a comma within a path or label needs quotes around the cell");
}
