/* test_tune.c: the choice among candidates, and the file that keeps it (cuda/tune.h). No GPU is needed. */
#include "cuda/tune.h"
#include "tests/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static fv_ctx ctx;
static char folder[64], path[96];
static int warnings;

static void count_warnings(void *user, fv_log_level level, const char *line) {
    (void)user, (void)line;
    warnings += level == FV_LOG_WARN;
}

static void setup(void) {
    fv_ctx_init(&ctx);
    ctx.log = count_warnings;
    warnings = 0;
    strcpy(folder, "/tmp/fovea-tune-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/autotune.txt", folder);
}

static void teardown(void) {
    unlink(path);
    rmdir(folder);
}

typedef struct times {
    const double *seconds;
    int asked;
} times;

static double look_up(void *arg, int i) {
    times *t = arg;
    t->asked++;
    return t->seconds[i];
}

static int choose(fv_tuner *t, const char *problem, int n, const double *seconds) {
    static const uint64_t names[] = {11, UINT64_MAX, 33, 44};
    times all = {seconds, 0};
    const int chosen = fv_tuner_choose(t, problem, n, names, look_up, &all);
    ck_assert_int_eq(all.asked, n);
    return chosen;
}

static fv_tuner *open_tuner(const char *machine) {
    fv_tuner *t;
    ck_assert_int_eq(fv_tuner_open(&ctx, path, machine, &t), FV_OK);
    return t;
}

static void add(const char *text) {
    FILE *f = fopen(path, "ae");
    ck_assert_ptr_nonnull(f);
    fputs(text, f);
    ck_assert_int_eq(fclose(f), 0);
}

START_TEST(the_fastest_is_chosen) {
    fv_tuner *t = open_tuner("card");
    ck_assert_int_eq(choose(t, "a", 4, (double[]){5e-6, 3e-6, 4e-6, 3.5e-6}), 1);
    ck_assert_int_eq(choose(t, "b", 4, (double[]){5e-6, 4.95e-6, 4.93e-6, 6e-6}), 0); /* no more than noise */
    ck_assert_int_eq(choose(t, "c", 4, (double[]){-1, 9e-6, -1, 2e-6}), 3);           /* those that run */
    ck_assert_int_eq(choose(t, "d", 2, (double[]){-1, -1}), -1);
    uint64_t name = 0;
    ck_assert(fv_tuner_kept(t, "a", &name) && name == UINT64_MAX);
    ck_assert(fv_tuner_kept(t, "c", &name) && name == 44);
    ck_assert(!fv_tuner_kept(t, "d", &name));
    ck_assert(!fv_tuner_kept(t, "never seen", &name));
    fv_tuner_close(t);
}
END_TEST

START_TEST(it_is_kept_for_the_machine) {
    char problem[32];
    uint64_t name = 0;
    fv_tuner *t = open_tuner("card, version 1"), *other = open_tuner("card, version 2");
    for (int i = 0; i < 100; i++) {
        const double seconds[3] = {2e-6 + i % 3, 2e-6 + (i + 1) % 3, 2e-6 + (i + 2) % 3};
        snprintf(problem, sizeof problem, "problem %d", i);
        (void)choose(i % 2 ? other : t, problem, 3, seconds); /* both write to the file, in turn */
    }
    fv_tuner_close(t);
    fv_tuner_close(other);
    t = open_tuner("card, version 1");
    for (int i = 0; i < 100; i++) {
        static const uint64_t fastest[] = {11, 33, UINT64_MAX};
        snprintf(problem, sizeof problem, "problem %d", i);
        ck_assert_msg(fv_tuner_kept(t, problem, &name) == (i % 2 == 0), "%s", problem);
        if (i % 2 == 0) ck_assert_uint_eq(name, fastest[i % 3]);
    }
    fv_tuner_close(t);
}
END_TEST

START_TEST(the_last_line_counts_and_bad_ones_do_not) {
    uint64_t name = 0;
    add("card\ta\t11\t3.00\n"
        "card\ta\t33\t2.00\n"
        "card\tb\tseven\t1.00\n"
        "card\tc\n"
        "\n"
        "card\t\t5\t1.00\n"
        "other\td\t44\t1.00\n"
        "card\te\t55\t1"); /* cut off */
    fv_tuner *t = open_tuner("card");
    ck_assert(fv_tuner_kept(t, "a", &name) && name == 33);
    for (const char *p = "bcde"; *p; p++) ck_assert(!fv_tuner_kept(t, (char[]){*p, 0}, &name));
    ck_assert(!fv_tuner_kept(t, "", &name));
    fv_tuner_close(t);
    ck_assert_int_eq(warnings, 0);
}
END_TEST

/* A folder in the place of the file: nothing is kept, one warning, and the choice stands. */
START_TEST(a_file_that_cannot_be_written) {
    uint64_t name = 0;
    ck_assert_int_eq(mkdir(path, 0700), 0);
    fv_tuner *t = open_tuner("card");
    ck_assert_int_eq(choose(t, "a", 2, (double[]){2e-6, 1e-6}), 1);
    ck_assert_int_eq(choose(t, "b", 2, (double[]){1e-6, 2e-6}), 0);
    ck_assert(fv_tuner_kept(t, "a", &name) && name == UINT64_MAX);
    ck_assert_int_eq(warnings, 1);
    fv_tuner_close(t);
    rmdir(path);
}
END_TEST

Suite *tune_suite(void);
Suite *tune_suite(void) {
    Suite *suite = suite_create("tune");
    TCase *tune = tcase_create("tune");
    tcase_add_checked_fixture(tune, setup, teardown);
    tcase_add_test(tune, the_fastest_is_chosen);
    tcase_add_test(tune, it_is_kept_for_the_machine);
    tcase_add_test(tune, the_last_line_counts_and_bad_ones_do_not);
    tcase_add_test(tune, a_file_that_cannot_be_written);
    suite_add_tcase(suite, tune);
    return suite;
}
