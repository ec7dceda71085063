/* test_io.c: files and safetensors: round trips, hostile input, failing disks, failing memory. */
#include "tests/faults.h"
#include "tests/harness.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

Suite *io_suite(void);

static char folder[128], path[160];
static fv_ctx ctx;
static fvt_files files;
static fvt_memory memory;

static void setup(void) {
    fvt_make_folder(folder);
    snprintf(path, sizeof path, "%s/file", folder);
    fv_ctx_init(&ctx);
    fvt_files_install(&files, &ctx);
    fvt_memory_install(&memory, &ctx);
}

/* Whatever a test did: no memory and no open file may be left. */
static void teardown(void) {
    ck_assert_int_eq(memory.live, 0);
    ck_assert_int_eq(files.open_files, 0);
    fvt_remove_folder(folder);
}

static bool file_holds(const char *text) {
    void *data;
    size_t size;
    fv_ctx plain;
    fv_ctx_init(&plain);
    if (fv_read_file(&plain, path, 1 << 20, &data, &size) != FV_OK) return false;
    bool same = size == strlen(text) && memcmp(data, text, size) == 0;
    fv_free(&plain, data, size + 1, 1);
    return same;
}

/* ---------------------------------------------------------------- files */

START_TEST(test_file_round_trip) {
    void *data;
    size_t size;
    ck_assert_int_eq(fv_write_file(&ctx, path, "abc", 3), FV_OK);
    ck_assert_str_eq(files.log, "OWFCNOFC"); /* file: open write fsync close rename; folder: open fsync close */
    ck_assert_int_eq(fv_write_file(&ctx, path, "other", 5), FV_OK);
    ck_assert_int_eq(fv_read_file(&ctx, path, 5, &data, &size), FV_OK);
    ck_assert_uint_eq(size, 5);
    ck_assert_str_eq(data, "other");
    fv_free(&ctx, data, size + 1, 1);
    ck_assert_int_eq(fv_read_file(&ctx, path, 4, &data, &size), FV_E_DATA);
    ck_assert_ptr_null(data);
    ck_assert_int_eq(fv_write_file(&ctx, path, "", 0), FV_OK);
    ck_assert_int_eq(fv_read_file(&ctx, path, 5, &data, &size), FV_OK);
    ck_assert_uint_eq(size, 0);
    fv_free(&ctx, data, 1, 1);
    ck_assert_int_eq(fvt_count_files(folder), 1);
}
END_TEST

START_TEST(test_odd_files_are_refused) {
    void *data;
    size_t size;
    char name[200], longer[700];
    snprintf(name, sizeof name, "%s/fifo", folder);
    ck_assert_int_eq(mkfifo(name, 0600), 0);
    const char *odd[] = {name, folder, "/dev/null", "/dev/zero"};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        ck_assert_int_eq(fv_read_file(&ctx, odd[i], 100, &data, &size), FV_E_IO);
        ck_assert_str_eq(ctx.error.message, "not a regular file");
        ck_assert_str_eq(ctx.error.path, odd[i]);
    }
    ck_assert_int_eq(fv_read_file(&ctx, path, 100, &data, &size), FV_E_IO);
    ck_assert_str_eq(ctx.error.message, "cannot open: No such file or directory");
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    ck_assert_int_eq(fv_read_file(&ctx, longer, 100, &data, &size), FV_E_IO);
    ck_assert_int_eq(fv_write_file(&ctx, longer, "x", 1), FV_E_IO);
    snprintf(name, sizeof name, "%s/no/such/folder", folder);
    ck_assert_int_eq(fv_write_file(&ctx, name, "x", 1), FV_E_IO);
    ck_assert_str_eq(ctx.error.message, "cannot create: No such file or directory");
}
END_TEST

/* Each call of a save fails once or for ever, with each error: the old file or the new one is there, whole, and the
 * error says what happened. */
START_TEST(test_failing_disk_keeps_the_old_file) {
    static const int errors[] = {ENOSPC, EIO, EDQUOT};
    static const fvt_call calls[] = {FVT_OPEN, FVT_WRITE, FVT_FSYNC, FVT_CLOSE, FVT_RENAME};
    fvt_put_file(path, "old", 3);
    for (size_t c = 0; c < sizeof calls / sizeof *calls; c++)
        for (int64_t at = 1; at <= 4; at++)
            for (size_t e = 0; e < 2 * sizeof errors / sizeof *errors; e++) {
                fvt_files_install(&files, &ctx);
                files.short_by = 2; /* "newer" takes three writes */
                files.fail = calls[c];
                files.fail_at = at;
                files.error = errors[e / 2];
                files.times = e % 2 ? INT64_MAX : 1;
                fv_status status = fv_write_file(&ctx, path, "newer", 5);
                bool hit = files.calls[calls[c]] >= at, folder_sync = strstr(files.log, "N") && calls[c] != FVT_RENAME;
                if (hit && !(calls[c] == FVT_CLOSE && at == 2)) { /* closing the folder loses nothing */
                    ck_assert_int_eq(status, FV_E_IO);
                    ck_assert_str_eq(ctx.error.path, path);
                    ck_assert_ptr_nonnull(strstr(ctx.error.message, strerror(errors[e / 2])));
                } else {
                    ck_assert_int_eq(status, FV_OK);
                }
                ck_assert(file_holds(status == FV_OK || folder_sync ? "newer" : "old"));
                ck_assert_int_eq(fvt_count_files(folder), 1);
                ck_assert_int_eq(files.open_files, 0);
                fvt_put_file(path, "old", 3);
            }
}
END_TEST

START_TEST(test_interruptions_are_retried) {
    static const fvt_call calls[] = {FVT_OPEN, FVT_READ, FVT_WRITE, FVT_CLOSE};
    void *data;
    size_t size;
    for (size_t c = 0; c < sizeof calls / sizeof *calls; c++) {
        fvt_files_install(&files, &ctx);
        files.short_by = 1;
        files.fail = calls[c];
        files.error = EINTR;
        files.fail_at = 1;
        files.times = calls[c] == FVT_CLOSE ? 1 : 5;
        ck_assert_int_eq(fv_write_file(&ctx, path, "interrupted", 11), FV_OK);
        ck_assert_int_eq(fv_read_file(&ctx, path, 100, &data, &size), FV_OK);
        ck_assert_str_eq(data, "interrupted");
        fv_free(&ctx, data, size + 1, 1);
    }
    for (size_t c = 0; c < 3; c++) { /* for ever: an error, no hang */
        fvt_files_install(&files, &ctx);
        files.fail = calls[c];
        files.error = EINTR;
        files.fail_at = 1;
        files.times = INT64_MAX;
        fv_status wrote = fv_write_file(&ctx, path, "interrupted", 11);
        ck_assert_int_eq(wrote, calls[c] == FVT_READ ? FV_OK : FV_E_IO);
        if (calls[c] != FVT_WRITE) ck_assert_int_eq(fv_read_file(&ctx, path, 100, &data, &size), FV_E_IO);
        ck_assert_ptr_nonnull(strstr(ctx.error.message, strerror(EINTR)));
    }
    fvt_files_install(&files, &ctx);
    files.fail = FVT_FSYNC; /* a failed fsync is never tried again */
    files.error = EINTR;
    files.fail_at = 1;
    ck_assert_int_eq(fv_write_file(&ctx, path, "x", 1), FV_E_IO);
    ck_assert_int_eq(files.calls[FVT_FSYNC], 1);
}
END_TEST

START_TEST(test_failing_reads_are_errors) {
    void *data;
    size_t size;
    fvt_put_file(path, "content", 7);
    for (int c = 0; c < 3; c++) {
        static const fvt_call calls[] = {FVT_OPEN, FVT_SIZE, FVT_READ};
        fvt_files_install(&files, &ctx);
        files.fail = calls[c];
        files.fail_at = 1;
        ck_assert_int_eq(fv_read_file(&ctx, path, 100, &data, &size), FV_E_IO);
        ck_assert_ptr_nonnull(strstr(ctx.error.message, strerror(EIO)));
        ck_assert_int_eq(files.open_files, 0);
    }
    fvt_files_install(&files, &ctx);
    fv_reader reader;
    char bytes[8];
    ck_assert_int_eq(fv_reader_open(&reader, &ctx, path), FV_OK);
    ck_assert_int_eq(fv_read(&reader, bytes, 3), FV_OK);
    ck_assert_int_eq(fv_read(&reader, bytes, 5), FV_E_IO);
    ck_assert_int_eq(ctx.error.offset, 7);
    fv_reader_close(&reader);
    fv_reader_close(&reader);
}
END_TEST

START_TEST(test_writer_can_be_abandoned) {
    fv_writer w;
    fvt_put_file(path, "old", 3);
    ck_assert_int_eq(fv_writer_open(&w, &ctx, path), FV_OK);
    ck_assert_int_eq(fv_write(&w, "new", 3), FV_OK);
    ck_assert_int_eq(fvt_count_files(folder), 2);
    fv_writer other; /* two at a time get names of their own */
    ck_assert_int_eq(fv_writer_open(&other, &ctx, path), FV_OK);
    ck_assert_str_ne(w.temp, other.temp);
    fv_writer_abort(&other);
    fv_writer_abort(&w);
    fv_writer_abort(&w);
    ck_assert(file_holds("old"));
    ck_assert_int_eq(fvt_count_files(folder), 1);
}
END_TEST

/* ---------------------------------------------------------------- safetensors: round trip */

static const float weight[6] = {1, -2, 3.5f, 0, 1e-30f, 1e30f};
static const int64_t counter[1] = {1234567890123};
static const unsigned char image[3] = {1, 2, 255};
static const double wide[2] = {0.1, -0.1};
static const char *const metadata[][2] = {
    {"format", "pt"}, {"a \"quoted\"\n\x01 key\\", "r\xc3\xa9sum\xc3\xa9"}, {"cut", "\xff|\xe2\x82"}};

static fv_status save_sample(void) {
    fv_st_tensor tensors[] = {
        {"image", fv_shape(FV_U8, 3), image},    {"conv1.weight", fv_shape(FV_F32, 2, 3), weight},
        {"empty", fv_shape(FV_F32, 0, 4), NULL}, {"bn1.num_batches_tracked", fv_scalar(FV_I64), counter},
        {"wide", fv_shape(FV_F64, 2), wide},
    };
    return fv_st_save(&ctx, path, tensors, 5, metadata, 3);
}

START_TEST(test_safetensors_round_trip) {
    fv_st_file f;
    ck_assert_int_eq(save_sample(), FV_OK);
    ck_assert_int_eq(fv_st_open(&f, &ctx, path), FV_OK);
    ck_assert_int_eq(f.count, 5);
    const fv_st_entry *e = fv_st_find(&f, "conv1.weight");
    ck_assert_ptr_nonnull(e);
    ck_assert(fv_same_type(e->type, fv_shape(FV_F32, 2, 3)));
    ck_assert_mem_eq(f.data + e->offset, weight, sizeof weight);
    e = fv_st_find(&f, "bn1.num_batches_tracked");
    ck_assert(e && fv_same_type(e->type, fv_scalar(FV_I64)) && e->offset == 0);
    ck_assert_mem_eq(f.data + e->offset, counter, sizeof counter);
    ck_assert_mem_eq(f.data + fv_st_find(&f, "image")->offset, image, sizeof image);
    ck_assert_mem_eq(f.data + fv_st_find(&f, "wide")->offset, wide, sizeof wide);
    ck_assert_uint_eq(fv_st_find(&f, "empty")->bytes, 0);
    for (int32_t i = 0; i < f.count; i++)
        ck_assert_uint_eq(f.entry[i].offset % fv_dtype_size(f.entry[i].type.dtype), 0);
    ck_assert_ptr_null(fv_st_find(&f, "conv1"));
    ck_assert_int_eq(f.n_meta, 4); /* and the checksum */
    ck_assert_uint_eq(strlen(fv_st_meta(&f, "fovea_xxh3")), 16);
    ck_assert_str_eq(fv_st_meta(&f, "format"), "pt");
    ck_assert_str_eq(fv_st_meta(&f, metadata[1][0]), metadata[1][1]);
    ck_assert_str_eq(fv_st_meta(&f, "cut"), "\xef\xbf\xbd|\xef\xbf\xbd\xef\xbf\xbd"); /* no UTF-8: U+FFFD */
    ck_assert_ptr_null(fv_st_meta(&f, "none"));
    fv_st_close(&f);
    fv_st_close(&f);
}
END_TEST

START_TEST(test_safetensors_refuses_bad_names) {
    fv_st_tensor twice[] = {{"a", fv_shape(FV_U8, 3), image}, {"a", fv_shape(FV_U8, 3), image}};
    fv_st_tensor reserved[] = {{"__metadata__", fv_shape(FV_U8, 3), image}};
    ck_assert_int_eq(fv_st_save(&ctx, path, twice, 2, NULL, 0), FV_E_INTERNAL);
    ck_assert_int_eq(fv_st_save(&ctx, path, reserved, 1, NULL, 0), FV_E_INTERNAL);
    ck_assert_int_eq(fvt_count_files(folder), 0);
    fv_st_file f;
    ck_assert_int_eq(fv_st_save(&ctx, path, NULL, 0, NULL, 0), FV_OK); /* no tensors at all is fine */
    ck_assert_int_eq(fv_st_open(&f, &ctx, path), FV_OK);
    ck_assert_int_eq(f.count, 0);
    fv_st_close(&f);
}
END_TEST

/* ---------------------------------------------------------------- safetensors: hostile input */

/* Open the bytes as a file; everything that opens is walked through. */
static fv_status open_bytes(const void *bytes, size_t size) {
    fv_st_file f;
    unsigned sum = 0;
    fvt_put_file(path, bytes, size);
    fv_status status = fv_st_open(&f, &ctx, path);
    if (status != FV_OK) return status;
    for (int32_t i = 0; i < f.count; i++)
        for (size_t k = 0; k < f.entry[i].bytes; k++) sum += f.data[f.entry[i].offset + k];
    for (int32_t i = 0; i < f.n_meta; i++) sum += (unsigned)strlen(f.meta_key[i]) + (unsigned)strlen(f.meta_value[i]);
    fv_st_close(&f);
    return sum == UINT32_MAX ? FV_E_INTERNAL : FV_OK;
}

START_TEST(test_flips_and_truncations_are_harmless) {
    void *data;
    size_t size;
    int64_t opened = 0, odd = 0;
    ck_assert_int_eq(save_sample(), FV_OK);
    ck_assert_int_eq(fv_read_file(&ctx, path, 1 << 20, &data, &size), FV_OK);
    unsigned char *bytes = data;
    size_t section = 8 + bytes[0] + ((size_t)bytes[1] << 8);
    for (size_t cut = 0; cut < size; cut++) {
        fv_status status = open_bytes(bytes, cut);
        odd += status != FV_E_MODEL || memory.live != 1;
    }
    ck_assert_int_eq(odd, 0); /* every truncation is refused */
    for (size_t bit = 0; bit < 8 * size; bit++) {
        bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
        fv_status status = open_bytes(bytes, size);
        bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
        odd += (status != FV_E_MODEL && status != FV_OK) || memory.live != 1;
        odd += bit / 8 >= section && status != FV_E_MODEL;
        opened += status == FV_OK && bit / 8 < section;
    }
    ck_assert_int_eq(odd, 0);
    /* Without a "writer" of ours, a file whose key "fovea_xxh3" has another letter is a file without a checksum. */
    ck_assert_int_le(opened, 8 * (int64_t)strlen("fovea_xxh3"));
    fv_free(&ctx, data, size + 1, 1);
}
END_TEST

static const struct hostile {
    const char *header;
    size_t data; /* bytes behind the header */
    const char *why;
} hostile[] = {
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}", 8, "'}' expected"},
    {"[]", 0, "does not begin with '{'"},
    {" {}", 0, "does not begin with '{'"},
    {"{} x", 0, "the end of the header expected"},
    {"{\"a\":1}", 0, "'{' expected"},
    {"{\"__metadata__\":[]}", 0, "'{' expected"},
    {"{\"__metadata__\":{\"a\":1}}", 0, "a string expected"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_"
     "offsets\":[0,4]}}",
     4, "tensor \"a\": it is there twice"},
    {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "are missing"},
    {"{\"a\":{\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
     "tensor \"a\": element type I8 is not supported"},
    {"{\"a\":{\"dtype\":\"BOOL\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "element type BOOL is not supported"},
    {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "are missing"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4,
     "a list of at most 6 integers expected"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "a non-negative integer expected"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1.0],\"data_offsets\":[0,4]}}", 4, "a non-negative integer expected"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[9223372036854775808],\"data_offsets\":[0,4]}}", 4,
     "an integer below 2^63 expected"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[9223372036854775807,2],\"data_offsets\":[0,4]}}", 4, "overflows"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0, "overflows"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,0,4],\"data_offsets\":[0,0]}}", 0, "overflows"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "are missing"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4, "a list of two integers expected"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[\"0\",4]}}", 4, "a non-negative integer expected"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4, "a non-negative integer expected"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "do not lie in the data section"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4,
     "do not lie in the data section of 4 bytes"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "4 bytes, but its shape needs 8"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_"
     "offsets\":[2,6]}}",
     6, "tensor \"b\": it overlaps"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_"
     "offsets\":[0,4]}}",
     4, "it overlaps"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_"
     "offsets\":[4,6]}}",
     6, "tensor \"b\": there is a hole"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,4]}}", 4, "there is a hole"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 3, "the last 1 bytes belong to no tensor"},
    {"{}", 5, "the last 5 bytes belong to no tensor"},
    {"{\"a\\u0000b\":{}}", 0, "a valid escape expected"},
    {"{\"a\\u001b[2J\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, "control characters"},
    {"{\"a\xff\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, "UTF-8 text"},
    {"{\"\\ud800\":{}}", 0, "a valid escape expected"},
    {"{\"\\ud800\\u0041\":{}}", 0, "a valid escape expected"},
    {"{\"\\udc00\":{}}", 0, "a valid escape expected"},
    {"{\"\\u00g0\":{}}", 0, "a valid escape expected"},
    {"{\"\\q\":{}}", 0, "a valid escape expected"},
    {"{\"\xed\xa0\x80\":{}}", 0, "UTF-8 text"},
    {"{\"\xc0\x80\":{}}", 0, "UTF-8 text"},
    {"{\"a\tb\":{}}", 0, "UTF-8 text"},
    {"{\"a", 0, "closing quote"},
    {"{\"a\\", 0, "a valid escape expected"},
    {"{\"a\\u12", 0, "a valid escape expected"},
    {"{\"a\":{}}", 0, "a string expected"},
    {"{,}", 0, "a string expected"},
    {"{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0, "there twice"},
    {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "there twice"},
    {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     "unknown or repeated field"},
    {"{\"a\":{\"dtype\":\"F32\",\"strides\":[1],\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     "unknown or repeated field"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[01],\"data_offsets\":[0,4]}}", 4, "a non-negative integer expected"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[]}}", 4, "are missing"},
};

/* A refusal takes at most 100 ms and 64 MB. Sanitizers and counters are slower by themselves. */
static void refuse(const void *bytes, size_t size, const char *why) {
    fv_st_file f;
    fvt_put_file(path, bytes, size);
    memory.peak = memory.bytes;
    double start = fvt_cpu_seconds();
    fv_status status = fv_st_open(&f, &ctx, path);
    double took = fvt_cpu_seconds() - start;
    ck_assert_msg(status == FV_E_MODEL, "\"%s\" was expected, status %d", why, (int)status);
    ck_assert_msg(strstr(ctx.error.message, why) != NULL, "\"%s\" instead of \"%s\"", ctx.error.message, why);
    ck_assert_str_eq(ctx.error.path, path);
    ck_assert_uint_le(memory.peak - memory.bytes, (size_t)64 << 20);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !defined(FV_COVERAGE)
    ck_assert_msg(took <= 0.1 || took <= 0.1 * fvt_slowness(), "\"%s\": refused after %.0f ms", why, 1e3 * took);
#else
    (void)took;
#endif
}

static size_t frame(unsigned char *out, uint64_t length, const char *header, size_t header_bytes, size_t data) {
    for (int i = 0; i < 8; i++) out[i] = (unsigned char)(length >> 8 * i);
    memcpy(out + 8, header, header_bytes);
    memset(out + 8 + header_bytes, 0, data);
    return 8 + header_bytes + data;
}

START_TEST(test_hostile_headers_are_refused) {
    unsigned char bytes[1024];
    for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
        size_t n = strlen(hostile[i].header);
        refuse(bytes, frame(bytes, n, hostile[i].header, n, hostile[i].data), hostile[i].why);
    }
    static const uint64_t lengths[] = {0, 1, 3, 100, (uint64_t)1 << 32, (uint64_t)1 << 63, UINT64_MAX, UINT64_MAX - 7};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        refuse(bytes, frame(bytes, lengths[i], "{}", 2, 0), "the header does not fit");
    refuse(bytes, 0, "shorter than 8 bytes");
    refuse("PK\x03\x04 a zip file, say of PyTorch", 30, "the header does not fit");
}
END_TEST

typedef size_t (*generator)(char *out, size_t size);

static size_t deep_json(char *out, size_t size) {
    size_t n = (size_t)snprintf(out, size, "{\"a\":");
    for (int i = 0; i < 10000; i++) out[n++] = '[';
    for (int i = 0; i < 10000; i++) out[n++] = ']';
    out[n++] = '}';
    return n;
}
static size_t many_tensors(char *out, size_t size) {
    size_t n = 0;
    out[n++] = '{';
    for (int i = 0; i < 100000; i++)
        n += (size_t)snprintf(out + n, size - n, "%s\"t%d\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}",
                              i ? "," : "", i);
    out[n++] = '}';
    return n;
}
static size_t much_metadata(char *out, size_t size) {
    size_t n = (size_t)snprintf(out, size, "{\"__metadata__\":{");
    for (int i = 0; i < 300000; i++)
        n += (size_t)snprintf(out + n, size - n, "%s\"%x\":\"\"", i ? "," : "", (unsigned)i);
    return n + (size_t)snprintf(out + n, size - n, "}}");
}
static size_t many_numbers(char *out, size_t size) {
    size_t n = (size_t)snprintf(out, size, "{\"a\":{\"shape\":[0");
    while (n < size - 10) n += (size_t)snprintf(out + n, size - n, ",0");
    return n + (size_t)snprintf(out + n, size - n, "]}}");
}
static size_t all_braces(char *out, size_t size) {
    memset(out, '{', size);
    return size;
}
static size_t long_name(char *out, size_t size) {
    size_t n = 2;
    memcpy(out, "{\"", 2);
    memset(out + n, 'n', size - 20);
    n += size - 20;
    return n + (size_t)snprintf(out + n, 10, "\":1}");
}
static size_t open_string(char *out, size_t size) {
    memset(out, '\\', size);
    memcpy(out, "{\"", 2);
    return size;
}

START_TEST(test_huge_headers_are_refused) {
    static const struct {
        generator make;
        const char *why;
    } huge[] = {{deep_json, "'{' expected"},
                {many_tensors, "too many tensors"},
                {much_metadata, "too much metadata"},
                {many_numbers, "a list of at most 6 integers expected"},
                {all_braces, "a string expected"},
                {long_name, "'{' expected"},
                {open_string, "expected"}};
    size_t size = FV_ST_MAX_HEADER;
    char *text = malloc(size + 8);
    ck_assert_ptr_nonnull(text);
    for (size_t i = 0; i < sizeof huge / sizeof *huge; i++) {
        size_t n = huge[i].make(text + 8, size);
        for (int k = 0; k < 8; k++) text[k] = (char)((uint64_t)n >> 8 * k);
        refuse(text, n + 8, huge[i].why);
    }
    free(text);
    FILE *file = fopen(path, "wb"); /* a sparse file of 1 TB whose header claims 1 GB */
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite("\0\0\0\x40\0\0\0\0{", 1, 9, file), 9);
    ck_assert_int_eq(ftruncate(fileno(file), (off_t)1 << 40), 0);
    ck_assert_int_eq(fclose(file), 0);
    fv_st_file f;
    ck_assert_int_eq(fv_st_open(&f, &ctx, path), FV_E_MODEL);
    ck_assert_ptr_nonnull(strstr(ctx.error.message, "larger than 8 MiB"));
}
END_TEST

/* ---------------------------------------------------------------- failing memory and disks under safetensors */

START_TEST(test_memory_failures) {
    fv_st_file f;
    fv_status status = FV_E_MEMORY;
    int64_t n = 1;
    for (; status != FV_OK && n < 1000; n++) {
        memory.calls = 0;
        memory.fail_at = n;
        status = save_sample();
        ck_assert(status == FV_OK || (status == FV_E_MEMORY && ctx.error.code == FV_E_MEMORY));
        ck_assert_int_eq(memory.live, 0);
        ck_assert_int_eq(fvt_count_files(folder), status == FV_OK);
    }
    ck_assert_int_ge(n, 5);
    status = FV_E_MEMORY;
    for (n = 1; status != FV_OK && n < 1000; n++) {
        memory.calls = 0;
        memory.fail_at = n;
        status = fv_st_open(&f, &ctx, path);
        ck_assert_msg(status == FV_OK || status == FV_E_MEMORY, "allocation %d: %s", (int)n, ctx.error.message);
        if (status == FV_OK) fv_st_close(&f);
        ck_assert_int_eq(memory.live, 0);
    }
    ck_assert_int_ge(n, 4);
}
END_TEST

START_TEST(test_disk_failures_under_save) {
    ck_assert_int_eq(save_sample(), FV_OK);
    void *data;
    size_t size;
    ck_assert_int_eq(fv_read_file(&ctx, path, 1 << 20, &data, &size), FV_OK);
    for (int call = 0; call < FVT_UNLINK; call++)
        for (int64_t at = 1; at <= 8; at++) {
            fvt_files_install(&files, &ctx);
            files.fail = (fvt_call)call;
            files.fail_at = at;
            files.error = ENOSPC;
            fv_status status = save_sample();
            ck_assert(status == FV_OK || status == FV_E_IO);
            ck_assert_int_eq(fvt_count_files(folder), 1);
            void *now;
            size_t now_size;
            fvt_files_install(&files, &ctx);
            ck_assert_int_eq(fv_read_file(&ctx, path, 1 << 20, &now, &now_size), FV_OK);
            ck_assert(now_size == size && memcmp(now, data, size) == 0);
            fv_free(&ctx, now, now_size + 1, 1);
        }
    fv_free(&ctx, data, size + 1, 1);
}
END_TEST

Suite *io_suite(void) {
    Suite *s = suite_create("io");
    TCase *c = tcase_create("io");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 120);
    tcase_add_test(c, test_file_round_trip);
    tcase_add_test(c, test_odd_files_are_refused);
    tcase_add_test(c, test_failing_disk_keeps_the_old_file);
    tcase_add_test(c, test_interruptions_are_retried);
    tcase_add_test(c, test_failing_reads_are_errors);
    tcase_add_test(c, test_writer_can_be_abandoned);
    tcase_add_test(c, test_safetensors_round_trip);
    tcase_add_test(c, test_safetensors_refuses_bad_names);
    tcase_add_test(c, test_flips_and_truncations_are_harmless);
    tcase_add_test(c, test_hostile_headers_are_refused);
    tcase_add_test(c, test_huge_headers_are_refused);
    tcase_add_test(c, test_memory_failures);
    tcase_add_test(c, test_disk_failures_under_save);
    suite_add_tcase(s, c);
    return s;
}
