/* test_hostile.c: small or cheap inputs that ask for much: each is refused within 100 ms and 64 MB (RELIABILITY: R17).
 * Damage that is done bit by bit is the business of test_io.c, test_data_bad.c and tests/fuzz/replay.c. */
#include "core/io/io.h"
#include "data/listing.h"
#include "data/pickle.h"
#include "tests/fuzz/memory_io.h"
#include "tests/harness.h"
#include "tools/cli/options.h"

#include <check.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

Suite *hostile_suite(void);

#define MOST_MEMORY ((size_t)64 << 20)
#define MOST_SECONDS 0.1
#define ROOM ((size_t)9 << 20)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(FV_COVERAGE)
#define SLOWED 1 /* by a sanitizer, which also takes memory for itself, or by counters */
#else
#define SLOWED 0
#endif

/* ---------------------------------------------------------------- measuring */

/* Resident memory of the process, now ("VmRSS:") or at its peak ("VmHWM:"): libraries without allocator hooks count,
 * too. */
static size_t resident(const char *which) {
    char line[256];
    size_t kilobytes = 0;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, which, strlen(which)) == 0) kilobytes = strtoul(line + strlen(which), NULL, 10);
    if (f) fclose(f);
    return kilobytes << 10;
}

static bool forget_peak(void) {
    int fd = open("/proc/self/clear_refs", O_WRONLY);
    bool done = fd >= 0 && write(fd, "5", 1) == 1;
    if (fd >= 0) close(fd);
    return done;
}

/* ---------------------------------------------------------------- what reads the file "/m/file" */

static fv_status open_safetensors(fvt_world *w) {
    fv_st_file f;
    fv_status status = fv_st_open(&f, &w->ctx, "/m/file");
    if (status == FV_OK) fv_st_close(&f);
    return status;
}

static fv_status open_config(fvt_world *w) {
    fv_arena arena;
    fv_model_config cfg;
    fv_arena_init(&arena, &w->ctx);
    fv_status status = fv_config_load(&w->ctx, &arena, "/m/file", &cfg);
    fv_arena_free(&arena);
    return status;
}

static fv_status open_yaml(fvt_world *w) {
    static fv_cli cli;
    memset(&cli, 0, sizeof cli);
    cli.ctx = &w->ctx;
    cli.command = FV_CMD_train;
    fv_arena_init(&cli.arena, &w->ctx);
    fv_status status = fv_cli_read_yaml(&cli, "/m/file", FV_FROM_FILE, NULL, 0);
    fv_cli_free(&cli);
    return status;
}

static fv_status open_set(fvt_world *w, const char *name) {
    const fv_dataset_opts opts = {.root = "/m"};
    fv_dataset *d;
    fv_status status = fv_dataset_open(&w->ctx, name, FV_SPLIT_TEST, &opts, &d);
    if (status == FV_OK) fv_dataset_free(d);
    return status;
}

/* The file is the images; there is one label. */
static fv_status open_idx(fvt_world *w) {
    static const uint8_t labels[] = {0, 0, 8, 1, 0, 0, 0, 1, 7};
    fvt_world_put(w, "/m/mnist/t10k-labels-idx1-ubyte", labels, sizeof labels);
    ck_assert_int_eq(w->ctx.io.rename(w, "/m/file", "/m/mnist/t10k-images-idx3-ubyte"), 0);
    return open_set(w, "mnist");
}

static fv_status open_cifar(fvt_world *w) {
    ck_assert_int_eq(w->ctx.io.rename(w, "/m/file", "/m/test_batch.bin"), 0);
    return open_set(w, "cifar10");
}

static fv_status open_pickle(fvt_world *w) {
    ck_assert_int_eq(w->ctx.io.rename(w, "/m/file", "/m/test_batch"), 0);
    return open_set(w, "cifar10");
}

static fv_status open_archive(fvt_world *w) {
    static const char *const members[] = {"set/one.bin", NULL};
    return fv_archive_unpack(&w->ctx, "/m/file", members, "/m");
}

static fv_status open_csv(fvt_world *w) {
    fv_listing list;
    fv_arena arena;
    const fv_dataset_opts opts = {.root = "/m"};
    fv_arena_init(&arena, &w->ctx);
    fv_listing_init(&list, &w->ctx, &arena);
    fv_status status = fv_csv_list(&list, "/m/file", &opts);
    fv_listing_free(&list);
    fv_arena_free(&arena);
    return status;
}

static fv_status open_image(fvt_world *w) {
    const fv_decode_opts opts = {.channels = 3};
    const fvt_world_file *file = fvt_world_find(w, "/m/file");
    fv_decoder *d;
    fv_image image;
    fv_image_info info;
    ck_assert_int_eq(fv_decoder_create(&w->ctx, &d), FV_OK);
    fv_status status = fv_image_decode(d, file->given, (size_t)file->size, "/m/file", &opts, &image);
    if (status == FV_E_DATA)
        ck_assert_int_ne(fv_image_probe(d, file->given, (size_t)file->size, "/m/file", &info), FV_OK);
    fv_decoder_destroy(d);
    return status;
}

/* ---------------------------------------------------------------- contents */

typedef struct text {
    uint8_t *bytes; /* [ROOM] */
    size_t size;
} text;

static void put(text *t, const void *bytes, size_t size) {
    ck_assert_uint_le(t->size + size, ROOM);
    memcpy(t->bytes + t->size, bytes, size);
    t->size += size;
}
static void put_text(text *t, const char *s) {
    put(t, s, strlen(s));
}
static void repeat(text *t, const char *s, size_t times) {
    for (size_t n = strlen(s); times > 0; times--) put(t, s, n);
}
static void put_number(text *t, uint64_t n, int bytes, bool big_endian) {
    for (int i = 0; i < bytes; i++) {
        uint8_t byte = (uint8_t)(n >> 8 * (big_endian ? bytes - 1 - i : i));
        put(t, &byte, 1);
    }
}

/* Put `times` times `unit` bytes of zeros as gzip. */
static void put_packed_zeros(text *t, const void *first, size_t first_size, size_t zeros) {
    static uint8_t block[1 << 16];
    z_stream z = {.next_out = t->bytes + t->size, .avail_out = (uInt)(ROOM - t->size)};
    ck_assert_int_eq(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (Bytef *)(uintptr_t)first;
    z.avail_in = (uInt)first_size;
    ck_assert_int_eq(deflate(&z, Z_NO_FLUSH), Z_OK);
    for (; zeros > 0; zeros -= zeros < sizeof block ? zeros : sizeof block) {
        z.next_in = block;
        z.avail_in = (uInt)(zeros < sizeof block ? zeros : sizeof block);
        ck_assert_int_eq(deflate(&z, Z_NO_FLUSH), Z_OK);
    }
    ck_assert_int_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
    t->size = ROOM - z.avail_out;
    deflateEnd(&z);
}

/* safetensors: the header, with its length in front */
static void header(text *t, const char *json) {
    put_number(t, strlen(json), 8, false);
    put_text(t, json);
}
static void dimensions(text *t) {
    header(t, "{\"a\":{\"dtype\":\"F64\",\"shape\":[4294967296,2147483648],\"data_offsets\":[0,0]}}");
}
static void six_dimensions(text *t) {
    header(t, "{\"a\":{\"dtype\":\"U8\",\"shape\":[65536,65536,65536,65536,65536,0],\"data_offsets\":[0,0]}}");
}
static void many_tensors(text *t) {
    char entry[96];
    put_number(t, 0, 8, false);
    put_text(t, "{");
    for (int i = 0; i < 100000; i++) {
        snprintf(entry, sizeof entry, "%s\"t%d\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}", i ? "," : "",
                 i);
        put_text(t, entry);
    }
    put_text(t, "}");
    uint64_t length = t->size - 8;
    for (int i = 0; i < 8; i++) t->bytes[i] = (uint8_t)(length >> 8 * i);
}
static void deep_header(text *t) {
    put_number(t, 10000, 8, false);
    repeat(t, "{\"a\":", 2000);
}
static void long_header(text *t) {
    put_number(t, (uint64_t)1 << 62, 8, false);
    put_text(t, "{}");
}

/* config.json */
static void deep_json(text *t) {
    put_text(t, "{\"architecture\":");
    repeat(t, "[", 10000);
    repeat(t, "]", 10000);
    put_text(t, "}");
}
static void open_brackets(text *t) {
    repeat(t, "[", (2 << 20) - 1);
}
static void many_values(text *t) {
    put_text(t, "{\"architecture\":\"x\",\"input_size\":[");
    repeat(t, "0,", 600000);
    put_text(t, "0]}");
}
static void many_keys(text *t) {
    char key[32];
    put_text(t, "{");
    for (int i = 0; i < 130000; i++) {
        snprintf(key, sizeof key, "\"%x\":0,", i);
        put_text(t, key);
    }
    put_text(t, "\"z\":0}");
}
static void long_number(text *t) {
    put_text(t, "{\"crop_pct\":");
    repeat(t, "9", 1 << 20);
    put_text(t, "}");
}
static void large_config(text *t) {
    repeat(t, " ", (2 << 20) + 1);
}

/* options */
static void aliases(text *t) {
    char line[128];
    put_text(t, "a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
    for (int i = 1; i < 30; i++) {
        snprintf(line, sizeof line, "a%d: &a%d [*a%d,*a%d,*a%d,*a%d,*a%d]\n", i, i, i - 1, i - 1, i - 1, i - 1, i - 1);
        put_text(t, line);
    }
}
static void known_aliases(text *t) {
    put_text(t, "mean: &a [0.5,0.5]\nstd: [*a,*a,*a]\n");
}
static void long_list(text *t) {
    put_text(t, "mean: [");
    repeat(t, "1,", 500000);
    put_text(t, "1]\n");
}
static void nested_lists(text *t) {
    put_text(t, "mean: ");
    repeat(t, "[", 1 << 19);
}
static void nested_keys(text *t) {
    repeat(t, "? ", 1 << 18);
}
static void long_key(text *t) {
    repeat(t, "k", 1 << 19);
    put_text(t, ": 1\n");
}
static void large_options(text *t) {
    repeat(t, "#", (1 << 20) + 1);
}

/* IDX */
static void images(text *t, uint64_t n, uint64_t h, uint64_t w) {
    put_number(t, 0x803, 4, true);
    put_number(t, n, 4, true);
    put_number(t, h, 4, true);
    put_number(t, w, 4, true);
}
static void huge_images(text *t) {
    images(t, (uint64_t)1 << 31, (uint64_t)1 << 31, 4);
}
static void packed_huge_images(text *t) {
    text plain = {(uint8_t[16]){0}, 0};
    images(&plain, 0x7fffffff, 0x7fffffff, 0x7fffffff);
    put_packed_zeros(t, plain.bytes, plain.size, 1000);
}
static void packed_bomb(text *t) { /* 1 MB that becomes 1 GB; its header speaks of one picture */
    text plain = {(uint8_t[16]){0}, 0};
    images(&plain, 1, 28, 28);
    put_packed_zeros(t, plain.bytes, plain.size, (size_t)256 << 20);
}

/* pickles */
static void memo(text *t) {
    put_text(t, "\x80\x02Nr");
    put_number(t, 0x7fffffff, 4, false);
    put_text(t, ".");
}
static void wide_memo(text *t) { /* a file that is as large as the memo number asks for */
    put_text(t, "\x80\x02Nr");
    put_number(t, (1 << 21) - 1, 4, false);
    repeat(t, "0N", 1 << 21);
}
static void pickle_frame(text *t) {
    put_text(t, "\x80\x04\x95");
    put_number(t, UINT64_MAX, 8, false);
    put_text(t, "N.");
}
static void long_text(text *t) {
    put_text(t, "\x80\x04\x8e");
    put_number(t, (uint64_t)1 << 63, 8, false);
    put_text(t, ".");
}
static void many_lists(text *t) {
    repeat(t, "]", 1 << 20);
}
static void wide_lists(text *t) { /* each step appends all that lies on the stack */
    put_text(t, "]p1\n");
    for (int i = 0; i < 64; i++) {
        put_text(t, "](");
        repeat(t, "h\x01", 1 << 15);
        put_text(t, "e");
    }
}
static void marks(text *t) {
    repeat(t, "(", 1 << 20);
}
static void shape(text *t) {
    put_text(t, "cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n("
                "L4611686018427387904L\nL8L\ntcnumpy\n"
                "dtype\n(S'u8'\nI0\nI1\ntRI00\nS''\ntb.");
}

/* pictures */
static void chunk(text *t, const char *kind, const void *data, size_t size) {
    put_number(t, size, 4, true);
    size_t from = t->size;
    put_text(t, kind);
    put(t, data, size);
    put_number(t, crc32(0, t->bytes + from, (uInt)(t->size - from)), 4, true);
}
static void png(text *t, uint64_t w, uint64_t h) {
    text head = {(uint8_t[13]){0}, 0};
    put(t, "\x89PNG\r\n\x1a\n", 8);
    put_number(&head, w, 4, true);
    put_number(&head, h, 4, true);
    put(&head, "\x08\x02\0\0\0", 5);
    chunk(t, "IHDR", head.bytes, head.size);
    uint8_t zeros[64] = {0}, packed[128];
    uLongf size = sizeof packed;
    ck_assert_int_eq(compress(packed, &size, zeros, sizeof zeros), Z_OK);
    chunk(t, "IDAT", packed, size);
    chunk(t, "IEND", "", 0);
}
static void huge_png(text *t) {
    png(t, 30000, 30000);
}
static void wide_png(text *t) {
    png(t, 0x7fffffff, 1);
}
static void huge_jpeg(text *t) { /* frame and scan headers of a picture of 65,500 x 65,500 */
    static const uint8_t frame[] = {0xff, 0xd8, 0xff, 0xdb, 0, 67, 0};
    static const uint8_t rest[] = {0xff, 0xc0, 0,    17,   8, 0xff, 0xdc, 0xff, 0xdc, 3, 1, 0x11, 0, 2, 0x11, 0, 3,
                                   0x11, 0,    0xff, 0xda, 0, 12,   3,    1,    0,    2, 0, 3,    0, 0, 63,   0};
    put(t, frame, sizeof frame);
    repeat(t, "\x01", 64);
    put(t, rest, sizeof rest);
}
static void huge_webp(text *t) { /* VP8L: 14 bits each of width - 1 and height - 1 */
    static const uint8_t bytes[] = {'R',  'I', 'F', 'F', 0x1a, 0, 0, 0, 'W',  'E',  'B',  'P',
                                    'V',  'P', '8', 'L', 0x0e, 0, 0, 0, 0x2f, 0xff, 0xff, 0xff,
                                    0x0f, 0,   0,   0,   0,    0, 0, 0, 0,    0};
    put(t, bytes, sizeof bytes);
}

/* archives */
static void tar_head(uint8_t head[512], const char *name, const char *size) {
    unsigned sum = 0;
    memset(head, 0, 512);
    strcpy((char *)head, name);
    strcpy((char *)head + 124, size);
    head[156] = '0';
    memcpy(head + 257,
           "ustar\0"
           "00",
           8);
    memset(head + 148, ' ', 8);
    for (int i = 0; i < 512; i++) sum += head[i];
    snprintf((char *)head + 148, 8, "%06o", sum);
}
static void archive_bomb(text *t) { /* 200 MB of zeros in a member that nobody asked for */
    uint8_t head[512];
    tar_head(head, "set/zero", "01440000000");
    put_packed_zeros(t, head, sizeof head, (size_t)200 << 20);
}
static void archive_member(text *t) {
    uint8_t head[512];
    tar_head(head, "set/one.bin", "77777777777");
    put_packed_zeros(t, head, sizeof head, 1000);
}

/* Files too large to be stored. */
static void make_line(uint64_t offset, uint8_t *to, size_t bytes) {
    (void)offset;
    memset(to, 'a', bytes);
}
static void make_second_line(uint64_t offset, uint8_t *to, size_t bytes) {
    memset(to, 'a', bytes);
    if (offset < 8) memcpy(to, "a.png,x\n" + offset, bytes < 8 - offset ? bytes : 8 - (size_t)offset);
}
static void make_gzip_name(uint64_t offset, uint8_t *to, size_t bytes) {
    static const uint8_t head[10] = {0x1f, 0x8b, 8, 8};
    memset(to, 'n', bytes);
    if (offset < sizeof head) memcpy(to, head + offset, bytes < sizeof head - offset ? bytes : sizeof head - offset);
}
static void make_gzip_nothing(uint64_t offset, uint8_t *to, size_t bytes) { /* stored blocks without a byte in them */
    static const uint8_t head[10] = {0x1f, 0x8b, 8}, block[5] = {0, 0, 0, 0xff, 0xff};
    for (size_t i = 0; i < bytes; i++)
        to[i] = offset + i < sizeof head ? head[offset + i] : block[(offset + i - sizeof head) % sizeof block];
}
static void make_zeros(uint64_t offset, uint8_t *to, size_t bytes) {
    (void)offset;
    memset(to, 0, bytes);
}

/* ---------------------------------------------------------------- the table */

static const struct hostile {
    const char *name;
    fv_status (*open)(fvt_world *w);
    void (*fill)(text *t); /* the file ... */
    fvt_make make;         /* ... or what it is made by, and its size */
    uint64_t size;
    fv_status status;
    const char *message;
} table[] = {
    {"product of dimensions past 2^63", open_safetensors, dimensions, NULL, 0, FV_E_MODEL, "overflows"},
    {"product past 2^63 beside a zero", open_safetensors, six_dimensions, NULL, 0, FV_E_MODEL, "overflows"},
    {"100,000 tensors", open_safetensors, many_tensors, NULL, 0, FV_E_MODEL, "too many tensors"},
    {"header 2000 deep", open_safetensors, deep_header, NULL, 0, FV_E_MODEL, "unknown or repeated field"},
    {"header of 2^62 bytes", open_safetensors, long_header, NULL, 0, FV_E_MODEL, "the header does not fit"},
    {"1 TB of safetensors", open_safetensors, NULL, make_zeros, (uint64_t)1 << 40, FV_E_MODEL,
     "the header does not fit"},
    {"JSON 10,000 deep", open_config, deep_json, NULL, 0, FV_E_MODEL, "depth"},
    {"2 MB of [", open_config, open_brackets, NULL, 0, FV_E_MODEL, "depth"},
    {"600,000 values", open_config, many_values, NULL, 0, FV_E_MODEL, "input_size"},
    {"130,000 keys", open_config, many_keys, NULL, 0, FV_E_MODEL, "architecture"},
    {"a number of 1 MB", open_config, long_number, NULL, 0, FV_E_MODEL, "line 1"},
    {"config.json of more than 2 MB", open_config, large_config, NULL, 0, FV_E_MODEL, "more than expected"},
    {"1 TB of config.json", open_config, NULL, make_zeros, (uint64_t)1 << 40, FV_E_MODEL, "more than expected"},
    {"YAML aliases of aliases", open_yaml, aliases, NULL, 0, FV_E_USAGE, "line 1"},
    {"YAML aliases in a list", open_yaml, known_aliases, NULL, 0, FV_E_USAGE, "line 2"},
    {"YAML list of 500,000", open_yaml, long_list, NULL, 0, FV_E_USAGE, "at most"},
    {"YAML 500,000 deep", open_yaml, nested_lists, NULL, 0, FV_E_USAGE, "line 1"},
    {"YAML of keys of keys", open_yaml, nested_keys, NULL, 0, FV_E_USAGE, "line 1"},
    {"YAML key of 512 kB", open_yaml, long_key, NULL, 0, FV_E_USAGE, "line 1"},
    {"YAML of more than 1 MB", open_yaml, large_options, NULL, 0, FV_E_USAGE, "more than expected"},
    {"IDX of 2^31 x 2^31", open_idx, huge_images, NULL, 0, FV_E_DATA, "more than the file can hold"},
    {"IDX of 2^93, packed", open_idx, packed_huge_images, NULL, 0, FV_E_DATA, "more than the file can hold"},
    {"gzip bomb behind one picture", open_idx, packed_bomb, NULL, 0, FV_E_DATA, "more bytes follow"},
    {"gzip file name of 1 GB", open_idx, NULL, make_gzip_name, (uint64_t)1 << 30, FV_E_DATA, "nothing comes out"},
    {"1 GB of gzip that holds nothing", open_idx, NULL, make_gzip_nothing, (uint64_t)1 << 30, FV_E_DATA,
     "nothing comes out"},
    {"CIFAR of 2^60 bytes", open_cifar, NULL, make_zeros, (uint64_t)3073 << 48, FV_E_DATA, "more than can be held"},
    {"pickle memo number of 2^31", open_pickle, memo, NULL, 0, FV_E_DATA, "memo number that is too large"},
    {"pickle memo number of 2^21", open_pickle, wide_memo, NULL, 0, FV_E_DATA, "memo number that is too large"},
    {"pickle frame of 2^64", open_pickle, pickle_frame, NULL, 0, FV_E_DATA, "truncated"},
    {"pickle text of 2^63", open_pickle, long_text, NULL, 0, FV_E_DATA, "truncated"},
    {"a million lists", open_pickle, many_lists, NULL, 0, FV_E_DATA, "too many"},
    {"lists of the same list", open_pickle, wide_lists, NULL, 0, FV_E_DATA, "too many items"},
    {"a million marks", open_pickle, marks, NULL, 0, FV_E_DATA, "nested too deeply"},
    {"array of 2^65 elements", open_pickle, shape, NULL, 0, FV_E_DATA, "impossible shape"},
    {"1 TB of pickle", open_pickle, NULL, make_zeros, (uint64_t)1 << 40, FV_E_DATA, "more than expected"},
    {"PNG of 30,000 x 30,000", open_image, huge_png, NULL, 0, FV_E_DATA, "30000 x 30000"},
    {"PNG of 2^31 columns", open_image, wide_png, NULL, 0, FV_E_DATA, "2147483647 x 1 pixels"},
    {"JPEG of 65,500 x 65,500", open_image, huge_jpeg, NULL, 0, FV_E_DATA, "65500 x 65500"},
    {"WebP of 16,384 x 16,384", open_image, huge_webp, NULL, 0, FV_E_DATA, "16384 x 16384"},
    {"archive of 200 MB of zeros", open_archive, archive_bomb, NULL, 0, FV_E_DATA, "more comes out"},
    {"archive member of 8 GB", open_archive, archive_member, NULL, 0, FV_E_DATA, "larger than can be right"},
    {"CSV of one line of 1 GB", open_csv, NULL, make_line, (uint64_t)1 << 30, FV_E_DATA, "line 1: longer than"},
    {"CSV whose second line has 1 GB", open_csv, NULL, make_second_line, (uint64_t)1 << 30, FV_E_DATA,
     "line 2: longer than"},
    {"1 TB of CSV", open_csv, NULL, make_line, (uint64_t)1 << 40, FV_E_DATA, "at most"},
};

/* Seconds that the refusal took. */
static double refuse(const struct hostile *h, const text *t) {
    static fvt_world w;
    fvt_world_open(&w, (size_t)1 << 32); /* so that it is seen how much is asked for */
    if (h->fill) fvt_world_put(&w, "/m/file", t->bytes, t->size);
    else fvt_world_put_made(&w, "/m/file", h->make, h->size);
    bool watched = !SLOWED && forget_peak();
    size_t before = resident("VmRSS:");
    double start = fvt_cpu_seconds();
    fv_status status = h->open(&w);
    double took = fvt_cpu_seconds() - start;
    size_t after = resident("VmHWM:");
    const fv_error *e = &w.ctx.error;
    ck_assert_msg(status == h->status, "%s: status %d (%s), not %d", h->name, (int)status, e->message, (int)h->status);
    ck_assert_msg(strstr(e->message, h->message) != NULL, "%s: '%s', not '%s'", h->name, e->message, h->message);
    fvt_world_judge(&w, status, 1u << h->status);
    ck_assert_msg(w.peak <= MOST_MEMORY, "%s: %zu bytes were asked for", h->name, w.peak);
    ck_assert_msg(!watched || after <= before + MOST_MEMORY, "%s: %zu bytes more were resident", h->name,
                  after - before);
    fvt_world_close(&w);
    return took;
}

START_TEST(test_refused) {
    const struct hostile *h = &table[_i];
    text t = {h->fill ? malloc(ROOM) : NULL, 0};
    ck_assert(!h->fill || t.bytes != NULL);
    if (h->fill) h->fill(&t);
    double best = refuse(h, &t), most = (SLOWED ? 20 : 1) * MOST_SECONDS;
    for (int again = 0; again < 4 && best > most; again++) { /* others use the machine, or it is a slow one */
        best = fmin(best, refuse(h, &t));
        most = fmax(most, (SLOWED ? 20 : 1) * MOST_SECONDS * fvt_slowness());
    }
    ck_assert_msg(best <= most, "%s: %.0f ms", h->name, 1e3 * best);
    free(t.bytes);
}
END_TEST

/* What is written is read again: names that would make the file too large are left out. */
START_TEST(test_many_class_names) {
    enum { CLASSES = 60000 };
    static fvt_world w;
    static const char *names[CLASSES];
    fv_arena arena;
    fv_model_config loaded, cfg = {.architecture = "mlp",
                                   .num_classes = CLASSES,
                                   .n_labels = CLASSES,
                                   .label_names = names,
                                   .input_size = {1, 28, 28},
                                   .mean = {0.5},
                                   .std = {0.5},
                                   .interpolation = "bicubic",
                                   .crop_pct = 1};
    for (int i = 0; i < CLASSES; i++) names[i] = _i ? "a name of forty letters, as some sets have" : "short";
    fvt_world_open(&w, (size_t)1 << 32);
    fv_arena_init(&arena, &w.ctx);
    ck_assert_int_eq(fv_config_save(&w.ctx, "/m/config.json", &cfg), FV_OK);
    ck_assert_msg(fv_config_load(&w.ctx, &arena, "/m/config.json", &loaded) == FV_OK, "%s", w.ctx.error.message);
    ck_assert_int_eq(loaded.num_classes, CLASSES);
    ck_assert_int_eq(loaded.n_labels, _i ? 0 : CLASSES);
    fv_arena_free(&arena);
    fvt_world_close(&w);
}
END_TEST

Suite *hostile_suite(void) {
    Suite *s = suite_create("hostile");
    TCase *c = tcase_create("refused at once");
    tcase_set_timeout(c, 60);
    tcase_add_loop_test(c, test_refused, 0, sizeof table / sizeof *table);
    tcase_add_loop_test(c, test_many_class_names, 0, 2);
    suite_add_tcase(s, c);
    return s;
}
