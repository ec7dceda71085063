/* device.c: the CPU device. It owns a pool of threads and one of the builds of kernels/; execution itself is the host
 * executor's (core/host.c), shared with the reference backend. */
#include "core/cpu/cpu.h"
#include "core/cpu/rewrite.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <stdio.h>
#include <string.h>

/* ---------------------------------------------------------------- instruction sets */

typedef struct isa_choice {
    const fv_cpu_isa *isa;
    bool available, slow; /* slow: another of the list is faster here; taken only when it is asked for */
} isa_choice;

#define MAX_ISAS 5

#if defined(__x86_64__)
/* Conversion of f16: with every AVX2 so far, but a virtual machine may hide it. Not all compilers know its name. */
static bool has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

/* Intel's processors that have AMX for products of bf16 have VDPBF16PS, too, but at half the rate of multiply-adds of
 * floats (docs/decisions.md), where a Zen 5 does twice that rate. All of them have AVX512-FP16; Cooper Lake, which was
 * not measured, has neither; AMX itself may be hidden from a virtual machine. */
static bool pairs_are_slow(void) {
    unsigned a, b, c, d;
    return __builtin_cpu_is("intel") && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & 1u << 23);
}
#endif

/* The builds in this library, best first, and whether this processor can run them. */
static int list_isas(isa_choice *out) {
    int n = 0;
#if defined(__x86_64__)
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    bool pairs = avx512 && __builtin_cpu_supports("avx512bf16");
    /* A build for tests here may leave out what cannot run here (Makefile). */
    (void)avx512, (void)pairs, (void)pairs_are_slow;
#ifndef FV_WITHOUT_avx512
    out[n++] = (isa_choice){&fv_cpu_isa_avx512_bf16, pairs, pairs && pairs_are_slow()};
    out[n++] = (isa_choice){&fv_cpu_isa_avx512, avx512, false};
#endif
#ifndef FV_WITHOUT_avx2
    out[n++] = (isa_choice){&fv_cpu_isa_avx2, avx2, false};
#endif
#endif
    out[n++] = (isa_choice){&fv_cpu_isa_generic, true, false};
#if defined(__x86_64__)
    if (&fv_cpu_isa_wide) out[n++] = (isa_choice){&fv_cpu_isa_wide, avx2, false};
#endif
    return n;
}

static fv_status choose_isa(fv_ctx *ctx, const char *wanted, const fv_cpu_isa **out) {
    isa_choice list[MAX_ISAS];
    int n = list_isas(list);
    char names[64] = "";
    for (int i = 0; i < n; i++) {
        if (!wanted && list[i].available && !list[i].slow) {
            *out = list[i].isa;
            return FV_OK;
        }
        if (wanted && strcmp(wanted, list[i].isa->name) == 0) {
            *out = list[i].isa;
            if (list[i].available) return FV_OK;
            return fv_fail(ctx, FV_E_USAGE, "this processor does not have the instruction set %s", wanted);
        }
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", used ? ", " : "", list[i].isa->name);
    }
    return fv_fail(ctx, FV_E_USAGE, "unknown instruction set \"%s\": choose one of %s", wanted, names);
}

/* ---------------------------------------------------------------- open and close */

static void cpu_close(fv_device *base) {
    if (!base) return;
    fv_cpu_device *dev = (fv_cpu_device *)base;
    fv_pool_destroy(dev->pool);
    fv_free(base->ctx, dev, 2, sizeof *dev);
}

static fv_status open_parts(fv_cpu_device *dev, const fv_device_opts *opts) {
    fv_ctx *ctx = dev->base.ctx;
    FV_TRY(choose_isa(ctx, opts->isa, &dev->isa));
    dev->direct = opts->direct;
    FV_TRY(fv_pool_create(ctx, opts->threads, &dev->pool));
    snprintf(dev->base.kernels, sizeof dev->base.kernels, "%s", dev->isa->name);
    snprintf(dev->base.text, sizeof dev->base.text, "cpu %s x%d", dev->isa->name, fv_pool_threads(dev->pool));
    return FV_OK;
}

static fv_status cpu_open(fv_ctx *ctx, const fv_device_opts *opts, fv_device **out) {
    static const fv_device_opts defaults = {0};
    *out = NULL;
    fv_cpu_device *dev = fv_calloc(ctx, 2, sizeof *dev); /* and the same without a pool: base.alone */
    if (!dev) return ctx->error.code;
    dev->base = (fv_device){.backend = &fv_backend_cpu, .ctx = ctx, .host_memory = true};
    fv_status status = open_parts(dev, opts ? opts : &defaults);
    if (status != FV_OK) {
        cpu_close(&dev->base);
        return status;
    }
    dev->base.threads = fv_pool_threads(dev->pool);
    dev[1] = dev[0];
    dev[1].pool = NULL;
    dev[1].base.threads = 1;
    dev->base.alone = &dev[1].base;
    *out = &dev->base;
    return FV_OK;
}

/* ---------------------------------------------------------------- what runs here */

static bool cpu_supports(const fv_device *base, const fv_graph *g, const fv_node *node, char *why, size_t size) {
    const fv_cpu_device *dev = (const fv_cpu_device *)base;
    const char *op = fv_op_get(node->op)->name;
    if (!dev->isa->kernels[node->op][0]) {
        snprintf(why, size, "the cpu backend has no kernel for %s", op);
        return false;
    }
    for (int i = 0; i < node->operands + node->results; i++) {
        fv_value v = i < node->operands ? g->operands[node->first_operand + i]
                                        : (fv_value){node->first_result + i - node->operands};
        fv_dtype dtype = fv_typeof(g, v).dtype;
        if (!fv_is_none(v) && (dtype == FV_F64)) {
            snprintf(why, size, "the cpu backend computes in f32, bf16 and f16, but %s has a value of type %s", op,
                     fv_dtype_name(dtype));
            return false;
        }
    }
    return true;
}

static size_t cpu_workspace(const fv_device *base, const fv_graph *g, const fv_node *node) {
    return ((const fv_cpu_device *)base)->isa->workspace(base, g, node);
}

static size_t cpu_prepared(const fv_device *base, const fv_graph *g, const fv_node *node, uint32_t constant,
                           size_t *workspace) {
    return ((const fv_cpu_device *)base)->isa->prepared(base, g, node, constant, workspace);
}

static fv_status cpu_compile(fv_device *base, const fv_plan *plan, fv_exec **out) {
    const fv_cpu_device *dev = (const fv_cpu_device *)base;
    return fv_host_compile(base, dev->pool, plan, dev->isa->kernels, out);
}

const fv_backend fv_backend_cpu = {
    .name = "cpu",
    .open = cpu_open,
    .close = cpu_close,
    .alloc = fv_host_alloc,
    .free = fv_host_free,
    .pin = fv_host_alloc,
    .unpin = fv_host_free,
    .copy = fv_host_copy,
    .supports = cpu_supports,
    .rewrite = fv_cpu_rewrite,
    .workspace = cpu_workspace,
    .prepared = cpu_prepared,
    .compile = cpu_compile,
    .prepare = fv_host_prepare,
    .enqueue = fv_host_enqueue,
    .set_step = fv_host_set_step,
    .fetch = fv_host_fetch,
    .fetched = fv_host_fetched,
    .destroy = fv_host_destroy,
    .profile = fv_host_profile,
    .node_seconds = fv_host_node_seconds,
};
