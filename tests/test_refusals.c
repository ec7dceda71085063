/* test_refusals.c: what the core refuses and how it says so: graphs that cannot be, graphs that were damaged, stores
 * and programs used wrongly, devices that cannot compute a thing; the dump of every operation; and every failing
 * allocation of what the other suites do not sweep. */
#include "core/kernel.h"
#include "tests/faults.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

Suite *refusals_suite(void);

static fv_ctx ctx;
static fvt_memory memory;

static void setup(void) {
    fv_ctx_init(&ctx);
    fvt_memory_install(&memory, &ctx);
}

static void teardown(void) {
    ck_assert_int_eq(memory.live, 0);
}

static void ck_says(fv_status got, fv_status expected, const char *message) {
    ck_assert_msg(got == expected, "status %d (%s), not %d", (int)got, ctx.error.message, (int)expected);
    ck_assert_msg(strstr(ctx.error.message, message) != NULL, "'%s' lacks '%s'", ctx.error.message, message);
}

/* The graph must have failed so; it is freed. */
static void ck_graph(fv_graph *g, fv_status expected, const char *message) {
    ck_says(fv_graph_finish(g), expected, message);
    fv_graph_free(g);
}

/* ---------------------------------------------------------------- building */

START_TEST(test_graphs_that_cannot_be) {
    char longer[300];
    double zeros[4] = {0};
    fv_graph *g;
    fv_scope s;
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
#define REFUSED(code, text, ...) \
    do { \
        g = fv_graph_new(&ctx, true); \
        ck_assert_ptr_nonnull(g); \
        s = fv_in(fv_root(g), "here"); \
        __VA_ARGS__; \
        ck_graph(g, code, text); \
    } while (0)
    const fv_type bad = fv_shape(FV_F32, 2, -1), three = fv_shape(FV_F32, 3);
    REFUSED(FV_E_INTERNAL, "scope name too long", fv_in(s, "%s", longer));
    REFUSED(FV_E_INTERNAL, "here: input 'x' is declared twice", fv_input(s, "x", three), fv_input(s, "x", three));
    REFUSED(FV_E_MODEL, "here: x: impossible shape f32 [2,-1]", fv_input(s, "x", bad));
    REFUSED(FV_E_MODEL, "constant: impossible shape", fv_const(s, bad, zeros));
    REFUSED(FV_E_MODEL, "constant: impossible shape", fv_const_fill(s, bad, 1));
    REFUSED(FV_E_MODEL, "here.w: impossible shape", fv_param(s, "w", bad, FV_PLAIN, FV_ZEROS, false));
    REFUSED(FV_E_MODEL, "here.b: impossible shape", fv_buffer(s, "b", bad, FV_ZEROS));
    REFUSED(FV_E_INTERNAL, "'here.w' is declared twice", fv_param(s, "w", three, FV_PLAIN, FV_ZEROS, false),
            fv_buffer(s, "w", three, FV_ZEROS));
    REFUSED(FV_E_INTERNAL, "state of a value that is no parameter",
            fv_state_of(g, fv_input(s, "x", three), FV_ROLE_EMA, NULL));
    REFUSED(FV_E_INTERNAL, "state of a value that is no parameter",
            fv_state_of(g, fv_buffer(s, "b", three, FV_ZEROS), FV_ROLE_EMA, NULL));
    REFUSED(FV_E_INTERNAL, "with a role it cannot have",
            fv_state_of(g, fv_param(s, "w", three, FV_PLAIN, FV_ZEROS, false), FV_ROLE_BUFFER, NULL));
    REFUSED(FV_E_MODEL, "row keys for 4 rows, but the batch has 3", fv_row_key(s, 3), fv_row_key(s, 3),
            fv_row_key(s, 4));
    REFUSED(FV_E_INTERNAL, "output 'y' has no value", fv_set_output(g, "y", FV_NONE));
    REFUSED(FV_E_INTERNAL, "here: relu", fv_input(s, "x", three), fv_graph_fail(s, FV_E_INTERNAL, "relu"));
    REFUSED(FV_E_INTERNAL, "operand 0 is no value of this graph",
            fv_op_node(s, FV_OP_ACTIVATION, &(fv_value){17}, 1, NULL));
    REFUSED(FV_E_INTERNAL, "operand 0 is no value of this graph",
            fv_op_node(s, FV_OP_ACTIVATION, &(fv_value){-1}, 1, NULL));
    fv_value in[3] = {{1}, {1}, {1}};
    REFUSED(FV_E_MODEL, "here: add: takes 2 operands, got 1", fv_op_node(s, FV_OP_ADD, in, 1, NULL));
    REFUSED(FV_E_MODEL, "here: add: takes 2 operands, got 3", fv_op_node(s, FV_OP_ADD, in, 3, NULL));
    REFUSED(FV_E_MODEL, "here: linear: takes 2 to 3 operands, got 1", fv_op_node(s, FV_OP_LINEAR, in, 1, NULL));
    REFUSED(FV_E_MODEL, "here: concat: takes 1 or more operands, got 0", fv_op_node(s, FV_OP_CONCAT, in, 0, NULL));
    /* whatever comes after the first error does nothing and does no harm */
    REFUSED(FV_E_MODEL, "x: impossible shape", fv_input(s, "x", bad), fv_const(s, three, zeros),
            fv_const_fill(s, three, 1), fv_param(s, "w", three, FV_PLAIN, FV_ZEROS, false),
            fv_buffer(s, "b", three, FV_ZEROS), fv_state_of(g, FV_NONE, FV_ROLE_EMA, NULL),
            fv_set_output(g, "y", FV_NONE), fv_graph_freeze(g, &(const char *){"w"}, 1), fv_graph_fuse(g));
#undef REFUSED
}
END_TEST

START_TEST(test_questions_about_values_that_are_not_there) {
    fv_graph *g = fv_graph_new(&ctx, true);
    fv_value x = fv_input(fv_root(g), "x", fv_shape(FV_F32, 2, 3));
    const int odd[] = {-1, 0, 99};
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(fv_typeof(g, (fv_value){odd[i]}).rank, 0);
        ck_assert_int_eq(fv_dim(g, (fv_value){odd[i]}, 0), 0);
        ck_assert_ptr_null(fv_decl_of(g, (fv_value){odd[i]}));
    }
    ck_assert_ptr_null(fv_decl_of(g, x));
    ck_assert_int_eq(fv_dim(g, x, -1), 3);
    ck_assert_int_eq(fv_dim(g, x, 2), 0);
    ck_assert_int_eq(fv_dim(g, x, -3), 0);
    ck_assert(fv_is_none(fv_find_output(g, "x")) && fv_is_none(fv_find_value(g, "y")));
    fv_graph_freeze(g, NULL, 0);
    fv_graph_free(g);
    fv_graph_free(NULL);
}
END_TEST

START_TEST(test_gradients_that_cannot_be) {
    fv_graph *g = fv_graph_new(&ctx, true);
    fv_scope s = fv_root(g);
    fv_value x = fv_input(s, "x", fv_shape(FV_F32, 2, 3)), other = fv_input(s, "other", fv_shape(FV_F32, 2, 3)),
             y = fv_relu(s, x), wrong = fv_input(s, "wrong", fv_shape(FV_F32, 3, 2)), grads[4];
    ck_says(fv_gradients_from(g, y, wrong, 1, &x, grads), FV_E_INTERNAL, "cotangent's type");
    fv_value wrt[4] = {x, other, FV_NONE, {1000}};
    ck_assert_int_eq(fv_gradients_from(g, y, other, 4, wrt, grads), FV_OK);
    ck_assert(!fv_is_none(grads[0]) && fv_is_none(grads[1]) && fv_is_none(grads[2]) && fv_is_none(grads[3]));
    ck_assert_int_eq(fv_gradients_from(g, x, other, 1, &x, grads), FV_OK); /* of a value that no node made */
    ck_assert_int_eq(grads[0].id, other.id);
    ck_says(fv_gradients(g, FV_NONE, 1, &x, grads), FV_E_MODEL, "");
    fv_graph_free(g);
}
END_TEST

/* ---------------------------------------------------------------- damaged graphs */

enum { MAKES_X, MAKES_Y, CHANGES }; /* nodes of the graph below */

static fv_graph *sound_graph(void) {
    fv_graph *g = fv_graph_new(&ctx, true);
    fv_scope s = fv_in(fv_root(g), "part");
    fv_value a = fv_input(s, "a", fv_shape(FV_F32, 2, 3)), b = fv_buffer(s, "b", fv_shape(FV_F32, 2, 3), FV_ZEROS);
    fv_value x = fv_relu(s, a), y = fv_add(s, x, b);
    fv_assign(s, b, x);
    fv_set_output(g, "y", y);
    ck_assert_msg(fv_graph_verify(g) == FV_OK, "%s", ctx.error.message);
    ck_assert_int_eq(g->n_nodes, 3);
    return g;
}

START_TEST(test_damaged_graphs_are_recognised) {
    fv_graph *g;
    fv_node *n;
    fv_value *in;
#define DAMAGED(node, text, change) \
    do { \
        g = sound_graph(); \
        n = &g->nodes[node]; \
        in = &g->operands[n->first_operand]; \
        change; \
        ck_says(fv_graph_verify(g), FV_E_INTERNAL, text); \
        ck_assert_ptr_nonnull(strstr(ctx.error.message, "in 'part'")); \
        fv_graph_free(g); \
    } while (0)
    DAMAGED(MAKES_Y, "an operand is no value", in[0].id = g->n_values);
    DAMAGED(MAKES_Y, "an operand is no value", in[0].id = -1);
    DAMAGED(MAKES_X, "an operand is used before it is defined", in[0].id = n->first_result);
    DAMAGED(MAKES_X, "an operand comes from a later segment", n->segment = FV_SEG_UPDATE);
    DAMAGED(CHANGES, "changes a value that is neither parameter nor state", in[0] = fv_find_value(g, "a"));
    DAMAGED(MAKES_Y, "wrong number of operands or results", n->operands = 1);
    DAMAGED(MAKES_Y, "wrong number of operands or results", n->operands = 3);
    DAMAGED(MAKES_X, "wrong number of operands or results", n->results = 2);
    DAMAGED(MAKES_Y, "", g->values[in[1].id].type = fv_shape(FV_F32, 5, 7)); /* the rule's own words */
    DAMAGED(MAKES_X, "a result does not point back", g->values[n->first_result].node = MAKES_Y);
    DAMAGED(MAKES_Y, "a result does not point back", g->values[n->first_result].result = 1);
    DAMAGED(MAKES_Y, "a result has another type than its rule gives",
            g->values[n->first_result].type = fv_shape(FV_F32, 6));
#undef DAMAGED
}
END_TEST

/* ---------------------------------------------------------------- the dump */

START_TEST(test_dump_shows_every_attribute) {
    fv_graph *g = fv_graph_new(&ctx, true);
    fv_scope s = fv_root(g);
    const double ones[4] = {1, 1, 1, 1};
    fv_value x = fv_input(s, "x", fv_shape(FV_F32, 2, 8, 8, 4)), m = fv_input(s, "m", fv_shape(FV_F32, 2, 3, 4)),
             logits = fv_input(s, "logits", fv_shape(FV_F32, 2, 5)),
             labels = fv_input(s, "labels", fv_shape(FV_I32, 2)), soft = fv_input(s, "soft", fv_shape(FV_F32, 2, 5)),
             qkv = fv_input(s, "qkv", fv_shape(FV_F32, 2, 3, 12)),
             images = fv_input(s, "images", fv_shape(FV_U8, 2, 8, 8, 4)),
             record = fv_input(s, "record", fv_shape(FV_F32, 2, FV_AUG_FIELDS));
    fv_value w = fv_param(s, "w", fv_shape(FV_F32, 6, 3, 3, 2), FV_OIHW, FV_ZEROS, false),
             state = fv_buffer(s, "state", fv_shape(FV_F32, 2, 5), FV_ZEROS),
             seen = fv_buffer(s, "seen", fv_scalar(FV_I64), FV_ZEROS), four = fv_const(s, fv_shape(FV_F32, 4), ones),
             half = fv_const_fill(s, fv_scalar(FV_F32), 0.5);
    fv_value y[32];
    int n = 0;
    y[n++] = fv_conv2d(fv_in(s, "net"), x, w, FV_NONE,
                       (fv_conv2d_attr){.stride = {2, 1}, .pad = {2, 2, 2, 2}, .dilation = {1, 2}, .groups = 2});
    y[n++] = fv_matmul(s, m, fv_transpose(s, m, (const int32_t[]){0, 2, 1}),
                       (fv_matmul_attr){.transpose_a = true, .transpose_b = true});
    y[n++] = fv_layer_norm(s, x, four, four, 1e-5);
    y[n++] = fv_group_norm(s, x, FV_NONE, FV_NONE, 2, 1e-3);
    y[n++] = fv_max_pool2d(s, x, (fv_pool_attr){.kernel = {3, 3}, .stride = {2, 2}, .ceil_mode = true});
    y[n++] = fv_avg_pool2d(s, x, (fv_pool_attr){.kernel = {2, 2}, .count_include_pad = true});
    y[n++] = fv_resize(s, x, (fv_resize_attr){.mode = FV_RESIZE_NEAREST, .out_h = 4, .out_w = 4});
    y[n++] =
        fv_resize(s, x, (fv_resize_attr){.mode = FV_RESIZE_BILINEAR, .align_corners = true, .out_h = 4, .out_w = 4});
    y[n++] = fv_sum(s, x, 6, true);
    y[n++] = fv_mean(s, x, 6, false);
    y[n++] = fv_concat(s, (const fv_value[]){x, x}, 2, 3);
    y[n++] = fv_slice(s, m, (const int64_t[]){0, 1, 0}, (const int64_t[]){2, 2, 2}, (const int64_t[]){1, 1, 2});
    y[n++] = fv_pad(s, m, (const int64_t[]){0, 1, 0}, (const int64_t[]){0, 0, 2}, 7);
    y[n++] = fv_attention(s, qkv, FV_NONE, FV_NONE, 2, 0.25);
    y[n++] = fv_dropout(fv_in(s, "drop"), m, 0.25);
    y[n++] = fv_scale(s, m, 2, -1);
    y[n++] = fv_mul(s, m, half);
    y[n++] = fv_leaky_relu(s, m, 0.1);
    y[n++] = fv_softmax_cross_entropy(s, logits, labels, FV_NONE, FV_NONE, (fv_loss_attr){.label_smoothing = 0.1});
    y[n++] = fv_bce_with_logits(s, logits, soft, FV_NONE, FV_NONE, (fv_loss_attr){.reduction = FV_REDUCE_SUM});
    y[n++] = fv_topk_correct(s, logits, labels, FV_NONE, 3);
    y[n++] = fv_augment(s, images, record, four, four,
                        (fv_augment_attr){.out_h = 8, .out_w = 8, .pad_mode = FV_PAD_REFLECT});
    y[n++] = fv_augment(s, images, record, four, four, (fv_augment_attr){.out_h = 8, .out_w = 8});
    fv_lerp_assign(s, state, logits, 0.1, 1.5);
    fv_fill(s, state, 3);
    fv_increment(s, seen);
    fv_value grad = fv_state_of(g, w, FV_ROLE_GRAD, NULL), moment = fv_state_of(g, w, FV_ROLE_MOMENT, "momentum"),
             dx[2];
    g->segment = FV_SEG_UPDATE;
    const fv_attr update = {
        .update = {.count = 1, .group = 1, .momentum = 0.9, .clip = 5, .nesterov = true, .decoupled = true}};
    fv_value stats = fv_input(s, "stats", fv_shape(FV_F32, 2));
    fv_op_node(s, FV_OP_SGD_UPDATE, (const fv_value[]){stats, w, grad, moment}, 4, &update);
    g->segment = FV_SEG_FORWARD_BACKWARD;
    fv_value pooled = fv_add(s, fv_sum(s, y[4], 15, false), fv_sum(s, y[5], 15, false));
    ck_assert_msg(fv_gradients(g, pooled, 1, &x, dx) == FV_OK, "%s", ctx.error.message);
    ck_assert_msg(fv_gradients(g, fv_sum(s, y[0], 15, false), 1, &w, dx) == FV_OK, "%s", ctx.error.message);
    fv_set_output(g, "y", y[0]);
    ck_assert_msg(fv_graph_finish(g) == FV_OK, "%s", ctx.error.message);
    ck_assert_msg(fv_graph_verify(g) == FV_OK, "%s", ctx.error.message);

    const char *text = fv_graph_dump(g);
    ck_assert_ptr_nonnull(text);
    static const char *const expected[] = {
        "graph: training, ",
        "input images u8 [2,8,8,4]",
        "weight w f32 [6,3,3,2]\n",
        "buffer state f32 [2,5] no_decay",
        "= conv2d(x, w) {stride 2,1 pad 2,2,2,2 dilation 1,2 groups 2}    # net",
        "conv2d_bwd_weight(",
        "{transpose_a transpose_b}",
        "transpose(m) {perm 0,2,1}",
        "layer_norm(x, ",
        "{eps 1e-05 groups ",
        "{eps 0.001 groups 2}",
        "max_pool2d(x) {kernel 3,3 stride 2,2 pad 0,0,0,0 ceil}",
        "max_pool2d_bwd(",
        "avg_pool2d(x) {kernel 2,2 stride 2,2 pad 0,0,0,0 count_include_pad}",
        "resize(x) {nearest}",
        "resize(x) {bilinear align_corners}",
        "sum(x) {axes 0x6 keepdim}",
        "mean(x) {axes 0x6}",
        "concat(x, x) {axis 3}",
        "slice(m) {start 0,1,0 step 1,1,2}",
        "pad(m) {before 0,1,0 after 0,0,2}",
        "attention(qkv) {heads 2 scale 0.25}",
        "{p 0.25}    # drop",
        "scale(m) {mul 2 add -1}",
        "mul(m, 0.5) {}",
        "activation(m) {leaky_relu}",
        "softmax_cross_entropy(logits, labels",
        "{label_smoothing 0.1 mean}",
        "{label_smoothing 0 sum}",
        "{k 3}",
        "{pad reflect}",
        "{pad zero}",
        "lerp_assign(state, logits) {weight 0.1 scale 1.5}",
        "fill(state) {",
        "increment(seen) {}",
        "segment update\nsgd_update(stats, w, grad.w, opt.momentum.w) {count 1 group 1 momentum 0.9",
        "clip 5 ns_steps 0 nesterov decoupled}",
        "output y = %",
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        ck_assert_msg(strstr(text, expected[i]) != NULL, "no '%s' in:\n%s", expected[i], text);
    for (int64_t k = 1, reached = 1; reached; k++) {
        memory.calls = 0;
        memory.fail_at = k;
        text = fv_graph_dump(g);
        reached = memory.calls >= k;
        memory.fail_at = 0;
        ck_assert_msg((text == NULL) == reached, "allocation %d", (int)k);
        if (reached) ck_assert_int_eq(ctx.error.code, FV_E_MEMORY);
    }
    fv_graph_free(g);
}
END_TEST

/* ---------------------------------------------------------------- devices */

START_TEST(test_devices_refuse_what_they_cannot_do) {
    fv_device *dev;
    ck_assert_ptr_null(fv_backend_find("abacus"));
    ck_says(fv_backend_cpu.open(&ctx, &(fv_device_opts){.isa = "sse9"}, &dev), FV_E_USAGE,
            "unknown instruction set \"sse9\": choose one of ");
    ck_assert_ptr_null(dev);
    ck_says(fv_backend_cpu.open(&ctx, &(fv_device_opts){.threads = -1}, &dev), FV_E_USAGE, "threads");
    fv_store *store;
    fv_program *program;
    ck_assert_int_eq(fv_backend_cpu.open(&ctx, &(fv_device_opts){.threads = 1}, &dev), FV_OK);
    fv_graph *g = fv_graph_new(&ctx, false);
    fv_scope s = fv_in(fv_root(g), "layer7");
    fv_value a = fv_input(s, "a", fv_shape(FV_F64, 3));
    fv_set_output(g, "y", fv_add(s, a, a));
    ck_says(
        fv_program_create(&ctx, g, dev, 1, NULL, &store, &program), FV_E_MODEL,
        "add in 'layer7' does not run on device 'cpu': the cpu backend computes in f32, bf16 and f16, but add has a "
        "value of type f64");
    ck_assert(!store && !program);
    dev->backend->close(dev);
}
END_TEST

/* Types that no graph of today can hold, and mixtures that a pass with a mistake might leave. */
START_TEST(test_devices_refuse_other_precisions) {
    static const struct {
        const char *backend, *message;
        fv_dtype operand, result;
    } cases[] = {
        {"ref", "f64 and f32 are mixed", FV_F32, FV_F64},
        {"ref", "f64 and bf16 are mixed", FV_F64, FV_BF16},
        {"ref", "f64 and f16 are mixed", FV_F16, FV_F64},
        {"ref", NULL, FV_F16, FV_F32},
        {"ref", NULL, FV_F64, FV_F64},
        {"ref", NULL, FV_BF16, FV_BF16},
        {"cpu", "the cpu backend computes in f32, bf16 and f16, but add has a value of type f64", FV_F32, FV_F64},
        {"cpu", NULL, FV_F16, FV_F32},
        {"cpu", NULL, FV_F32, FV_BF16},
        {"cpu", NULL, FV_F32, FV_F32}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fv_device *dev;
        ck_assert_int_eq(fv_backend_find(cases[i].backend)->open(&ctx, &(fv_device_opts){.threads = 1}, &dev), FV_OK);
        fv_node node = {.op = FV_OP_ADD, .operands = 2, .first_result = 2, .results = 1};
        fv_value operands[2] = {{1}, {0}};
        fv_val values[3] = {{.node = -1}, {.type = {.dtype = cases[i].operand}}, {.type = {.dtype = cases[i].result}}};
        fv_graph g = {.ctx = &ctx, .values = values, .operands = operands, .n_values = 3, .n_operands = 2};
        char why[128] = "";
        bool runs = dev->backend->supports(dev, &g, &node, why, sizeof why);
        ck_assert_msg(runs == !cases[i].message, "case %d", (int)i);
        if (!runs) ck_assert_str_eq(why, cases[i].message);
        dev->backend->close(dev);
    }
}
END_TEST

/* ---------------------------------------------------------------- stores */

static fv_device *open_ref(void) {
    fv_device *dev;
    ck_assert_int_eq(fv_backend_ref.open(&ctx, NULL, &dev), FV_OK);
    return dev;
}

static const double positions[6] = {1, -2, 3, -4, 5, -6};

/* A parameter for each kind of initial values, an empty one and one of each integer type. */
static fv_graph *many_kinds(bool ema) {
    fv_graph *g = fv_graph_new(&ctx, true);
    if (!g) return NULL;
    fv_scope s = fv_root(g);
    fv_value w = fv_param(s, "normal", fv_shape(FV_F32, 4000), FV_PLAIN, (fv_init){FV_INIT_NORMAL, 1, 2, NULL}, false);
    fv_param(s, "uniform", fv_shape(FV_F32, 1000), FV_PLAIN, (fv_init){FV_INIT_UNIFORM, -3, -1, NULL}, false);
    fv_param(s, "cut", fv_shape(FV_F32, 4000), FV_PLAIN, (fv_init){FV_INIT_TRUNC_NORMAL, 1, 2, NULL}, false);
    fv_param(s, "data", fv_shape(FV_F32, 6), FV_PLAIN, (fv_init){FV_INIT_DATA, 0, 0, positions}, true);
    fv_param(s, "empty", fv_shape(FV_F32, 0, 3), FV_PLAIN, FV_ONES, true);
    fv_buffer(s, "wide", fv_scalar(FV_I64), (fv_init){FV_INIT_CONSTANT, -7, 0, NULL});
    fv_buffer(s, "narrow", fv_shape(FV_I32, 2), (fv_init){FV_INIT_CONSTANT, -7, 0, NULL});
    fv_buffer(s, "bytes", fv_shape(FV_U8, 3), (fv_init){FV_INIT_CONSTANT, 200, 0, NULL});
    fv_state_of(g, w, FV_ROLE_GRAD, NULL);
    fv_state_of(g, w, FV_ROLE_MOMENT, "momentum");
    if (ema) fv_state_of(g, w, FV_ROLE_EMA, NULL);
    return g;
}

static fv_status make_store(fv_device *dev, bool ema, fv_store **out) {
    *out = NULL;
    fv_graph *g = many_kinds(ema);
    if (!g) return ctx.error.code;
    fv_status status = fv_graph_finish(g);
    if (status == FV_OK) status = fv_store_create(&ctx, dev, out);
    if (status == FV_OK) status = fv_store_bind(*out, g);
    if (status == FV_OK) status = fv_store_commit(*out, 3);
    fv_graph_free(g);
    return status;
}

static void read_slot(fv_store *store, const char *name, void *to, size_t bytes) {
    ck_assert_msg(fv_store_read(store, fv_store_find(store, name), to, bytes) == FV_OK, "%s: %s", name,
                  ctx.error.message);
}

START_TEST(test_initial_values_are_what_was_asked_for) {
    static float values[4000];
    fv_store *store;
    fv_device *dev = open_ref();
    ck_assert_int_eq(make_store(dev, true, &store), FV_OK);
    double sum = 0, square = 0;
    int beyond = 0;
    read_slot(store, "normal", values, sizeof values);
    for (int i = 0; i < 4000; i++) beyond += fabsf(values[i] - 1) > 4;
    ck_assert_int_gt(beyond, 100); /* 4.6% of a normal lie beyond two deviations ... */
    read_slot(store, "ema.normal", values, sizeof values);
    ck_assert_float_ne(values[0], 0); /* an average begins as its parameter */
    read_slot(store, "cut", values, sizeof values);
    for (int i = 0; i < 4000; i++) {
        ck_assert_float_le(fabsf(values[i] - 1), 4); /* ... of this one none */
        sum += values[i];
        square += values[i] * values[i];
    }
    ck_assert_double_eq_tol(sum / 4000, 1, 0.1);
    ck_assert_double_eq_tol(sqrt(square / 4000 - pow(sum / 4000, 2)), 2 * 0.8796, 0.1); /* of the truncated normal */
    read_slot(store, "uniform", values, 1000 * sizeof *values);
    for (int i = 0; i < 1000; i++) ck_assert(values[i] >= -3 && values[i] < -1);
    read_slot(store, "data", values, 6 * sizeof *values);
    for (int i = 0; i < 6; i++) ck_assert_float_eq(values[i], (float)positions[i]);
    int64_t wide;
    int32_t narrow[2];
    uint8_t bytes[3];
    read_slot(store, "wide", &wide, sizeof wide);
    read_slot(store, "narrow", narrow, sizeof narrow);
    read_slot(store, "bytes", bytes, sizeof bytes);
    ck_assert(wide == -7 && narrow[0] == -7 && narrow[1] == -7 && bytes[0] == 200 && bytes[2] == 200);
    fv_store_destroy(store);
    dev->backend->close(dev);
}
END_TEST

START_TEST(test_stores_used_wrongly) {
    float value[6];
    fv_store *store, *other, *clone;
    fv_device *dev = open_ref();
    ck_assert_int_eq(make_store(dev, false, &store), FV_OK);
    ck_assert_ptr_null(fv_store_slot(store, -1));
    ck_assert_ptr_null(fv_store_slot(store, 99));
    ck_assert_int_eq(fv_store_find(store, "nobody"), -1);
    ck_says(fv_store_read(store, -1, value, 4), FV_E_INTERNAL, "no such slot -1");
    ck_says(fv_store_write(store, 99, value, 4), FV_E_INTERNAL, "no such slot 99");
    int32_t data = fv_store_find(store, "data"), empty = fv_store_find(store, "empty");
    ck_says(fv_store_read(store, data, value, 4), FV_E_INTERNAL, "'data' has 24 bytes, not 4");
    ck_says(fv_store_write(store, data, NULL, 24), FV_E_INTERNAL, "nothing to copy 'data'");
    if (fv_store_slot(store, empty)->data) ck_assert_int_eq(fv_store_read(store, empty, NULL, 0), FV_OK);

    fv_graph *g = fv_graph_new(&ctx, true);
    fv_param(fv_root(g), "data", fv_shape(FV_F32, 7), FV_PLAIN, FV_ZEROS, false);
    ck_says(fv_store_bind(store, g), FV_E_MODEL, "'data' is f32 [6] in the store, but f32 [7] in the graph");
    ck_assert_int_eq(fv_store_create(&ctx, dev, &other), FV_OK);
    ck_assert_int_eq(fv_store_bind(other, g), FV_OK);
    ck_says(fv_store_read(other, 0, value, 28), FV_E_INTERNAL, "no such slot 0"); /* it has no memory yet */
    fv_graph_free(g);
    g = fv_graph_new(&ctx, true);
    fv_buffer(fv_root(g), "data", fv_shape(FV_F32, 6), FV_ZEROS);
    ck_assert_int_eq(fv_store_bind(store, g), FV_E_MODEL); /* a buffer is no weight */
    fv_graph_free(g);
    g = fv_graph_new(&ctx, true);
    fv_param(fv_root(g), "data", fv_shape(FV_F32, 6), FV_OIHW, FV_ZEROS, false);
    ck_assert_int_eq(fv_store_bind(store, g), FV_E_MODEL); /* nor has it this layout */
    fv_graph_free(g);

    ck_assert_int_eq(fv_store_clone(&ctx, store, dev, &clone), FV_OK);
    ck_assert_int_eq(fv_store_copy(clone, store), FV_OK);
    uint64_t a = 1, b = 2;
    ck_assert_int_eq(fv_store_hash(store, &a), FV_OK);
    ck_assert_int_eq(fv_store_hash(clone, &b), FV_OK);
    ck_assert_uint_eq(a, b);
    ck_says(fv_store_copy(clone, other), FV_E_INTERNAL, "the clone has other slots");
    fv_store_destroy(clone);
    fv_store_destroy(other);
    fv_store_destroy(store);
    fv_store_destroy(NULL);
    dev->backend->close(dev);
}
END_TEST

/* ---------------------------------------------------------------- programs */

START_TEST(test_constants_of_every_type) {
    static const double values[3] = {1, 2, 250};
    static const fv_dtype types[] = {FV_F32, FV_F64, FV_I64, FV_I32, FV_U8};
    fv_device *dev = open_ref();
    fv_store *store;
    fv_program *p;
    fv_graph *g = fv_graph_new(&ctx, false);
    fv_scope s = fv_root(g);
    char name[8] = "c0";
    for (int i = 0; i < 5; i++, name[1]++) fv_set_output(g, name, fv_const(s, fv_shape(types[i], 3), values));
    ck_assert_msg(fv_program_create(&ctx, g, dev, 1, NULL, &store, &p) == FV_OK, "%s", ctx.error.message);
    ck_assert_int_eq(fv_program_run(p, NULL, FV_ALL_SEGMENTS), FV_OK);
    float single[3];
    double wide[3];
    int64_t i64[3];
    int32_t i32[3];
    uint8_t bytes[3];
    ck_assert_int_eq(fv_program_output(p, "c0", single, sizeof single), FV_OK);
    ck_assert_int_eq(fv_program_output(p, "c1", wide, sizeof wide), FV_OK);
    ck_assert_int_eq(fv_program_output(p, "c2", i64, sizeof i64), FV_OK);
    ck_assert_int_eq(fv_program_output(p, "c3", i32, sizeof i32), FV_OK);
    ck_assert_int_eq(fv_program_output(p, "c4", bytes, sizeof bytes), FV_OK);
    for (int i = 0; i < 3; i++)
        ck_assert_msg((double)single[i] == values[i] && wide[i] == values[i] && (double)i64[i] == values[i] &&
                          i32[i] == values[i] && bytes[i] == values[i],
                      "element %d", i);
    ck_assert_double_eq(fv_program_scalar(p, "c0"), 1);
    ck_assert_double_eq(fv_program_scalar(p, "c1"), 1);
    ck_assert(isnan(fv_program_scalar(p, "c2"))); /* no float */
    ck_assert(isnan(fv_program_scalar(p, "nobody")));
    fv_program_destroy(p);
    fv_store_destroy(store);
    fv_program_destroy(NULL);
    dev->backend->close(dev);
}
END_TEST

START_TEST(test_programs_used_wrongly) {
    float value[8] = {0};
    int32_t labels[2] = {0, 7};
    fv_device *dev = open_ref();
    fv_store *store;
    fv_program *p;
    fv_graph *g = fv_graph_new(&ctx, false);
    fv_scope s = fv_root(g);
    fv_value x = fv_input(s, "x", fv_shape(FV_F32, 2, 3));
    fv_param(s, "w", fv_shape(FV_F32, 2), FV_PLAIN, FV_ZEROS, false);
    fv_set_output(g, "loss",
                  fv_softmax_cross_entropy(s, x, fv_input(s, "labels", fv_shape(FV_I32, 2)), FV_NONE, FV_NONE,
                                           (fv_loss_attr){0}));
    ck_assert_msg(fv_program_create(&ctx, g, dev, 1, NULL, &store, &p) == FV_OK, "%s", ctx.error.message);
    ck_assert_int_eq(fv_program_input(p, "nobody", value, 4), FV_OK); /* graphs for evaluation lack some inputs */
    ck_says(fv_program_input(p, "x", value, 4), FV_E_INTERNAL, "input 'x' takes 24 bytes, got 4");
    ck_says(fv_program_input(p, "w", value, 8), FV_E_INTERNAL, "input 'w' takes 8 bytes");
    ck_says(fv_program_output(p, "nobody", value, 4), FV_E_INTERNAL, "no output 'nobody'");
    ck_says(fv_program_output(p, "loss", value, 8), FV_E_INTERNAL, "output 'loss' has 4 bytes, not 8");
    ck_assert_int_eq(fv_program_input(p, "x", value, 24), FV_OK);
    ck_assert_int_eq(fv_program_input(p, "labels", labels, sizeof labels), FV_OK);
    fv_status status = fv_program_run(p, NULL, FV_ALL_SEGMENTS);
    ck_says(status, FV_E_DATA, "label"); /* a kernel's fault, of a node at the root: no scope in front */
    ck_assert_int_ne(ctx.error.message[0], ':');
    labels[1] = 2;
    ck_assert_int_eq(fv_program_input(p, "labels", labels, sizeof labels), FV_OK);
    ck_assert_int_eq(fv_program_run(p, NULL, FV_ALL_SEGMENTS), FV_OK); /* the fault is gone */
    fv_program_destroy(p);
    fv_store_destroy(store);
    dev->backend->close(dev);
}
END_TEST

/* ---------------------------------------------------------------- every failing allocation */

static fv_device *swept_device;
static fv_store *swept_store;

static fv_status build_store(void) {
    fv_store *store;
    fv_status status = make_store(swept_device, true, &store);
    fv_store_destroy(store);
    return status;
}
static fv_status clone_store(void) {
    fv_store *clone;
    FV_TRY(fv_store_clone(&ctx, swept_store, swept_device, &clone));
    fv_status status = fv_store_copy(clone, swept_store);
    fv_store_destroy(clone);
    return status;
}
static fv_status hash_store(void) {
    uint64_t hash;
    return fv_store_hash(swept_store, &hash);
}
static fv_status read_and_write(void) {
    int32_t slot = fv_store_find(swept_store, "data");
    float value[6];
    FV_TRY(fv_store_read(swept_store, slot, value, sizeof value));
    return fv_store_write(swept_store, slot, value, sizeof value);
}
static fv_status create_program(void) {
    fv_store *store;
    fv_program *p;
    const double ones[3] = {1, 1, 1};
    fv_graph *g = fv_graph_new(&ctx, true);
    if (!g) return ctx.error.code;
    fv_scope s = fv_in(fv_root(g), "a");
    fv_graph_freeze(g, (const char *const[]){"a.w", "b"}, 2);
    fv_value x = fv_input(s, "x", fv_shape(FV_F32, 2, 3)), wrt[1], dw[1];
    wrt[0] = fv_param(fv_in(s, "b"), "w", fv_shape(FV_F32, 3), FV_PLAIN, FV_ONES, false);
    fv_value y = fv_mul(s, fv_mul(s, fv_dropout(s, x, 0.5), wrt[0]), fv_const(s, fv_shape(FV_F32, 3), ones));
    fv_value z = fv_batch_norm(fv_in(s, "bn"), y, fv_const_fill(s, fv_shape(FV_F32, 3), 1), FV_NONE, 1e-5);
    fv_value loss = fv_sum(s, fv_relu(s, z), 3, false);
    fv_set_output(g, "loss", loss);
    fv_graph_fuse(g);
    fv_status status = fv_gradients(g, loss, 1, wrt, dw);
    if (status != FV_OK) {
        fv_graph_free(g);
        return status;
    }
    fv_set_output(g, "dw", dw[0]);
    FV_TRY(fv_program_create(&ctx, g, swept_device, 1, NULL, &store, &p));
    fv_program_destroy(p);
    fv_store_destroy(store);
    return FV_OK;
}
static fv_status open_ref_device(void) {
    fv_device *dev;
    FV_TRY(fv_backend_ref.open(&ctx, NULL, &dev));
    dev->backend->close(dev);
    return FV_OK;
}
static fv_status open_cpu_device(void) {
    fv_device *dev;
    FV_TRY(fv_backend_cpu.open(&ctx, &(fv_device_opts){.threads = 3, .isa = "generic"}, &dev));
    dev->backend->close(dev);
    return FV_OK;
}

static const struct {
    const char *name;
    fv_status (*run)(void);
} sweeps[] = {{"building a store", build_store},  {"cloning a store", clone_store},
              {"hashing a store", hash_store},    {"reading and writing a slot", read_and_write},
              {"a program", create_program},      {"the reference device", open_ref_device},
              {"the cpu device", open_cpu_device}};

START_TEST(test_every_failing_allocation_is_an_error) {
    swept_device = open_ref();
    ck_assert_int_eq(make_store(swept_device, true, &swept_store), FV_OK);
    int64_t live = memory.live;
    for (int64_t n = 1, reached = 1; reached; n++) {
        memory.calls = 0;
        memory.fail_at = n;
        fv_status status = sweeps[_i].run();
        reached = memory.calls >= n;
        memory.fail_at = 0;
        ck_assert_msg(status == (reached ? FV_E_MEMORY : FV_OK), "%s, allocation %d: status %d: %s", sweeps[_i].name,
                      (int)n, (int)status, ctx.error.message);
        ck_assert_msg(memory.live == live, "%s, allocation %d: something is left", sweeps[_i].name, (int)n);
    }
    fv_store_destroy(swept_store);
    swept_device->backend->close(swept_device);
}
END_TEST

Suite *refusals_suite(void) {
    Suite *s = suite_create("refusals");
    TCase *c = tcase_create("refusals");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 60);
    tcase_add_test(c, test_graphs_that_cannot_be);
    tcase_add_test(c, test_questions_about_values_that_are_not_there);
    tcase_add_test(c, test_gradients_that_cannot_be);
    tcase_add_test(c, test_damaged_graphs_are_recognised);
    tcase_add_test(c, test_dump_shows_every_attribute);
    tcase_add_test(c, test_devices_refuse_what_they_cannot_do);
    tcase_add_test(c, test_devices_refuse_other_precisions);
    tcase_add_test(c, test_initial_values_are_what_was_asked_for);
    tcase_add_test(c, test_stores_used_wrongly);
    tcase_add_test(c, test_constants_of_every_type);
    tcase_add_test(c, test_programs_used_wrongly);
    tcase_add_loop_test(c, test_every_failing_allocation_is_an_error, 0, sizeof sweeps / sizeof *sweeps);
    suite_add_tcase(s, c);
    return s;
}
