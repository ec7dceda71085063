/* test_core.c: the ground floor: errors, memory, random numbers, threads, types. */
#include "tests/faults.h"

#include <check.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

Suite *core_suite(void);

/* Check notes every assertion in a file: loops over elements use this and assert once. */
static bool all_equal(const unsigned char *p, size_t bytes, unsigned char value) {
    for (size_t i = 0; i < bytes; i++)
        if (p[i] != value) return false;
    return true;
}

/* ---------------------------------------------------------------- status */

START_TEST(test_errors_are_recorded) {
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    ck_assert_int_eq(fv_fail_at(&ctx, FV_E_DATA, "a/b.bin", 12, "label %d", 300), FV_E_DATA);
    ck_assert_str_eq(ctx.error.message, "label 300");
    ck_assert_str_eq(ctx.error.path, "a/b.bin");
    ck_assert_int_eq(ctx.error.offset, 12);
    ck_assert_int_eq(fv_hint(&ctx, "labels go to %d", 9), FV_E_DATA);
    ck_assert_str_eq(ctx.error.hint, "labels go to 9");

    /* the old error may be quoted in the new one */
    ck_assert_int_eq(fv_fail_at(&ctx, FV_E_IO, ctx.error.path, 3, "while reading: %s", ctx.error.message), FV_E_IO);
    ck_assert_str_eq(ctx.error.message, "while reading: label 300");
    ck_assert_str_eq(ctx.error.path, "a/b.bin");
    ck_assert_str_eq(ctx.error.hint, "");
    fv_fail(&ctx, FV_E_USAGE, "again: %s", ctx.error.message);
    ck_assert_str_eq(ctx.error.message, "again: while reading: label 300");
    ck_assert_str_eq(ctx.error.path, "");
    ck_assert_int_eq(ctx.error.offset, -1);
}
END_TEST

START_TEST(test_long_messages_are_cut) {
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    char text[2000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    fv_fail_at(&ctx, FV_E_DATA, text, -1, "%s", text);
    fv_hint(&ctx, "%s", text);
    ck_assert_uint_eq(strlen(ctx.error.message), sizeof ctx.error.message - 1);
    ck_assert_uint_eq(strlen(ctx.error.path), sizeof ctx.error.path - 1);
    ck_assert_uint_eq(strlen(ctx.error.hint), sizeof ctx.error.hint - 1);
}
END_TEST

START_TEST(test_status_texts) {
    for (int s = 0; s <= FV_E_GATE; s++) ck_assert_str_ne(fv_status_text((fv_status)s), "unknown status");
    ck_assert_str_eq(fv_status_text((fv_status)99), "unknown status");
}
END_TEST

static void keep_line(void *user, fv_log_level level, const char *line) {
    snprintf(user, 64, "%d %s", (int)level, line);
}

START_TEST(test_log_goes_to_the_callback) {
    fv_ctx ctx;
    char line[64] = "";
    fv_ctx_init(&ctx);
    fv_log(&ctx, FV_LOG_WARN, "nobody listens");
    ctx.log = keep_line;
    ctx.log_user = line;
    fv_log(&ctx, FV_LOG_WARN, "%d epochs", 3);
    ck_assert_str_eq(line, "2 3 epochs");
}
END_TEST

/* ---------------------------------------------------------------- memory */

START_TEST(test_checked_arithmetic) {
    size_t out = 7;
    ck_assert(!fv_size_mul(SIZE_MAX / 2, 3, &out) && !fv_size_add(SIZE_MAX, 1, &out) && out == 7);
    ck_assert(!fv_size_mul((size_t)1 << 32, (size_t)1 << 32, &out) && out == 7);
    ck_assert(fv_size_mul(SIZE_MAX, 1, &out) && out == SIZE_MAX);
    ck_assert(fv_size_add(SIZE_MAX - 1, 1, &out) && out == SIZE_MAX);
    ck_assert(fv_size_mul(0, SIZE_MAX, &out) && out == 0);
}
END_TEST

START_TEST(test_alloc) {
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    ck_assert_ptr_null(fv_alloc(&ctx, SIZE_MAX / 4, 8));
    ck_assert_int_eq(ctx.error.code, FV_E_MEMORY);
    ck_assert_ptr_null(fv_alloc(&ctx, SIZE_MAX, 1));
    ck_assert_ptr_null(fv_alloc(&ctx, SIZE_MAX - 4096, 1));
    void *nothing = fv_alloc(&ctx, 0, 8);
    ck_assert_ptr_nonnull(nothing);
    fv_free(&ctx, nothing, 0, 8);
    fv_free(&ctx, NULL, 5, 5);
    char *copy = fv_strdup(&ctx, "copy");
    ck_assert_str_eq(copy, "copy");
    fv_free(&ctx, copy, 5, 1);
}
END_TEST

/* Small blocks come from malloc, large ones from the kernel, aligned for huge pages. */
START_TEST(test_blocks_are_zeroed_and_aligned) {
    static const size_t sizes[] = {1, 63, 4096, (4u << 20) - 1, 4u << 20, (4u << 20) + 1, (9u << 20) + 4097};
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        unsigned char *p = fv_calloc(&ctx, sizes[i], 1);
        ck_assert_ptr_nonnull(p);
        ck_assert_uint_eq((uintptr_t)p % (sizes[i] >= 4u << 20 ? 2u << 20 : 64), 0);
        ck_assert_msg(all_equal(p, sizes[i], 0), "block of %zu bytes", sizes[i]);
        memset(p, 0xff, sizes[i]);
        fv_free(&ctx, p, sizes[i], 1);
    }
    void *p = ctx.alloc.alloc(NULL, 5u << 20, 16u << 20);
    ck_assert_uint_eq((uintptr_t)p % (16u << 20), 0);
    ctx.alloc.free(NULL, p, 5u << 20);
}
END_TEST

START_TEST(test_arena) {
    fv_ctx ctx;
    fvt_memory memory;
    fv_arena arena;
    fv_ctx_init(&ctx);
    fvt_memory_install(&memory, &ctx);
    fv_arena_init(&arena, &ctx);
    unsigned char *blocks[300];
    for (int i = 0; i < 300; i++) { /* 0 to 4 MiB, so that some need a block of their own */
        size_t bytes = i % 50 == 49 ? (size_t)i << 13 : (size_t)i * 37;
        blocks[i] = fv_arena_alloc(&arena, bytes, 1);
        ck_assert_ptr_nonnull(blocks[i]);
        ck_assert_uint_eq((uintptr_t)blocks[i] % 64, 0);
        ck_assert(all_equal(blocks[i], bytes, 0));
        memset(blocks[i], i + 1, bytes);
        ck_assert_str_eq(fv_arena_strdup(&arena, "name"), "name");
        ck_assert_str_eq(fv_arena_printf(&arena, "layer%d.%s", i % 10, "w") + 6, ".w");
    }
    for (int i = 1; i < 300; i++)
        if (i % 50 != 49) ck_assert(all_equal(blocks[i], (size_t)i * 37, (unsigned char)(i + 1)));
    ck_assert_uint_eq(arena.total, memory.bytes);
    ck_assert_ptr_null(fv_arena_alloc(&arena, SIZE_MAX, 2));
    ck_assert_ptr_null(fv_arena_alloc(&arena, SIZE_MAX, 1));
    ck_assert_int_eq(ctx.error.code, FV_E_MEMORY);
    fv_arena_free(&arena);
    ck_assert_int_eq(memory.live, 0);
    ck_assert_uint_eq(memory.bytes, 0);
}
END_TEST

START_TEST(test_arena_survives_failure) {
    fv_ctx ctx;
    fvt_memory memory;
    fv_ctx_init(&ctx);
    fvt_memory_install(&memory, &ctx);
    for (int64_t n = 1; n <= 6; n++) {
        fv_arena arena;
        bool failed = false;
        fv_arena_init(&arena, &ctx);
        memory.calls = 0;
        memory.fail_at = n;
        for (int i = 0; i < 40; i++) {
            char *p = fv_arena_alloc(&arena, 50000, 1);
            if (!p) failed = ctx.error.code == FV_E_MEMORY;
            else memset(p, 1, 50000);
        }
        ck_assert(failed);
        fv_arena_free(&arena);
        ck_assert_int_eq(memory.live, 0);
    }
}
END_TEST

/* ---------------------------------------------------------------- random numbers */

/* Known answers of the authors' library Random123, file kat_vectors. */
START_TEST(test_philox_known_answers) {
    static const struct {
        uint64_t key;
        uint32_t counter[4], words[4];
    } known[] = {
        {0, {0, 0, 0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {UINT64_MAX,
         {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {0x299f31d0a4093822,
         {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        fv_philox p = fv_philox4x32(known[i].key, known[i].counter);
        ck_assert_mem_eq(p.v, known[i].words, sizeof p.v);
    }
}
END_TEST

START_TEST(test_random_counter_words) {
    fv_philox a = fv_random(9, 0x500000003, 7, 0x100000000, 11);
    fv_philox b = fv_philox4x32(9, (uint32_t[4]){3 ^ 5 * 0x9E3779B9u, 7, 0x9E3779B9u, 11});
    ck_assert_mem_eq(&a, &b, sizeof a);
    ck_assert_uint_eq(fv_fold(0xffffffff), 0xffffffff);
}
END_TEST

START_TEST(test_distributions) {
    enum { N = 200000 };
    double mean = 0, square = 0, tail = 0, sum = 0;
    int64_t buckets[10] = {0};
    bool in_range = true;
    for (uint32_t i = 0; i < N; i++) {
        fv_philox w = fv_random(1, i, 0, 0, 0);
        double z = fv_normal(w.v[0], w.v[1]);
        mean += z / N;
        square += z * z / N;
        tail += (fabs(z) > 1.959964) / (double)N;
        float u = fv_uniform_f32(w.v[2]);
        sum += (double)u / N;
        uint64_t k = fv_uniform_below(&w, 10);
        in_range &= u >= 0.0f && u < 1.0f && k < 10;
        buckets[k % 10]++;
    }
    ck_assert(in_range);
    /* five standard errors each */
    ck_assert_double_lt(fabs(mean), 5 / sqrt(N));
    ck_assert_double_lt(fabs(square - 1), 5 * sqrt(2.0 / N));
    ck_assert_double_lt(fabs(tail - 0.05), 5 * sqrt(0.05 * 0.95 / N));
    ck_assert_double_lt(fabs(sum - 0.5), 5 * sqrt(1.0 / 12 / N));
    for (int k = 0; k < 10; k++) ck_assert_double_lt(fabs((double)buckets[k] - N / 10.0), 5 * sqrt(N * 0.09));
    ck_assert(isfinite(fv_normal(0, 0)) && isfinite(fv_normal(UINT32_MAX, UINT32_MAX)));
    ck_assert(fv_uniform_f64(0) > 0 && fv_uniform_f64(UINT32_MAX) < 1);
    fv_philox ones = {{UINT32_MAX, UINT32_MAX, 0, 0}};
    ck_assert_uint_eq(fv_uniform_below(&ones, 1), 0);
    ck_assert_uint_eq(fv_uniform_below(&ones, UINT64_MAX), UINT64_MAX - 1);
}
END_TEST

/* Names are streams, and streams are part of the file format: these values may never change. */
START_TEST(test_hash_is_frozen) {
    ck_assert_uint_eq(fv_hash_name(""), 0xab3e7c0b);
    ck_assert_uint_eq(fv_hash_name("conv1.weight"), 0xf454cb0b);
    ck_assert_uint_ne(fv_hash_name("layer1.0"), fv_hash_name("layer0.1"));
}
END_TEST

START_TEST(test_permutation) {
    enum { N = 5000 };
    int64_t *a = malloc(N * sizeof *a), *b = malloc(N * sizeof *b);
    char *seen = calloc(N, 1);
    ck_assert(a && b && seen);
    fv_permutation(3, 1, 5, N, a);
    fv_permutation(3, 1, 5, N, b);
    ck_assert_mem_eq(a, b, N * sizeof *a);
    int64_t fixed = 0, distinct = 0;
    for (int64_t i = 0; i < N; i++) {
        if (a[i] < 0 || a[i] >= N || seen[a[i]]) continue;
        seen[a[i]] = 1;
        distinct++;
        fixed += a[i] == i;
    }
    ck_assert_int_eq(distinct, N);
    ck_assert_int_lt(fixed, 10); /* one is expected */
    fv_permutation(3, 2, 5, N, b);
    ck_assert_mem_ne(a, b, N * sizeof *a);
    fv_permutation(3, 1, 6, N, b);
    ck_assert_mem_ne(a, b, N * sizeof *a);
    fv_permutation(3, 1, 6, 0, b);
    fv_permutation(3, 1, 6, 1, b);
    ck_assert_int_eq(b[0], 0);
    free(a);
    free(b);
    free(seen);
}
END_TEST

/* All 24 orders of 4 elements come equally often (chi-square, 23 degrees of freedom, p = 1e-6). */
START_TEST(test_permutation_is_uniform) {
    enum { N = 48000 };
    int64_t counts[256] = {0}, p[4];
    double chi = 0;
    int orders = 0;
    for (uint64_t epoch = 0; epoch < N; epoch++) {
        fv_permutation(1, epoch, 0, 4, p);
        counts[p[0] | p[1] << 2 | p[2] << 4 | p[3] << 6]++;
    }
    for (int i = 0; i < 256; i++) {
        if (!counts[i]) continue;
        orders++;
        chi += pow((double)counts[i] - N / 24.0, 2) / (N / 24.0);
    }
    ck_assert_int_eq(orders, 24);
    ck_assert_double_lt(chi, 70);
}
END_TEST

/* ---------------------------------------------------------------- threads */

typedef struct tile_counts {
    atomic_int runs[64];
    int64_t plain[64]; /* not atomic: each is written by one tile, and read after the run */
    int threads;
    atomic_bool bad_thread;
} tile_counts;

static void count_tile(void *arg, int64_t tile, int thread) {
    tile_counts *c = arg;
    if (thread < 0 || thread >= c->threads) atomic_store(&c->bad_thread, true);
    atomic_fetch_add(&c->runs[tile], 1);
    c->plain[tile] += tile;
}

START_TEST(test_pool_runs_each_tile_once) {
    fv_ctx ctx;
    fv_pool *pool;
    fv_ctx_init(&ctx);
    ck_assert_int_eq(fv_pool_create(&ctx, _i, &pool), FV_OK);
    ck_assert_int_eq(fv_pool_threads(pool), _i);
    tile_counts *c = calloc(1, sizeof *c);
    ck_assert_ptr_nonnull(c);
    c->threads = _i;
    int64_t expected[64] = {0}, wrong = 0;
    for (int run = 0; run < 2000; run++) {
        int64_t tiles = run * 7 % 65;
        fv_pool_run(pool, tiles, count_tile, c);
        for (int64_t t = 0; t < tiles; t++) expected[t]++;
        for (int t = 0; t < 64; t++) wrong += c->runs[t] != expected[t] || c->plain[t] != t * expected[t];
        if (run % 500 == 499) nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL); /* workers fall asleep */
    }
    ck_assert_int_eq(wrong, 0);
    ck_assert(!c->bad_thread);
    free(c);
    fv_pool_destroy(pool);
}
END_TEST

typedef struct tile_order {
    atomic_int started, done;
    int first[4]; /* tile of each thread; 0: none yet, else one more */
} tile_order;

enum { ORDER_TILES = 30 };

static void meet(void *arg, int64_t tile, int thread) {
    tile_order *o = arg;
    if (o->first[thread]) return;
    o->first[thread] = (int)tile + 1;
    atomic_fetch_add(&o->started, 1);
    while (atomic_load(&o->started) < 4) nanosleep(&(struct timespec){.tv_nsec = 1000}, NULL);
}

static void wait_for_others(void *arg, int64_t tile, int thread) {
    tile_order *o = arg;
    (void)thread;
    while (tile == 0 && atomic_load(&o->done) < ORDER_TILES - 1) nanosleep(&(struct timespec){.tv_nsec = 1000}, NULL);
    atomic_fetch_add(&o->done, 1);
}

/* A thread begins with its own run of neighbouring tiles; what one that is held up does not get to, the others do. */
START_TEST(test_pool_shares_runs_of_tiles) {
    fv_ctx ctx;
    fv_pool *pool;
    fv_ctx_init(&ctx);
    ck_assert_int_eq(fv_pool_create(&ctx, 4, &pool), FV_OK);
    for (int run = 0; run < 20; run++) {
        tile_order o = {0};
        fv_pool_run(pool, ORDER_TILES, meet, &o);
        for (int t = 0; t < 4; t++) ck_assert_int_eq(o.first[t], ORDER_TILES * t / 4 + 1);
        fv_pool_run(pool, ORDER_TILES, wait_for_others, &o);
        ck_assert_int_eq(o.done, ORDER_TILES);
    }
    fv_pool_destroy(pool);
}
END_TEST

START_TEST(test_pool_edge_cases) {
    fv_ctx ctx;
    fv_pool *pool;
    tile_counts c = {.threads = 1};
    fv_ctx_init(&ctx);
    ck_assert_int_eq(fv_pool_threads(NULL), 1);
    fv_pool_run(NULL, 10, count_tile, &c);
    fv_pool_run(NULL, 0, count_tile, &c);
    for (int t = 0; t < 64; t++) ck_assert_int_eq(c.runs[t], t < 10);
    ck_assert_int_eq(fv_pool_create(&ctx, -1, &pool), FV_E_USAGE);
    ck_assert_int_eq(fv_pool_create(&ctx, FV_MAX_THREADS + 1, &pool), FV_E_USAGE);
    ck_assert_ptr_null(pool);
    fv_pool_destroy(NULL);
    ck_assert_int_ge(fv_cpu_count(), 1);
    ck_assert_int_eq(fv_pool_create(&ctx, 0, &pool), FV_OK);
    ck_assert_int_ge(fv_pool_threads(pool), 1);
    fv_pool_destroy(pool);

    fvt_memory memory;
    fvt_memory_install(&memory, &ctx);
    for (int64_t n = 1; n <= 2; n++) {
        memory.calls = 0;
        memory.fail_at = n;
        ck_assert_int_eq(fv_pool_create(&ctx, 3, &pool), FV_E_MEMORY);
        ck_assert_int_eq(memory.live, 0);
    }
    memory.calls = memory.fail_at = 0;
    for (int i = 0; i < 50; i++) { /* made and destroyed without having run */
        ck_assert_int_eq(fv_pool_create(&ctx, 4, &pool), FV_OK);
        fv_pool_destroy(pool);
    }
    ck_assert_int_eq(memory.live, 0);
}
END_TEST

/* ---------------------------------------------------------------- types */

START_TEST(test_types) {
    char text[64], tiny[8];
    size_t bytes = 0;
    fv_type t = fv_shape(FV_F32, 128, 32, 32, 16);
    ck_assert_int_eq(fv_count(t), 2097152);
    ck_assert_uint_eq(fv_bytes(t), 8388608);
    ck_assert(fv_type_check(t, &bytes) && bytes == 8388608);
    ck_assert_str_eq(fv_type_text(t, text, sizeof text), "f32 [128,32,32,16]");
    ck_assert_str_eq(fv_type_text(t, tiny, sizeof tiny), "f32 [12");
    ck_assert_str_eq(fv_type_text(fv_scalar(FV_I64), text, sizeof text), "i64 []");
    ck_assert_int_eq(fv_count(fv_scalar(FV_F64)), 1);
    ck_assert(fv_type_check(fv_shape(FV_U8, 0, 5), &bytes) && bytes == 0);
    ck_assert(fv_same_shape(t, fv_shape(FV_F64, 128, 32, 32, 16)) && !fv_same_shape(t, fv_shape(FV_F32, 128, 32, 32)));
    ck_assert(!fv_same_type(t, fv_shape(FV_F64, 128, 32, 32, 16)) && fv_same_type(t, t));
    for (int d = 0; d < FV_DTYPE_COUNT; d++) ck_assert(fv_dtype_size((fv_dtype)d) > 0);
    ck_assert_str_eq(fv_dtype_name(FV_BF16), "bf16");
}
END_TEST

START_TEST(test_bad_types_are_refused) {
    const int64_t big = (int64_t)1 << 40;
    fv_type rank = fv_scalar(FV_F32), dtype = fv_scalar((fv_dtype)99);
    rank.rank = FV_MAX_RANK + 1;
    ck_assert(!fv_type_check(rank, NULL));
    rank.rank = -1;
    ck_assert(!fv_type_check(rank, NULL) && !fv_type_check(dtype, NULL));
    ck_assert(!fv_type_check(fv_shape(FV_F32, 3, -1), NULL));
    ck_assert(!fv_type_check(fv_shape(FV_F32, INT64_MAX, 2), NULL));
    ck_assert(!fv_type_check(fv_shape(FV_U8, big, big), NULL));
    ck_assert(!fv_type_check(fv_shape(FV_U8, big, big, 0), NULL));
    ck_assert(!fv_type_check(fv_shape(FV_F32, INT64_MAX / 4 + 1), NULL));
    ck_assert(fv_type_check(fv_shape(FV_F32, INT64_MAX / 4), NULL));
}
END_TEST

Suite *core_suite(void) {
    Suite *s = suite_create("core");
    TCase *c = tcase_create("core");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, test_errors_are_recorded);
    tcase_add_test(c, test_long_messages_are_cut);
    tcase_add_test(c, test_status_texts);
    tcase_add_test(c, test_log_goes_to_the_callback);
    tcase_add_test(c, test_checked_arithmetic);
    tcase_add_test(c, test_alloc);
    tcase_add_test(c, test_blocks_are_zeroed_and_aligned);
    tcase_add_test(c, test_arena);
    tcase_add_test(c, test_arena_survives_failure);
    tcase_add_test(c, test_philox_known_answers);
    tcase_add_test(c, test_random_counter_words);
    tcase_add_test(c, test_distributions);
    tcase_add_test(c, test_hash_is_frozen);
    tcase_add_test(c, test_permutation);
    tcase_add_test(c, test_permutation_is_uniform);
    tcase_add_loop_test(c, test_pool_runs_each_tile_once, 1, 9);
    tcase_add_test(c, test_pool_shares_runs_of_tiles);
    tcase_add_test(c, test_pool_edge_cases);
    tcase_add_test(c, test_types);
    tcase_add_test(c, test_bad_types_are_refused);
    suite_add_tcase(s, c);
    return s;
}
