/* test_find.c: where NVIDIA's libraries are looked for, and in which order (cuda/find.h). No GPU is needed, nor CUDA:
 * what is found is the mathematics library under another name. */
#include "cuda/find.h"
#include "tests/harness.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_NAME "libfovea-sought.so.9"

static char folder[64], libm[256], old_path[8192];

static void setup(void) {
    const char *path = getenv("PATH");
    Dl_info info;
    snprintf(old_path, sizeof old_path, "%s", path ? path : "");
    strcpy(folder, "/tmp/fovea-find-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    void *library = dlopen("libm.so.6", RTLD_NOW);
    ck_assert_ptr_nonnull(library);
    ck_assert(dladdr(dlsym(library, "cos"), &info) != 0);
    snprintf(libm, sizeof libm, "%s", info.dli_fname);
    unsetenv("FOVEA_CUDA_LIBRARIES");
    unsetenv("VIRTUAL_ENV");
    unsetenv("CONDA_PREFIX");
}

static void teardown(void) {
    char command[128];
    setenv("PATH", old_path, 1);
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    ck_assert_int_eq(system(command), 0);
}

/* The library in a folder below ours, made with all that lead to it. */
static void put(const char *below) {
    char command[1024];
    snprintf(command, sizeof command, "mkdir -p '%s/%s' && ln -s '%s' '%s/%s/" FILE_NAME "'", folder, below, libm,
             folder, below);
    ck_assert_int_eq(system(command), 0);
}

/* A variable becomes folders below ours, separated by colons. */
static void let(const char *variable, const char *first, const char *second) {
    char value[1024];
    snprintf(value, sizeof value, "%s/%s%s%s%s%s", folder, first, second ? ":" : "", second ? folder : "",
             second ? "/" : "", second ? second : "");
    setenv(variable, value, 1);
}

/* What was tried, in order; the last of `wanted` fits. */
typedef struct tried {
    char path[4][256];
    int n, wanted;
} tried;

static bool take(void *arg, void *library, const char *path) {
    tried *t = arg;
    ck_assert_ptr_nonnull(library);
    if (t->n < 4) snprintf(t->path[t->n], sizeof t->path[0], "%s", path);
    return ++t->n >= t->wanted;
}

static bool is_below(const char *path, const char *below) {
    const size_t n = strlen(folder);
    return !strncmp(path, folder, n) && path[n] == '/' && !strncmp(path + n + 1, below, strlen(below));
}

static void expect_first(const char *below) {
    tried t = {.wanted = 1};
    void *library = fv_cuda_find_library(FILE_NAME, take, &t);
    ck_assert_msg(library != NULL, "nothing is found, not %s", below);
    ck_assert_msg(is_below(t.path[0], below), "%s is found first, not %s", t.path[0], below);
    dlclose(library);
}

START_TEST(test_nothing_to_be_found) {
    ck_assert_ptr_null(fv_cuda_find_library(FILE_NAME, NULL, NULL));
    let("FOVEA_CUDA_LIBRARIES", "is", "not");
    let("VIRTUAL_ENV", "neither", NULL);
    setenv("PATH", "::/bin:relative:/nowhere/bin", 1);
    ck_assert_ptr_null(fv_cuda_find_library(FILE_NAME, NULL, NULL));
    setenv("PATH", old_path, 1);
}
END_TEST

START_TEST(test_folders_in_order) {
    put("second");
    put("environment/lib/python3.12/site-packages/nvidia/cudnn/lib");
    let("VIRTUAL_ENV", "environment", NULL);
    expect_first("environment/lib/python3.12/site-packages/nvidia/cudnn/lib");
    let("FOVEA_CUDA_LIBRARIES", "first", "second");
    expect_first("second");
    put("first");
    expect_first("first");
}
END_TEST

/* Without VIRTUAL_ENV: whose python3 is on the path has the packages. */
START_TEST(test_python_on_the_path) {
    char path[256];
    put("torch/lib/python3.12/site-packages/nvidia/cu13/lib");
    put("torch/bin");
    let("PATH", "empty/bin", "torch/bin");
    ck_assert_ptr_null(fv_cuda_find_library(FILE_NAME, NULL, NULL)); /* there is no python3 in it yet */
    snprintf(path, sizeof path, "%s/torch/bin/python3", folder);
    ck_assert_int_eq(symlink("/proc/self/exe", path), 0);
    expect_first("torch/lib/python3.12/site-packages/nvidia/cu13/lib");
    setenv("PATH", old_path, 1);
}
END_TEST

START_TEST(test_what_does_not_fit_is_passed_over) {
    tried t = {.wanted = 2};
    put("first");
    put("second");
    let("FOVEA_CUDA_LIBRARIES", "first", "second");
    ck_assert_ptr_nonnull(fv_cuda_find_library(FILE_NAME, take, &t));
    ck_assert_int_eq(t.n, 2);
    ck_assert(is_below(t.path[0], "first") && is_below(t.path[1], "second"));
    t = (tried){.wanted = 3};
    ck_assert_ptr_null(fv_cuda_find_library(FILE_NAME, take, &t));
    ck_assert_int_eq(t.n, 2);
}
END_TEST

START_TEST(test_none_is_none) {
    put("environment/lib/python3.12/site-packages/nvidia/cudnn/lib");
    let("VIRTUAL_ENV", "environment", NULL);
    ck_assert(fv_cuda_libraries_wanted());
    setenv("FOVEA_CUDA_LIBRARIES", "none", 1);
    ck_assert(!fv_cuda_libraries_wanted());
    ck_assert_ptr_null(fv_cuda_find_library(FILE_NAME, NULL, NULL));
    ck_assert_ptr_null(fv_cuda_find_library("libm.so.6", NULL, NULL));
    setenv("FOVEA_CUDA_LIBRARIES", "", 1);
    ck_assert(fv_cuda_libraries_wanted());
    expect_first("environment");
}
END_TEST

Suite *find_suite(void);
Suite *find_suite(void) {
    Suite *s = suite_create("find");
    TCase *t = tcase_create("find");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, test_nothing_to_be_found);
    tcase_add_test(t, test_folders_in_order);
    tcase_add_test(t, test_python_on_the_path);
    tcase_add_test(t, test_what_does_not_fit_is_passed_over);
    tcase_add_test(t, test_none_is_none);
    suite_add_tcase(s, t);
    return s;
}
