/* bench_profile.c: `bench --profile`: where the time of a step goes, node by node, and how near that is to what the
 * machine can do. The roofline (Williams et al. 2009) of a node is the longer of its operations at the peak rate of
 * multiply-adds and its bytes, operands read and results written once each, at the rate of a copy. */
#include "tools/bench.h"

#include <stdlib.h>
#include <string.h>

typedef struct cost {
    int32_t node;
    double seconds, roof; /* of one step; roof: what the roofline allows */
    double flops, bytes;
} cost;

enum { PRODUCTS, MEMORY, UPDATES, STEP, KINDS };
static const char *const kind_names[KINDS] = {"convolutions and matrix products", "everything else of the model",
                                              "check and update", "whole step"};
static const char *const kind_keys[KINDS] = {"products", "other", "update", "step"};

static int kind_of(const fv_node *n) {
    if (n->segment != FV_SEG_FORWARD_BACKWARD) return UPDATES;
    switch (n->op) {
    case FV_OP_CONV2D:
    case FV_OP_NORMED_CONV2D:
    case FV_OP_CONV2D_BWD_DATA:
    case FV_OP_CONV2D_BWD_WEIGHT:
    case FV_OP_LINEAR:
    case FV_OP_LINEAR_ACT:
    case FV_OP_LINEAR_BWD_DATA:
    case FV_OP_LINEAR_BWD_WEIGHT:
    case FV_OP_ACTIVATED_LINEAR:
    case FV_OP_ACTIVATED_LINEAR_BWD_DATA:
    case FV_OP_LINEAR_BWD_PARAMS:
    case FV_OP_MATMUL:
    case FV_OP_ATTENTION:
    case FV_OP_ATTENTION_BWD: return PRODUCTS;
    default: return MEMORY;
    }
}

static double roof_of(const cost *n, const fv_ceilings *c) {
    if (c->flops <= 0 || c->bytes <= 0) return 0;
    double compute = n->flops / c->flops, memory = n->bytes / c->bytes;
    return compute > memory ? compute : memory;
}

static int by_seconds(const void *x, const void *y) {
    const cost *a = x, *b = y;
    if (a->seconds != b->seconds) return a->seconds < b->seconds ? 1 : -1;
    return a->node - b->node;
}

/* "83%", or nothing where the roofline is not known. */
static const char *percent(double part, double whole, char *buf, size_t size) {
    if (whole > 0 && part > 0) snprintf(buf, size, "%.1f%%", 100 * part / whole);
    else snprintf(buf, size, "-");
    return buf;
}

static fv_status show_node(fv_tool *tool, const fv_graph *g, const cost *c, double total) {
    const fv_node *n = &g->nodes[c->node];
    const char *op = fv_op_get(n->op)->name;
    char type[96] = "", share[16], roof[16];
    double gflops = 1e-9 * c->flops / c->seconds, gbytes = 1e-9 * c->bytes / c->seconds;
    if (n->results) fv_type_text(fv_typeof(g, (fv_value){n->first_result}), type, sizeof type);
    fv_console_result(&tool->console, "%9.3f %6s %9.1f %8.1f %7s  %-24s %s %s", 1e3 * c->seconds,
                      percent(c->seconds, total, share, sizeof share), gflops, gbytes,
                      percent(c->roof, c->seconds, roof, sizeof roof), op, n->scope, type);
    return fv_console_json(&tool->console, &tool->ctx,
                           json_pack("{s:s, s:s, s:s, s:s, s:b, s:o, s:o, s:o, s:o}", "event", "node", "op", op,
                                     "scope", n->scope, "result", type, "backward", n->backward, "ms",
                                     fv_json_number(1e3 * c->seconds, 6), "gflops", fv_json_number(gflops, 5),
                                     "gbytes_per_s", fv_json_number(gbytes, 5), "roof_share",
                                     fv_json_number(c->roof / c->seconds, 4)));
}

static fv_status show_kinds(fv_tool *tool, const cost sum[KINDS], const fv_ceilings *c) {
    fv_console *con = &tool->console;
    fv_console_result(con, "\n%9s %6s %9s %7s", "ms", "share", "roof ms", "of roof");
    for (int k = 0; k < KINDS; k++) {
        char share[16], roof[16];
        fv_console_result(con, "%9.3f %6s %9.3f %7s  %s", 1e3 * sum[k].seconds,
                          percent(sum[k].seconds, sum[STEP].seconds, share, sizeof share), 1e3 * sum[k].roof,
                          percent(sum[k].roof, sum[k].seconds, roof, sizeof roof), kind_names[k]);
        FV_TRY(fv_console_json(con, &tool->ctx,
                               json_pack("{s:s, s:s, s:o, s:o, s:o, s:o}", "event", "roof", "part", kind_keys[k], "ms",
                                         fv_json_number(1e3 * sum[k].seconds, 6), "roof_ms",
                                         fv_json_number(1e3 * sum[k].roof, 6), "peak_gflops",
                                         fv_json_number(1e-9 * c->flops, 5), "copy_gbytes_per_s",
                                         fv_json_number(1e-9 * c->bytes, 5))));
    }
    if (c->flops > 0)
        fv_console_result(con,
                          "roof: %.0f GFLOP/s of float32 multiply-adds, %.1f GB/s copied, measured now. GFLOP/s are "
                          "nominal: Winograd's convolutions need fewer\noperations and may go above 100%%, and so may "
                          "nodes whose operands are in a cache.",
                          1e-9 * c->flops, 1e-9 * c->bytes);
    return FV_OK;
}

fv_status fv_bench_profile(fv_tool *tool, fv_device *device, const fv_program *p, int64_t steps) {
    const fv_graph *g = fv_program_plan(p)->graph;
    const double parts = (double)fv_program_plan(p)->parts;
    const double *seconds = device->backend->node_seconds(fv_program_exec(p));
    fv_ceilings ceilings;
    cost sum[KINDS] = {{0}}, *costs = fv_alloc(&tool->ctx, (size_t)g->n_nodes + 1, sizeof *costs);
    if (!costs) return tool->ctx.error.code;
    fv_status status = fv_cpu_ceilings(device, &ceilings);
    for (int32_t i = 0; i < g->n_nodes && status == FV_OK; i++) {
        const fv_node *n = &g->nodes[i];
        costs[i] = (cost){.node = i,
                          .seconds = seconds[i] / (double)steps,
                          .flops = parts * fv_node_flops(g, n),
                          .bytes = parts * fv_node_bytes(g, n)};
        if (seconds[i] > 0) costs[i].roof = roof_of(&costs[i], &ceilings);
        cost *of[2] = {&sum[kind_of(n)], &sum[STEP]};
        for (int k = 0; k < 2; k++) of[k]->seconds += costs[i].seconds, of[k]->roof += costs[i].roof;
    }
    if (status == FV_OK) {
        qsort(costs, (size_t)g->n_nodes, sizeof *costs, by_seconds);
        fv_console_result(&tool->console, "%9s %6s %9s %8s %7s  %-24s %s", "ms", "share", "GFLOP/s", "GB/s", "of roof",
                          "operation", parts > 1 ? "place and result, of a part of the batch" : "place and result");
    }
    for (int32_t i = 0; i < g->n_nodes && status == FV_OK && costs[i].seconds > 0; i++)
        status = show_node(tool, g, &costs[i], sum[STEP].seconds);
    if (status == FV_OK) status = show_kinds(tool, sum, &ceilings);
    fv_free(&tool->ctx, costs, (size_t)g->n_nodes + 1, sizeof *costs);
    return status;
}
