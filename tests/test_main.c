/* test_main.c: runs the Check suites of suites.def: all, or those named on the command line.
 * Check reads CK_FORK ("no": all tests in this process), CK_VERBOSITY and CK_TIMEOUT_MULTIPLIER from the environment.
 */
#include <check.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUITE(name) Suite *name##_suite(void);
#include "tests/suites.def"
#undef SUITE

typedef struct suite_entry {
    const char *name;
    Suite *(*make)(void);
} suite_entry;

static const suite_entry suites[] = {
#define SUITE(name) {#name, name##_suite},
#include "tests/suites.def"
#undef SUITE
};
#define N_SUITES (sizeof suites / sizeof *suites)

static bool is_known(const char *name) {
    for (size_t i = 0; i < N_SUITES; i++)
        if (!strcmp(suites[i].name, name)) return true;
    return false;
}

static bool is_chosen(const char *name, int argc, char **argv) {
    for (int a = 1; a < argc; a++)
        if (!strcmp(argv[a], name)) return true;
    return argc == 1;
}

int main(int argc, char **argv) {
    for (int a = 1; a < argc; a++) {
        if (is_known(argv[a])) continue;
        fprintf(stderr, "usage: %s [suite...]; there is no suite '%s', but:", argv[0], argv[a]);
        for (size_t i = 0; i < N_SUITES; i++) fprintf(stderr, " %s", suites[i].name);
        fputc('\n', stderr);
        return 2;
    }
    SRunner *runner = srunner_create(NULL);
    for (size_t i = 0; i < N_SUITES; i++)
        if (is_chosen(suites[i].name, argc, argv)) srunner_add_suite(runner, suites[i].make());
    srunner_run_all(runner, CK_ENV);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
