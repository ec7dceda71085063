/* test_parity_ops.c: every operation against PyTorch in float64 (tests/vectors/ops.safetensors, made by
 * tests/peers/make_op_vectors.py). The reference backend must agree to 1e-10, forward and backward; the CPU backend in
 * float32 to float32's precision at the size of the numbers. */
#include "fovea.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VECTORS "tests/vectors/ops.safetensors"
#define MAX_OPERANDS 8

/* ---------------------------------------------------------------- attributes from text */

/* Values of "key=a,b,c" in the case's text; how many there are. */
static int numbers(const char *text, const char *key, double *out, int max) {
    char want[64];
    snprintf(want, sizeof want, " %s=", key);
    const char *p = strstr(text, want);
    if (!p) return 0;
    p += strlen(want);
    int n = 0;
    while (n < max) {
        char *end;
        out[n] = strtod(p, &end);
        if (end == p) break;
        n++;
        if (*end != ',') break;
        p = end + 1;
    }
    return n;
}

static double number(const char *text, const char *key, double fallback) {
    double v;
    return numbers(text, key, &v, 1) == 1 ? v : fallback;
}

static void int32s(const char *text, const char *key, int32_t *out, int n) {
    double v[8] = {0};
    numbers(text, key, v, n);
    for (int i = 0; i < n; i++) out[i] = (int32_t)v[i];
}

static int int64s(const char *text, const char *key, int64_t *out) {
    double v[8] = {0};
    int n = numbers(text, key, v, 6);
    for (int i = 0; i < n; i++) out[i] = (int64_t)v[i];
    return n;
}

static bool has(const char *text, const char *piece) {
    return strstr(text, piece) != NULL;
}

static fv_act_kind act_from(const char *text, const char *key) {
    char want[64];
    for (int k = FV_ACT_COUNT - 1; k >= 0; k--) { /* gelu_tanh before gelu */
        snprintf(want, sizeof want, " %s=%s ", key, fv_act_name((fv_act_kind)k));
        char padded[256];
        snprintf(padded, sizeof padded, "%s ", text);
        if (strstr(padded, want)) return (fv_act_kind)k;
    }
    return FV_ACT_NONE;
}

static void set_pool(const char *text, fv_pool_attr *a) {
    int32s(text, "kernel", a->kernel, 2);
    int32s(text, "stride", a->stride, 2);
    int32s(text, "pad", a->pad, 4);
    a->ceil_mode = number(text, "ceil", 0) != 0;
    a->count_include_pad = number(text, "count_include_pad", 0) != 0;
}

static fv_attr attr_from(fv_op op, const char *text) {
    fv_attr a = {0};
    int64_t out[6];
    switch (op) {
    case FV_OP_CONV2D:
        int32s(text, "stride", a.conv2d.stride, 2);
        int32s(text, "pad", a.conv2d.pad, 4);
        int32s(text, "dilation", a.conv2d.dilation, 2);
        int32s(text, "groups", &a.conv2d.groups, 1);
        break;
    case FV_OP_MATMUL:
        a.matmul.transpose_a = number(text, "transpose_a", 0) != 0;
        a.matmul.transpose_b = number(text, "transpose_b", 0) != 0;
        break;
    case FV_OP_BATCH_NORM:
    case FV_OP_BATCH_NORM_INFER:
        a.batch_norm.eps = number(text, "eps", 0);
        a.batch_norm.act = act_from(text, "act");
        break;
    case FV_OP_LAYER_NORM:
    case FV_OP_GROUP_NORM:
        a.norm.eps = number(text, "eps", 0);
        a.norm.groups = (int32_t)number(text, "groups", 0);
        break;
    case FV_OP_ACTIVATION:
        a.activation.kind = act_from(text, "kind");
        a.activation.alpha = number(text, "alpha", 0);
        break;
    case FV_OP_SCALE: a.scale = (fv_scale_attr){number(text, "mul", 0), number(text, "add", 0)}; break;
    case FV_OP_MAX_POOL2D:
    case FV_OP_AVG_POOL2D: set_pool(text, &a.pool); break;
    case FV_OP_RESIZE:
        int64s(text, "out", out);
        a.resize = (fv_resize_attr){has(text, "mode=nearest") ? FV_RESIZE_NEAREST : FV_RESIZE_BILINEAR,
                                    number(text, "align", 0) != 0, out[0], out[1]};
        break;
    case FV_OP_SUM:
    case FV_OP_MEAN:
        a.reduce = (fv_reduce_attr){(uint32_t)number(text, "axes", 0), number(text, "keepdim", 0) != 0};
        break;
    case FV_OP_BROADCAST:
    case FV_OP_RESHAPE: a.shape.rank = int64s(text, "dim", a.shape.dim); break;
    case FV_OP_TRANSPOSE: int32s(text, "perm", a.transpose.perm, 6); break;
    case FV_OP_CONCAT: a.concat.axis = (int32_t)number(text, "axis", 0); break;
    case FV_OP_SLICE:
        int64s(text, "start", a.slice.start);
        int64s(text, "size", a.slice.size);
        int64s(text, "step", a.slice.step);
        break;
    case FV_OP_PAD:
        int64s(text, "before", a.pad_nd.before);
        int64s(text, "after", a.pad_nd.after);
        a.pad_nd.value = number(text, "value", 0);
        break;
    case FV_OP_ATTENTION:
        a.attention = (fv_attention_attr){(int32_t)number(text, "heads", 0), number(text, "scale", 0)};
        break;
    case FV_OP_SOFTMAX_CROSS_ENTROPY:
    case FV_OP_BCE_WITH_LOGITS:
        a.loss =
            (fv_loss_attr){number(text, "smoothing", 0), has(text, "reduction=sum") ? FV_REDUCE_SUM : FV_REDUCE_MEAN};
        break;
    case FV_OP_TOPK_CORRECT: a.topk.k = (int32_t)number(text, "k", 0); break;
    case FV_OP_AUGMENT:
        int64s(text, "out", out);
        a.augment = (fv_augment_attr){out[0], out[1], has(text, "mode=reflect") ? FV_PAD_REFLECT : FV_PAD_ZERO};
        break;
    default: break;
    }
    return a;
}

/* ---------------------------------------------------------------- one case */

typedef struct parity {
    fv_ctx *ctx;
    const fv_st_file *file;
    fv_device *dev;
    bool f64;
    int index;
    const char *text;
} parity;

static const fv_st_entry *entry(const parity *p, const char *what, int i) {
    char name[64];
    if (i < 0) snprintf(name, sizeof name, "%d.%s", p->index, what);
    else snprintf(name, sizeof name, "%d.%s%d", p->index, what, i);
    return fv_st_find(p->file, name);
}

static fv_op op_from(const char *text) {
    size_t n = strcspn(text, " ");
    for (int k = 0; k < FV_OP_COUNT; k++)
        if (strlen(fv_op_get((fv_op)k)->name) == n && !strncmp(fv_op_get((fv_op)k)->name, text, n)) return (fv_op)k;
    ck_abort_msg("unknown op in '%s'", text);
    return FV_OP_ADD;
}

/* A tensor of the file into the input of a program: float64 stays or becomes float32. */
static void feed(const parity *p, fv_program *program, const char *input, const fv_st_entry *e) {
    const unsigned char *data = p->file->data + e->offset;
    size_t n = (size_t)fv_count(e->type);
    fv_status status;
    if (e->type.dtype == FV_F64 && !p->f64) {
        float *f = calloc(n + 1, sizeof *f);
        for (size_t i = 0; i < n; i++) {
            double d;
            memcpy(&d, data + i * 8, 8);
            f[i] = (float)d;
        }
        status = fv_program_input(program, input, f, n * sizeof *f);
        free(f);
    } else {
        status = fv_program_input(program, input, data, e->bytes);
    }
    ck_assert_msg(status == FV_OK, "case %d (%s): %s", p->index, p->text, p->ctx->error.message);
}

/* Compare an output with the file's tensor; the bound is relative to the largest element. */
static void compare(const parity *p, fv_program *program, const char *output, const fv_st_entry *e) {
    size_t n = (size_t)fv_count(e->type);
    fv_type type = fv_program_output_type(program, output);
    ck_assert_msg((size_t)fv_count(type) == n, "case %d (%s): %s has %zu elements, expected %zu", p->index, p->text,
                  output, (size_t)fv_count(type), n);
    void *got = calloc(n + 1, sizeof(double));
    ck_assert_int_eq(fv_program_output(program, output, got, fv_bytes(type)), FV_OK);
    double worst = 0, largest = 0;
    for (size_t i = 0; i < n; i++) {
        double want, have = type.dtype == FV_F64 ? ((double *)got)[i] : (double)((float *)got)[i];
        memcpy(&want, p->file->data + e->offset + i * 8, 8);
        if (!(fabs(have - want) <= worst)) worst = fabs(have - want);
        if (fabs(want) > largest) largest = fabs(want);
    }
    free(got);
    double bound = (p->f64 ? 1e-10 : 4e-6) * (1.0 + largest);
    ck_assert_msg(worst <= bound, "case %d (%s): %s is off by %.3g, bound %.3g", p->index, p->text, output, worst,
                  bound);
}

static void run_case(parity *p) {
    char name[32];
    fv_graph *g = fv_graph_new(p->ctx, true);
    fv_scope s = fv_root(g);
    fv_op op = op_from(p->text);
    fv_value in[MAX_OPERANDS] = {0}, din[MAX_OPERANDS] = {0}, wrt[MAX_OPERANDS];
    int n = 0, n_wrt = 0, wrt_index[MAX_OPERANDS];
    for (int i = 0; i < MAX_OPERANDS; i++) {
        const fv_st_entry *e = entry(p, "in", i);
        if (!e) continue;
        fv_type type = e->type;
        if (type.dtype == FV_F64 && !p->f64) type.dtype = FV_F32;
        snprintf(name, sizeof name, "in%d", i);
        in[i] = fv_input(s, name, type);
        n = i + 1;
        if (entry(p, "din", i)) wrt_index[n_wrt] = i, wrt[n_wrt++] = in[i];
    }
    fv_attr attr = attr_from(op, p->text);
    fv_value y = fv_op_node(s, op, in, n, &attr);
    for (int r = 0; entry(p, "out", r); r++) {
        snprintf(name, sizeof name, "out%d", r);
        fv_set_output(g, name, fv_result(y, r));
    }
    if (n_wrt) {
        fv_type type = fv_typeof(g, y);
        fv_value dy = fv_input(s, "dout", type);
        ck_assert_msg(fv_gradients_from(g, y, dy, n_wrt, wrt, din) == FV_OK, "case %d (%s): %s", p->index, p->text,
                      p->ctx->error.message);
        for (int k = 0; k < n_wrt; k++) {
            snprintf(name, sizeof name, "din%d", wrt_index[k]);
            fv_set_output(g, name, din[k]);
        }
    }
    fv_store *store;
    fv_program *program;
    ck_assert_int_eq(fv_store_create(p->ctx, p->dev, &store), FV_OK);
    ck_assert_msg(fv_compile(p->ctx, g, store, p->dev, NULL, &program) == FV_OK, "case %d (%s): %s", p->index, p->text,
                  p->ctx->error.message);
    for (int i = 0; i < n; i++) {
        snprintf(name, sizeof name, "in%d", i);
        if (entry(p, "in", i)) feed(p, program, name, entry(p, "in", i));
    }
    if (n_wrt) feed(p, program, "dout", entry(p, "dout", -1));
    fv_step step = {.seed = 1};
    ck_assert_msg(fv_program_run(program, &step, FV_ALL_SEGMENTS) == FV_OK, "case %d (%s): %s", p->index, p->text,
                  p->ctx->error.message);
    for (int r = 0; entry(p, "out", r); r++) {
        snprintf(name, sizeof name, "out%d", r);
        compare(p, program, name, entry(p, "out", r));
    }
    for (int k = 0; k < n_wrt; k++) {
        snprintf(name, sizeof name, "din%d", wrt_index[k]);
        compare(p, program, name, entry(p, "din", wrt_index[k]));
    }
    fv_program_destroy(program);
    fv_store_destroy(store);
}

static void run_all(const fv_backend *backend, bool f64) {
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    fv_st_file file;
    ck_assert_msg(fv_st_open(&file, &ctx, VECTORS) == FV_OK, "%s", ctx.error.message);
    fv_device_opts opts = {.threads = 2};
    parity p = {.ctx = &ctx, .file = &file, .f64 = f64};
    ck_assert_msg(backend->open(&ctx, &opts, &p.dev) == FV_OK, "%s", ctx.error.message);
    int cases = atoi(fv_st_meta(&file, "cases"));
    ck_assert_int_gt(cases, 300);
    for (p.index = 0; p.index < cases; p.index++) {
        char key[32];
        snprintf(key, sizeof key, "case.%d", p.index);
        p.text = fv_st_meta(&file, key);
        ck_assert_ptr_nonnull(p.text);
        run_case(&p);
    }
    backend->close(p.dev);
    fv_st_close(&file);
}

START_TEST(ref_float64_is_pytorch_float64) {
    run_all(&fv_backend_ref, true);
}
END_TEST
START_TEST(ref_float32_is_pytorch) {
    run_all(&fv_backend_ref, false);
}
END_TEST
START_TEST(cpu_is_pytorch) {
    run_all(&fv_backend_cpu, false);
}
END_TEST

Suite *parity_ops_suite(void);
Suite *parity_ops_suite(void) {
    Suite *s = suite_create("parity: operations against PyTorch");
    TCase *tc = tcase_create("ops");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, ref_float64_is_pytorch_float64);
    tcase_add_test(tc, ref_float32_is_pytorch);
    tcase_add_test(tc, cpu_is_pytorch);
    suite_add_tcase(s, tc);
    return s;
}
