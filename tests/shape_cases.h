/* shape_cases.h: good and bad operands and attributes of every operation, for test_shapes.c. */
#ifndef FV_TESTS_SHAPE_CASES_H
#define FV_TESTS_SHAPE_CASES_H

#include "core/core.h"

/* Operands as "f32[2,3] i32[2] -" (- : absent). `want` is the types of the results joined by blanks, or "!" and a part
 * of the error message. */
typedef struct shape_case {
    fv_op op;
    const char *in;
    fv_attr attr;
    const char *want;
} shape_case;

#define CONV(...) \
    { \
        .conv2d = { __VA_ARGS__ } \
    }
#define CONV_BWD(...) \
    { \
        .conv2d_bwd = { __VA_ARGS__ } \
    }
#define BN(...) \
    { \
        .batch_norm = { __VA_ARGS__ } \
    }
#define NORM(...) \
    { \
        .norm = { __VA_ARGS__ } \
    }
#define ACT(...) \
    { \
        .activation = { __VA_ARGS__ } \
    }
#define POOL(...) \
    { \
        .pool = { __VA_ARGS__ } \
    }
#define POOL_BWD(...) \
    { \
        .pool_bwd = { __VA_ARGS__ } \
    }
#define RESIZE(...) \
    { \
        .resize = { __VA_ARGS__ } \
    }
#define REDUCE(...) \
    { \
        .reduce = { __VA_ARGS__ } \
    }
#define SHAPE(...) \
    { \
        .shape = { __VA_ARGS__ } \
    }
#define PERM(...) \
    { \
        .transpose = { {__VA_ARGS__} } \
    }
#define AXIS(a) \
    { \
        .concat = { a } \
    }
#define SLICE(...) \
    { \
        .slice = { __VA_ARGS__ } \
    }
#define PAD(...) \
    { \
        .pad_nd = { __VA_ARGS__ } \
    }
#define ATTENTION(...) \
    { \
        .attention = { __VA_ARGS__ } \
    }
#define NORMED(...) \
    { \
        .normed_conv2d = {.norm = {__VA_ARGS__} } \
    }
#define LOSS(...) \
    { \
        .loss = { __VA_ARGS__ } \
    }
#define UPDATE(...) \
    { \
        .update = { __VA_ARGS__ } \
    }
#define NO_ATTR \
    { 0 }

static const shape_case cases[] = {
    /* ---- conv2d */
    {FV_OP_CONV2D, "f32[2,8,8,4] f32[16,3,3,4] -", CONV(.pad = {1, 1, 1, 1}), "f32 [2,8,8,16]"},
    {FV_OP_CONV2D, "f64[2,8,8,4] f64[16,3,3,4] f64[16]", NO_ATTR, "f64 [2,6,6,16]"},
    {FV_OP_CONV2D, "f32[2,9,7,4] f32[6,3,2,2]", CONV(.stride = {2, 3}, .pad = {1, 0, 0, 2}, .groups = 2),
     "f32 [2,4,3,6]"},
    {FV_OP_CONV2D, "f32[1,9,9,4] f32[4,3,3,1]", CONV(.dilation = {4, 2}, .groups = 4), "f32 [1,1,5,4]"},
    {FV_OP_CONV2D, "f32[2,8,8,16] f32[16,3,3,32]", NO_ATTR, "!x has 16 channels, w expects 32"},
    {FV_OP_CONV2D, "f32[2,8,8,16] f32[16,3,3,32]", CONV(.groups = 2),
     "!x has 16 channels in 2 groups, w expects 32 per group"},
    {FV_OP_CONV2D, "f32[2,8,8,16] f32[16,3,3,4]", CONV(.groups = 3), "!x has 16 channels, not divisible by 3 groups"},
    {FV_OP_CONV2D, "f32[2,8,8,16] f32[15,3,3,8]", CONV(.groups = 2), "!w has 15 output channels, not divisible by 2"},
    {FV_OP_CONV2D, "f32[2,8,8,4] f32[16,3,3,4]", CONV(.stride = {1, -1}), "!stride -1 along the width"},
    {FV_OP_CONV2D, "f32[2,8,8,4] f32[16,3,3,4]", CONV(.dilation = {-2, 1}), "!dilation -2 along the height"},
    {FV_OP_CONV2D, "f32[2,8,8,4] f32[16,3,3,4]", CONV(.pad = {0, 0, -1, 0}), "!padding -1 is negative"},
    {FV_OP_CONV2D, "f32[2,8,8,4] f32[16,3,3,4]", CONV(.groups = -1), "!-1 groups"},
    {FV_OP_CONV2D, "f32[2,2,8,4] f32[16,3,3,4]", NO_ATTR, "!larger than the padded input"},
    {FV_OP_CONV2D, "f32[2,8,8,4] f32[16,3,3,4]", CONV(.dilation = {2147483647, 1}), "!larger than the padded input"},
    {FV_OP_CONV2D, "f32[2,8,8,4] f32[16,3,3,4] f32[15]", NO_ATTR, "!bias has 15 elements, expected 16"},
    {FV_OP_CONV2D, "f32[2,8,4] f32[16,3,3,4]", NO_ATTR, "!x must have rank 4, it is f32 [2,8,4]"},
    {FV_OP_CONV2D, "f32[2,8,8,4] f64[16,3,3,4]", NO_ATTR, "!w is f64 [16,3,3,4], but other operands are f32"},
    {FV_OP_CONV2D, "u8[2,8,8,4] f32[16,3,3,4]", NO_ATTR, "!x must hold floats"},
    {FV_OP_CONV2D, "f32[0,8,8,4] f32[16,3,3,4]", NO_ATTR, "!x is empty"},
    {FV_OP_CONV2D, "f32[2000000000,1,1,1] f32[2000000000,1,1,1]", NO_ATTR, "!too large"},
    {FV_OP_CONV2D, "f32[2,8,8,4]", NO_ATTR, "!operands"},
    {FV_OP_CONV2D_BWD_DATA, "f32[2,4,4,16] f32[16,3,3,4]",
     CONV_BWD({.stride = {2, 2}, .pad = {1, 1, 1, 1}}, {2, 8, 8, 4}), "f32 [2,8,8,4]"},
    {FV_OP_CONV2D_BWD_DATA, "f32[2,4,4,16] f32[16,3,3,4]", CONV_BWD({.groups = 1}, {2, 8, 8, 4}),
     "!dy is f32 [2,4,4,16], expected f32 [2,6,6,16]"},
    {FV_OP_CONV2D_BWD_DATA, "f32[2,4,4,16] f32[16,3,3,4]", CONV_BWD({.groups = 1}, {2, 8, 0, 4}),
     "!dimension 2 of dx is 0"},
    {FV_OP_CONV2D_BWD_WEIGHT, "f32[2,6,6,16] f32[2,8,8,4]", CONV_BWD({.groups = 2}, {16, 3, 3, 2}), "f32 [16,3,3,2]"},
    {FV_OP_CONV2D_BWD_WEIGHT, "f32[2,6,6,16] f32[2,8,8,4]", CONV_BWD({.groups = 1}, {16, 5, 3, 4}),
     "!expected f32 [2,4,6,16]"},

    {FV_OP_NORMED_CONV2D, "f32[2,8,8,4] f32[16,3,3,4] - f32[16] f32[16]", NORMED(1e-5, FV_ACT_RELU), "f32 [2,6,6,16]"},
    {FV_OP_NORMED_CONV2D, "f32[2,8,8,4] f32[16,3,3,4] f32[16] f32[16] f32[16] f32[16] f32[16] f32[2,6,6,16]",
     NORMED(1e-5, FV_ACT_NONE), "f32 [2,6,6,16]"},
    {FV_OP_NORMED_CONV2D, "f32[2,8,8,4] f32[16,3,3,4] - f32[4] f32[16]", NORMED(1e-5, FV_ACT_NONE),
     "!mean has 4 elements, expected 16"},
    {FV_OP_NORMED_CONV2D, "f32[2,8,8,4] f32[16,3,3,4] - f32[16] f32[16] - - f32[2,8,8,16]", NORMED(1e-5, FV_ACT_NONE),
     "!residual is f32 [2,8,8,16], expected f32 [2,6,6,16]"},
    {FV_OP_NORMED_CONV2D, "f32[2,8,8,4] f32[16,3,3,5] - f32[16] f32[16]", NORMED(1e-5, FV_ACT_NONE),
     "!x has 4 channels, w expects 5"},
    {FV_OP_NORMED_CONV2D, "f32[2,8,8,4] f32[16,3,3,4] - f32[16] f32[16]", NORMED(-1, FV_ACT_NONE), "!eps is -1"},

    /* ---- linear, matmul */
    {FV_OP_LINEAR, "f32[5,7] f32[3,7] f32[3]", NO_ATTR, "f32 [5,3]"},
    {FV_OP_LINEAR, "f32[2,4,5,7] f32[3,7] -", NO_ATTR, "f32 [2,4,5,3]"},
    {FV_OP_LINEAR, "f32[5,7] f32[3,8]", NO_ATTR, "!x has 7 features, w expects 8"},
    {FV_OP_LINEAR, "f32[5,7] f32[3,7] f32[7]", NO_ATTR, "!bias has 7 elements, expected 3"},
    {FV_OP_LINEAR, "f32[5,7] f32[3,7] f32[1,3]", NO_ATTR, "!bias must have rank 1"},
    {FV_OP_LINEAR, "f32[7] f32[3,7]", NO_ATTR, "!x must have rank 2 to 6"},
    {FV_OP_LINEAR, "- f32[3,7]", NO_ATTR, "!missing"},
    {FV_OP_LINEAR_BWD_DATA, "f32[2,5,3] f32[3,7]", NO_ATTR, "f32 [2,5,7]"},
    {FV_OP_LINEAR_BWD_DATA, "f32[2,5,4] f32[3,7]", NO_ATTR, "!dy has 4 features, w gives 3"},
    {FV_OP_LINEAR_BWD_WEIGHT, "f32[2,5,3] f32[2,5,7]", NO_ATTR, "f32 [3,7]"},
    {FV_OP_LINEAR_BWD_WEIGHT, "f32[2,5,3] f32[2,4,7]", NO_ATTR, "!differ in their leading dimensions"},
    {FV_OP_ACTIVATED_LINEAR, "f32[2,5,7] f32[3,7] f32[3]", ACT(FV_ACT_GELU), "f32 [2,5,3]"},
    {FV_OP_ACTIVATED_LINEAR, "f32[5,7] f32[3,7]", ACT(FV_ACT_RELU), "!relu is no activation whose slope x tells"},
    {FV_OP_ACTIVATED_LINEAR, "f32[5,7] f32[3,8]", ACT(FV_ACT_GELU), "!x has 7 features, w expects 8"},
    {FV_OP_LINEAR_ACT, "f32[2,5,7] f32[3,7] f32[3]", ACT(FV_ACT_RELU), "f32 [2,5,3]"},
    {FV_OP_LINEAR_ACT, "f32[2,5,7] f32[3,7] - f32[2,5,3]", ACT(FV_ACT_NONE), "f32 [2,5,3]"},
    {FV_OP_LINEAR_ACT, "f32[5,7] f32[3,7] f32[3] f32[3]", ACT(FV_ACT_NONE), "!residual is f32 [3]"},
    {FV_OP_LINEAR_ACT, "f32[5,7] f32[3,7]", ACT(FV_ACT_TANH), "!tanh cannot end a linear layer"},
    {FV_OP_LINEAR_ACT, "f32[5,7] f32[3,8]", ACT(FV_ACT_GELU), "!x has 7 features, w expects 8"},
    {FV_OP_ACTIVATED_LINEAR_BWD_DATA, "f32[2,5,3] f32[3,7] f32[2,5,7]", ACT(FV_ACT_SILU), "f32 [2,5,7]"},
    {FV_OP_ACTIVATED_LINEAR_BWD_DATA, "f32[5,3] f32[3,7] f32[5,8]", ACT(FV_ACT_SILU), "!x is f32 [5,8]"},
    {FV_OP_ACTIVATED_LINEAR, "f32[5,7] f32[3,7] - f32[5,3]", ACT(FV_ACT_GELU), "f32 [5,3]"},
    {FV_OP_ACTIVATED_LINEAR, "f32[5,7] f32[3,7] - f32[3,5]", ACT(FV_ACT_GELU), "!residual is f32 [3,5]"},
    {FV_OP_LINEAR_BWD_PARAMS, "f32[2,5,3] f32[2,5,7]", ACT(FV_ACT_GELU), "f32 [3,7] f32 [3]"},
    {FV_OP_LINEAR_BWD_PARAMS, "f32[5,3] f32[5,7]", ACT(FV_ACT_NONE), "f32 [3,7] f32 [3]"},
    {FV_OP_LINEAR_BWD_PARAMS, "f32[5,3] f32[5,7]", ACT(FV_ACT_RELU), "!relu is no activation"},
    {FV_OP_MATMUL, "f32[2,3,4] f32[2,4,5]", NO_ATTR, "f32 [2,3,5]"},
    {FV_OP_MATMUL, "f32[4,3] f32[4,5]", {.matmul = {true, false}}, "f32 [3,5]"},
    {FV_OP_MATMUL, "f32[3,4] f32[5,4]", {.matmul = {false, true}}, "f32 [3,5]"},
    {FV_OP_MATMUL, "f32[4,3] f32[5,4]", {.matmul = {true, true}}, "f32 [3,5]"},
    {FV_OP_MATMUL, "f32[2,3,4] f32[2,5,4]", NO_ATTR, "!a f32 [2,3,4] has 4 columns, b f32 [2,5,4] has 5 rows"},
    {FV_OP_MATMUL, "f32[2,3,4] f32[3,4,5]", NO_ATTR, "!differ in their leading dimensions"},
    {FV_OP_MATMUL, "f32[2,3,4] f32[4,5]", NO_ATTR, "!differ in their leading dimensions"},

    /* ---- norms */
    {FV_OP_BATCH_NORM, "f32[2,8,8,4] f32[4] f32[4]", BN(1e-5), "f32 [2,8,8,4] f32 [4] f32 [4]"},
    {FV_OP_BATCH_NORM, "f32[5,4]", BN(1e-5), "f32 [5,4] f32 [4] f32 [4]"},
    {FV_OP_BATCH_NORM, "f32[5,4] - - f32[5,4]", BN(1e-5, FV_ACT_RELU), "f32 [5,4] f32 [4] f32 [4]"},
    {FV_OP_BATCH_NORM, "f32[5,4] - - f32[4,4]", BN(1e-5), "!residual is f32 [4,4], expected f32 [5,4] as x"},
    {FV_OP_BATCH_NORM, "f32[5,4] f32[5] f32[4]", BN(1e-5), "!gamma has 5 elements, expected 4"},
    {FV_OP_BATCH_NORM, "f32[5,4] - f32[5]", BN(1e-5), "!beta has 5 elements, expected 4"},
    {FV_OP_BATCH_NORM, "f32[5,4]", BN(-1), "!eps is -1"},
    {FV_OP_BATCH_NORM, "f32[5,4]", BN(1e-5, FV_ACT_TANH), "!activation 'tanh' cannot be fused"},
    {FV_OP_BATCH_NORM, "f32[1,1,1,4]", BN(1e-5), "!more than one value per channel"},
    {FV_OP_BATCH_NORM, "f32[4]", BN(1e-5), "!x must have rank 2 to 6"},
    {FV_OP_BATCH_NORM_BWD, "f32[5,4] f32[5,4] - f32[4] f32[4] -", BN(1e-5), "f32 [5,4] f32 [4] f32 [4] f32 [5,4]"},
    {FV_OP_BATCH_NORM_BWD, "f32[5,4] f32[5,4] f32[5,4] f32[4] f32[4] f32[4]", BN(1e-5, FV_ACT_RELU),
     "f32 [5,4] f32 [4] f32 [4] f32 [5,4]"},
    {FV_OP_BATCH_NORM_BWD, "f32[5,4] f32[5,4] - f32[4] f32[4] f32[4]", BN(1e-5, FV_ACT_RELU), "!y is missing"},
    {FV_OP_BATCH_NORM_BWD, "f32[5,4] f32[5,4] - f32[4] f32[4] - f32[4] f32[5,4]", BN(1e-5, FV_ACT_GELU),
     "f32 [5,4] f32 [4] f32 [4] f32 [5,4]"},
    {FV_OP_BATCH_NORM_BWD, "f32[5,4] f32[5,4] - f32[4] f32[4] - f32[5]", BN(1e-5, FV_ACT_GELU),
     "!beta has 5 elements, expected 4"},
    {FV_OP_BATCH_NORM_BWD, "f32[5,4] f32[5,4] - f32[4] f32[4] - - f32[4,4]", BN(1e-5, FV_ACT_GELU),
     "!residual is f32 [4,4], expected f32 [5,4] as x"},
    {FV_OP_BATCH_NORM_BWD, "f32[5,4] f32[5,4]", BN(1e-5), "!mean is missing"},
    {FV_OP_BATCH_NORM_BWD, "f32[4,4] f32[5,4] - f32[4] f32[4]", BN(1e-5), "!dy is f32 [4,4], expected f32 [5,4] as x"},
    {FV_OP_BATCH_NORM_INFER, "f32[1,4] f32[4] f32[4]", BN(1e-5), "f32 [1,4]"},
    {FV_OP_BATCH_NORM_INFER, "f32[1,4] f32[4] f32[4] f32[4] f32[4] f32[1,4]", BN(1e-5, FV_ACT_RELU), "f32 [1,4]"},
    {FV_OP_BATCH_NORM_INFER, "f32[1,4] f32[4] f32[3]", BN(1e-5), "!var has 3 elements, expected 4"},
    {FV_OP_BATCH_NORM_INFER_BWD, "f32[5,4] f32[5,4] - f32[4] f32[4] -", BN(1e-5),
     "f32 [5,4] f32 [4] f32 [4] f32 [5,4]"},
    {FV_OP_LAYER_NORM, "f32[2,3,4] f32[4] f32[4]", NORM(1e-6), "f32 [2,3,4] f32 [2,3] f32 [2,3]"},
    {FV_OP_LAYER_NORM, "f32[2,4] - -", NORM(1e-6), "f32 [2,4] f32 [2] f32 [2]"},
    {FV_OP_LAYER_NORM, "f32[2,3,4] f32[3]", NORM(1e-6), "!gamma has 3 elements, expected 4"},
    {FV_OP_LAYER_NORM, "f32[2,3,4]", NORM(-1e-6), "!eps is -1e-06"},
    {FV_OP_LAYER_NORM_BWD, "f32[2,3,4] f32[2,3,4] f32[2,3] f32[2,3] f32[4]", NORM(1e-6), "f32 [2,3,4] f32 [4] f32 [4]"},
    {FV_OP_LAYER_NORM_BWD, "f32[3,4] f32[3,4] f32[3] f32[3] - f32[3,4]", NORM(1e-6), "f32 [3,4] f32 [4] f32 [4]"},
    {FV_OP_LAYER_NORM_BWD, "f32[3,4] f32[3,4] f32[3] f32[3] - f32[3,5]", NORM(1e-6), "!residual is f32 [3,5]"},
    {FV_OP_LAYER_NORM_BWD, "f32[2,3,4] f32[2,3,4] f32[2] f32[2,3]", NORM(1e-6), "!mean is f32 [2], expected f32 [2,3]"},
    {FV_OP_GROUP_NORM, "f32[2,5,5,6] f32[6] f32[6]", NORM(1e-5, 3), "f32 [2,5,5,6] f32 [2,3] f32 [2,3]"},
    {FV_OP_GROUP_NORM, "f32[2,5,5,6]", NORM(1e-5, 4), "!x has 6 channels, not divisible by 4 groups"},
    {FV_OP_GROUP_NORM, "f32[2,5,5,6]", NORM(1e-5, 0), "!0 groups"},
    {FV_OP_GROUP_NORM_BWD, "f32[2,5,6] f32[2,5,6] f32[2,3] f32[2,3] -", NORM(1e-5, 3), "f32 [2,5,6] f32 [6] f32 [6]"},
    {FV_OP_GROUP_NORM_BWD, "f32[2,5,6] f32[2,5,6] f32[2,3] f32[2,2] -", NORM(1e-5, 3), "!rstd is f32 [2,2]"},

    /* ---- element-wise */
    {FV_OP_ACTIVATION, "f32[]", ACT(FV_ACT_GELU), "f32 []"},
    {FV_OP_ACTIVATION, "f32[2,3]", ACT(FV_ACT_LEAKY_RELU, 0.1), "f32 [2,3]"},
    {FV_OP_ACTIVATION, "f32[2,3]", ACT(FV_ACT_LEAKY_RELU, -0.1), "!slope -0.1"},
    {FV_OP_ACTIVATION, "f32[2,3]", ACT(FV_ACT_NONE), "!no kind of activation"},
    {FV_OP_ACTIVATION, "f32[2,3]", ACT(FV_ACT_COUNT), "!no kind of activation"},
    {FV_OP_ACTIVATION, "i32[2,3]", ACT(FV_ACT_RELU), "!x must hold floats"},
    {FV_OP_ACTIVATION_BWD, "f32[2,3] f32[2,3]", ACT(FV_ACT_RELU), "f32 [2,3]"},
    {FV_OP_ACTIVATION_BWD, "f32[2,3] f32[3,2]", ACT(FV_ACT_RELU), "!the saved tensor is f32 [3,2]"},
    {FV_OP_ADD, "f32[2,3,4] f32[3,1]", NO_ATTR, "f32 [2,3,4]"},
    {FV_OP_SUB, "f32[4] f32[2,1,1]", NO_ATTR, "f32 [2,1,4]"},
    {FV_OP_MUL, "f32[] f32[2,3]", NO_ATTR, "f32 [2,3]"},
    {FV_OP_ADD, "f32[2,3] f32[2]", NO_ATTR, "!a f32 [2,3] and b f32 [2] do not broadcast"},
    {FV_OP_ADD, "f32[2,3] f64[2,3]", NO_ATTR, "!b is f64 [2,3], but other operands are f32"},
    {FV_OP_SCALE, "f32[2,3]", {.scale = {2, 1}}, "f32 [2,3]"},
    {FV_OP_SCALE, "f32[2,3]", {.scale = {1e308 * 10, 1}}, "!must be finite"},

    /* ---- pooling and resizing */
    {FV_OP_MAX_POOL2D, "f32[2,8,9,4]", POOL({2, 2}), "f32 [2,4,4,4] u8 [2,4,4,4]"},
    {FV_OP_MAX_POOL2D, "f32[2,8,8,4]", POOL({3, 3}, {2, 2}, {1, 1, 1, 1}), "f32 [2,4,4,4] u8 [2,4,4,4]"},
    {FV_OP_AVG_POOL2D, "f32[2,8,9,4]", POOL({2, 2}, .ceil_mode = true), "f32 [2,4,5,4]"},
    /* the window that would begin in the padding after the picture is left out */
    {FV_OP_AVG_POOL2D, "f32[1,3,3,1]", POOL({2, 2}, {2, 2}, {1, 1, 1, 1}, .ceil_mode = true), "f32 [1,2,2,1]"},
    {FV_OP_AVG_POOL2D, "f32[1,5,5,1]", POOL({2, 2}, {4, 4}, {0, 0, 1, 1}, .ceil_mode = true), "f32 [1,2,2,1]"},
    {FV_OP_MAX_POOL2D, "f32[2,20,20,4]", POOL({16, 16}), "!more than 255 places"},
    {FV_OP_AVG_POOL2D, "f32[2,20,20,4]", POOL({16, 16}), "f32 [2,1,1,4]"},
    {FV_OP_MAX_POOL2D, "f32[2,8,8,4]", POOL({2, 2}, {2, 2}, {2, 0, 0, 0}), "!smaller than the kernel"},
    {FV_OP_MAX_POOL2D, "f32[2,8,8,4]", POOL({0, 2}), "!kernel 0x2 must be positive"},
    {FV_OP_MAX_POOL2D, "f32[2,8,8,4]", POOL({2, 2}, {-1, 1}), "!stride -1,1 is negative"},
    {FV_OP_AVG_POOL2D, "f32[2,2,8,4]", POOL({3, 3}), "!kernel 3x3 is larger than the padded input: 2x8"},
    {FV_OP_AVG_POOL2D, "f32[2,8,4]", POOL({3, 3}), "!x must have rank 4"},
    {FV_OP_MAX_POOL2D_BWD, "f32[2,4,4,4] u8[2,4,4,4]", POOL_BWD({.kernel = {2, 2}}, {2, 8, 9, 4}), "f32 [2,8,9,4]"},
    {FV_OP_MAX_POOL2D_BWD, "f32[2,4,4,4] f32[2,4,4,4]", POOL_BWD({.kernel = {2, 2}}, {2, 8, 9, 4}), "!place is f32"},
    {FV_OP_AVG_POOL2D_BWD, "f32[2,4,5,4]", POOL_BWD({.kernel = {2, 2}, .ceil_mode = true}, {2, 8, 9, 4}),
     "f32 [2,8,9,4]"},
    {FV_OP_AVG_POOL2D_BWD, "f32[2,4,4,4]", POOL_BWD({.kernel = {2, 2}}, {2, 8, 10, 4}),
     "!dy is f32 [2,4,4,4], expected f32 [2,4,5,4]"},
    {FV_OP_RESIZE, "f32[2,4,4,3]", RESIZE(FV_RESIZE_BILINEAR, true, 7, 9), "f32 [2,7,9,3]"},
    {FV_OP_RESIZE, "f32[2,4,4,3]", RESIZE(FV_RESIZE_NEAREST, false, 0, 9), "!size 0x9 must be positive"},
    {FV_OP_RESIZE, "f32[2,4,4,3]", RESIZE(FV_RESIZE_NEAREST, true, 9, 9), "!align_corners"},
    {FV_OP_RESIZE_BWD, "f32[2,7,9,3]", RESIZE(FV_RESIZE_BILINEAR, false, 4, 4), "f32 [2,4,4,3]"},

    /* ---- reductions and shape */
    {FV_OP_SUM, "f32[2,3,4]", REDUCE(5, false), "f32 [3]"},
    {FV_OP_SUM, "f32[2,3,4]", REDUCE(5, true), "f32 [1,3,1]"},
    {FV_OP_MEAN, "f32[2,3]", REDUCE(3, false), "f32 []"},
    {FV_OP_MEAN, "f32[2,3]", REDUCE(0, false), "!no dimension to reduce"},
    {FV_OP_MEAN, "f32[2,3]", REDUCE(4, false), "!go beyond the rank"},
    {FV_OP_BROADCAST, "f32[3,1]", SHAPE(3, {2, 3, 4}), "f32 [2,3,4]"},
    {FV_OP_BROADCAST, "f32[3,2]", SHAPE(3, {2, 3, 4}), "!x f32 [3,2] does not broadcast to f32 [2,3,4]"},
    {FV_OP_BROADCAST, "f32[3,2]", SHAPE(1, {2}), "!does not broadcast"},
    {FV_OP_BROADCAST, "f32[1]", SHAPE(1, {0}), "!dimension 0 of the target shape is 0"},
    {FV_OP_BROADCAST, "f32[1]", SHAPE(3, {1ll << 40, 1ll << 40, 1}), "!the target shape is too large"},
    {FV_OP_RESHAPE, "f32[2,3,4]", SHAPE(2, {6, 4}), "f32 [6,4]"},
    {FV_OP_RESHAPE, "f32[2,3,4]", SHAPE(3, {4, -1, 2}), "f32 [4,3,2]"},
    {FV_OP_RESHAPE, "f32[1,1]", SHAPE(0), "f32 []"},
    {FV_OP_RESHAPE, "f32[2,3,4]", SHAPE(2, {6, 5}), "!x f32 [2,3,4] cannot take the shape f32 [6,5]"},
    {FV_OP_RESHAPE, "f32[2,3,4]", SHAPE(2, {-1, 5}), "!cannot take the shape"},
    {FV_OP_RESHAPE, "f32[2,3,4]", SHAPE(2, {-1, -1}), "!more than one -1"},
    {FV_OP_RESHAPE, "f32[2,3,4]", SHAPE(2, {0, 24}), "!dimension 0 of the target shape is 0"},
    {FV_OP_RESHAPE, "f32[2,3,4]", SHAPE(4, {1ll << 62, 1ll << 62, 4, 24}), "!cannot take the shape"},
    {FV_OP_RESHAPE, "f32[2,3,4]", SHAPE(7, {24, 1, 1, 1, 1, 1}), "!rank 7"},
    {FV_OP_TRANSPOSE, "f32[2,3,4]", PERM(2, 0, 1), "f32 [4,2,3]"},
    {FV_OP_TRANSPOSE, "f32[2,3,4]", PERM(2, 0, 0), "!dimension 2 of the permutation is 0"},
    {FV_OP_TRANSPOSE, "f32[2,3,4]", PERM(3, 0, 1), "!dimension 0 of the permutation is 3"},
    {FV_OP_TRANSPOSE, "f32[2,3]", PERM(-1, 0), "!dimension 0 of the permutation is -1"},
    {FV_OP_CONCAT, "f32[2,3] f32[2,4] f32[2,1]", AXIS(1), "f32 [2,8]"},
    {FV_OP_CONCAT, "f32[2,3] f32[5,3]", AXIS(-2), "f32 [7,3]"},
    {FV_OP_CONCAT, "f32[2,3] f32[2,4]", AXIS(0), "!operand 1 f32 [2,4] does not match f32 [2,3] outside axis 0"},
    {FV_OP_CONCAT, "f32[2,3] f32[2,3]", AXIS(2), "!axis 2 is out of range"},
    {FV_OP_CONCAT, "f32[2,3] f32[2,3,1]", AXIS(1), "!operand 1 must have rank 2"},
    {FV_OP_CONCAT, "f32[2,3] - f32[2,3]", AXIS(1), "!operand 1 is missing"},
    {FV_OP_CONCAT, "", AXIS(0), "!operands"},
    {FV_OP_SLICE, "f32[5,7]", SLICE({1, 0}, {2, 4}, {3, 2}), "f32 [2,4]"},
    {FV_OP_SLICE, "f32[5,7]", SLICE({1, 0}, {4, 7}), "f32 [4,7]"},
    {FV_OP_SLICE, "f32[5,7]", SLICE({1, 0}, {5, 7}),
     "!5 elements from 1 with step 1 do not lie within dimension 0 of size 5"},
    {FV_OP_SLICE, "f32[5,7]", SLICE({-1, 0}, {1, 7}), "!1 elements from -1"},
    {FV_OP_SLICE, "f32[5,7]", SLICE({0, 0}, {5, 0}), "!0 elements from 0"},
    {FV_OP_SLICE, "f32[5,7]", SLICE({0, 0}, {5, 5}, {1, 2}), "!5 elements from 0 with step 2"},
    {FV_OP_SLICE, "f32[5,7]", SLICE({0, 0}, {5, INT64_MAX}, {1, INT64_MAX}), "!do not lie within dimension 1"},
    {FV_OP_SLICE, "f32[5,7]", SLICE({0, 0}, {5, 1}, {-1, 1}), "!step -1"},
    {FV_OP_SLICE_BWD, "f32[2,4]", SLICE({1, 0}, {2, 4}, {3, 2}, {5, 7}), "f32 [5,7]"},
    {FV_OP_SLICE_BWD, "f32[2,3]", SLICE({1, 0}, {2, 4}, {3, 2}, {5, 7}), "!dy is f32 [2,3], expected f32 [2,4]"},
    {FV_OP_CAST, "f32[2,3]", {.cast = {FV_BF16}}, "bf16 [2,3]"},
    {FV_OP_CAST, "bf16[2,3]", {.cast = {FV_F32}}, "f32 [2,3]"},
    {FV_OP_CAST, "f64[2]", {.cast = {FV_F64}}, "f64 [2]"},
    {FV_OP_CAST, "f64[2]", {.cast = {FV_F32}}, "!f64 is not cast"},
    {FV_OP_CAST, "f32[2]", {.cast = {FV_F16}}, "f16 [2]"},
    {FV_OP_CAST, "f16[2]", {.cast = {FV_BF16}}, "bf16 [2]"},
    {FV_OP_CAST, "f32[2]", {.cast = {FV_I32}}, "!a cast gives f32, bf16 or f16, not i32"},
    {FV_OP_CAST, "i32[2]", {.cast = {FV_F32}}, "!x must hold floats (f32, bf16, f16 or f64)"},

    /* bf16 data beside float32 parameters and statistics */
    {FV_OP_CONV2D, "bf16[2,8,8,3] bf16[4,3,3,3] f32[4]", CONV(.pad = {1, 1, 1, 1}), "bf16 [2,8,8,4]"},
    {FV_OP_CONV2D, "bf16[2,8,8,3] bf16[4,3,3,3] bf16[4]", CONV(.pad = {1, 1, 1, 1}),
     "!bias is bf16 [4], beside bf16 it must be f32"},
    {FV_OP_CONV2D, "bf16[2,8,8,3] f32[4,3,3,3]", CONV(.pad = {1, 1, 1, 1}),
     "!w is f32 [4,3,3,3], but other operands are bf16"},
    {FV_OP_CONV2D_BWD_WEIGHT, "bf16[2,8,8,4] bf16[2,8,8,3]",
     CONV_BWD(.conv = {.pad = {1, 1, 1, 1}}, .dim = {4, 3, 3, 3}), "f32 [4,3,3,3]"},
    {FV_OP_LINEAR_BWD_WEIGHT, "bf16[2,4] bf16[2,3]", {0}, "f32 [4,3]"},
    {FV_OP_LINEAR_BWD_WEIGHT, "f16[2,4] f16[2,3]", {0}, "f32 [4,3]"},
    {FV_OP_LINEAR, "f16[2,3] f16[4,3] f16[4]", {0}, "!bias is f16 [4], beside f16 it must be f32"},
    {FV_OP_ADD, "bf16[2,3] f16[2,3]", {0}, "!b is f16 [2,3], but other operands are bf16"},
    {FV_OP_BATCH_NORM, "bf16[2,3] f32[3] f32[3]", BN(1e-5, 0), "bf16 [2,3] f32 [3] f32 [3]"},
    {FV_OP_BATCH_NORM, "bf16[2,3] bf16[3] bf16[3]", BN(1e-5, 0), "!gamma is bf16 [3], beside bf16 it must be f32"},
    {FV_OP_LAYER_NORM, "bf16[2,3] f32[3] f32[3]", NORM(.eps = 1e-5), "bf16 [2,3] f32 [2] f32 [2]"},
    {FV_OP_ATTENTION, "bf16[2,5,12]", {.attention = {2, 0}}, "bf16 [2,5,4] f32 [2,2,5]"},
    {FV_OP_SUM, "bf16[2,3]", {.reduce = {.axes = 1}}, "f32 [3]"},
    {FV_OP_ADD, "bf16[2,3] f32[3]", {0}, "!b is f32 [3], but other operands are bf16"},
    {FV_OP_SOFTMAX_CROSS_ENTROPY, "bf16[2,3] i32[2]", {0}, "!logits must hold floats (f32 or f64), it is bf16 [2,3]"},
    {FV_OP_SOFTMAX, "bf16[2,3]", {0}, "!x must hold floats (f32 or f64), it is bf16 [2,3]"},
    {FV_OP_ACCUMULATE, "bf16[3] bf16[3]", {0}, "!state must hold floats (f32 or f64)"},

    {FV_OP_PAD, "f32[2,3]", PAD({1, 0}, {2, 4}, 0), "f32 [5,7]"},
    {FV_OP_PAD, "f32[2,3]", PAD({1, -1}, {2, 4}, 0), "!padding -1, 4 of dimension 1 is negative"},
    {FV_OP_PAD, "f32[2,3]", PAD({INT64_MAX, 0}, {0, 0}, 0), "!padding of dimension 0 is too large"},
    {FV_OP_PAD, "f32[2,3]", PAD({1ll << 61, 0}, {1ll << 61, 0}, 0), "!too large"},

    /* ---- attention */
    {FV_OP_SOFTMAX, "f32[2,3,4]", NO_ATTR, "f32 [2,3,4]"},
    {FV_OP_SOFTMAX, "f32[]", NO_ATTR, "!x must have rank 1 to 6"},
    {FV_OP_SOFTMAX_BWD, "f32[2,3] f32[2,3]", NO_ATTR, "f32 [2,3]"},
    {FV_OP_SOFTMAX_BWD, "f32[2,3] f32[2,4]", NO_ATTR, "!y is f32 [2,4], expected f32 [2,3] as dy"},
    {FV_OP_ATTENTION, "f32[2,5,12] f32[2,7,12] f32[2,7,12]", ATTENTION(3), "f32 [2,5,12] f32 [2,3,5]"},
    {FV_OP_ATTENTION, "f32[2,5,36]", ATTENTION(3), "f32 [2,5,12] f32 [2,3,5]"},
    {FV_OP_ATTENTION, "f32[2,5,35]", ATTENTION(3), "!qkv has 35 features, not divisible by 3"},
    {FV_OP_ATTENTION, "f32[2,5,12] f32[2,7,12] f32[2,7,12]", ATTENTION(5), "!width 12 is not divisible by 5 heads"},
    {FV_OP_ATTENTION, "f32[2,5,12] f32[2,7,12] f32[2,7,12]", ATTENTION(0), "!0 heads"},
    {FV_OP_ATTENTION, "f32[2,5,12] f32[2,7,12] f32[2,6,12]", ATTENTION(3),
     "!v is f32 [2,6,12], expected f32 [2,7,12] as k"},
    {FV_OP_ATTENTION, "f32[2,5,12] f32[2,7,15] f32[2,7,15]", ATTENTION(3), "!differ in batch size or width"},
    {FV_OP_ATTENTION, "f32[2,5,12] f32[2,7,12] -", ATTENTION(3), "!v is missing"},
    {FV_OP_ATTENTION_BWD, "f32[2,5,12] f32[2,5,12] f32[2,3,5] f32[2,5,12] f32[2,7,12] f32[2,7,12]", ATTENTION(3),
     "f32 [2,5,12] f32 [2,7,12] f32 [2,7,12]"},
    {FV_OP_ATTENTION_BWD, "f32[2,5,12] f32[2,5,12] f32[2,3,5] f32[2,5,36]", ATTENTION(3),
     "f32 [2,5,36] f32 [0] f32 [0]"},
    {FV_OP_ATTENTION_BWD, "f32[2,5,12] f32[2,5,12] f32[2,5,3] f32[2,5,36]", ATTENTION(3), "!lse is f32 [2,5,3]"},

    /* ---- randomness */
    {FV_OP_DROPOUT, "f32[2,3] i64[2]", {.dropout = {0.5}}, "f32 [2,3]"},
    {FV_OP_DROPOUT, "f32[2,3] i64[3]", {.dropout = {0.5}}, "!row_key has 3 elements, x 2 rows"},
    {FV_OP_DROPOUT, "f32[2,3] i32[2]", {.dropout = {0.5}}, "!row_key must be i64"},
    {FV_OP_DROP_PATH, "f32[2,3,4] i64[2]", {.dropout = {0}}, "f32 [2,3,4]"},
    {FV_OP_DROP_PATH, "f32[2,3] i64[2]", {.dropout = {1}}, "!probability 1 is not in [0, 1)"},
    {FV_OP_DROP_PATH, "f32[2,3] i64[2]", {.dropout = {-0.1}}, "!probability -0.1"},

    /* ---- losses */
    {FV_OP_SOFTMAX_CROSS_ENTROPY, "f32[8,10] i32[8]", NO_ATTR, "f32 [] f32 [8]"},
    {FV_OP_SOFTMAX_CROSS_ENTROPY, "f64[8,10] f64[8,10] f64[8] f64[10]", LOSS(0.1, FV_REDUCE_SUM), "f64 [] f64 [8]"},
    {FV_OP_SOFTMAX_CROSS_ENTROPY, "f32[8,10] i32[7]", NO_ATTR, "!7 labels for 8 rows of logits"},
    {FV_OP_SOFTMAX_CROSS_ENTROPY, "f32[8,10] i64[8]", NO_ATTR, "!target is i64 [8], expected f32 [8,10]"},
    {FV_OP_SOFTMAX_CROSS_ENTROPY, "f32[8,10] i32[8,1]", NO_ATTR, "!labels must have rank 1"},
    {FV_OP_SOFTMAX_CROSS_ENTROPY, "f32[8,10] f32[8,9]", NO_ATTR, "!target is f32 [8,9]"},
    {FV_OP_SOFTMAX_CROSS_ENTROPY, "f32[8,10] i32[8] f32[10]", NO_ATTR, "!row_weight has 10 elements, expected 8"},
    {FV_OP_SOFTMAX_CROSS_ENTROPY, "f32[8,10] i32[8] - f32[8]", NO_ATTR, "!class_weight has 8 elements, expected 10"},
    {FV_OP_SOFTMAX_CROSS_ENTROPY, "f32[8,10] i32[8]", LOSS(1.5), "!label smoothing 1.5"},
    {FV_OP_SOFTMAX_CROSS_ENTROPY, "f32[8,10,1] i32[8]", NO_ATTR, "!logits must have rank 2"},
    {FV_OP_SOFTMAX_CROSS_ENTROPY_BWD, "f32[] f32[8,10] i32[8] - f32[10]", NO_ATTR, "f32 [8,10]"},
    {FV_OP_SOFTMAX_CROSS_ENTROPY_BWD, "f32[1] f32[8,10] i32[8]", NO_ATTR, "!dloss must have rank 0"},
    {FV_OP_BCE_WITH_LOGITS, "f32[8,3] f32[8,3] f32[8] f32[3]", NO_ATTR, "f32 [] f32 [8]"},
    {FV_OP_BCE_WITH_LOGITS, "f32[8,3] i32[8]", NO_ATTR, "!target is i32 [8]"},
    {FV_OP_BCE_WITH_LOGITS, "f32[8,3] f32[8,3] - f32[8]", NO_ATTR, "!pos_weight has 8 elements, expected 3"},
    {FV_OP_BCE_WITH_LOGITS_BWD, "f32[] f32[8,3] f32[8,3] - -", NO_ATTR, "f32 [8,3]"},
    {FV_OP_TOPK_CORRECT, "f32[8,10] i32[8] f32[8]", {.topk = {5}}, "f32 []"},
    {FV_OP_TOPK_CORRECT, "f32[8,10] i32[8]", {.topk = {11}}, "!k is 11, it must be 1 to 10"},
    {FV_OP_TOPK_CORRECT, "f32[8,10] i32[8]", {.topk = {0}}, "!k is 0"},
    {FV_OP_TOPK_CORRECT, "f32[8,10] f32[8]", {.topk = {1}}, "!labels must be i32"},

    /* ---- input */
    {FV_OP_AUGMENT, "u8[4,32,32,3] f32[4,16] f32[3] f32[3]", {.augment = {32, 32}}, "f32 [4,32,32,3]"},
    {FV_OP_AUGMENT, "u8[4,32,32,3] f64[4,16] f64[3] f64[3]", {.augment = {24, 28, FV_PAD_REFLECT}}, "f64 [4,24,28,3]"},
    {FV_OP_AUGMENT, "f32[4,32,32,3] f32[4,16] f32[3] f32[3]", {.augment = {32, 32}}, "!images must be u8"},
    {FV_OP_AUGMENT,
     "u8[4,32,32,3] f32[4,7] f32[3] f32[3]",
     {.augment = {32, 32}},
     "!record is f32 [4,7], expected [4,16]"},
    {FV_OP_AUGMENT, "u8[4,32,32,3] f32[4,16] f32[1] f32[3]", {.augment = {32, 32}}, "!mean has 1 elements, expected 3"},
    {FV_OP_AUGMENT, "u8[4,32,32,3] f32[4,16] f32[3] f32[3]", {.augment = {0, 32}}, "!size 0x32 must be positive"},

    {FV_OP_GATHER, "u8[50,32,32,3] i32[4]", NO_ATTR, "u8 [4,32,32,3]"},
    {FV_OP_GATHER, "i32[50] i32[4]", NO_ATTR, "i32 [4]"},
    {FV_OP_GATHER, "f64[50,7] i32[60]", NO_ATTR, "f64 [60,7]"},
    {FV_OP_GATHER, "bf16[50,7] i32[4]", NO_ATTR, "!table must be u8, i32, f32 or f64, it is bf16 [50,7]"},
    {FV_OP_GATHER, "f32[] i32[4]", NO_ATTR, "!table must have rows"},
    {FV_OP_GATHER, "- i32[4]", NO_ATTR, "!operand 0 is missing"},
    {FV_OP_GATHER, "f32[50,7] i64[4]", NO_ATTR, "!index must be i32"},
    {FV_OP_GATHER, "f32[50,7] i32[4,1]", NO_ATTR, "!index must have rank 1"},

    /* ---- state: no results */
    {FV_OP_ASSIGN, "i64[2,3] i64[2,3]", NO_ATTR, ""},
    {FV_OP_ASSIGN, "f32[2,3] f32[3]", NO_ATTR, "!value is f32 [3], expected f32 [2,3] as state"},
    {FV_OP_ASSIGN, "- f32[3]", NO_ATTR, "!state is missing"},
    {FV_OP_ACCUMULATE, "f32[2,3] f32[2,3]", NO_ATTR, ""},
    {FV_OP_ACCUMULATE, "i64[2] i64[2]", NO_ATTR, "!state must hold floats"},
    {FV_OP_LERP_ASSIGN, "f32[3] f32[3]", {.lerp = {0.1, 1}}, ""},
    {FV_OP_LERP_ASSIGN, "f32[3] f32[3]", {.lerp = {1e308 * 10, 1}}, "!must be finite"},
    {FV_OP_FILL, "f32[3]", {.scale = {0, 2}}, ""},
    {FV_OP_INCREMENT, "i64[]", NO_ATTR, ""},
    {FV_OP_INCREMENT, "i64[2]", NO_ATTR, "!state must have rank 0"},
    {FV_OP_INCREMENT, "f32[]", NO_ATTR, "!state must be i64"},

    /* ---- update */
    {FV_OP_LOSS_SCALE, "f32[]", NO_ATTR, "f32 []"},
    {FV_OP_LOSS_SCALE, "bf16[]", NO_ATTR, "!x must hold floats (f32 or f64), it is bf16 []"},
    {FV_OP_GRAD_STATS, "f32[3] f32[] f32[2,3]", NO_ATTR, "f32 [2]"},
    {FV_OP_GRAD_STATS, "f32[3] i64[]", NO_ATTR, "!gradient 1 must hold floats"},
    {FV_OP_SGD_UPDATE, "- f32[3] f32[2,2] f32[3] f32[2,2] - -", UPDATE(.count = 2), ""},
    {FV_OP_SGD_UPDATE, "f32[2] f32[3] f32[2,2] f32[3] f32[2,2] f32[3] f32[2,2]",
     UPDATE(.count = 2, .momentum = 0.9, .nesterov = true, .clip = 1), ""},
    {FV_OP_SGD_UPDATE, "- f32[3] f32[2,2] f32[3] f32[2,2] - -", UPDATE(.count = 2, .momentum = 0.9),
     "!momentum 0 is missing"},
    {FV_OP_SGD_UPDATE, "- f32[3] f32[3] -", UPDATE(.count = 1, .clip = 1), "!clipping needs stats"},
    {FV_OP_SGD_UPDATE, "f32[3] f32[3] f32[3] -", UPDATE(.count = 1), "!stats has 3 elements, expected 2"},
    {FV_OP_SGD_UPDATE, "- f32[3] f32[2] -", UPDATE(.count = 1),
     "!gradient 0 is f32 [2], expected f32 [3] as parameter 0"},
    {FV_OP_SGD_UPDATE, "- f32[3] f32[3] -", UPDATE(.count = 2), "!4 operands, expected 7"},
    {FV_OP_SGD_UPDATE, "- f32[3] f32[3] -", UPDATE(.count = 0), "!0 tensors"},
    {FV_OP_SGD_UPDATE, "- f32[3] f32[3] -", UPDATE(.count = 1, .momentum = 1), "!momentum 1 is not in [0, 1)"},
    {FV_OP_SGD_UPDATE, "- f32[3] f32[3] -", UPDATE(.count = 1, .nesterov = true), "!needs a momentum above 0"},
    {FV_OP_SGD_UPDATE, "- f32[3] f32[3] -", UPDATE(.count = 1, .group = FV_MAX_GROUPS), "!group 16"},
    {FV_OP_ADAM_UPDATE, "- f32[3] f32[3] f32[3] f32[3]", UPDATE(.count = 1, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8),
     ""},
    {FV_OP_ADAM_UPDATE, "- f32[3] f32[3] f32[3] -", UPDATE(.count = 1, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8),
     "!second moment 0 is missing"},
    {FV_OP_ADAM_UPDATE, "- f32[3] f32[3] f32[3] f32[3]", UPDATE(.count = 1, .beta1 = 1), "!betas 1, 0"},
    {FV_OP_MUON_UPDATE, "- f32[3,4] f32[3,4] f32[3,4]",
     UPDATE(.count = 1, .momentum = 0.6, .nesterov = true, .ns_steps = 3), ""},
    {FV_OP_MUON_UPDATE, "f32[2] f32[3,2,2,5] f32[3,2,2,5] -", UPDATE(.count = 1, .ns_steps = 3), ""},
    {FV_OP_MUON_UPDATE, "- f32[3] f32[3] -", UPDATE(.count = 1, .ns_steps = 3),
     "!parameter 0 is no matrix: it has rank 1"},
    {FV_OP_MUON_UPDATE, "- f32[3,4] f32[3,4] -", UPDATE(.count = 1), "!0 Newton-Schulz iterations, expected 1 to 100"},
    {FV_OP_MUON_UPDATE, "- f32[3,4] f32[3,4] -", UPDATE(.count = 1, .momentum = 0.6, .ns_steps = 3),
     "!momentum 0 is missing"},
    {FV_OP_MUON_UPDATE, "- f32[3,4] f32[3,4] -", UPDATE(.count = 1, .nesterov = true, .ns_steps = 3),
     "!needs a momentum above 0"},
    {FV_OP_MUON_UPDATE, "- f32[3,4] f32[3,4] -", UPDATE(.count = 1, .momentum = 1, .ns_steps = 3),
     "!momentum 1 is not in [0, 1)"},
    {FV_OP_MUON_UPDATE, "- f32[3,4] f32[3,4] -", UPDATE(.count = 1, .eps = -1, .ns_steps = 3), "!eps is -1"},
    {FV_OP_EMA_UPDATE, "- f32[3] f32[3]", UPDATE(.count = 1), ""},
    {FV_OP_EMA_UPDATE, "- f32[3] f32[2]", UPDATE(.count = 1), "!parameter 0 is f32 [2], expected f32 [3] as average 0"},
    {FV_OP_LOOKAHEAD_UPDATE, "f32[2] f32[3] f32[3]", UPDATE(.count = 1), ""},
    {FV_OP_LOOKAHEAD_UPDATE, "- f32[3] f32[2]", UPDATE(.count = 1),
     "!fast weight 0 is f32 [2], expected f32 [3] as slow copy 0"},
};

#endif
