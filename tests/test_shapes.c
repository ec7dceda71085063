/* test_shapes.c: what core/ops/ says of each operation: shapes, refusals, gradients' types, changes in place, cost. */
#include "tests/shape_cases.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

Suite *shapes_suite(void);

/* ---------------------------------------------------------------- shapes */

static fv_dtype parse_dtype(const char **text) {
    for (int d = 0; d < FV_DTYPE_COUNT; d++) {
        const char *name = fv_dtype_name((fv_dtype)d);
        if (strncmp(*text, name, strlen(name))) continue;
        *text += strlen(name);
        return (fv_dtype)d;
    }
    ck_abort_msg("no element type: %s", *text);
    return FV_F32;
}

/* "f32[2,3] -": inputs of the graph, absent for "-". */
static int parse_operands(fv_graph *g, const char *text, fv_value *out, int limit) {
    int n = 0;
    while (*text) {
        ck_assert_int_lt(n, limit);
        if (*text == '-') {
            out[n++] = FV_NONE;
            text++;
        } else {
            fv_type t = {.dtype = parse_dtype(&text)};
            for (text++; *text != ']'; text += *text == ',') t.dim[t.rank++] = strtoll(text, (char **)&text, 10);
            text++;
            char name[16];
            snprintf(name, sizeof name, "in%d", n);
            out[n++] = fv_input(fv_root(g), name, t);
        }
        text += *text == ' ';
    }
    return n;
}

static void results_text(const fv_graph *g, const fv_node *node, char *buf, size_t size) {
    buf[0] = 0;
    for (int r = 0; r < node->results; r++) {
        size_t used = strlen(buf);
        char one[96];
        snprintf(buf + used, size - used, "%s%s", r ? " " : "",
                 fv_type_text(g->values[node->first_result + r].type, one, sizeof one));
    }
}

START_TEST(shape_rule) {
    const shape_case *c = &cases[_i];
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    fv_graph *g = fv_graph_new(&ctx, true);
    ck_assert_ptr_nonnull(g);
    fv_value in[16];
    int n = parse_operands(g, c->in, in, 16);
    ck_assert_int_eq(g->error, FV_OK);
    fv_op_node(fv_root(g), c->op, in, n, &c->attr);
    const char *name = fv_op_get(c->op)->name;
    if (c->want[0] == '!') {
        ck_assert_msg(g->error == FV_E_MODEL, "%s(%s): expected an error with '%s'", name, c->in, c->want + 1);
        ck_assert_msg(strstr(g->error_text, c->want + 1) != NULL, "%s(%s): expected '%s' in '%s'", name, c->in,
                      c->want + 1, g->error_text);
        ck_assert_msg(strstr(g->error_text, name) != NULL, "no '%s' in '%s'", name, g->error_text);
    } else {
        ck_assert_msg(g->error == FV_OK, "%s(%s): %s", name, c->in, g->error_text);
        char got[256];
        results_text(g, &g->nodes[0], got, sizeof got);
        ck_assert_msg(!strcmp(got, c->want), "%s(%s): '%s', expected '%s'", name, c->in, got, c->want);
        ck_assert(fv_node_flops(g, &g->nodes[0]) >= 0);
        ck_assert(fv_node_bytes(g, &g->nodes[0]) > 0);
    }
    fv_graph_free(g);
}
END_TEST

START_TEST(every_op_has_a_good_case) {
    for (int op = 0; op < FV_OP_COUNT; op++) {
        bool good = false;
        for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
            good |= (int)cases[k].op == op && cases[k].want[0] != '!';
        ck_assert_msg(good, "%s has no good case", fv_op_get((fv_op)op)->name);
    }
}
END_TEST

/* ---------------------------------------------------------------- gradients */

/* Each differentiable good case: the gradients of the operands have the operands' types, and the graph verifies. */
START_TEST(gradient_types) {
    const shape_case *c = &cases[_i];
    if (!fv_op_get(c->op)->grad || c->want[0] == '!') return;
    bool loss = c->op == FV_OP_SOFTMAX_CROSS_ENTROPY || c->op == FV_OP_BCE_WITH_LOGITS;
    bool given_statistics = c->op == FV_OP_BATCH_NORM_INFER;
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    fv_graph *g = fv_graph_new(&ctx, true);
    fv_value in[16], wrt[16], grads[16];
    int n = parse_operands(g, c->in, in, 16), n_wrt = 0;
    for (int k = 0; k < n; k++) {
        fv_dtype dtype = fv_typeof(g, in[k]).dtype;
        bool has_gradient =
            (dtype == FV_F32 || dtype == FV_F64) && !(loss && k > 0) && !(given_statistics && (k == 1 || k == 2));
        if (!fv_is_none(in[k]) && has_gradient) wrt[n_wrt++] = in[k];
    }
    fv_value y = fv_op_node(fv_in(fv_root(g), "block"), c->op, in, n, &c->attr);
    fv_value dy = fv_const_fill(fv_root(g), fv_typeof(g, y), 1);
    const char *name = fv_op_get(c->op)->name;
    ck_assert_msg(fv_gradients_from(g, y, dy, n_wrt, wrt, grads) == FV_OK, "%s(%s): %s", name, c->in,
                  ctx.error.message);
    for (int k = 0; k < n_wrt; k++) {
        ck_assert_msg(!fv_is_none(grads[k]), "%s(%s): no gradient for operand %d", name, c->in, k);
        ck_assert_msg(fv_same_type(fv_typeof(g, grads[k]), fv_typeof(g, wrt[k])), "%s(%s): type of gradient %d", name,
                      c->in, k);
    }
    ck_assert_msg(fv_graph_verify(g) == FV_OK, "%s(%s): %s", name, c->in, ctx.error.message);
    for (int k = 0; k < g->n_nodes; k++) ck_assert_str_eq(g->nodes[k].scope, "block");
    fv_graph_free(g);
}
END_TEST

/* The gradient of result `r` of y with respect to v must fail with a message that has this part. */
static void expect_gradient_error(fv_graph *g, fv_value y, int r, fv_value v, const char *part) {
    fv_value result = fv_result(y, r), grad;
    fv_value dy = fv_const_fill(fv_root(g), fv_typeof(g, result), 1);
    ck_assert_int_eq(fv_gradients_from(g, result, dy, 1, &v, &grad), FV_E_MODEL);
    ck_assert_msg(strstr(g->ctx->error.message, part) != NULL, "expected '%s' in '%s'", part, g->ctx->error.message);
    fv_graph_free(g);
}

START_TEST(refused_gradients) {
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    fv_value in[4];
    fv_graph *g = fv_graph_new(&ctx, true);
    parse_operands(g, "f32[5,4]", in, 4);
    expect_gradient_error(g, fv_batch_norm(fv_root(g), in[0], FV_NONE, FV_NONE, 1e-5), 2, in[0],
                          "batch_norm: the batch statistics");

    g = fv_graph_new(&ctx, true);
    parse_operands(g, "f32[5,4]", in, 4);
    expect_gradient_error(g, fv_layer_norm(fv_root(g), in[0], FV_NONE, FV_NONE, 1e-5), 1, in[0],
                          "layer_norm: the statistics");

    g = fv_graph_new(&ctx, true);
    parse_operands(g, "f32[5,4] i32[5]", in, 4);
    fv_value loss = fv_softmax_cross_entropy(fv_root(g), in[0], in[1], FV_NONE, FV_NONE, (fv_loss_attr){0});
    expect_gradient_error(g, loss, 1, in[0], "the loss of each row cannot be differentiated");

    g = fv_graph_new(&ctx, true);
    parse_operands(g, "f32[5,4] f32[5,4]", in, 4);
    loss = fv_softmax_cross_entropy(fv_root(g), in[0], in[1], FV_NONE, FV_NONE, (fv_loss_attr){0});
    expect_gradient_error(g, loss, 0, in[1], "targets and weights have no gradient");

    g = fv_graph_new(&ctx, true);
    parse_operands(g, "f32[2,5,12]", in, 4);
    expect_gradient_error(g, fv_attention(fv_root(g), in[0], FV_NONE, FV_NONE, 2, 0), 1, in[0],
                          "attention: the second result");

    g = fv_graph_new(&ctx, true);
    parse_operands(g, "f32[5,4] i32[5]", in, 4);
    expect_gradient_error(g, fv_topk_correct(fv_root(g), in[0], in[1], FV_NONE, 1), 0, in[0],
                          "topk_correct has no gradient");
}
END_TEST

/* Backward repeats the draws of forward: same op, stream and row keys. */
START_TEST(dropout_gradient_repeats_the_draws) {
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    fv_graph *g = fv_graph_new(&ctx, true);
    fv_value x = fv_input(fv_root(g), "x", fv_shape(FV_F32, 4, 3)), dx;
    fv_value y = fv_dropout(fv_in(fv_root(g), "drop%d", 1), x, 0.25);
    fv_value dy = fv_const_fill(fv_root(g), fv_typeof(g, y), 1);
    ck_assert_int_eq(fv_gradients_from(g, y, dy, 1, &x, &dx), FV_OK);
    ck_assert_int_eq(g->n_nodes, 2);
    const fv_node *f = &g->nodes[0], *b = &g->nodes[1];
    ck_assert_int_eq(b->op, FV_OP_DROPOUT);
    ck_assert_uint_eq(b->stream, f->stream);
    ck_assert_uint_eq(b->stream, fv_hash_name("drop1"));
    ck_assert_int_eq(g->operands[b->first_operand + 1].id, g->operands[f->first_operand + 1].id);
    ck_assert(b->attr.dropout.p == 0.25);
    fv_graph_free(g);
}
END_TEST

/* ---------------------------------------------------------------- builders */

START_TEST(defaults_are_completed) {
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    fv_graph *g = fv_graph_new(&ctx, true);
    fv_scope s = fv_root(g);
    fv_value x = fv_input(s, "x", fv_shape(FV_F32, 2, 8, 8, 4)), w = fv_input(s, "w", fv_shape(FV_F32, 4, 3, 3, 4));
    fv_value qkv = fv_input(s, "qkv", fv_shape(FV_F32, 2, 5, 96));
    fv_conv2d(s, x, w, FV_NONE, (fv_conv2d_attr){0});
    fv_avg_pool2d(s, x, (fv_pool_attr){.kernel = {2, 4}});
    fv_attention(s, qkv, FV_NONE, FV_NONE, 2, 0);
    ck_assert_int_eq(g->error, FV_OK);
    const fv_conv2d_attr *conv = &g->nodes[0].attr.conv2d;
    ck_assert(conv->stride[0] == 1 && conv->stride[1] == 1 && conv->dilation[0] == 1 && conv->dilation[1] == 1 &&
              conv->groups == 1);
    ck_assert(g->nodes[1].attr.pool.stride[0] == 2 && g->nodes[1].attr.pool.stride[1] == 4);
    ck_assert(g->nodes[2].attr.attention.scale == 0.25); /* 1 / sqrt(16) */
    fv_graph_free(g);
}
END_TEST

START_TEST(builders_that_may_build_nothing) {
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    fv_graph *g = fv_graph_new(&ctx, false);
    fv_scope s = fv_root(g);
    fv_value x = fv_input(s, "x", fv_shape(FV_F32, 2, 8, 8, 4));
    ck_assert_int_eq(fv_dropout(s, x, 0.5).id, x.id);
    ck_assert_int_eq(fv_drop_path(s, x, 0).id, x.id);
    ck_assert_int_eq(fv_activation(s, x, FV_ACT_NONE, 0).id, x.id);
    ck_assert_int_eq(g->n_nodes, 0);
    ck_assert(fv_is_none(fv_dropout(s, x, 1)));
    ck_assert_int_eq(g->error, FV_E_MODEL);
    fv_graph_free(g);
}
END_TEST

START_TEST(shape_builders) {
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    fv_graph *g = fv_graph_new(&ctx, true);
    fv_scope s = fv_root(g);
    fv_value x = fv_input(s, "x", fv_shape(FV_F32, 2, 3, 4, 5));
    ck_assert(fv_same_type(fv_typeof(g, fv_flatten(s, x)), fv_shape(FV_F32, 2, 60)));
    ck_assert(fv_same_type(fv_typeof(g, fv_global_avg_pool(s, x)), fv_shape(FV_F32, 2, 5)));
    ck_assert(fv_same_type(fv_typeof(g, fv_reshape_to(s, x, 6, -1)), fv_shape(FV_F32, 6, 20)));
    fv_value halves[2];
    for (int k = 0; k < 2; k++) halves[k] = fv_slice(s, x, (int64_t[]){k, 0, 0, 0}, (int64_t[]){1, 3, 4, 5}, NULL);
    ck_assert(fv_same_type(fv_typeof(g, fv_concat(s, halves, 2, 0)), fv_typeof(g, x)));
    fv_value padded = fv_pad(s, x, (int64_t[]){0, 1, 1, 0}, (int64_t[]){0, 1, 1, 0}, 0);
    ck_assert(fv_same_type(fv_typeof(g, padded), fv_shape(FV_F32, 2, 5, 6, 5)));
    fv_value turned = fv_transpose(s, x, (int32_t[]){0, 3, 1, 2});
    ck_assert(fv_same_type(fv_typeof(g, turned), fv_shape(FV_F32, 2, 5, 3, 4)));
    ck_assert_int_eq(g->error, FV_OK);
    ck_assert(fv_is_none(fv_global_avg_pool(s, fv_flatten(s, x))));
    ck_assert_msg(strstr(g->error_text, "global_avg_pool: x must have rank 4") != NULL, "%s", g->error_text);
    ck_assert(fv_is_none(fv_relu(s, x))); /* the first error stays */
    fv_graph_free(g);
}
END_TEST

/* ---------------------------------------------------------------- state and cost */

START_TEST(what_changes_in_place) {
    static const struct {
        fv_op op;
        int operands, count;
        const char *mutated; /* one digit per operand */
    } ops[] = {
        {FV_OP_ASSIGN, 2, 0, "10"},
        {FV_OP_ACCUMULATE, 2, 0, "10"},
        {FV_OP_LERP_ASSIGN, 2, 0, "10"},
        {FV_OP_FILL, 1, 0, "1"},
        {FV_OP_INCREMENT, 1, 0, "1"},
        {FV_OP_SGD_UPDATE, 7, 2, "0110011"},
        {FV_OP_ADAM_UPDATE, 9, 2, "011001111"},
        {FV_OP_MUON_UPDATE, 7, 2, "0110011"},
        {FV_OP_EMA_UPDATE, 5, 2, "01100"},
        {FV_OP_LOOKAHEAD_UPDATE, 5, 2, "01111"},
        {FV_OP_GRAD_STATS, 2, 0, "00"},
        {FV_OP_ADD, 2, 0, "00"},
    };
    for (size_t k = 0; k < sizeof ops / sizeof *ops; k++) {
        fv_node node = {.op = ops[k].op, .operands = ops[k].operands, .attr = {.update = {.count = ops[k].count}}};
        for (int j = 0; j < ops[k].operands; j++)
            ck_assert_msg(fv_op_mutates_operand(&node, j) == (ops[k].mutated[j] == '1'), "%s: operand %d",
                          fv_op_get(ops[k].op)->name, j);
        ck_assert_int_eq(fv_op_get(ops[k].op)->mutates, strchr(ops[k].mutated, '1') != NULL);
    }
}
END_TEST

START_TEST(only_state_changes) {
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    fv_graph *g = fv_graph_new(&ctx, true);
    fv_value x = fv_input(fv_root(g), "x", fv_shape(FV_F32, 2));
    fv_value state = fv_buffer(fv_root(g), "state", fv_shape(FV_F32, 2), FV_ZEROS);
    fv_assign(fv_root(g), state, x);
    fv_lerp_assign(fv_root(g), state, x, 0.1, 1);
    fv_fill(fv_root(g), state, 3);
    ck_assert_int_eq(g->error, FV_OK);
    ck_assert(g->nodes[2].attr.scale.add == 3);
    fv_accumulate(fv_root(g), x, state);
    ck_assert_msg(strstr(g->error_text, "accumulate: changes a value that is neither parameter nor state") != NULL,
                  "%s", g->error_text);
    fv_graph_free(g);
}
END_TEST

static double flops_of(fv_op op, const char *in, fv_attr attr) {
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    fv_graph *g = fv_graph_new(&ctx, true);
    fv_value operands[64];
    int n = parse_operands(g, in, operands, 64);
    fv_op_node(fv_root(g), op, operands, n, &attr);
    ck_assert_msg(g->error == FV_OK, "%s", g->error_text);
    double flops = fv_node_flops(g, &g->nodes[0]);
    fv_graph_free(g);
    return flops;
}

START_TEST(cost) {
    fv_attr conv = CONV(.pad = {1, 1, 1, 1}, .groups = 2), none = NO_ATTR, heads = ATTENTION(3);
    fv_attr dx = CONV_BWD({.pad = {1, 1, 1, 1}, .groups = 2}, {2, 8, 8, 4});
    fv_attr dw = CONV_BWD({.pad = {1, 1, 1, 1}, .groups = 2}, {16, 3, 3, 2});
    const double conv_flops = 2.0 * (2 * 8 * 8 * 16) * (3 * 3 * 2);
    ck_assert(flops_of(FV_OP_CONV2D, "f32[2,8,8,4] f32[16,3,3,2]", conv) == conv_flops);
    ck_assert(flops_of(FV_OP_CONV2D_BWD_DATA, "f32[2,8,8,16] f32[16,3,3,2]", dx) == conv_flops);
    ck_assert(flops_of(FV_OP_CONV2D_BWD_WEIGHT, "f32[2,8,8,16] f32[2,8,8,4]", dw) == conv_flops);
    const double linear_flops = 2.0 * 10 * 7 * 3;
    ck_assert(flops_of(FV_OP_LINEAR, "f32[2,5,7] f32[3,7]", none) == linear_flops);
    ck_assert(flops_of(FV_OP_LINEAR_BWD_DATA, "f32[2,5,3] f32[3,7]", none) == linear_flops);
    ck_assert(flops_of(FV_OP_LINEAR_BWD_WEIGHT, "f32[2,5,3] f32[2,5,7]", none) == linear_flops);
    ck_assert(flops_of(FV_OP_MATMUL, "f32[2,7,5] f32[2,7,3]", (fv_attr){.matmul = {true, false}}) ==
              2.0 * 2 * 5 * 7 * 3);
    ck_assert(flops_of(FV_OP_ATTENTION, "f32[2,5,12] f32[2,7,12] f32[2,7,12]", heads) == 2 * 2.0 * 2 * 5 * 7 * 12);
    ck_assert(flops_of(FV_OP_ATTENTION, "f32[2,5,36]", heads) == 2 * 2.0 * 2 * 5 * 5 * 12);
    ck_assert(flops_of(FV_OP_RESHAPE, "f32[2,5]", (fv_attr){.shape = {1, {10}}}) == 0);
    /* more operands than one piece of the list holds */
    fv_attr sgd = UPDATE(.count = 7, .momentum = 0.9);
    const char *seven = "f32[3] f32[3] f32[3] f32[3] f32[3] f32[3] f32[3]";
    char in[256];
    snprintf(in, sizeof in, "- %s %s %s", seven, seven, seven);
    ck_assert(flops_of(FV_OP_SGD_UPDATE, in, sgd) == 2.0 * 3 * 21);
}
END_TEST

START_TEST(bytes_count_each_tensor_once) {
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    fv_graph *g = fv_graph_new(&ctx, true);
    fv_scope s = fv_root(g);
    fv_value x = fv_input(s, "x", fv_shape(FV_F32, 10)), state = fv_buffer(s, "state", fv_shape(FV_F32, 10), FV_ZEROS);
    fv_mul(s, x, x);
    fv_accumulate(s, state, x);
    fv_assign(s, state, x);
    ck_assert_int_eq(g->error, FV_OK);
    ck_assert(fv_node_bytes(g, &g->nodes[0]) == 80);
    ck_assert(fv_node_bytes(g, &g->nodes[1]) == 120); /* the state is read and written */
    ck_assert(fv_node_bytes(g, &g->nodes[2]) == 80);
    fv_graph_free(g);
}
END_TEST

Suite *shapes_suite(void) {
    Suite *suite = suite_create("shapes");
    TCase *rules = tcase_create("rules");
    int n = (int)(sizeof cases / sizeof *cases);
    tcase_add_loop_test(rules, shape_rule, 0, n);
    tcase_add_test(rules, every_op_has_a_good_case);
    suite_add_tcase(suite, rules);
    TCase *gradients = tcase_create("gradients");
    tcase_add_loop_test(gradients, gradient_types, 0, n);
    tcase_add_test(gradients, refused_gradients);
    tcase_add_test(gradients, dropout_gradient_repeats_the_draws);
    suite_add_tcase(suite, gradients);
    TCase *builders = tcase_create("builders");
    tcase_add_test(builders, defaults_are_completed);
    tcase_add_test(builders, builders_that_may_build_nothing);
    tcase_add_test(builders, shape_builders);
    tcase_add_test(builders, what_changes_in_place);
    tcase_add_test(builders, only_state_changes);
    tcase_add_test(builders, cost);
    tcase_add_test(builders, bytes_count_each_tensor_once);
    suite_add_tcase(suite, builders);
    return suite;
}
