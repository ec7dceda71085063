/* yaml.c: options from and to YAML: one flat mapping of option names to scalars, or to lists of scalars. */
#include "tools/cli/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define FV_YAML_LIMIT (1u << 20)

typedef struct fv_yaml_reader {
    fv_cli *cli;
    const char *path;
    fv_cli_source source;
    const fv_cli_id *only;
    int n_only;
    const char *text;
    size_t line[OPT_COUNT]; /* where each option stood; 0: nowhere yet */
    yaml_parser_t parser;
    yaml_event_t event;
} fv_yaml_reader;

#define FV_YAML_HINT "the file holds one 'option: value' pair per line, e.g. 'batch-size: 128'"

/* Bytes that are no text at all have an offset, everything else a line. */
static size_t problem_line(const fv_yaml_reader *r) {
    const yaml_parser_t *p = &r->parser;
    size_t line = 1;
    if (p->error != YAML_READER_ERROR) return p->problem_mark.line + 1;
    for (size_t i = 0; i < p->problem_offset; i++) line += r->text[i] == '\n';
    return line;
}

static fv_status next_event(fv_yaml_reader *r) {
    fv_ctx *ctx = r->cli->ctx;
    if (yaml_parser_parse(&r->parser, &r->event)) return FV_OK;
    if (r->parser.error == YAML_MEMORY_ERROR) return fv_fail_memory(ctx, 0, "the YAML parser");
    fv_fail_at(ctx, FV_E_USAGE, r->path, -1, "line %zu: not valid YAML: %s", problem_line(r),
               r->parser.problem ? r->parser.problem : "not understood");
    return fv_hint(ctx, FV_YAML_HINT);
}

static fv_status fail_line(fv_yaml_reader *r, const char *what) {
    fv_fail_at(r->cli->ctx, FV_E_USAGE, r->path, -1, "line %zu: %s", r->event.start_mark.line + 1, what);
    return fv_hint(r->cli->ctx, FV_YAML_HINT);
}

static fv_status unknown_key(fv_yaml_reader *r, const char *key) {
    const char *near = fv_cli_nearest_option(r->cli, key, strlen(key));
    return fv_fail_at(r->cli->ctx, FV_E_USAGE, r->path, -1, "line %zu: unknown key '%.60s'%s%s%s",
                      r->event.start_mark.line + 1, key, near ? "; did you mean '" : "", near ? near : "",
                      near ? "'?" : "");
}

/* The event must be a scalar and nothing but one. */
static fv_status plain_scalar(fv_yaml_reader *r, const char *otherwise) {
    const yaml_event_t *e = &r->event;
    if (e->type == YAML_ALIAS_EVENT) return fail_line(r, "aliases (*name) are not read here");
    if (e->type != YAML_SCALAR_EVENT) return fail_line(r, otherwise);
    if (e->data.scalar.anchor) return fail_line(r, "anchors (&name) are not read here");
    if (e->data.scalar.tag) return fail_line(r, "tags (!name) are not read here");
    if (strlen((const char *)e->data.scalar.value) != e->data.scalar.length)
        return fail_line(r, "there is a zero byte in the text");
    return FV_OK;
}

/* The elements of a list, joined by commas; from the arena. */
static fv_status read_list(fv_yaml_reader *r, const char **text) {
    size_t used = 0, room = 0;
    char *joined = NULL;
    for (;;) {
        yaml_event_delete(&r->event);
        FV_TRY(next_event(r));
        if (r->event.type == YAML_SEQUENCE_END_EVENT) return *text = joined ? joined : "", FV_OK;
        FV_TRY(plain_scalar(r, "a list of plain values is wanted here"));
        size_t length = r->event.data.scalar.length;
        if (!joined || used + length + 2 > room) {
            room = 2 * (used + length + 2);
            char *wider = fv_arena_alloc(&r->cli->arena, room, 1);
            if (!wider) return r->cli->ctx->error.code;
            if (used) memcpy(wider, joined, used);
            joined = wider;
        }
        if (used) joined[used++] = ',';
        memcpy(joined + used, r->event.data.scalar.value, length + 1);
        used += length;
    }
}

/* The scalar or list that follows a key, as a flag would give it; *text NULL for null. From the arena. */
static fv_status read_value(fv_yaml_reader *r, const char **text) {
    yaml_event_delete(&r->event);
    FV_TRY(next_event(r));
    if (r->event.type == YAML_SEQUENCE_START_EVENT) return read_list(r, text);
    FV_TRY(plain_scalar(r, "a single value or a list is wanted here"));
    const char *s = (const char *)r->event.data.scalar.value;
    bool plain = r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    bool null = plain && (!s[0] || !strcmp(s, "~") || !strcmp(s, "null"));
    *text = null ? NULL : fv_arena_strdup(&r->cli->arena, s);
    return null || *text ? FV_OK : r->cli->ctx->error.code;
}

/* Options of one invocation, which no file holds. */
static bool of_invocation(fv_cli_id id) {
    return id == OPT_CONFIG || id == OPT_HELP || id == OPT_RESUME || id == OPT_FORCE;
}

static bool wanted(const fv_yaml_reader *r, fv_cli_id id) {
    if (of_invocation(id) || !fv_cli_applies(r->cli, id)) return false;
    for (int i = 0; i < r->n_only; i++)
        if (r->only[i] == id) return true;
    return !r->only;
}

/* One `key: value` pair; the event is the key. */
static fv_status read_pair(fv_yaml_reader *r) {
    FV_TRY(plain_scalar(r, "an option name is wanted here"));
    const char *key = (const char *)r->event.data.scalar.value;
    int id = fv_cli_find(key, strlen(key));
    if (id < 0) return unknown_key(r, key);
    if (r->line[id])
        return fv_fail_at(r->cli->ctx, FV_E_USAGE, r->path, -1, "line %zu: '%s' stands in line %zu, too",
                          r->event.start_mark.line + 1, fv_cli_options[id].name, r->line[id]);
    r->line[id] = r->event.start_mark.line + 1;
    char where[600];
    snprintf(where, sizeof where, "%s: line %zu: %s", r->path, r->event.start_mark.line + 1, fv_cli_options[id].name);
    const char *text = NULL;
    FV_TRY(read_value(r, &text));
    if (!text || !wanted(r, (fv_cli_id)id)) return FV_OK;
    return fv_cli_set(r->cli, (fv_cli_id)id, text, r->source, where);
}

static fv_status read_document(fv_yaml_reader *r) {
    bool in_mapping = false;
    int documents = 0;
    for (;;) {
        FV_TRY(next_event(r));
        switch (r->event.type) {
        case YAML_STREAM_END_EVENT: return FV_OK;
        case YAML_DOCUMENT_START_EVENT:
            if (documents++) return fail_line(r, "a second document begins here; one is wanted");
            break;
        case YAML_STREAM_START_EVENT:
        case YAML_DOCUMENT_END_EVENT: break;
        case YAML_MAPPING_START_EVENT:
            if (in_mapping) return fail_line(r, "an option name is wanted here");
            if (r->event.data.mapping_start.anchor) return fail_line(r, "anchors (&name) are not read here");
            if (r->event.data.mapping_start.tag) return fail_line(r, "tags (!name) are not read here");
            in_mapping = true;
            break;
        case YAML_MAPPING_END_EVENT: in_mapping = false; break;
        default:
            if (!in_mapping) return fail_line(r, "expected 'option: value'");
            FV_TRY(read_pair(r));
        }
        yaml_event_delete(&r->event);
    }
}

fv_status fv_cli_read_yaml_text(fv_cli *cli, const char *text, size_t bytes, const char *path, fv_cli_source source,
                                const fv_cli_id *only, int n_only) {
    fv_yaml_reader r = {.cli = cli, .path = path, .source = source, .only = only, .n_only = n_only, .text = text};
    if (!yaml_parser_initialize(&r.parser)) return fv_fail_memory(cli->ctx, sizeof r.parser, "the YAML parser");
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, bytes);
    fv_status status = read_document(&r);
    yaml_event_delete(&r.event);
    yaml_parser_delete(&r.parser);
    return status;
}

fv_status fv_cli_read_yaml(fv_cli *cli, const char *path, fv_cli_source source, const fv_cli_id *only, int n_only) {
    void *data = NULL;
    size_t size = 0;
    fv_status status = fv_read_file(cli->ctx, path, FV_YAML_LIMIT, &data, &size);
    if (status == FV_E_DATA) cli->ctx->error.code = status = FV_E_USAGE; /* too large: it is no data set's file */
    FV_TRY(status);
    status = fv_cli_read_yaml_text(cli, data, size, path, source, only, n_only);
    fv_free(cli->ctx, data, size + 1, 1);
    return status;
}

/* ---------------------------------------------------------------- writing */

static bool emit(yaml_emitter_t *e, yaml_event_t *event, int made) {
    return made && yaml_emitter_emit(e, event);
}

static bool emit_scalar(yaml_emitter_t *e, const char *text, yaml_scalar_style_t style) {
    yaml_event_t event;
    return emit(e, &event,
                yaml_scalar_event_initialize(&event, NULL, NULL, (const yaml_char_t *)text, -1, 1, 1, style));
}

static bool emit_value(yaml_emitter_t *e, const fv_cli_option *o, const fv_cli_value *v) {
    if (!v->text) return emit_scalar(e, "null", YAML_PLAIN_SCALAR_STYLE);
    bool word = o->type == FV_CLI_STRING || o->type == FV_CLI_STRINGS;
    /* Text that another reader would take for something else is quoted. */
    bool quote =
        word &&
        (!strcmp(v->text, "~") || !strcmp(v->text, "null") || strspn(v->text, "0123456789.+-eE_") == strlen(v->text) ||
         fv_text_nearest(v->text, (const char *const[]){"true", "false", "yes", "no", "on", "off"}, 6));
    return emit_scalar(e, v->text, quote ? YAML_DOUBLE_QUOTED_SCALAR_STYLE : YAML_ANY_SCALAR_STYLE);
}

static bool emit_options(yaml_emitter_t *e, const fv_cli *cli) {
    for (int i = 0; i < OPT_COUNT; i++) {
        if (!fv_cli_applies(cli, (fv_cli_id)i) || of_invocation((fv_cli_id)i)) continue;
        if (!emit_scalar(e, fv_cli_options[i].name, YAML_ANY_SCALAR_STYLE)) return false;
        if (!emit_value(e, &fv_cli_options[i], &cli->value[i])) return false;
    }
    return true;
}

static int append(void *user, unsigned char *data, size_t size) {
    return fwrite(data, 1, size, user) == size;
}

fv_status fv_cli_write_yaml(fv_cli *cli, char **text, size_t *bytes) {
    *text = NULL;
    FILE *to = open_memstream(text, bytes);
    if (!to) return fv_fail_memory(cli->ctx, 4096, "args.yaml");
    fprintf(to, "# fovea %s: every option as resolved; run it again with 'fovea %s -c args.yaml'\n", FV_VERSION,
            fv_cli_commands[cli->command].name);
    yaml_emitter_t e;
    yaml_event_t ev;
    bool ok = yaml_emitter_initialize(&e);
    if (ok) {
        yaml_emitter_set_output(&e, append, to);
        yaml_emitter_set_unicode(&e, 1);
        yaml_emitter_set_width(&e, -1);
        ok = emit(&e, &ev, yaml_stream_start_event_initialize(&ev, YAML_UTF8_ENCODING)) &&
             emit(&e, &ev, yaml_document_start_event_initialize(&ev, NULL, NULL, NULL, 1)) &&
             emit(&e, &ev, yaml_mapping_start_event_initialize(&ev, NULL, NULL, 1, YAML_BLOCK_MAPPING_STYLE)) &&
             emit_options(&e, cli) && emit(&e, &ev, yaml_mapping_end_event_initialize(&ev)) &&
             emit(&e, &ev, yaml_document_end_event_initialize(&ev, 1)) &&
             emit(&e, &ev, yaml_stream_end_event_initialize(&ev)) && yaml_emitter_flush(&e);
        yaml_emitter_delete(&e);
    }
    bool failed = ferror(to) != 0;
    if (fclose(to) != 0 || failed || !ok) {
        free(*text);
        *text = NULL;
        return fv_fail_memory(cli->ctx, 4096, "args.yaml"); /* nothing else can fail: the text is UTF-8 */
    }
    return FV_OK;
}
