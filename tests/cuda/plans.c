/* plans.c: cuDNN's plans for every convolution of every model in training, made without a GPU for the device that a
 * JSON file describes: there is one, it keeps within the workspace, and it gives the same bits in every run.
 *
 *   plans tests/cuda/h200.json [MODEL...]      -v: a line per plan
 *
 * Ends with "N passed, M failed". Without libcudnn it says SKIPPED. */
#include "cuda/conv_cudnn.h"
#include "fovea.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 4096
#define SKIPPED 77

typedef struct test {
    fv_ctx ctx;
    fv_cudnn cudnn;
    fv_cuda_problem seen[MOST];
    int n_seen, planned, failed, runtime_compiled, candidates;
    int64_t workspace; /* the largest */
    bool verbose;
} test;

/* ---------------------------------------------------------------- the graphs */

/* The training graph of a model, as `fovea train` has it but for what does not concern convolutions. */
static fv_graph *training_graph(test *t, const fv_model_entry *m, int64_t batch, fv_dtype precision) {
    fv_graph *g = fv_graph_new(&t->ctx, true);
    if (!g) return NULL;
    fv_scope s = fv_root(g);
    fv_value x = fv_input(s, "x", fv_shape(FV_F32, batch, m->img_size, m->img_size, m->in_chans));
    fv_value labels = fv_input(s, "labels", fv_shape(FV_I32, batch));
    fv_value logits = fv_model_build(g, m->name, x, &(fv_model_cfg){.num_classes = 10});
    fv_value loss = fv_softmax_cross_entropy(s, logits, labels, FV_NONE, FV_NONE, (fv_loss_attr){0});
    fv_set_output(g, "loss", loss);
    fv_graph_fuse(g);
    fv_status status = fv_optim_build(g, loss, &(fv_optim_cfg){.kind = FV_OPT_SGD});
    if (fv_is_low(precision)) fv_graph_mix_precision(g, precision);
    if (status == FV_OK && fv_graph_finish(g) == FV_OK) return g;
    fv_graph_free(g);
    return NULL;
}

static bool is_new(test *t, const fv_cuda_problem *p) {
    for (int i = 0; i < t->n_seen; i++)
        if (!memcmp(&t->seen[i], p, sizeof *p)) return false;
    if (t->n_seen == MOST) return false;
    t->seen[t->n_seen++] = *p;
    return true;
}

/* ---------------------------------------------------------------- the plans */

static void report(test *t, const fv_cuda_problem *p, const char *text) {
    char name[192];
    printf("%s: %s\n", fv_cuda_problem_text(p, name, sizeof name), text);
    t->failed++;
}

/* float32 may have no engine that is plain float32: our own kernel runs then. What there is must keep the promises. */
static void check(test *t, const fv_cuda_problem *p) {
    const fv_cudnn_limits limits = {.workspace = (int64_t)256 << 20, .most = 1};
    const bool half = p->dtype[0] != FV_F32;
    fv_cudnn_plans plans;
    char why[256], name[192];
    if (!fv_cudnn_plans_make(&t->cudnn, p, &limits, &plans, why, sizeof why)) {
        if (half) report(t, p, why);
        else if (t->verbose) printf("%s: our own: %s\n", fv_cuda_problem_text(p, name, sizeof name), why);
        return;
    }
    const fv_cudnn_plan plan = plans.plan[0];
    t->planned++;
    t->runtime_compiled += plan.runtime_compiled;
    if (plan.workspace > t->workspace) t->workspace = plan.workspace;
    if (plan.workspace < 0 || plan.workspace > limits.workspace) report(t, p, "more workspace than allowed");
    if (plan.any_order) report(t, p, "an engine that sums in any order");
    const fv_cuda_conv *c = &p->of.conv;
    /* Pointwise ones wait for memory, not for arithmetic. */
    if (half && !plan.tensor_cores && c->r > 1 && c->c / c->groups % 8 == 0 && c->k / c->groups % 8 == 0)
        report(t, p, "an engine without tensor cores");
    if (!half && plan.tensor_cores) report(t, p, "float32 is rounded to TF32");
    if (t->verbose)
        printf("%s: engine %lld, %.1f MB\n", fv_cuda_problem_text(p, name, sizeof name), (long long)plan.engine,
               1e-6 * (double)plan.workspace);
    fv_cudnn_plans_free(&t->cudnn, &plans);
}

/* Several plans for a problem: names differ, a name asked for again is the same engine, one that is kept is left. */
static void check_candidates(test *t, const fv_cuda_problem *p) {
    fv_cudnn_limits limits = {.workspace = (int64_t)256 << 20, .most = 4};
    fv_cudnn_plans all, one;
    char why[256];
    if (!fv_cudnn_plans_make(&t->cudnn, p, &limits, &all, why, sizeof why)) return report(t, p, why);
    for (int i = 1; i < all.n; i++)
        for (int k = 0; k < i; k++)
            if (all.plan[i].name == all.plan[k].name) report(t, p, "two candidates of one name");
    const int last = all.n - 1;
    limits.only = all.plan[last].name;
    if (!fv_cudnn_plans_make(&t->cudnn, p, &limits, &one, why, sizeof why)) report(t, p, why);
    else if (one.n != 1 || one.plan[0].name != limits.only || one.plan[0].engine != all.plan[last].engine)
        report(t, p, "a name stands for two engines");
    t->candidates += all.n;
    fv_cudnn_plans_keep(&t->cudnn, &all, last);
    if (all.n != 1 || all.plan[0].name != limits.only) report(t, p, "another plan was kept");
    fv_cudnn_plans_free(&t->cudnn, &all);
    fv_cudnn_plans_free(&t->cudnn, &one);
}

static void check_model(test *t, const fv_model_entry *m, fv_dtype precision) {
    fv_graph *g = training_graph(t, m, m->img_size > 64 ? 64 : 128, precision);
    if (!g) {
        printf("%s: %s\n", m->name, t->ctx.error.message);
        t->failed++;
        return;
    }
    for (int32_t i = 0; i < g->n_nodes; i++) {
        fv_cuda_problem p;
        if (fv_cuda_problem_of(g, &g->nodes[i], &p) && p.task != FV_CUDA_GEMM && is_new(t, &p)) {
            check(t, &p);
            if (!strcmp(m->name, "resnet20") && precision != FV_F32) check_candidates(t, &p);
        }
    }
    fv_graph_free(g);
}

static bool read_json(const char *path, char *json, size_t size) {
    FILE *f = fopen(path, "re");
    if (!f) return false;
    size_t n = fread(json, 1, size - 1, f);
    json[n] = '\0';
    while (n > 0 && json[n - 1] == '\n') json[--n] = '\0';
    return fclose(f) == 0 && n > 0;
}

static int open_cudnn(test *t, const char *path) {
    char json[4096], why[256];
    void *library = dlopen("libcudnn.so.9", RTLD_NOW | RTLD_GLOBAL);
    if (!library) library = dlopen("/usr/local/cuda/lib64/libcudnn.so.9", RTLD_NOW | RTLD_GLOBAL);
    if (!library || !fv_cudnn_functions(&t->cudnn, library)) return SKIPPED;
    if (!read_json(path, json, sizeof json)) return fprintf(stderr, "%s cannot be read\n", path), 1;
    if (fv_cudnn_describe_device(&t->cudnn, json, why, sizeof why)) return 0;
    return fprintf(stderr, "%s: %s\n", path, why), 1;
}

static bool wanted(const char *name, char **names, int n) {
    for (int i = 0; i < n; i++)
        if (!strcmp(name, names[i])) return true;
    return n == 0;
}

int main(int argc, char **argv) {
    static test t;
    int first = 2;
    if (argc < 2) return fprintf(stderr, "usage: %s DEVICE.json [-v] [MODEL...]\n", argv[0]), 2;
    if (argc > 2 && !strcmp(argv[2], "-v")) t.verbose = true, first = 3;
    fv_ctx_init(&t.ctx);
    int rc = open_cudnn(&t, argv[1]);
    if (rc == SKIPPED) return printf("SKIPPED: libcudnn.so.9 is not there\n0 passed, 0 failed\n"), 0;
    if (rc != 0) return rc;
    for (int i = 0; i < fv_model_count(); i++)
        if (wanted(fv_model_at(i)->name, argv + first, argc - first)) {
            check_model(&t, fv_model_at(i), FV_F32);
            check_model(&t, fv_model_at(i), FV_BF16);
            check_model(&t, fv_model_at(i), FV_F16);
        }
    printf(
        "%d problems, %d plans (%d compiled when run), at most %.1f MB of workspace; %d candidates to choose from for "
        "resnet20\n",
        t.n_seen, t.planned, t.runtime_compiled, 1e-6 * (double)t.workspace, t.candidates);
    printf("%d passed, %d failed\n", t.n_seen - t.failed, t.failed);
    return t.failed || t.n_seen == 0 ? 1 : 0;
}
