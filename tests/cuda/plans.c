/* plans.c: cuDNN's plans for every convolution of every model in training, made without a GPU for the device that a
 * JSON file describes: there is one, it keeps within the workspace, and it gives the same bits in every run. Batches
 * are a small one for every model, and those of the figures in docs/benchmarks.md.
 *
 *   plans tests/cuda/h200.json [MODEL...]      -v: a line per plan
 *
 * Convolutions are all that the backend asks cuDNN for. What else the graphs hold is named, with who computes it:
 * products are cuBLASLt's, which plans nothing without a GPU; norms and attention are kernels of our own.
 *
 * Ends with "N passed, M failed". Without libcudnn it says SKIPPED. */
#include "cuda/conv_cudnn.h"
#include "cuda/libraries.h"
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
    int64_t workspace, would_be; /* the largest; the largest of first choices that need more than is allowed, */
    int left_out;                /* how many those are */
    int64_t own[FV_OP_COUNT], of_cudnn, of_cublaslt; /* nodes: no library is asked; which one is */
    bool verbose;
} test;

/* What a plan may take of an H200's 141 GB: the backend's own figure. */
static int64_t budget(void) {
    return (int64_t)fv_cuda_workspace_limit((size_t)141e9);
}

/* What docs/benchmarks.md has figures for, at their batches: those that PyTorch is measured at. */
static const struct {
    const char *model;
    int64_t batch;
    int classes;
} figures[] = {
    {"resnet18_cifar", 512, 10}, {"resnet20", 1024, 10},          {"resnet20", 512, 10},
    {"resnet50", 256, 1000},     {"speedrun94", 1024, 10},        {"speedrun94", 2000, 10},
    {"speedrun96", 1024, 10},    {"vit_tiny_patch4_32", 512, 10}, {"vit_tiny_patch4_32", 1024, 10},
};

/* ---------------------------------------------------------------- the graphs */

/* The training graph of a model, as `fovea train` has it but for what does not concern convolutions. */
static fv_graph *training_graph(test *t, const fv_model_entry *m, int64_t batch, int classes, fv_dtype precision) {
    fv_graph *g = fv_graph_new(&t->ctx, true);
    if (!g) return NULL;
    fv_scope s = fv_root(g);
    fv_value x = fv_input(s, "x", fv_shape(FV_F32, batch, m->img_size, m->img_size, m->in_chans));
    fv_value labels = fv_input(s, "labels", fv_shape(FV_I32, batch));
    fv_value logits = fv_model_build(g, m->name, x, &(fv_model_cfg){.num_classes = classes});
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
    if (t->n_seen == MOST) {
        printf("more than %d problems\n", MOST);
        exit(1);
    }
    t->seen[t->n_seen++] = *p;
    return true;
}

/* ---------------------------------------------------------------- the plans */

static void report(test *t, const fv_cuda_problem *p, const char *text) {
    char name[192];
    printf("%s: %s\n", fv_cuda_problem_text(p, name, sizeof name), text);
    t->failed++;
}

/* Whether heuristics rank a plan higher that needs more workspace than is allowed: in bf16 and f16 none may. */
static void compare_with_any(test *t, const fv_cuda_problem *p, uint64_t taken) {
    const fv_cudnn_limits any = {.workspace = INT64_MAX, .most = 1};
    fv_cudnn_plans plans;
    char why[256], name[192];
    if (!fv_cudnn_plans_make(&t->cudnn, p, &any, &plans, why, sizeof why)) return report(t, p, why);
    if (plans.plan[0].name != taken) {
        if (p->dtype[0] != FV_F32) report(t, p, "the first choice needs more workspace than is allowed");
        t->left_out++;
        if (plans.plan[0].workspace > t->would_be) t->would_be = plans.plan[0].workspace;
        if (t->verbose)
            printf("%s: the first choice needs %.1f MB\n", fv_cuda_problem_text(p, name, sizeof name),
                   1e-6 * (double)plans.plan[0].workspace);
    }
    fv_cudnn_plans_free(&t->cudnn, &plans);
}

/* float32 may have no engine that is plain float32: our own kernel runs then. What there is must keep the promises. */
static void check(test *t, const fv_cuda_problem *p) {
    const fv_cudnn_limits limits = {.workspace = budget(), .most = 1};
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
    compare_with_any(t, p, plan.name);
}

/* Several plans for a problem: names differ, a name asked for again is the same engine, one that is kept is left. */
static void check_candidates(test *t, const fv_cuda_problem *p) {
    fv_cudnn_limits limits = {.workspace = budget(), .most = 4};
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

static void check_model(test *t, const fv_model_entry *m, int64_t batch, int classes, fv_dtype precision) {
    const bool small = batch <= 128;
    fv_graph *g = training_graph(t, m, batch, classes, precision);
    if (!g) {
        printf("%s: %s\n", m->name, t->ctx.error.message);
        t->failed++;
        return;
    }
    for (int32_t i = 0; i < g->n_nodes; i++) {
        fv_cuda_problem p;
        const bool asked = fv_cuda_problem_of(g, &g->nodes[i], &p);
        if (asked && p.task != FV_CUDA_GEMM && is_new(t, &p)) {
            check(t, &p);
            if (!strcmp(m->name, "resnet20") && small && precision != FV_F32) check_candidates(t, &p);
        }
        t->own[g->nodes[i].op] += !asked;
        t->of_cudnn += asked && p.task != FV_CUDA_GEMM;
        t->of_cublaslt += asked && p.task == FV_CUDA_GEMM;
    }
    fv_graph_free(g);
}

static void check_precisions(test *t, const char *name, int64_t batch, int classes) {
    static const fv_dtype precisions[] = {FV_F32, FV_BF16, FV_F16};
    const fv_model_entry *m = fv_model_find(name);
    const int before[] = {t->n_seen, t->planned, t->failed};
    const int64_t most = t->workspace;
    t->workspace = 0;
    if (!m) printf("%s: there is no such model\n", name), t->failed++;
    for (int i = 0; i < 3 && m; i++) check_model(t, m, batch, classes, precisions[i]);
    if (batch > 128 || t->verbose)
        printf("%s, batch %lld: %d problems that are new, %d plans, at most %.1f MB of workspace, %d failed\n", name,
               (long long)batch, t->n_seen - before[0], t->planned - before[1], 1e-6 * (double)t->workspace,
               t->failed - before[2]);
    if (most > t->workspace) t->workspace = most;
}

/* Who computes what: of our own kernels those that cuDNN has graphs for, too. */
static void name_the_others(const test *t) {
    static const fv_op ops[] = {FV_OP_CONV2D,         FV_OP_CONV2D_BWD_DATA, FV_OP_CONV2D_BWD_WEIGHT,
                                FV_OP_BATCH_NORM,     FV_OP_BATCH_NORM_BWD,  FV_OP_BATCH_NORM_INFER,
                                FV_OP_LAYER_NORM,     FV_OP_LAYER_NORM_BWD,  FV_OP_GROUP_NORM,
                                FV_OP_GROUP_NORM_BWD, FV_OP_ATTENTION,       FV_OP_ATTENTION_BWD,
                                FV_OP_MAX_POOL2D,     FV_OP_MAX_POOL2D_BWD};
    printf("%lld convolutions in these graphs: cuDNN's, planned here\n"
           "%lld products: cuBLASLt's, which plans nothing without a GPU\n"
           "kernels of our own, cuDNN is not asked:",
           (long long)t->of_cudnn, (long long)t->of_cublaslt);
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        if (t->own[ops[i]]) printf(" %s %lld", fv_op_get(ops[i])->name, (long long)t->own[ops[i]]);
    printf("\n");
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
        if (wanted(fv_model_at(i)->name, argv + first, argc - first))
            check_precisions(&t, fv_model_at(i)->name, fv_model_at(i)->img_size > 64 ? 64 : 128, 10);
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++)
        if (wanted(figures[i].model, argv + first, argc - first))
            check_precisions(&t, figures[i].model, figures[i].batch, figures[i].classes);
    name_the_others(&t);
    printf("%d problems, %d plans (%d compiled when run), at most %.1f MB of workspace, %.1f allowed; %d candidates to "
           "choose from for resnet20\n",
           t.n_seen, t.planned, t.runtime_compiled, 1e-6 * (double)t.workspace, 1e-6 * (double)budget(), t.candidates);
    printf("for %d of them, in float32, the heuristics' first choice needs more, up to %.1f MB\n", t.left_out,
           1e-6 * (double)t.would_be);
    printf("%d passed, %d failed\n", t.n_seen - t.failed, t.failed);
    return t.failed || t.n_seen == 0 ? 1 : 0;
}
