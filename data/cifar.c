/* cifar.c: CIFAR-10 and CIFAR-100, the binary files and the python archives. Both hold pictures as three planes of 32 x
 * 32 bytes (https://www.cs.toronto.edu/~kriz/cifar.html). */
#include "data/internal.h"
#include "data/pickle.h"

#include <stdio.h>
#include <string.h>

#define XXH_STATIC_LINKING_ONLY /* the state on the stack */
#include <xxhash.h>
#if defined(__x86_64__)
#include <tmmintrin.h>
#endif

#define PIXELS ((size_t)32 * 32)
#define PICTURE (3 * PIXELS)
#define MOST_FILES 6
#define CHUNK_RECORDS 64 /* about 200 kB: stays in the second-level cache between reading, turning and hashing */
#define PICKLE_LIMIT ((size_t)1 << 30)
#define NAMES_LIMIT ((size_t)64 << 10)

/* ---------------------------------------------------------------- planes to pixels */

#if defined(__x86_64__)
/* Sixteen pixels at a time: each byte of the three outputs comes from one plane. */
__attribute__((target("ssse3"))) static size_t turn_ssse3(const uint8_t *src, uint8_t *dst, size_t pixels) {
    const char z = -1; /* selects 0 */
    const __m128i r0 = _mm_setr_epi8(0, z, z, 1, z, z, 2, z, z, 3, z, z, 4, z, z, 5);
    const __m128i g0 = _mm_setr_epi8(z, 0, z, z, 1, z, z, 2, z, z, 3, z, z, 4, z, z);
    const __m128i b0 = _mm_setr_epi8(z, z, 0, z, z, 1, z, z, 2, z, z, 3, z, z, 4, z);
    const __m128i r1 = _mm_setr_epi8(z, z, 6, z, z, 7, z, z, 8, z, z, 9, z, z, 10, z);
    const __m128i g1 = _mm_setr_epi8(5, z, z, 6, z, z, 7, z, z, 8, z, z, 9, z, z, 10);
    const __m128i b1 = _mm_setr_epi8(z, 5, z, z, 6, z, z, 7, z, z, 8, z, z, 9, z, z);
    const __m128i r2 = _mm_setr_epi8(z, 11, z, z, 12, z, z, 13, z, z, 14, z, z, 15, z, z);
    const __m128i g2 = _mm_setr_epi8(z, z, 11, z, z, 12, z, z, 13, z, z, 14, z, z, 15, z);
    const __m128i b2 = _mm_setr_epi8(10, z, z, 11, z, z, 12, z, z, 13, z, z, 14, z, z, 15);
    size_t i = 0;
    for (; i + 16 <= pixels; i += 16) {
        __m128i r = _mm_loadu_si128((const __m128i *)(src + i));
        __m128i g = _mm_loadu_si128((const __m128i *)(src + pixels + i));
        __m128i b = _mm_loadu_si128((const __m128i *)(src + 2 * pixels + i));
#define FV_MIX(n) \
    _mm_or_si128(_mm_or_si128(_mm_shuffle_epi8(r, r##n), _mm_shuffle_epi8(g, g##n)), _mm_shuffle_epi8(b, b##n))
        _mm_storeu_si128((__m128i *)(dst + 3 * i), FV_MIX(0));
        _mm_storeu_si128((__m128i *)(dst + 3 * i + 16), FV_MIX(1));
        _mm_storeu_si128((__m128i *)(dst + 3 * i + 32), FV_MIX(2));
#undef FV_MIX
    }
    return i;
}
#endif

void fv_planes_to_pixels(const uint8_t *src, uint8_t *dst, size_t pixels) {
    size_t i = 0;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("ssse3")) i = turn_ssse3(src, dst, pixels);
#endif
    for (; i < pixels; i++)
        for (size_t c = 0; c < 3; c++) dst[3 * i + c] = src[c * pixels + i];
}

/* ---------------------------------------------------------------- class names */

/* Lines of text; empty ones at the end do not count. */
static fv_status names_from_text(fv_dataset *d, const char *path, char *text, size_t size, int32_t classes) {
    const char **names = fv_arena_alloc(&d->arena, (size_t)classes, sizeof *names);
    if (!names) return FV_E_MEMORY;
    int32_t count = 0;
    for (size_t i = 0; i < size;) {
        size_t start = i;
        while (i < size && text[i] != '\n') {
            unsigned char c = (unsigned char)text[i];
            if (c == '\r' && (i + 1 == size || text[i + 1] == '\n')) text[i] = 0;
            else if (c < 32 || c == 127)
                return fv_fail_at(d->ctx, FV_E_DATA, path, (int64_t)i, "a class name with a control character");
            i++;
        }
        if (i < size) text[i++] = 0;
        if (text[start] == 0) continue;
        if (count < classes) names[count] = text + start;
        count++;
    }
    if (count != classes)
        return fv_fail_at(d->ctx, FV_E_DATA, path, -1, "holds %d class names; %d were expected", count, classes);
    return fv_dataset_names(d, classes, names);
}

static fv_status binary_names(fv_dataset *d, const fv_data_place *place) {
    const fv_data_kind *kind = place->kind;
    char path[FV_DATA_PATH];
    FV_TRY(fv_data_path(d->ctx, path, "%s/%s", place->folder, place->layout->names_file));
    if (!fv_data_exists(d->ctx, path)) return fv_dataset_names(d, kind->classes, kind->class_names);
    void *text;
    size_t size;
    FV_TRY(fv_read_file(d->ctx, path, NAMES_LIMIT, &text, &size));
    fv_status status = names_from_text(d, path, text, size, kind->classes);
    fv_free(d->ctx, text, size + 1, 1);
    return status;
}

/* ---------------------------------------------------------------- binary files: records of label bytes and a picture
 */

/* Sizes first, so that a missing or cut file is found before anything is read. */
static fv_status count_records(fv_dataset *d, const char *path, size_t record, int64_t *records) {
    fv_reader file;
    fv_status status = fv_data_open(&file, d->ctx, path);
    if (status != FV_OK) {
        if (status == FV_E_DATA) fv_hint(d->ctx, "the set is incomplete: 'fovea data get' fetches it again");
        return status;
    }
    fv_reader_close(&file);
    *records = (int64_t)(file.size / record);
    size_t rest = (size_t)(file.size % record);
    if (file.size == 0) return fv_fail_at(d->ctx, FV_E_DATA, path, 0, "is empty");
    if (rest == 0) return FV_OK;
    fv_fail_at(d->ctx, FV_E_DATA, path, (int64_t)(file.size - rest),
               "%llu bytes are no multiple of a record of %zu bytes: %lld records and %zu bytes",
               (unsigned long long)file.size, record, (long long)*records, rest);
    return fv_hint(d->ctx, "the file was cut short or is something else: 'fovea data get' fetches it again");
}

typedef struct binary_reader {
    fv_dataset *d;
    const fv_data_layout *layout;
    size_t record;
    uint8_t *chunk; /* [CHUNK_RECORDS,record] */
    XXH3_state_t hash;
} binary_reader;

static fv_status read_binary_file(binary_reader *r, const char *path, int64_t records, uint8_t *images,
                                  int32_t *labels) {
    fv_reader file;
    FV_TRY(fv_data_open(&file, r->d->ctx, path));
    fv_status status = FV_OK;
    for (int64_t at = 0; at < records && status == FV_OK; at += CHUNK_RECORDS) {
        int64_t n = records - at < CHUNK_RECORDS ? records - at : CHUNK_RECORDS;
        status = fv_read(&file, r->chunk, (size_t)n * r->record);
        for (int64_t i = 0; i < n && status == FV_OK; i++) {
            const uint8_t *record = r->chunk + (size_t)i * r->record;
            int32_t label = record[r->layout->label_at];
            if (label >= r->d->classes)
                status = fv_fail_at(r->d->ctx, FV_E_DATA, path, (at + i) * (int64_t)r->record + r->layout->label_at,
                                    "record %lld has label %d; labels run from 0 to %d", (long long)(at + i), label,
                                    r->d->classes - 1);
            labels[at + i] = label;
            fv_planes_to_pixels(record + r->layout->label_bytes, images + (size_t)(at + i) * PICTURE, PIXELS);
        }
        if (status == FV_OK) XXH3_64bits_update(&r->hash, images + (size_t)at * PICTURE, (size_t)n * PICTURE);
    }
    fv_reader_close(&file);
    return status;
}

fv_status fv_cifar_binary_read(fv_dataset *d, const fv_data_place *place, fv_split split) {
    binary_reader r = {.d = d, .layout = place->layout, .record = (size_t)place->layout->label_bytes + PICTURE};
    const fv_data_file_name *files = place->layout->files[split];
    char path[MOST_FILES][FV_DATA_PATH];
    int64_t records[MOST_FILES] = {0}, total = 0;
    uint8_t *images;
    int32_t *labels;
    for (int i = 0; files[i].name; i++) {
        FV_TRY(fv_data_path(d->ctx, path[i], "%s/%s", place->folder, files[i].name));
        FV_TRY(count_records(d, path[i], r.record, &records[i]));
        total += records[i];
    }
    FV_TRY(binary_names(d, place));
    FV_TRY(fv_dataset_reserve(d, place->folder, total, 32, 32, 3, &images, &labels));
    r.chunk = fv_alloc(d->ctx, CHUNK_RECORDS, r.record);
    if (!r.chunk) return FV_E_MEMORY;
    XXH3_64bits_reset(&r.hash);
    fv_status status = FV_OK;
    for (int i = 0; files[i].name && status == FV_OK; i++) {
        status = read_binary_file(&r, path[i], records[i], images, labels);
        images += (size_t)records[i] * PICTURE;
        labels += records[i];
    }
    fv_free(d->ctx, r.chunk, CHUNK_RECORDS, r.record);
    XXH3_64bits_update(&r.hash, d->labels, (size_t)d->count * sizeof *d->labels);
    d->fingerprint = XXH3_64bits_digest(&r.hash); /* = fv_dataset_hash(d), taken while the images were in the cache */
    return status;
}

/* ---------------------------------------------------------------- python archives: pickled dictionaries */

typedef struct batch_file {
    char path[FV_DATA_PATH];
    void *bytes;
    size_t size;
    const fv_pickle_array *pixels; /* u1 [count,3072] */
    const fv_pickle *labels;       /* list or integer array of `count` */
    int64_t count;
} batch_file;

static fv_status read_batch(fv_dataset *d, fv_arena *arena, const char *label_key, batch_file *b) {
    fv_status status = fv_read_file(d->ctx, b->path, PICKLE_LIMIT, &b->bytes, &b->size);
    if (status != FV_OK) {
        b->bytes = NULL;
        return status;
    }
    fv_pickle *top;
    FV_TRY(fv_pickle_read(d->ctx, arena, b->path, b->bytes, b->size, &top));
    const fv_pickle *data = fv_pickle_get(top, "data"), *labels = fv_pickle_get(top, label_key);
    if (!data || !labels)
        return fv_fail_at(d->ctx, FV_E_DATA, b->path, -1, "no dictionary with the keys 'data' and '%s'", label_key);
    const fv_pickle_array *a = data->kind == FV_PICKLE_ARRAY ? data->array : NULL;
    if (!a || a->type != 'u' || a->item != 1 || a->rank != 2 || a->dim[1] != (int64_t)PICTURE)
        return fv_fail_at(d->ctx, FV_E_DATA, b->path, -1, "'data' is no array of bytes with %zu columns", PICTURE);
    bool array = labels->kind == FV_PICKLE_ARRAY && labels->array->rank == 1 && labels->array->type != 0;
    if (labels->kind != FV_PICKLE_LIST && !array)
        return fv_fail_at(d->ctx, FV_E_DATA, b->path, -1, "'%s' is no list", label_key);
    int64_t count = array ? labels->array->dim[0] : labels->count;
    if (count != a->dim[0])
        return fv_fail_at(d->ctx, FV_E_DATA, b->path, -1, "%lld images, but %lld labels", (long long)a->dim[0],
                          (long long)count);
    b->pixels = a;
    b->labels = labels;
    b->count = count;
    return FV_OK;
}

/* Element i of an integer array. */
static int64_t array_number(const fv_pickle_array *a, int64_t i) {
    const unsigned char *p = a->data + (size_t)i * (size_t)a->item;
    uint64_t n = 0;
    for (int k = 0; k < a->item; k++) n = n << 8 | p[a->big_endian ? k : a->item - 1 - k];
    int spare = 64 - 8 * a->item;
    return a->type == 'i' ? (int64_t)(n << spare) >> spare : n > INT64_MAX ? -1 : (int64_t)n;
}

static fv_status copy_batch(fv_dataset *d, const batch_file *b, uint8_t *images, int32_t *labels) {
    uint8_t row[PICTURE];
    for (int64_t i = 0; i < b->count; i++) {
        const fv_pickle *item = b->labels->kind == FV_PICKLE_LIST ? b->labels->item[i] : NULL;
        int64_t label = !item ? array_number(b->labels->array, i) : item->kind == FV_PICKLE_INT ? item->number : -1;
        if (label < 0 || label >= d->classes)
            return fv_fail_at(d->ctx, FV_E_DATA, b->path, -1, "label of record %lld is %lld; labels run from 0 to %d",
                              (long long)i, (long long)label, d->classes - 1);
        labels[i] = (int32_t)label;
        const uint8_t *picture = b->pixels->data + (size_t)i * PICTURE;
        if (b->pixels->fortran) { /* stored by columns */
            for (size_t j = 0; j < PICTURE; j++) row[j] = b->pixels->data[j * (size_t)b->count + (size_t)i];
            picture = row;
        }
        fv_planes_to_pixels(picture, images + (size_t)i * PICTURE, PIXELS);
    }
    return FV_OK;
}

static fv_status names_from_pickle(fv_dataset *d, const char *path, const fv_pickle *list, int32_t classes) {
    bool known = list && list->kind == FV_PICKLE_LIST;
    if (!known) return fv_fail_at(d->ctx, FV_E_DATA, path, -1, "no list of class names");
    size_t total = 0;
    for (uint32_t i = 0; i < list->count; i++) {
        if (list->item[i]->kind != FV_PICKLE_TEXT)
            return fv_fail_at(d->ctx, FV_E_DATA, path, -1, "a class name that is no text");
        total += list->item[i]->size + 1;
        if (total > NAMES_LIMIT)
            return fv_fail_at(d->ctx, FV_E_DATA, path, -1, "class names of more than %zu bytes", NAMES_LIMIT);
    }
    char *text = fv_arena_alloc(&d->arena, total + 1, 1), *p = text;
    if (!text) return FV_E_MEMORY;
    for (uint32_t i = 0; i < list->count; i++) {
        memcpy(p, list->item[i]->text, list->item[i]->size);
        p += list->item[i]->size;
        *p++ = '\n';
    }
    return names_from_text(d, path, text, total, classes);
}

static fv_status python_names(fv_dataset *d, fv_arena *arena, const fv_data_place *place) {
    const fv_data_kind *kind = place->kind;
    char path[FV_DATA_PATH];
    FV_TRY(fv_data_path(d->ctx, path, "%s/%s", place->folder, place->layout->names_file));
    if (!fv_data_exists(d->ctx, path)) return fv_dataset_names(d, kind->classes, kind->class_names);
    void *bytes;
    size_t size;
    FV_TRY(fv_read_file(d->ctx, path, (size_t)1 << 20, &bytes, &size));
    fv_pickle *top;
    fv_status status = fv_pickle_read(d->ctx, arena, path, bytes, size, &top);
    if (status == FV_OK)
        status = names_from_pickle(d, path, fv_pickle_get(top, place->layout->names_key), kind->classes);
    fv_free(d->ctx, bytes, size + 1, 1);
    return status;
}

static fv_status read_batches(fv_dataset *d, fv_arena *arena, const fv_data_place *place, fv_split split,
                              batch_file *b) {
    const fv_data_file_name *files = place->layout->files[split];
    int64_t total = 0;
    uint8_t *images;
    int32_t *labels;
    for (int i = 0; files[i].name; i++) {
        FV_TRY(fv_data_path(d->ctx, b[i].path, "%s/%s", place->folder, files[i].name));
        if (!fv_data_exists(d->ctx, b[i].path)) {
            fv_fail_at(d->ctx, FV_E_DATA, b[i].path, -1, "cannot open: no such file");
            return fv_hint(d->ctx, "the set is incomplete: 'fovea data get' fetches it again");
        }
        FV_TRY(read_batch(d, arena, place->layout->label_key, &b[i]));
        total += b[i].count;
    }
    FV_TRY(python_names(d, arena, place));
    FV_TRY(fv_dataset_reserve(d, place->folder, total, 32, 32, 3, &images, &labels));
    for (int i = 0; files[i].name; i++) {
        FV_TRY(copy_batch(d, &b[i], images, labels));
        images += (size_t)b[i].count * PICTURE;
        labels += b[i].count;
    }
    d->fingerprint = fv_dataset_hash(d);
    return FV_OK;
}

fv_status fv_cifar_python_read(fv_dataset *d, const fv_data_place *place, fv_split split) {
    batch_file batches[MOST_FILES] = {0};
    fv_arena arena; /* of the pickles' values: gone when the pixels are copied */
    fv_arena_init(&arena, d->ctx);
    fv_status status = read_batches(d, &arena, place, split, batches);
    for (int i = 0; i < MOST_FILES; i++)
        if (batches[i].bytes) fv_free(d->ctx, batches[i].bytes, batches[i].size + 1, 1);
    fv_arena_free(&arena);
    return status;
}
