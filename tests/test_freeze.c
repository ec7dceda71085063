/* test_freeze.c: parts of a model that are not trained: what the stages of a model are, and that nothing of a frozen
 * part changes or is kept for it: no gradient, moment, average or stored activation. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "core/ops.h"
#include "layers/layers.h"
#include "optim/optim.h"
#include "tests/harness.h"

Suite *freeze_suite(void);

/* ---------------------------------------------------------------- names and stages */

START_TEST(prefixes_are_whole_components) {
    static const struct {
        const char *name, *prefix;
        bool below;
    } cases[] = {{"layer1.0.conv1.weight", "layer1", true},
                 {"layer1.0.conv1.weight", "layer1.", true},
                 {"layer1.0.conv1.weight", "layer1.0", true},
                 {"layer10.0.conv1.weight", "layer1", false},
                 {"cls_token", "cls_token", true},
                 {"cls_token", "cls", false},
                 {"layer1", "layer1.", false},
                 {"conv1.weight", "conv1.weight", true},
                 {"conv1.weight", "conv1.weight.", false},
                 {"conv1.weight", "", false},
                 {"conv1.weight", "weight", false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        ck_assert_msg(fv_name_below(cases[i].name, cases[i].prefix) == cases[i].below, "%s, %s", cases[i].name,
                      cases[i].prefix);
}
END_TEST

/* Whether the name is in the stage, "conv1,bn1". */
static bool in_stage(const char *name, const char *stage) {
    char list[128];
    snprintf(list, sizeof list, "%s", stage);
    for (char *rest = list, *prefix; (prefix = strsep(&rest, ","));)
        if (fv_name_below(name, prefix)) return true;
    return false;
}

/* Stages divide a model into parts that follow each other: all but head and last norm belongs to one. */
START_TEST(stages_cover_the_model) {
    const fv_model_entry *entry = fv_model_at(_i);
    const char *const *stages;
    int n = fv_model_stages(entry, &stages), last = 0, of_stage[64] = {0};
    ck_assert_int_ge(n, 1);
    ck_assert_int_le(n, 64);
    ck_assert_int_eq(fv_model_stages(entry, NULL), n);
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    fv_graph *g = fv_graph_new(&ctx, false);
    ck_assert_ptr_nonnull(g);
    int64_t size = entry->img_size;
    fv_value x = fv_input(fv_root(g), "image", fv_shape(FV_F32, 1, size, size, entry->in_chans));
    fv_model_build(g, entry->name, x, &(fv_model_cfg){.num_classes = 7});
    ck_assert_int_eq(fv_graph_finish(g), FV_OK);
    for (int32_t i = 0; i < g->n_decls; i++) {
        const char *name = g->decls[i].name;
        int found = -1, times = 0;
        for (int k = 0; k < n; k++)
            if (in_stage(name, stages[k])) found = k, times++;
        ck_assert_msg(times <= 1, "%s: %s is in %d stages", entry->name, name, times);
        bool after = fv_name_below(name, entry->head) || fv_name_below(name, "norm") || fv_name_below(name, "fc_norm");
        ck_assert_msg((times == 0) == after, "%s: %s is in %d stages", entry->name, name, times);
        if (times == 0) continue;
        ck_assert_msg(found >= last, "%s: %s of stage %d comes after stage %d", entry->name, name, found, last);
        last = found;
        of_stage[found]++;
    }
    for (int k = 0; k < n; k++) ck_assert_msg(of_stage[k] > 0, "%s: stage '%s' is empty", entry->name, stages[k]);
    fv_graph_free(g);
}
END_TEST

/* ---------------------------------------------------------------- a frozen stem */

enum { ROWS = 4, SIZE = 16, CLASSES = 5 };
static const char *const stem[] = {"conv1", "bn1", "layer1"};

static bool is_below(const char *name, const char *const *prefix, int n) {
    for (int i = 0; i < n; i++)
        if (fv_name_below(name, prefix[i])) return true;
    return false;
}

/* The training graph of resnet20 with n frozen prefixes. */
static fv_graph *training_graph(fv_ctx *ctx, const char *const *prefix, int n, int accumulate) {
    fv_graph *g = fv_graph_new(ctx, true);
    ck_assert_ptr_nonnull(g);
    fv_scope s = fv_root(g);
    fv_graph_freeze(g, prefix, n > 0);
    fv_graph_freeze(g, prefix + 1, n - 1); /* a second list adds to the first */
    fv_value x = fv_input(s, "image", fv_shape(FV_F32, ROWS, SIZE, SIZE, 3)),
             labels = fv_input(s, "label", fv_shape(FV_I32, ROWS));
    fv_value logits = fv_model_build(g, "resnet20", x, &(fv_model_cfg){.num_classes = CLASSES, .drop_path = 0.2});
    fv_value loss = fv_softmax_cross_entropy(s, logits, labels, FV_NONE, FV_NONE, (fv_loss_attr){0});
    fv_set_output(g, "loss", loss);
    fv_graph_fuse(g);
    fv_optim_cfg cfg = {.kind = FV_OPT_SGD, .momentum = 0.9, .ema = true, .accumulate = accumulate};
    ck_assert_msg(fv_optim_build(g, loss, &cfg) == FV_OK, "%s", ctx->error.message);
    return g;
}

static void run_steps(fvt_program *p, int steps) {
    double image[ROWS * SIZE * SIZE * 3], label[ROWS];
    for (int step = 0; step < steps; step++) {
        for (size_t i = 0; i < sizeof image / sizeof *image; i++) image[i] = fvt_normal(3, i, (uint32_t)step);
        for (int i = 0; i < ROWS; i++) label[i] = (step + i) % CLASSES;
        fvt_set(p, "image", image);
        fvt_set(p, "label", label);
        fv_step s = {.lr = {0.1, 0.1}, .ema_decay = 0.5, .step = step, .loss_scale = 1};
        ck_assert_int_eq(fv_program_run(p->program, &s, FV_ALL_SEGMENTS), FV_OK);
    }
}

/* Whether a slot holds other bits in the two stores. */
static bool differs(fvt_program *a, fvt_program *b, const char *name) {
    const fv_slot *x = fv_store_slot(a->store, fv_store_find(a->store, name));
    const fv_slot *y = fv_store_slot(b->store, fv_store_find(b->store, name));
    return memcmp(x->data, y->data, fv_bytes(x->type)) != 0;
}

/* After three steps: frozen weights and running statistics have the bits of before, all others moved. */
START_TEST(frozen_stays_and_the_rest_moves) {
    fvt_device d;
    fvt_program before, after;
    int frozen = 0, moved = 0;
    if (!fvt_open(&d, _i ? "cpu" : "ref", 2, NULL)) return;
    fvt_compile(&d, training_graph(&d.ctx, stem, 3, 0), false, &before);
    fvt_compile(&d, training_graph(&d.ctx, stem, 3, 0), false, &after);
    run_steps(&after, 3);
    for (int32_t i = 0; i < fv_store_count(after.store); i++) {
        const fv_slot *slot = fv_store_slot(after.store, i);
        const fv_slot *of = slot->of >= 0 ? fv_store_slot(after.store, slot->of) : slot;
        bool below = is_below(of->name, stem, 3);
        ck_assert_msg(slot->of < 0 || !below, "%s belongs to a frozen parameter", slot->name);
        ck_assert_int_eq(of->frozen, below);
        if (slot->role == FV_ROLE_MOMENT || slot->role == FV_ROLE_EMA) moved++;
        if (slot->role != FV_ROLE_WEIGHT && slot->role != FV_ROLE_BUFFER) continue;
        ck_assert_msg(differs(&before, &after, slot->name) != below, "%s %s", slot->name,
                      below ? "is frozen, but changed" : "did not change");
        frozen += below;
    }
    ck_assert_int_eq(frozen, 7 * (1 + 5)); /* seven convolutions, each with a norm's five */
    ck_assert_int_gt(moved, 0);
    fvt_destroy(&before);
    fvt_destroy(&after);
    fvt_close(&d);
}
END_TEST

/* Nothing of the backward pass reads what lies inside the frozen part, and the arena shrinks. */
START_TEST(nothing_is_kept_for_it) {
    fvt_device d;
    fvt_program whole, part;
    ck_assert(fvt_open(&d, "ref", 1, NULL)); /* whose nodes need no workspace */
    fvt_compile(&d, training_graph(&d.ctx, NULL, 0, 0), false, &whole);
    fvt_compile(&d, training_graph(&d.ctx, stem, 3, 0), false, &part);
    const fv_plan *plan = fv_program_plan(part.program);
    const fv_graph *g = plan->graph;
    int inside = 0, boundary = 0;
    for (int32_t k = 0; k < g->n_nodes; k++) {
        const fv_node *n = &g->nodes[k];
        bool below = is_below(n->scope, stem, 3);
        ck_assert_msg(!below || !n->backward, "%s in '%s' is part of the backward pass", fv_op_get(n->op)->name,
                      n->scope);
        ck_assert(!below || (n->op != FV_OP_BATCH_NORM && n->op != FV_OP_LERP_ASSIGN && n->op != FV_OP_INCREMENT));
        inside += below;
        for (int j = 0; n->backward && j < n->operands; j++) {
            const fv_val *v = &g->values[g->operands[n->first_operand + j].id];
            if (v->kind == FV_VAL_RESULT && is_below(g->nodes[v->node].scope, stem, 3)) boundary = v->node;
        }
    }
    ck_assert_int_gt(inside, 0);
    for (int32_t k = boundary + 1; k < g->n_nodes; k++) /* what is read is the last node's result alone */
        ck_assert(!is_below(g->nodes[k].scope, stem, 3));
    const fv_plan *all = fv_program_plan(whole.program);
    ck_assert_msg(3 * plan->arena_bytes < 2 * all->arena_bytes, "arena of %zu bytes, %zu with nothing frozen",
                  plan->arena_bytes, all->arena_bytes);
    for (fv_role role = FV_ROLE_MOMENT; role <= FV_ROLE_EMA; role++)
        ck_assert_uint_lt(fv_store_role_bytes(part.store, role), fv_store_role_bytes(whole.store, role));
    ck_assert_uint_eq(fv_store_role_bytes(part.store, FV_ROLE_WEIGHT),
                      fv_store_role_bytes(whole.store, FV_ROLE_WEIGHT));
    fvt_destroy(&whole);
    fvt_destroy(&part);
    fvt_close(&d);
}
END_TEST

/* A frozen norm behind a convolution that is trained: the gradient goes through it. Half of a norm does not freeze it.
 */
START_TEST(gradient_through_a_frozen_norm) {
    static const char *const norm[] = {"bn1"}, *const half[] = {"bn1.bias"};
    fvt_device d;
    fvt_program before, after;
    ck_assert(fvt_open(&d, "cpu", 2, NULL));
    fvt_compile(&d, training_graph(&d.ctx, norm, 1, 0), false, &before);
    fvt_compile(&d, training_graph(&d.ctx, norm, 1, 0), false, &after);
    run_steps(&after, 1);
    ck_assert(differs(&before, &after, "conv1.weight"));
    ck_assert(!differs(&before, &after, "bn1.weight"));
    ck_assert(!differs(&before, &after, "bn1.running_var"));
    ck_assert(differs(&before, &after, "layer1.0.bn1.running_var"));
    fvt_destroy(&before);
    fvt_destroy(&after);
    fvt_compile(&d, training_graph(&d.ctx, half, 1, 0), false, &before);
    fvt_compile(&d, training_graph(&d.ctx, half, 1, 0), false, &after);
    run_steps(&after, 1);
    ck_assert(differs(&before, &after, "bn1.weight"));
    ck_assert(!differs(&before, &after, "bn1.bias"));
    ck_assert(differs(&before, &after, "bn1.running_var"));
    fvt_destroy(&before);
    fvt_destroy(&after);
    fvt_close(&d);
}
END_TEST

/* Stochastic depth of frozen blocks stays as it is; so does the evaluation graph. */
START_TEST(the_rest_is_as_before) {
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    int drops[2] = {0};
    for (int i = 0; i < 2; i++) {
        fv_graph *g = training_graph(&ctx, i ? stem : NULL, i ? 3 : 0, 0);
        for (int32_t k = 0; k < g->n_nodes; k++) drops[i] += g->nodes[k].op == FV_OP_DROP_PATH && !g->nodes[k].backward;
        fv_graph_free(g);
    }
    ck_assert_int_eq(drops[0], 8); /* the first block of nine has a rate of 0 */
    ck_assert_int_eq(drops[1], drops[0]);
}
END_TEST

START_TEST(nothing_left_to_train) {
    static const char *const all[] = {"conv1", "bn1", "layer1", "layer2", "layer3", "linear"};
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    fv_graph *g = fv_graph_new(&ctx, true);
    fv_scope s = fv_root(g);
    fv_graph_freeze(g, all, 6);
    fv_value x = fv_input(s, "image", fv_shape(FV_F32, ROWS, SIZE, SIZE, 3));
    fv_value logits = fv_model_build(g, "resnet20", x, &(fv_model_cfg){.num_classes = CLASSES});
    fv_value loss = fv_softmax_cross_entropy(s, logits, fv_input(s, "label", fv_shape(FV_I32, ROWS)), FV_NONE, FV_NONE,
                                             (fv_loss_attr){0});
    ck_assert_int_eq(fv_optim_build(g, loss, &(fv_optim_cfg){.kind = FV_OPT_SGD}), FV_E_USAGE);
    ck_assert_msg(strstr(ctx.error.message, "every parameter is frozen") != NULL, "%s", ctx.error.message);
    fv_graph_free(g);
}
END_TEST

Suite *freeze_suite(void) {
    Suite *suite = suite_create("freeze");
    TCase *names = tcase_create("names"), *steps = tcase_create("steps");
    tcase_add_test(names, prefixes_are_whole_components);
    tcase_add_loop_test(names, stages_cover_the_model, 0, fv_model_count());
    suite_add_tcase(suite, names);
    tcase_set_timeout(steps, 120);
    tcase_add_loop_test(steps, frozen_stays_and_the_rest_moves, 0, 2);
    tcase_add_test(steps, nothing_is_kept_for_it);
    tcase_add_test(steps, gradient_through_a_frozen_norm);
    tcase_add_test(steps, the_rest_is_as_before);
    tcase_add_test(steps, nothing_left_to_train);
    suite_add_tcase(suite, steps);
    return suite;
}
