/* op_table.h: one row per case of an operation. From the row alone come, in test_ops.c: the gradient check in float64,
 * the comparison of every backend with the reference, and the bit-for-bit comparison across threads.
 *
 *   row = op + attribute + operands (shape, and how its numbers are drawn)
 *
 * To add an operation, add at least one row for it; a test fails when one has none. */
#ifndef FV_TESTS_OP_TABLE_H
#define FV_TESTS_OP_TABLE_H

#include "core/core.h"

typedef enum op_fill {
    FILL_END,      /* no operand: the list ends here */
    FILL_ABSENT,   /* the null value */
    FILL_NORMAL,   /* standard normal */
    FILL_POSITIVE, /* [0.5, 1.5) */
    FILL_UNIT,     /* [0, 1): targets */
    FILL_AWAY,     /* normal with deviation 3, at least 0.02 from the kinks of activations: -3, 0, 1, 3, 6 */
    FILL_DISTINCT, /* a permutation of multiples of 0.02: no ties, none made by small steps */
    FILL_ROWS,     /* rows that sum to 1 */
    FILL_LABEL,    /* i32 below `limit` */
    FILL_KEY,      /* i64, any */
    FILL_BYTE,     /* u8 below `limit` */
    FILL_PLACE,    /* u8: a place in the window of the row's pool_bwd attribute that lies in the picture */
    FILL_WEIGHT,   /* row weights: 1, 0.5, 0 and so on */
    FILL_RECORD,   /* augmentation records within +-`limit` */
    FILL_STATS,    /* norm 5, all finite */
    FILL_INFINITE, /* norm, not finite: an update must do nothing */
    FILL_ATTEND,   /* operands 1 and 2 of attention_bwd: what attention gives for operands 3 and on */
} op_fill;

typedef struct op_operand {
    op_fill fill;
    fv_type type;
    int limit;
    bool state;    /* a buffer, for operations that change it in place */
    bool constant; /* no gradient is asked for */
} op_operand;

#define OP_ROW_OPERANDS 12

typedef struct op_row {
    fv_op op;
    const char *note;
    fv_attr attr;
    op_operand in[OP_ROW_OPERANDS];
} op_row;

extern const op_row op_rows[];
extern const int op_row_count;

int op_row_operands(const op_row *row);
/* Numbers for operand k, exact in float32. FILL_ATTEND is left alone: it needs a run (test_ops.c). */
void op_row_fill(const op_row *row, int k, uint64_t seed, double *values);

#endif
