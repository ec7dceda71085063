/* pickle.c: the pickle machine: a stack of values, a memo, and one function per family of opcodes.
 * Opcodes: Lib/pickletools.py of CPython; arrays: numpy/core/multiarray, __reduce__ of ndarray and dtype. */
#include "data/pickle.h"

#include <stdio.h>
#include <string.h>

#define MOST_VALUES ((uint32_t)1 << 19) /* CIFAR-100 has 150,000 */
#define MOST_ITEMS ((uint64_t)1 << 21)  /* pointers in lists, stack and memo: with the values, below 64 MB */
#define MOST_MARKS 64
#define MOST_LINE 65536 /* of a number or a name in protocol 0 */
#define POOL 256

enum { CALL_RECONSTRUCT, CALL_NDARRAY, CALL_DTYPE, CALL_ENCODE };
static const struct {
    const char *module, *name;
    int call;
} globals[] = {
    {"numpy.core.multiarray", "_reconstruct", CALL_RECONSTRUCT},
    {"numpy._core.multiarray", "_reconstruct", CALL_RECONSTRUCT},
    {"numpy", "ndarray", CALL_NDARRAY},
    {"numpy", "dtype", CALL_DTYPE},
    {"_codecs", "encode", CALL_ENCODE}, /* how Python 3 writes bytes in protocols 0 to 2 */
};

typedef struct machine {
    fv_ctx *ctx;
    fv_arena *arena;
    const char *path;
    const unsigned char *data;
    size_t size, at, op_at; /* op_at: of the opcode that is being executed */
    fv_pickle **stack, **memo, *pool;
    uint32_t depth, stack_capacity, memo_count, memo_capacity, pool_left, values, marks;
    uint64_t items, decoded;
} machine;

static fv_status refuse(machine *m, const char *what) {
    fv_fail_at(m->ctx, FV_E_DATA, m->path, (int64_t)m->op_at, "pickle: %s", what);
    return FV_E_DATA;
}

/* ---------------------------------------------------------------- input */

/* NULL, with the error set, when fewer are left. */
static const unsigned char *take(machine *m, size_t bytes) {
    if (bytes > m->size - m->at) {
        refuse(m, "truncated");
        return NULL;
    }
    const unsigned char *start = m->data + m->at;
    m->at += bytes;
    return start;
}

/* A little-endian number of 1 to 8 bytes. */
static fv_status take_number(machine *m, size_t bytes, uint64_t *out) {
    const unsigned char *p = take(m, bytes);
    *out = 0;
    if (!p) return FV_E_DATA;
    for (size_t i = 0; i < bytes; i++) *out |= (uint64_t)p[i] << (8 * i);
    return FV_OK;
}

static fv_status take_line(machine *m, size_t most, const unsigned char **line, size_t *size) {
    const unsigned char *start = m->data + m->at, *end = memchr(start, '\n', m->size - m->at);
    *line = start;
    *size = 0;
    if (!end) return refuse(m, "truncated: a line without an end");
    *size = (size_t)(end - start);
    if (*size > most) return refuse(m, "a line that is too long");
    m->at += *size + 1;
    return FV_OK;
}

/* ---------------------------------------------------------------- values */

static fv_pickle *new_value(machine *m, fv_pickle_kind kind) {
    if (m->values == MOST_VALUES) {
        refuse(m, "too many values");
        return NULL;
    }
    if (m->pool_left == 0) {
        m->pool = fv_arena_alloc(m->arena, POOL, sizeof *m->pool);
        if (!m->pool) return NULL;
        m->pool_left = POOL;
    }
    m->values++;
    fv_pickle *value = &m->pool[--m->pool_left];
    value->kind = kind;
    return value;
}

/* Room for one more pointer in an array that lives in the arena. */
static fv_status grow(machine *m, fv_pickle ***array, uint32_t count, uint32_t *capacity) {
    if (count < *capacity) return FV_OK;
    uint32_t more = *capacity ? *capacity * 2 : 8;
    m->items += more;
    if (m->items > MOST_ITEMS) return refuse(m, "too many items");
    fv_pickle **grown = fv_arena_alloc(m->arena, more, sizeof *grown);
    if (!grown) return FV_E_MEMORY;
    if (count > 0) memcpy(grown, *array, count * sizeof *grown);
    *array = grown;
    *capacity = more;
    return FV_OK;
}

static fv_status push(machine *m, fv_pickle *value) {
    if (!value) return m->ctx->error.code;
    FV_TRY(grow(m, &m->stack, m->depth, &m->stack_capacity));
    m->stack[m->depth++] = value;
    return FV_OK;
}

static fv_status push_new(machine *m, fv_pickle_kind kind) {
    return push(m, new_value(m, kind));
}

static fv_status push_int(machine *m, int64_t number) {
    fv_pickle *value = new_value(m, FV_PICKLE_INT);
    if (value) value->number = number;
    return push(m, value);
}

static fv_status push_text(machine *m, const unsigned char *text, size_t size) {
    fv_pickle *value = new_value(m, FV_PICKLE_TEXT);
    if (value) value->text = text, value->size = size;
    return push(m, value);
}

static fv_status pop(machine *m, fv_pickle **out) {
    *out = NULL;
    if (m->depth == 0 || m->stack[m->depth - 1]->kind == FV_PICKLE_MARK) return refuse(m, "the stack is empty");
    *out = m->stack[--m->depth];
    return FV_OK;
}

static fv_status top(machine *m, fv_pickle_kind kind, fv_pickle **out) {
    *out = NULL;
    if (m->depth == 0 || m->stack[m->depth - 1]->kind != kind) return refuse(m, "the stack holds something else");
    *out = m->stack[m->depth - 1];
    return FV_OK;
}

/* Where the values after the newest mark begin. */
static fv_status find_mark(machine *m, uint32_t *first) {
    *first = 0;
    for (uint32_t i = m->depth; i > 0; i--) {
        if (m->stack[i - 1]->kind != FV_PICKLE_MARK) continue;
        *first = i;
        return FV_OK;
    }
    return refuse(m, "no mark on the stack");
}

static fv_status append(machine *m, fv_pickle *to, fv_pickle *value) {
    FV_TRY(grow(m, &to->item, to->count, &to->capacity));
    to->item[to->count++] = value;
    return FV_OK;
}

/* The values after the mark, with the mark, leave the stack and become items of `to`. */
static fv_status append_marked(machine *m, fv_pickle *to, uint32_t first) {
    if (to->kind == FV_PICKLE_DICT && (m->depth - first) % 2) return refuse(m, "a key without a value");
    for (uint32_t i = first; i < m->depth; i++) FV_TRY(append(m, to, m->stack[i]));
    m->depth = first - 1;
    m->marks--;
    return FV_OK;
}

static fv_status memorise(machine *m, uint64_t slot) {
    if (m->depth == 0 || m->stack[m->depth - 1]->kind == FV_PICKLE_MARK) return refuse(m, "nothing to remember");
    if (slot >= MOST_VALUES || slot >= m->size) return refuse(m, "a memo number that is too large");
    while (m->memo_capacity <= slot) FV_TRY(grow(m, &m->memo, m->memo_capacity, &m->memo_capacity));
    if (!m->memo[slot]) m->memo_count++;
    m->memo[slot] = m->stack[m->depth - 1];
    return FV_OK;
}

static fv_status recall(machine *m, uint64_t slot) {
    if (slot >= m->memo_capacity || !m->memo[slot]) return refuse(m, "a memo number that was never set");
    return push(m, m->memo[slot]);
}

/* ---------------------------------------------------------------- text in lines (protocol 0) */

static fv_status decimal(machine *m, const unsigned char *line, size_t size, int64_t *out) {
    bool minus = size > 0 && line[0] == '-';
    uint64_t value = 0;
    *out = 0;
    if (size == (size_t)minus) return refuse(m, "not a number");
    for (size_t i = minus; i < size; i++) {
        if (line[i] < '0' || line[i] > '9') return refuse(m, "not a number");
        if (value > (INT64_MAX - 9) / 10) return refuse(m, "a number beyond 64 bits");
        value = value * 10 + (line[i] - '0');
    }
    *out = minus ? -(int64_t)value : (int64_t)value;
    return FV_OK;
}

static int hex_digit(unsigned char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool hex_number(const unsigned char *p, size_t left, size_t digits, uint32_t *out) {
    if (left < digits) return false;
    *out = 0;
    for (size_t i = 0; i < digits; i++) {
        if (hex_digit(p[i]) < 0) return false;
        *out = *out << 4 | (uint32_t)hex_digit(p[i]);
    }
    return true;
}

static size_t put_utf8(unsigned char *to, uint32_t c) {
    if (c < 0x80) return to[0] = (unsigned char)c, 1;
    if (c < 0x800) return to[0] = (unsigned char)(0xc0 | c >> 6), to[1] = (unsigned char)(0x80 | (c & 0x3f)), 2;
    size_t n = c < 0x10000 ? 3 : 4;
    to[0] = (unsigned char)((n == 3 ? 0xe0 : 0xf0) | c >> (6 * (n - 1)));
    for (size_t i = 1; i < n; i++) to[i] = (unsigned char)(0x80 | (c >> (6 * (n - 1 - i)) & 0x3f));
    return n;
}

/* Memory for text that is rewritten. An honest pickle rewrites each text once. */
static unsigned char *text_room(machine *m, size_t bytes) {
    m->decoded += bytes;
    if (m->decoded <= 4 * (uint64_t)m->size) return fv_arena_alloc(m->arena, bytes, 1);
    refuse(m, "too much text to decode");
    return NULL;
}

/* STRING: a Python 2 literal in quotes. Its result is never longer than the literal. */
static fv_status quoted_text(machine *m) {
    const unsigned char *line;
    size_t size, n = 0;
    FV_TRY(take_line(m, SIZE_MAX, &line, &size));
    if (size < 2 || line[0] != line[size - 1] || (line[0] != '\'' && line[0] != '"'))
        return refuse(m, "a string without quotes");
    unsigned char *text = text_room(m, size);
    if (!text) return m->ctx->error.code;
    for (size_t i = 1; i < size - 1; i++) {
        uint32_t c = line[i];
        if (c == '\\') {
            static const char from[] = "\\'\"nrtabfv", to[] = "\\'\"\n\r\t\a\b\f\v";
            const char *known = ++i < size - 1 ? memchr(from, line[i], sizeof from - 1) : NULL;
            if (known) c = (unsigned char)to[known - from];
            else if (i < size - 1 && line[i] == 'x' && hex_number(line + i + 1, size - 2 - i, 2, &c)) i += 2;
            else return refuse(m, "an escape that is not known");
        }
        text[n++] = (unsigned char)c;
    }
    return push_text(m, text, n);
}

/* UNICODE: Latin-1 with \uXXXX and \UXXXXXXXX, to UTF-8. */
static fv_status escaped_text(machine *m) {
    const unsigned char *line;
    size_t size, n = 0;
    FV_TRY(take_line(m, SIZE_MAX / 2, &line, &size));
    unsigned char *text = text_room(m, 2 * size);
    if (!text) return m->ctx->error.code;
    for (size_t i = 0; i < size; i++) {
        uint32_t c = line[i];
        if (c == '\\' && i + 1 < size && (line[i + 1] == 'u' || line[i + 1] == 'U')) {
            size_t digits = line[i + 1] == 'u' ? 4 : 8;
            if (!hex_number(line + i + 2, size - i - 2, digits, &c) || c > 0x10ffff)
                return refuse(m, "an escape that is not known");
            i += 1 + digits;
        }
        n += put_utf8(text + n, c);
    }
    return push_text(m, text, n);
}

/* ---------------------------------------------------------------- calls, as a notation */

static bool is_text(const fv_pickle *v, const char *text) {
    return v->kind == FV_PICKLE_TEXT && v->size == strlen(text) && memcmp(v->text, text, v->size) == 0;
}
static bool is_global(const fv_pickle *v, int call) {
    return v->kind == FV_PICKLE_GLOBAL && v->number == call;
}

static fv_status push_global(machine *m, const unsigned char *module, size_t module_size, const unsigned char *name,
                             size_t name_size) {
    for (size_t i = 0; i < sizeof globals / sizeof *globals; i++) {
        bool same = strlen(globals[i].module) == module_size && memcmp(globals[i].module, module, module_size) == 0 &&
                    strlen(globals[i].name) == name_size && memcmp(globals[i].name, name, name_size) == 0;
        if (!same) continue;
        fv_pickle *value = new_value(m, FV_PICKLE_GLOBAL);
        if (value) value->number = globals[i].call;
        return push(m, value);
    }
    char module_text[61] = {0}, name_text[61] = {0};
    for (size_t i = 0; i < 60 && i < module_size; i++)
        module_text[i] = (char)(module[i] > 32 && module[i] < 127 ? module[i] : '?');
    for (size_t i = 0; i < 60 && i < name_size; i++)
        name_text[i] = (char)(name[i] > 32 && name[i] < 127 ? name[i] : '?');
    return fv_fail_at(
        m->ctx, FV_E_DATA, m->path, (int64_t)m->op_at,
        "pickle: it asks for %s.%s, and only NumPy arrays are known here; nothing in a pickle is ever executed",
        module_text, name_text);
}

/* encode(text, 'latin1'): UTF-8 back to the bytes it stands for. */
static fv_status call_encode(machine *m, const fv_pickle *args) {
    bool known = args->count == 2 && args->item[0]->kind == FV_PICKLE_TEXT &&
                 (is_text(args->item[1], "latin1") || is_text(args->item[1], "latin-1"));
    if (!known) return refuse(m, "an encoding that is not known");
    const unsigned char *from = args->item[0]->text;
    size_t size = args->item[0]->size, n = 0;
    unsigned char *text = text_room(m, size);
    if (!text) return m->ctx->error.code;
    for (size_t i = 0; i < size; i++) {
        if (from[i] < 0x80) text[n++] = from[i];
        else if ((from[i] == 0xc2 || from[i] == 0xc3) && i + 1 < size && from[i + 1] >> 6 == 2)
            text[n++] = (unsigned char)(from[i] << 6 | (from[i + 1] & 0x3f)), i++;
        else return refuse(m, "text that is not Latin-1");
    }
    return push_text(m, text, n);
}

static fv_status push_array(machine *m, fv_pickle_kind kind, char type, int item) {
    fv_pickle *value = new_value(m, kind);
    if (!value) return m->ctx->error.code;
    value->array = fv_arena_alloc(m->arena, 1, sizeof *value->array);
    if (!value->array) return FV_E_MEMORY;
    value->array->type = type;
    value->array->item = item;
    return push(m, value);
}

/* dtype('u1', ...), also with the byte order in front: '|u1', '<i8'. The order is set by BUILD. */
static fv_status call_dtype(machine *m, const fv_pickle *args) {
    if (args->count < 1 || args->item[0]->kind != FV_PICKLE_TEXT) return refuse(m, "an element type that is not known");
    const unsigned char *text = args->item[0]->text;
    size_t size = args->item[0]->size;
    if (size == 3 && memchr("|<>=", text[0], 4)) text++, size--;
    bool known = size == 2 && memchr("uib", text[0], 3) && memchr("1248", text[1], 4);
    if (!known) return refuse(m, "an element type that is not known: whole numbers only");
    return push_array(m, FV_PICKLE_DTYPE, (char)text[0], text[1] - '0');
}

static fv_status op_reduce(machine *m, unsigned char op) {
    (void)op;
    fv_pickle *args, *callee;
    FV_TRY(pop(m, &args));
    FV_TRY(pop(m, &callee));
    if (args->kind != FV_PICKLE_TUPLE || callee->kind != FV_PICKLE_GLOBAL) return refuse(m, "a call that is not known");
    switch (callee->number) {
    case CALL_ENCODE: return call_encode(m, args);
    case CALL_DTYPE: return call_dtype(m, args);
    case CALL_RECONSTRUCT:
        if (args->count == 3 && is_global(args->item[0], CALL_NDARRAY)) return push_array(m, FV_PICKLE_ARRAY, 0, 0);
        break;
    default: break;
    }
    return refuse(m, "a call that is not known");
}

/* dtype state: (version, order, None, None, None, -1, -1, 0...) */
static fv_status build_dtype(machine *m, fv_pickle_array *dtype, const fv_pickle *state) {
    if (state->kind != FV_PICKLE_TUPLE || state->count < 2 || state->item[1]->kind != FV_PICKLE_TEXT ||
        state->item[1]->size != 1 || !memchr("|<>=", state->item[1]->text[0], 4))
        return refuse(m, "an element type that is not known");
    dtype->big_endian = state->item[1]->text[0] == '>';
    return FV_OK;
}

/* ndarray state: (version, shape, dtype, is_fortran, raw bytes) */
static fv_status build_array(machine *m, fv_pickle_array *array, const fv_pickle *state) {
    bool known = state->kind == FV_PICKLE_TUPLE && state->count == 5 && state->item[1]->kind == FV_PICKLE_TUPLE &&
                 state->item[2]->kind == FV_PICKLE_DTYPE && state->item[3]->kind == FV_PICKLE_INT &&
                 state->item[4]->kind == FV_PICKLE_TEXT && state->item[1]->count <= 4 && array->type == 0;
    if (!known) return refuse(m, "an array that is not known: whole numbers in at most 4 dimensions only");
    const fv_pickle *shape = state->item[1], *raw = state->item[4];
    const fv_pickle_array *dtype = state->item[2]->array;
    size_t bytes = (size_t)dtype->item;
    for (uint32_t i = 0; i < shape->count; i++) {
        if (shape->item[i]->kind != FV_PICKLE_INT || shape->item[i]->number < 0 ||
            !fv_size_mul(bytes, (size_t)shape->item[i]->number, &bytes))
            return refuse(m, "an array with an impossible shape");
        array->dim[i] = shape->item[i]->number;
    }
    if (bytes != raw->size) return refuse(m, "an array whose shape and bytes disagree");
    array->rank = (int)shape->count;
    array->type = dtype->type;
    array->item = dtype->item;
    array->big_endian = dtype->big_endian;
    array->fortran = state->item[3]->number != 0;
    array->data = raw->text;
    array->bytes = bytes;
    return FV_OK;
}

static fv_status op_build(machine *m, unsigned char op) {
    (void)op;
    fv_pickle *state;
    FV_TRY(pop(m, &state));
    if (m->depth == 0) return refuse(m, "the stack is empty");
    fv_pickle *object = m->stack[m->depth - 1];
    if (object->kind == FV_PICKLE_DTYPE) return build_dtype(m, object->array, state);
    if (object->kind == FV_PICKLE_ARRAY) return build_array(m, object->array, state);
    return refuse(m, "an object that is not known");
}

/* ---------------------------------------------------------------- opcodes */

/* Numbers. INT is also how protocol 0 writes True and False. */
static fv_status op_number(machine *m, unsigned char op) {
    uint64_t n = 0;
    int64_t number = 0;
    const unsigned char *line;
    size_t size;
    switch (op) {
    case 'J': FV_TRY(take_number(m, 4, &n)); return push_int(m, (int32_t)(uint32_t)n);
    case 'K': FV_TRY(take_number(m, 1, &n)); return push_int(m, (int64_t)n);
    case 'M': FV_TRY(take_number(m, 2, &n)); return push_int(m, (int64_t)n);
    case 0x8a: { /* LONG1: two's complement */
        uint64_t bytes;
        FV_TRY(take_number(m, 1, &bytes));
        if (bytes > 8) return refuse(m, "a number beyond 64 bits");
        FV_TRY(take_number(m, bytes, &n));
        if (bytes > 0 && bytes < 8 && n >> (8 * bytes - 1)) n |= ~(uint64_t)0 << (8 * bytes);
        return push_int(m, (int64_t)n);
    }
    default:
        FV_TRY(take_line(m, MOST_LINE, &line, &size));
        if (op == 'L' && size > 0 && line[size - 1] == 'L') size--;
        FV_TRY(decimal(m, line, size, &number));
        return push_int(m, number);
    }
}

/* Text with its length in front. */
static fv_status op_text(machine *m, unsigned char op) {
    uint64_t size;
    bool tiny = op == 'U' || op == 'C' || op == 0x8c, huge = op == 0x8d || op == 0x8e;
    FV_TRY(take_number(m, tiny ? 1 : huge ? 8 : 4, &size));
    const unsigned char *text = take(m, size < SIZE_MAX ? (size_t)size : SIZE_MAX);
    return text ? push_text(m, text, (size_t)size) : FV_E_DATA;
}

static fv_status op_line(machine *m, unsigned char op) {
    return op == 'S' ? quoted_text(m) : escaped_text(m);
}

/* What stands for itself, and what moves the top of the stack. */
static fv_status op_simple(machine *m, unsigned char op) {
    fv_pickle *value;
    switch (op) {
    case '(': /* MARK */
        if (++m->marks > MOST_MARKS) return refuse(m, "nested too deeply");
        return push_new(m, FV_PICKLE_MARK);
    case '0': return pop(m, &value);
    case '2': /* DUP */
        FV_TRY(pop(m, &value));
        FV_TRY(push(m, value));
        return push(m, value);
    case ']': return push_new(m, FV_PICKLE_LIST);
    case '}': return push_new(m, FV_PICKLE_DICT);
    case ')': return push_new(m, FV_PICKLE_TUPLE);
    case 'N': return push_new(m, FV_PICKLE_NONE);
    default: return push_int(m, op == 0x88); /* NEWTRUE, NEWFALSE */
    }
}

/* TUPLE1 to TUPLE3 */
static fv_status op_tuple(machine *m, unsigned char op) {
    uint32_t count = op - 0x84u;
    fv_pickle *tuple = new_value(m, FV_PICKLE_TUPLE), *part[3];
    if (!tuple) return m->ctx->error.code;
    for (uint32_t i = count; i > 0; i--) FV_TRY(pop(m, &part[i - 1]));
    for (uint32_t i = 0; i < count; i++) FV_TRY(append(m, tuple, part[i]));
    return push(m, tuple);
}

static fv_status op_marked(machine *m, unsigned char op) {
    uint32_t first;
    fv_pickle *to;
    FV_TRY(find_mark(m, &first));
    if (op == '1') { /* POP_MARK */
        m->depth = first - 1;
        m->marks--;
        return FV_OK;
    }
    if (op == 'e' || op == 'u') { /* APPENDS, SETITEMS: to what lies under the mark */
        fv_pickle_kind kind = op == 'e' ? FV_PICKLE_LIST : FV_PICKLE_DICT;
        if (first < 2 || m->stack[first - 2]->kind != kind) return refuse(m, "the stack holds something else");
        return append_marked(m, m->stack[first - 2], first);
    }
    to = new_value(m, op == 't' ? FV_PICKLE_TUPLE : op == 'l' ? FV_PICKLE_LIST : FV_PICKLE_DICT);
    if (!to) return m->ctx->error.code;
    FV_TRY(append_marked(m, to, first));
    return push(m, to);
}

static fv_status op_single(machine *m, unsigned char op) {
    fv_pickle *value, *key, *to;
    FV_TRY(pop(m, &value));
    if (op == 'a') { /* APPEND */
        FV_TRY(top(m, FV_PICKLE_LIST, &to));
        return append(m, to, value);
    }
    FV_TRY(pop(m, &key)); /* SETITEM */
    FV_TRY(top(m, FV_PICKLE_DICT, &to));
    FV_TRY(append(m, to, key));
    return append(m, to, value);
}

static fv_status op_memo(machine *m, unsigned char op) {
    uint64_t slot = m->memo_count; /* MEMOIZE: the next one */
    if (op == 'p' || op == 'g') {
        const unsigned char *line;
        size_t size;
        int64_t number;
        FV_TRY(take_line(m, MOST_LINE, &line, &size));
        FV_TRY(decimal(m, line, size, &number));
        slot = (uint64_t)number; /* a negative one is too large */
    } else if (op != 0x94) {
        FV_TRY(take_number(m, op == 'q' || op == 'h' ? 1 : 4, &slot));
    }
    return op == 'g' || op == 'h' || op == 'j' ? recall(m, slot) : memorise(m, slot);
}

static fv_status op_global(machine *m, unsigned char op) {
    const unsigned char *module, *name;
    size_t module_size, name_size;
    if (op == 'c') {
        FV_TRY(take_line(m, MOST_LINE, &module, &module_size));
        FV_TRY(take_line(m, MOST_LINE, &name, &name_size));
        return push_global(m, module, module_size, name, name_size);
    }
    fv_pickle *a, *b; /* STACK_GLOBAL */
    FV_TRY(pop(m, &b));
    FV_TRY(pop(m, &a));
    if (a->kind != FV_PICKLE_TEXT || b->kind != FV_PICKLE_TEXT) return refuse(m, "a name that is not text");
    return push_global(m, a->text, a->size, b->text, b->size);
}

static fv_status op_header(machine *m, unsigned char op) {
    uint64_t n;
    FV_TRY(take_number(m, op == 0x80 ? 1 : 8, &n));
    if (op == 0x80 && n > 4) return refuse(m, "protocol above 4: save it with protocol=4");
    if (op == 0x95 && n > m->size - m->at) return refuse(m, "truncated");
    return FV_OK;
}

/* All that is accepted: a pickle that holds anything else is refused. */
static fv_status (*const handlers[256])(machine *, unsigned char op) = {
    [0x80] = op_header, [0x95] = op_header, ['('] = op_simple, ['0'] = op_simple, ['2'] = op_simple,
    [']'] = op_simple,  ['}'] = op_simple,  [')'] = op_simple, ['N'] = op_simple, [0x88] = op_simple,
    [0x89] = op_simple, ['I'] = op_number,  ['J'] = op_number, ['K'] = op_number, ['L'] = op_number,
    ['M'] = op_number,  [0x8a] = op_number, ['S'] = op_line,   ['V'] = op_line,   ['U'] = op_text,
    ['C'] = op_text,    ['T'] = op_text,    ['B'] = op_text,   ['X'] = op_text,   [0x8c] = op_text,
    [0x8d] = op_text,   [0x8e] = op_text,   [0x85] = op_tuple, [0x86] = op_tuple, [0x87] = op_tuple,
    ['t'] = op_marked,  ['l'] = op_marked,  ['d'] = op_marked, ['e'] = op_marked, ['u'] = op_marked,
    ['1'] = op_marked,  ['a'] = op_single,  ['s'] = op_single, ['p'] = op_memo,   ['q'] = op_memo,
    ['r'] = op_memo,    [0x94] = op_memo,   ['g'] = op_memo,   ['h'] = op_memo,   ['j'] = op_memo,
    ['c'] = op_global,  [0x93] = op_global, ['R'] = op_reduce, ['b'] = op_build,
};

fv_status fv_pickle_read(fv_ctx *ctx, fv_arena *arena, const char *path, const void *data, size_t size,
                         fv_pickle **out) {
    machine m = {.ctx = ctx, .arena = arena, .path = path, .data = data, .size = size};
    char what[64];
    for (;;) {
        m.op_at = m.at;
        const unsigned char *op = take(&m, 1);
        if (!op) return FV_E_DATA;
        if (*op == '.') break; /* STOP */
        if (!handlers[*op]) {
            snprintf(what, sizeof what, "opcode 0x%02x is not among those that data need", *op);
            return refuse(&m, what);
        }
        FV_TRY(handlers[*op](&m, *op));
    }
    if (m.depth != 1 || m.stack[0]->kind == FV_PICKLE_MARK) return refuse(&m, "it does not end with one value");
    *out = m.stack[0];
    return FV_OK;
}

const fv_pickle *fv_pickle_get(const fv_pickle *dict, const char *key) {
    if (dict->kind != FV_PICKLE_DICT) return NULL;
    const fv_pickle *found = NULL; /* the last one counts, as in Python */
    for (uint32_t i = 0; i + 1 < dict->count; i += 2)
        if (is_text(dict->item[i], key)) found = dict->item[i + 1];
    return found;
}
