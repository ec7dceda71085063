/* op_case.h: a row of op_table.h with numbers, as a graph of one node: operands "in<k>", results "out<r>". */
#ifndef FV_TESTS_OP_CASE_H
#define FV_TESTS_OP_CASE_H

#include "tests/harness.h"
#include "tests/op_table.h"

#define OP_SEED 20240229
#define OP_MAX_TENSORS 16

typedef struct op_case {
    const op_row *row;
    fv_attr attr;
    int n;
    double *in[OP_ROW_OPERANDS]; /* NULL: absent */
} op_case;

/* What the operation gave: its results, then the state that it changed. */
typedef struct op_results {
    int n;
    fv_type type[OP_MAX_TENSORS];
    double *data[OP_MAX_TENSORS];
} op_results;

/* An operand of a row that others write than op_table.c: normal numbers of the given shape. */
#define OP_NORMAL(...) \
    { \
        .fill = FILL_NORMAL, .type = { FV_F32, sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), {__VA_ARGS__} } \
    }

/* Draws numbers for the row: away from kinks, and consistent where operands belong together. */
void op_case_make(const op_row *row, op_case *c);
void op_case_free(op_case *c);
void op_results_free(op_results *r);
/* The most that one rounding of w to bf16 or f16 moves it; 0 for other types. */
double op_one_rounding(fv_dtype dtype, double w);
/* Whether the device runs some of its operations with cuDNN or cuBLASLt. */
bool op_uses_libraries(const fvt_device *d);
/* What those round to bf16 or f16 beside the result, at most, at element i of result t of a case in such a type
 * (docs/gpu.md): the gradient of a convolution's weights, the bias of a linear layer, a convolution before its bias is
 * added. */
double op_rounded_besides(const op_case *c, const op_results *want, int t, int64_t i);
/* Fails where got is not within 64 roundings of float32 of want and its mean size, and one of got's own type; with
 * `libraries` (op_uses_libraries) and what these round besides. c: the case that ran. */
void op_results_check(const op_case *c, const op_results *got, const op_results *want, bool libraries,
                      const char *where);
/* c with bf16 or f16 data beside float32 parameters: its row is *low. Both share the numbers, rounded to that type. */
op_case op_case_lower(op_case *c, fv_dtype dtype, op_row *low);

/* Add the node to a graph; fills operands, returns the first result. */
fv_value op_case_build(fv_graph *g, const op_case *c, fv_value *operands);
void op_case_compile(fvt_device *d, const op_case *c, bool f64, fvt_program *p);
/* Set all operands of a program. */
void op_case_set(fvt_program *p, const op_case *c);
/* Set, run, and read what a compiled program gives / do all of it on a device / on ref in float64. */
void op_case_run_on(fvt_program *p, const op_case *c, op_results *r);
void op_case_run(fvt_device *d, const op_case *c, bool f64, op_results *r);
void op_case_reference(const op_case *c, op_results *r);

#endif
