/* models.c: the command `models`. */
#include "tools/cli/recipes.h"
#include "tools/tool.h"
#include "tools/train/network.h"

#include <string.h>
#include <unistd.h>

typedef struct row {
    const fv_model_entry *model;
    int64_t classes;
    fv_network_size size;
} row;

/* Build the model's graph to count; nothing is compiled. */
static fv_status measure(fv_ctx *ctx, const fv_model_entry *m, row *out) {
    *out = (row){.model = m, .classes = m->img_size <= 64 ? 10 : 1000};
    fv_graph *g = fv_graph_new(ctx, false);
    if (!g) return ctx->error.code;
    fv_model_cfg cfg = {.num_classes = out->classes, .img_size = m->img_size, .in_chans = m->in_chans};
    fv_value x = fv_input(fv_root(g), "x", fv_shape(FV_F32, 1, m->img_size, m->img_size, m->in_chans));
    fv_model_build(g, m->name, x, &cfg);
    fv_status status = fv_graph_finish(g);
    if (status == FV_OK) out->size = fv_network_measure(g, 1);
    fv_graph_free(g);
    return status;
}

/* A line of the table; on a terminal, what does not fit into its width is left out, as ps does it. */
static void show_line(fv_console *con, int width, const char *line) {
    size_t end = 0;
    for (int column = 0; line[end] && column < width; column++) end += (size_t)fv_text_utf8(line + end);
    fv_console_result(con, "%.*s", (int)end, line);
}

/* " (recipe mnist)"; "" if there is none for the model. */
static const char *recipes_text(const fv_model_entry *m, char *buf, size_t size) {
    size_t used = 0;
    buf[0] = '\0';
    for (int i = 0; i < fv_recipe_count && used < size; i++)
        if (!strcmp(fv_recipes[i].model, m->name))
            used += (size_t)snprintf(buf + used, size - used, "%s%s", used ? ", " : " (recipe ", fv_recipes[i].name);
    if (used && used < size) snprintf(buf + used, size - used, ")");
    return buf;
}

static json_t *recipes_json(const fv_model_entry *m) {
    json_t *list = json_array();
    for (int i = 0; list && i < fv_recipe_count; i++)
        if (!strcmp(fv_recipes[i].model, m->name)) fv_json_add(&list, json_string(fv_recipes[i].name));
    return list;
}

static void show_row(fv_console *con, int width, const row *r) {
    char params[24], macs[24], input[32], recipes[256], line[512];
    const fv_model_entry *m = r->model;
    snprintf(input, sizeof input, "%lldx%lldx%lld", (long long)m->img_size, (long long)m->img_size,
             (long long)m->in_chans);
    snprintf(line, sizeof line, "%-33s %6s %6s  %-9s %7lld  %s%s", m->name,
             fv_text_si((double)r->size.params, params, sizeof params), fv_text_si(r->size.macs, macs, sizeof macs),
             input, (long long)r->classes, m->description, recipes_text(m, recipes, sizeof recipes));
    show_line(con, width, line);
}

fv_status fv_cmd_models(fv_tool *tool) {
    fv_console *con = &tool->console;
    int width = isatty(STDOUT_FILENO) ? fv_cli_columns(stdout, 500) : 500;
    char head[128];
    snprintf(head, sizeof head, "%-33s %6s %6s  %-9s %7s  %s", "model", "params", "MACs", "input", "classes",
             "description");
    show_line(con, width, head);
    for (int i = 0; i < fv_model_count(); i++) {
        row r;
        FV_TRY(measure(&tool->ctx, fv_model_at(i), &r));
        const fv_model_entry *m = r.model;
        show_row(con, width, &r);
        FV_TRY(fv_console_json(con, &tool->ctx,
                               json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:o, s:o}", "model", m->name, "family",
                                         m->family, "description", m->description, "img_size", (json_int_t)m->img_size,
                                         "in_chans", (json_int_t)m->in_chans, "num_classes", (json_int_t)r.classes,
                                         "params", (json_int_t)r.size.params, "macs", fv_json_number(r.size.macs, 15),
                                         "recipes", recipes_json(m))));
    }
    return FV_OK;
}
