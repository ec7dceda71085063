/* info.c: the command `info`: what a model consists of, and what it takes to run it. */
#include "tools/info.h"
#include "tools/device.h"
#include "tools/train/source.h"

#include <string.h>
#include <unistd.h>

typedef struct info {
    fv_tool *tool;
    fv_arena arena;
    fv_network net;
    fv_graph *graph; /* forward, evaluation */
    fv_device *device;
} info;

/* A model's name, or a run folder, model folder or weights file. */
static fv_status configure(info *in) {
    fv_cli *cli = &in->tool->cli;
    fv_ctx *ctx = &in->tool->ctx;
    const char *what = cli->positionals ? cli->positional[0] : NULL;
    if (what && (fv_model_find(what) || (access(what, F_OK) != 0 && !strchr(what, '/')))) {
        FV_TRY(fv_cli_set(cli, OPT_MODEL, what, FV_FROM_FLAG, "MODEL"));
    } else if (what) {
        fv_model_source source;
        FV_TRY(fv_model_source_find(ctx, &in->arena, what, fv_cli_text(cli, OPT_WEIGHTS), &source));
        FV_TRY(fv_model_source_apply(&source, cli, true));
        if (source.has_config) in->net.c = (int32_t)source.config.input_size[0];
        else if (cli->value[OPT_MODEL].source <= FV_FROM_DEFAULT) {
            fv_fail_at(ctx, FV_E_USAGE, source.weights, -1, "there is no config.json beside it that names the model");
            return fv_hint(ctx, "give --model NAME; 'fovea models' lists the names");
        }
    }
    fv_network *net = &in->net;
    FV_TRY(fv_network_find(ctx, fv_cli_text(cli, OPT_MODEL), &net->model));
    FV_TRY(fv_cli_resolve(cli, OPT_IMG_SIZE, "%lld", (long long)net->model->img_size));
    net->img_size = fv_cli_int(cli, OPT_IMG_SIZE);
    FV_TRY(fv_cli_resolve(cli, OPT_NUM_CLASSES, "%d", net->img_size <= 64 ? 10 : 1000));
    net->h = net->w = (int32_t)net->img_size;
    if (!net->c) net->c = (int32_t)net->model->in_chans;
    net->batch = fv_cli_given(cli, OPT_BATCH_SIZE) ? fv_cli_int(cli, OPT_BATCH_SIZE) : 1;
    net->cfg = (fv_model_cfg){.num_classes = fv_cli_int(cli, OPT_NUM_CLASSES),
                              .img_size = net->img_size,
                              .in_chans = net->c,
                              .without = fv_cli_text(cli, OPT_WITHOUT)};
    net->precision = fv_network_precision(fv_cli_text(cli, OPT_PRECISION));
    for (int i = 0; i < FV_CONFIG_CHANNELS; i++) net->std[i] = 1;
    net->optim = (fv_optim_cfg){.kind = FV_OPT_SGD, .momentum = 0.9};
    net->recompute = fv_network_recompute(fv_cli_text(cli, OPT_RECOMPUTE));
    return FV_OK;
}

/* ---------------------------------------------------------------- the layer table */

static int64_t node_params(const fv_graph *g, const fv_node *n) {
    int64_t params = 0;
    for (int32_t j = 0; j < n->operands; j++) {
        fv_value v = g->operands[n->first_operand + j];
        const fv_val *val = &g->values[v.id]; /* in bf16 a weight is read through a cast */
        if (val->kind == FV_VAL_RESULT && g->nodes[val->node].op == FV_OP_CAST)
            v = g->operands[g->nodes[val->node].first_operand];
        const fv_decl *d = fv_decl_of(g, v);
        if (d && d->role == FV_ROLE_WEIGHT) params += fv_count(d->type);
    }
    return params;
}

static bool counts_macs(fv_op op) {
    return op == FV_OP_CONV2D || op == FV_OP_LINEAR || op == FV_OP_MATMUL || op == FV_OP_ATTENTION;
}

static fv_status show_layers(info *in) {
    fv_console *con = &in->tool->console;
    const fv_graph *g = in->graph;
    fv_console_result(con, "%-21s %-16s %-16s %6s %6s %9s", "layer", "operation", "output", "params", "MACs", "memory");
    for (int32_t i = 0; i < g->n_nodes; i++) {
        const fv_node *n = &g->nodes[i];
        if (n->results == 0 || !strcmp(n->scope, "loss")) continue; /* the loss is not the model's */
        if (n->op == FV_OP_CAST) continue;
        fv_type type = fv_typeof(g, (fv_value){n->first_result});
        char shape[96], params[24] = "", macs[24] = "", bytes[24];
        int64_t p = node_params(g, n);
        double m = counts_macs(n->op) ? fv_node_flops(g, n) / 2 : 0;
        if (p) fv_text_si((double)p, params, sizeof params);
        if (m > 0) fv_text_si(m, macs, sizeof macs);
        fv_text_bytes((double)fv_bytes(type), bytes, sizeof bytes);
        fv_type_text(type, shape, sizeof shape);
        fv_console_result(con, "%-21s %-16s %-16s %6s %6s %9s", n->scope[0] ? n->scope : "-", fv_op_get(n->op)->name,
                          shape + (type.dtype == FV_F32 ? strlen("f32 ") : 0), params, macs, bytes);
        FV_TRY(fv_console_json(con, &in->tool->ctx,
                               json_pack("{s:s, s:s, s:s, s:s, s:I, s:o, s:I}", "event", "layer", "scope", n->scope,
                                         "op", fv_op_get(n->op)->name, "output", shape, "params", (json_int_t)p, "macs",
                                         fv_json_number(m, 15), "activation_bytes", (json_int_t)fv_bytes(type))));
    }
    return FV_OK;
}

/* ---------------------------------------------------------------- stages */

static bool in_stage(const char *name, const char *stage) {
    char prefix[64];
    for (size_t n; *stage; stage += n + (stage[n] == ',')) {
        n = strcspn(stage, ",");
        snprintf(prefix, sizeof prefix, "%.*s", (int)n, stage);
        if (fv_name_below(name, prefix)) return true;
    }
    return false;
}

static fv_status show_ideas(info *in) {
    const fv_model_entry *m = in->net.model;
    char list[256] = "";
    for (int i = 0, used = 0; i < m->n_ideas && used < (int)sizeof list; i++)
        used += snprintf(list + used, sizeof list - (size_t)used, "%s%s", i ? "," : "", m->ideas[i]);
    if (!m->n_ideas) return FV_OK;
    fv_console_result(&in->tool->console, "\n--without leaves out any of %s", list);
    return fv_console_json(&in->tool->console, &in->tool->ctx,
                           json_pack("{s:s, s:s}", "event", "ideas", "names", list));
}

/* What --freeze N takes in: the stages from 1 to N. */
static fv_status show_stages(info *in) {
    fv_console *con = &in->tool->console;
    const fv_graph *g = in->graph;
    const char *const *stages;
    int n = fv_model_stages(in->net.model, &stages);
    fv_console_result(con, "\n%-21s %-33s %6s", "stage", "parameters below", "params");
    for (int i = 0; i < n; i++) {
        char params[24];
        int64_t count = 0;
        for (int32_t k = 0; k < g->n_decls; k++)
            if (g->decls[k].role == FV_ROLE_WEIGHT && in_stage(g->decls[k].name, stages[i]))
                count += fv_count(g->decls[k].type);
        fv_console_result(con, "%-21d %-33s %6s", i + 1, stages[i], fv_text_si((double)count, params, sizeof params));
        FV_TRY(fv_console_json(con, &in->tool->ctx,
                               json_pack("{s:s, s:i, s:s, s:I}", "event", "stage", "number", i + 1, "names", stages[i],
                                         "params", (json_int_t)count)));
    }
    return FV_OK;
}

/* ---------------------------------------------------------------- totals */

static fv_status show_totals(info *in) {
    fv_console *con = &in->tool->console;
    const fv_network *net = &in->net;
    fv_info_memory train, kept, infer;
    char params[24], macs[24];
    fv_network all_kept = *net;
    fv_network_size size = fv_network_measure(in->graph, net->batch);
    all_kept.recompute = 0;
    FV_TRY(fv_info_measure(&in->tool->ctx, in->device, net, true, &train));
    FV_TRY(fv_info_measure(&in->tool->ctx, in->device, &all_kept, true, &kept));
    FV_TRY(fv_info_measure(&in->tool->ctx, in->device, net, false, &infer));
    fv_console_result(con, "\n%s: %lld parameters (%s), %s MACs per picture\ninput %dx%dx%d, %lld classes",
                      net->model->name, (long long)size.params, fv_text_si((double)size.params, params, sizeof params),
                      fv_text_si(size.macs, macs, sizeof macs), net->h, net->w, net->c,
                      (long long)net->cfg.num_classes);
    const fv_info_memory *m[2] = {&train, &infer};
    static const char *const names[2] = {"training", "inference"};
    for (int i = 0; i < 2; i++)
        fv_console_result(con,
                          "%s, batch %lld: arena %.2f MB (%.0f%% saved by reuse), with a workspace of up to %.2f MB",
                          names[i], (long long)net->batch, m[i]->arena / 1e6,
                          m[i]->naive > 0 ? 100 * (m[i]->naive - m[i]->arena) / m[i]->naive : 0, m[i]->workspace / 1e6);
    if (infer.prepared > 0)
        fv_console_result(con, "packed weights that inference keeps: %.2f MB", infer.prepared / 1e6);
    if (train.recompute.nodes)
        fv_console_result(con, "recomputed: %d nodes, about %.1f%% of a step; --recompute none: %.2f MB more",
                          train.recompute.nodes, 100 * train.recompute.cost, (kept.arena - train.arena) / 1e6);
    return fv_console_json(
        con, &in->tool->ctx,
        json_pack("{s:s, s:s, s:I, s:I, s:o, s:[iii], s:I, s:o, s:o, s:o, s:o, s:o, s:i, s:o, s:o}", "event", "model",
                  "model", net->model->name, "batch", (json_int_t)net->batch, "params", (json_int_t)size.params, "macs",
                  fv_json_number(size.macs, 15), "input", (int)net->h, (int)net->w, (int)net->c, "num_classes",
                  (json_int_t)net->cfg.num_classes, "train_arena_bytes", fv_json_number(train.arena, 15),
                  "train_naive_bytes", fv_json_number(train.naive, 15), "infer_arena_bytes",
                  fv_json_number(infer.arena, 15), "infer_naive_bytes", fv_json_number(infer.naive, 15),
                  "infer_prepared_bytes", fv_json_number(infer.prepared, 15), "recomputed_nodes", train.recompute.nodes,
                  "recompute_saved_bytes", fv_json_number(kept.arena - train.arena, 15), "recompute_cost",
                  fv_json_number(train.recompute.cost, 4)));
}

static fv_status show_dump(info *in) {
    const char *text = fv_graph_dump(in->graph);
    if (!text) return in->tool->ctx.error.code;
    if (in->tool->console.json)
        return fv_console_json(&in->tool->console, &in->tool->ctx,
                               json_pack("{s:s, s:s}", "event", "dump", "text", text));
    fputs(text, stdout);
    return FV_OK;
}

static fv_status run(info *in) {
    fv_ctx *ctx = &in->tool->ctx;
    FV_TRY(configure(in));
    FV_TRY(fv_network_eval_graph(ctx, &in->net, &in->graph, NULL));
    if (fv_cli_bool(&in->tool->cli, OPT_DUMP)) return show_dump(in);
    FV_TRY(fv_tool_open_device(ctx, &in->tool->cli, &in->device));
    FV_TRY(show_layers(in));
    FV_TRY(show_stages(in));
    FV_TRY(show_ideas(in));
    FV_TRY(show_totals(in));
    if (!fv_cli_bool(&in->tool->cli, OPT_MEMORY)) return FV_OK;
    return fv_info_show_peak(in->tool, in->device, &in->net);
}

fv_status fv_cmd_info(fv_tool *tool) {
    info in = {.tool = tool};
    fv_arena_init(&in.arena, &tool->ctx);
    fv_status status = run(&in);
    fv_graph_free(in.graph);
    if (in.device) in.device->backend->close(in.device);
    fv_arena_free(&in.arena);
    return status;
}
