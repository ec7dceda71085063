/* arena.c: a list of blocks with a cursor in the newest. */
#include "core/arena.h"

#include <stdio.h>
#include <string.h>

#ifndef FV_ARENA_BLOCK
#define FV_ARENA_BLOCK 65536 /* 0: a block for each allocation, so that tests can make every single one fail */
#endif

#define ALIGN 64
#define FIRST_BLOCK ((size_t)FV_ARENA_BLOCK)
#define LAST_BLOCK (32 * FIRST_BLOCK) /* doubling stops here: at most this much lies idle */

struct fv_arena_block {
    fv_arena_block *next;
    size_t bytes; /* as allocated, header included */
    size_t used;  /* header included */
};

void fv_arena_init(fv_arena *arena, fv_ctx *ctx) {
    *arena = (fv_arena){.ctx = ctx};
}

void fv_arena_free(fv_arena *arena) {
    for (fv_arena_block *block = arena->head, *next; block; block = next) {
        next = block->next;
        fv_free(arena->ctx, block, block->bytes, 1);
    }
    arena->head = NULL;
    arena->total = 0;
}

/* A zeroed block with room for `bytes`. It becomes the head unless the old head has more room left. */
static fv_arena_block *add_block(fv_arena *arena, size_t bytes) {
    size_t size = arena->head ? arena->head->bytes * 2 : FIRST_BLOCK, needed;
    if (size > LAST_BLOCK) size = LAST_BLOCK;
    if (!fv_size_add(bytes, ALIGN, &needed)) {
        fv_fail_memory(arena->ctx, SIZE_MAX, "an arena");
        return NULL;
    }
    if (size < needed) size = needed;
    fv_arena_block *block = fv_calloc(arena->ctx, size, 1), *head = arena->head;
    if (!block) return NULL;
    *block = (fv_arena_block){.bytes = size, .used = ALIGN};
    arena->total += size;
    if (head && head->bytes - head->used > size - needed) {
        block->next = head->next;
        head->next = block;
    } else {
        block->next = head;
        arena->head = block;
    }
    return block;
}

static void *take(fv_arena *arena, size_t bytes, size_t align) {
    fv_arena_block *block = arena->head;
    size_t start = 0;
    if (block) start = (block->used + align - 1) / align * align;
    if (!block || start > block->bytes || block->bytes - start < bytes) {
        block = add_block(arena, bytes);
        if (!block) return NULL;
        start = ALIGN;
    }
    block->used = start + bytes;
    return (unsigned char *)block + start;
}

void *fv_arena_alloc(fv_arena *arena, size_t count, size_t size) {
    size_t bytes;
    if (!fv_size_mul(count, size, &bytes)) {
        fv_fail_memory(arena->ctx, SIZE_MAX, "an arena");
        return NULL;
    }
    return take(arena, bytes ? bytes : 1, ALIGN);
}

char *fv_arena_strdup(fv_arena *arena, const char *s) {
    size_t bytes = strlen(s) + 1;
    char *copy = take(arena, bytes, 1);
    if (copy) memcpy(copy, s, bytes);
    return copy;
}

char *fv_arena_printf(fv_arena *arena, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    int length = vsnprintf(NULL, 0, fmt, args);
    va_end(args);
    if (length < 0) {
        fv_fail(arena->ctx, FV_E_INTERNAL, "a text could not be formatted: \"%s\"", fmt);
        return NULL;
    }
    char *text = take(arena, (size_t)length + 1, 1);
    if (!text) return NULL;
    va_start(args, fmt);
    vsnprintf(text, (size_t)length + 1, fmt, args);
    va_end(args);
    return text;
}
