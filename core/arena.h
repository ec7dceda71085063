/* arena.h: memory that is freed whole. A graph, a program and a dataset index each own one.
 *
 *   head ─► [block: 64 KiB, doubling] ─► [block] ─► NULL      fv_arena_alloc moves a cursor; nothing is freed alone
 */
#ifndef FV_CORE_ARENA_H
#define FV_CORE_ARENA_H

#include "core/status.h"

typedef struct fv_arena_block fv_arena_block;
typedef struct fv_arena {
    fv_ctx *ctx; /* borrowed */
    fv_arena_block *head;
    size_t total; /* bytes taken from the allocator */
} fv_arena;

/* Takes no memory yet. */
void fv_arena_init(fv_arena *arena, fv_ctx *ctx);
/* Gives all of it back; the arena may then be used anew. Fine on an empty or zeroed one. */
void fv_arena_free(fv_arena *arena);
/* Zeroed memory for count * size bytes, 64-byte aligned; NULL and ctx->error on failure or overflow. */
void *fv_arena_alloc(fv_arena *arena, size_t count, size_t size);
char *fv_arena_strdup(fv_arena *arena, const char *s);
char *fv_arena_printf(fv_arena *arena, const char *fmt, ...) FV_PRINTF(2, 3);

#endif
