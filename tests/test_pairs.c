/* test_pairs.c: products of bf16 in pairs (core/cpu/kernels/gemm.h), on avx512_bf16 where there is one, and on `wide`,
 * which has another instruction in the place of one: shapes at the edges of panels, blocks, units and parts, which
 * nodes are multiplied so, and on which processors. */
#include "core/cpu/cpu.h"
#include "tests/op_case.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define CONV(...) \
    { \
        .conv2d = { __VA_ARGS__ } \
    }
#define BWD(conv, ...) \
    { \
        .conv2d_bwd = { conv, {__VA_ARGS__} } \
    }
#define PLAIN \
    { .groups = 1 }
#define STRIDED \
    { \
        .stride = { 2, 2 } \
    }

/* How: by kernels of floats; of pairs, whose results are floats; of pairs, rounding them. */
typedef enum how { FLOATS, PAIRS, ROUNDED } how;
typedef struct pair_row {
    op_row row;
    how how;
} pair_row;

static const pair_row rows[] = {
    {{FV_OP_LINEAR, "panels", {0}, {OP_NORMAL(300, 70), OP_NORMAL(90, 70), OP_NORMAL(90)}}, ROUNDED},
    {{FV_OP_LINEAR, "blocks of the depth", {0}, {OP_NORMAL(300, 1700), OP_NORMAL(33, 1700)}}, PAIRS},
    {{FV_OP_LINEAR, "blocks of the depth, two pieces", {0}, {OP_NORMAL(9000, 1700), OP_NORMAL(120, 1700)}}, PAIRS},
    {{FV_OP_LINEAR, "many rows", {0}, {OP_NORMAL(5000, 8), OP_NORMAL(70, 8)}}, ROUNDED},
    {{FV_OP_LINEAR, "odd depth", {0}, {OP_NORMAL(300, 71), OP_NORMAL(90, 71)}}, FLOATS},
    {{FV_OP_LINEAR, "few rows", {0}, {OP_NORMAL(2, 512), OP_NORMAL(64, 512)}}, FLOATS},
    {{FV_OP_LINEAR_BWD_DATA, "panels", {0}, {OP_NORMAL(300, 70), OP_NORMAL(70, 45)}}, ROUNDED},
    {{FV_OP_LINEAR_BWD_DATA, "blocks of the depth", {0}, {OP_NORMAL(30, 1700), OP_NORMAL(1700, 33)}}, PAIRS},
    {{FV_OP_LINEAR_BWD_DATA, "odd depth", {0}, {OP_NORMAL(300, 71), OP_NORMAL(71, 45)}}, FLOATS},
    {{FV_OP_LINEAR_BWD_WEIGHT, "odd rows", {0}, {OP_NORMAL(301, 70), OP_NORMAL(301, 45)}}, PAIRS},
    {{FV_OP_LINEAR_BWD_WEIGHT, "one row", {0}, {OP_NORMAL(1, 70), OP_NORMAL(1, 45)}}, PAIRS},
    {{FV_OP_LINEAR_BWD_WEIGHT, "parts and units, turned", {0}, {OP_NORMAL(2001, 50), OP_NORMAL(2001, 13)}}, PAIRS},
    {{FV_OP_CONV2D,
      "strided",
      CONV(.stride = {2, 2}, .pad = {1, 1, 1, 1}),
      {OP_NORMAL(2, 9, 9, 6), OP_NORMAL(10, 3, 3, 6)}},
     ROUNDED},
    {{FV_OP_CONV2D, "groups", CONV(.pad = {1, 1, 1, 1}, .groups = 2), {OP_NORMAL(2, 18, 8, 8), OP_NORMAL(6, 3, 3, 4)}},
     ROUNDED},
    {{FV_OP_CONV2D, "odd groups", CONV(.groups = 2), {OP_NORMAL(2, 18, 8, 6), OP_NORMAL(6, 3, 3, 3)}}, FLOATS},
    {{FV_OP_CONV2D, "one channel each", CONV(.groups = 6), {OP_NORMAL(2, 18, 8, 6), OP_NORMAL(6, 3, 3, 1)}}, FLOATS},
    {{FV_OP_CONV2D, "Winograd", CONV(.pad = {1, 1, 1, 1}), {OP_NORMAL(4, 16, 16, 32), OP_NORMAL(32, 3, 3, 32)}},
     FLOATS},
    {{FV_OP_CONV2D_BWD_DATA, "strided", BWD(STRIDED, 2, 9, 9, 7), {OP_NORMAL(2, 4, 4, 10), OP_NORMAL(10, 3, 3, 7)}},
     ROUNDED},
    {{FV_OP_CONV2D_BWD_DATA, "odd depth", BWD(STRIDED, 2, 9, 9, 7), {OP_NORMAL(2, 4, 4, 9), OP_NORMAL(9, 3, 3, 7)}},
     FLOATS},
    {{FV_OP_CONV2D_BWD_WEIGHT,
      "1x1, strided",
      BWD(STRIDED, 9, 1, 1, 7),
      {OP_NORMAL(3, 5, 5, 9), OP_NORMAL(3, 9, 9, 7)}},
     PAIRS},
    {{FV_OP_CONV2D_BWD_WEIGHT, "3x3", BWD(PLAIN, 9, 3, 3, 7), {OP_NORMAL(3, 7, 7, 9), OP_NORMAL(3, 9, 9, 7)}}, FLOATS},
};
enum { ROWS = sizeof rows / sizeof *rows };
static const char *const isas[] = {"wide", "avx512_bf16"};
enum { ISAS = sizeof isas / sizeof *isas };

/* Against ref in float64 on the same numbers: as exact as in float32, and rounded once. */
START_TEST(as_exact_as_floats) {
    op_case c, low;
    op_row row;
    op_results want, got;
    fvt_device d;
    op_case_make(&rows[_i / ISAS].row, &c);
    if (fvt_open(&d, "cpu", 3, isas[_i % ISAS])) {
        low = op_case_lower(&c, FV_BF16, &row);
        op_case_reference(&c, &want);
        op_case_run(&d, &low, false, &got);
        op_results_check(&c, &got, &want, false, isas[_i % ISAS]);
        op_results_free(&want);
        op_results_free(&got);
        fvt_close(&d);
    } else if (_i < ISAS) printf("SKIPPED: products of pairs on %s: not in this build, or this processor\n", isas[_i]);
    op_case_free(&c);
}
END_TEST

#if defined(__x86_64__)
typedef uint32_t matrix_pairs(const fv_device *dev, fv_op op, const fv_attr *attr, const fv_type *type, int n_in);
matrix_pairs fv_cpu_wide_matrix_pairs __attribute__((weak)), fv_cpu_avx2_matrix_pairs __attribute__((weak));

static uint32_t pairs_of(const char *isa, matrix_pairs *ask, const op_case *low) {
    fvt_device d;
    if (!ask || !fvt_open(&d, "cpu", 1, isa)) return UINT32_MAX;
    fv_graph *g = fv_graph_new(&d.ctx, true);
    fv_value in[OP_ROW_OPERANDS];
    const fv_value out = op_case_build(g, low, in);
    fv_type type[OP_ROW_OPERANDS + 1];
    for (int k = 0; k < low->n; k++) type[k] = fv_typeof(g, in[k]);
    type[low->n] = fv_typeof(g, out);
    const uint32_t pairs = ask(d.dev, low->row->op, &low->attr, type, low->n);
    fv_graph_free(g);
    fvt_close(&d);
    return pairs;
}

START_TEST(where_it_pays) {
    op_case c;
    op_row row;
    op_case_make(&rows[_i].row, &c);
    const op_case low = op_case_lower(&c, FV_BF16, &row);
    const uint32_t wide = pairs_of("wide", fv_cpu_wide_matrix_pairs, &low),
                   avx2 = pairs_of("avx2", fv_cpu_avx2_matrix_pairs, &low);
    const uint32_t want[] = {[FLOATS] = 0, [PAIRS] = 3, [ROUNDED] = 3 | 1u << low.n};
    ck_assert_msg(wide == UINT32_MAX || wide == want[rows[_i].how], "%s '%s': %x", fv_op_get(row.op)->name, row.note,
                  (unsigned)wide);
    ck_assert(avx2 == UINT32_MAX || avx2 == 0);
    op_case_free(&c);
}
END_TEST

/* Twelve independent sums, as many as a pipeline can hold, in registers that a build without AVX-512 can name. */
#define CHAINS(OP) ".irp k, 0,1,2,3,4,5,6,7,8,9,10,11\n\t" OP " %%zmm12, %%zmm13, %%zmm\\k\n\t.endr\n\t"
#define CLEAR ".irp k, 0,1,2,3,4,5,6,7,8,9,10,11,12,13\n\tvxorps %%xmm\\k, %%xmm\\k, %%xmm\\k\n\t.endr\n\t"
#define TIME(OP, LEAST) \
    do { \
        struct timespec from, to; \
        long n = 20000; \
        clock_gettime(CLOCK_MONOTONIC, &from); \
        __asm__ volatile(CLEAR "1:\n\t" CHAINS(OP) "dec %0\n\tjnz 1b\n\tvzeroupper" \
                         : "+r"(n) \
                         : \
                         : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", \
                           "xmm10", "xmm11", "xmm12", "xmm13"); \
        clock_gettime(CLOCK_MONOTONIC, &to); \
        const double s = (double)(to.tv_sec - from.tv_sec) + 1e-9 * (double)(to.tv_nsec - from.tv_nsec); \
        if (s < (LEAST)) (LEAST) = s; \
    } while (0)

/* An instruction for a pair does the work of two; there are processors where it takes as long as four. Which build is
 * taken follows from the processor's name, and this says whether that is right: the two are a factor of 4 apart. */
START_TEST(chosen_where_the_instruction_is_fast) {
    fvt_device d;
    if (!fvt_open(&d, "cpu", 1, "avx512_bf16")) {
        printf("SKIPPED: the speed of VDPBF16PS: not in this build, or this processor\n");
        return;
    }
    fvt_close(&d);
    double floats = 1, pairs = 1;
    for (int turn = 0; turn < 20; turn++) {
        TIME("vfmadd231ps", floats);
        TIME("vdpbf16ps", pairs);
    }
    ck_assert(fvt_open(&d, "cpu", 1, NULL));
    ck_assert_msg((strcmp(d.dev->kernels, "avx512_bf16") == 0) == (pairs < 2 * floats),
                  "%s is taken, and VDPBF16PS takes %.2f times as long as a multiply-add", d.dev->kernels,
                  pairs / floats);
    fvt_close(&d);
}
END_TEST
#endif

Suite *pairs_suite(void);
Suite *pairs_suite(void) {
    Suite *suite = suite_create("pairs");
    TCase *t = tcase_create("pairs");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, as_exact_as_floats, 0, ROWS * ISAS);
#if defined(__x86_64__)
    tcase_add_loop_test(t, where_it_pays, 0, ROWS);
    tcase_add_test(t, chosen_where_the_instruction_is_fast);
#endif
    suite_add_tcase(suite, t);
    return suite;
}
