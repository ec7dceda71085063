/* jpeg_memory.c: see jpeg_memory.h. A bump allocator: blocks are only given back together. */
#include "data/jpeg_memory.h"

#include <jerror.h>
#include <string.h>

#define ALIGN ((size_t)64) /* the library's vector code reads and writes whole registers past the end of a row */
#define FIRST_BLOCK ((size_t)256 << 10)

typedef struct fv_jpeg_block {
    struct fv_jpeg_block *next;
    size_t bytes, used; /* with this header */
} block;

struct jvirt_barray_control { /* a picture's coefficients, all of them in memory */
    struct jvirt_barray_control *next;
    JDIMENSION blocks_per_row, rows;
    JBLOCKARRAY row; /* [rows]; NULL until realized */
};

static fv_jpeg_memory *memory_of(j_common_ptr info) {
    return (fv_jpeg_memory *)info->mem;
}

/* Leave the library by its error_exit. */
static _Noreturn void leave(j_common_ptr info, int code) {
    info->err->msg_code = code;
    info->err->error_exit(info);
    __builtin_unreachable(); /* jpeg.c's does not return */
}

static size_t round_up(size_t bytes) {
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static block *add_block(fv_jpeg_memory *m, size_t bytes) {
    block *b = fv_alloc(m->ctx, bytes, 1);
    if (!b) return NULL;
    *b = (block){.next = m->blocks, .bytes = bytes, .used = round_up(sizeof *b)};
    m->blocks = b;
    return b;
}

/* Does not return when there is no such memory. */
static void *take(j_common_ptr info, size_t count, size_t size) {
    fv_jpeg_memory *m = memory_of(info);
    size_t bytes;
    if (!fv_size_mul(count, size, &bytes) || bytes > m->limit || m->used + round_up(bytes) > m->limit)
        leave(info, JERR_OUT_OF_MEMORY);
    bytes = round_up(bytes);
    block *b = m->blocks;
    if (!b || b->bytes - b->used < bytes) {
        size_t least = bytes + round_up(sizeof *b);
        b = add_block(m, least > FIRST_BLOCK ? least : FIRST_BLOCK);
        if (!b) {
            m->out_of_memory = true;
            leave(info, JERR_OUT_OF_MEMORY);
            return NULL; /* for readers and tools that do not see that leave() does not return */
        }
    }
    void *ptr = (unsigned char *)b + b->used;
    b->used += bytes;
    m->used += bytes;
    return ptr;
}

static void *alloc_bytes(j_common_ptr info, int pool, size_t bytes) {
    (void)pool;
    return take(info, bytes, 1);
}

/* Rows of `row_bytes`, one behind the other, and an array that points at them. */
static void *alloc_rows(j_common_ptr info, size_t row_bytes, JDIMENSION rows) {
    unsigned char **row = take(info, rows, sizeof *row);
    unsigned char *data = take(info, rows, row_bytes);
    for (JDIMENSION i = 0; i < rows; i++) row[i] = data + i * row_bytes;
    return row;
}

static JSAMPARRAY alloc_sarray(j_common_ptr info, int pool, JDIMENSION samples, JDIMENSION rows) {
    (void)pool;
    return alloc_rows(info, round_up((size_t)samples * sizeof(JSAMPLE)), rows);
}

static JBLOCKARRAY alloc_barray(j_common_ptr info, int pool, JDIMENSION blocks, JDIMENSION rows) {
    (void)pool;
    return alloc_rows(info, (size_t)blocks * sizeof(JBLOCK), rows);
}

/* Whole pictures of samples are kept for colour quantization only, which is never asked for. */
static jvirt_sarray_ptr request_samples(j_common_ptr info, int pool, boolean zero, JDIMENSION samples, JDIMENSION rows,
                                        JDIMENSION most) {
    (void)pool, (void)zero, (void)samples, (void)rows, (void)most;
    leave(info, JERR_NOT_COMPILED);
}
static JSAMPARRAY access_samples(j_common_ptr info, jvirt_sarray_ptr array, JDIMENSION start, JDIMENSION rows,
                                 boolean writable) {
    (void)array, (void)start, (void)rows, (void)writable;
    leave(info, JERR_NOT_COMPILED);
}

/* All arrays come zeroed, asked for or not. */
static jvirt_barray_ptr request_coefficients(j_common_ptr info, int pool, boolean zero, JDIMENSION blocks,
                                             JDIMENSION rows, JDIMENSION most) {
    (void)pool, (void)zero, (void)most;
    fv_jpeg_memory *m = memory_of(info);
    jvirt_barray_ptr array = take(info, 1, sizeof *array);
    *array = (struct jvirt_barray_control){.next = m->arrays, .blocks_per_row = blocks, .rows = rows};
    m->arrays = array;
    return array;
}

static void realize(j_common_ptr info) {
    for (jvirt_barray_ptr a = memory_of(info)->arrays; a; a = a->next) {
        if (a->row || a->rows == 0) continue;
        a->row = alloc_barray(info, JPOOL_IMAGE, a->blocks_per_row, a->rows);
        memset(a->row[0], 0, (size_t)a->rows * a->blocks_per_row * sizeof(JBLOCK));
    }
}

static JBLOCKARRAY access_coefficients(j_common_ptr info, jvirt_barray_ptr array, JDIMENSION start, JDIMENSION rows,
                                       boolean writable) {
    (void)writable;
    if (!array->row || start > array->rows || rows > array->rows - start) leave(info, JERR_BAD_VIRTUAL_ACCESS);
    return array->row + start;
}

/* The library frees pools in the midst of its own calls; memory goes when the next picture begins. */
static void free_pool(j_common_ptr info, int pool) {
    if (pool == JPOOL_IMAGE) memory_of(info)->arrays = NULL;
}

static void self_destruct(j_common_ptr info) {
    (void)info; /* fv_jpeg_memory_free does it */
}

static void free_blocks(fv_jpeg_memory *m) {
    while (m->blocks) {
        block *b = m->blocks;
        m->blocks = b->next;
        fv_free(m->ctx, b, b->bytes, 1);
    }
}

void fv_jpeg_memory_init(fv_jpeg_memory *m, fv_ctx *ctx) {
    *m = (fv_jpeg_memory){.ctx = ctx};
    m->methods = (struct jpeg_memory_mgr){.alloc_small = alloc_bytes,
                                          .alloc_large = alloc_bytes,
                                          .alloc_sarray = alloc_sarray,
                                          .alloc_barray = alloc_barray,
                                          .request_virt_sarray = request_samples,
                                          .request_virt_barray = request_coefficients,
                                          .realize_virt_arrays = realize,
                                          .access_virt_sarray = access_samples,
                                          .access_virt_barray = access_coefficients,
                                          .free_pool = free_pool,
                                          .self_destruct = self_destruct,
                                          .max_alloc_chunk = 1000000000};
}

/* Several blocks become a single one as large as all of them, so that a decoder soon has just what it needs. Without
 * memory for that it takes a small one when it is asked. */
void fv_jpeg_memory_reset(fv_jpeg_memory *m, size_t limit) {
    if (m->blocks && m->blocks->next) {
        size_t total = 0;
        for (block *b = m->blocks; b; b = b->next) total += b->bytes;
        free_blocks(m);
        add_block(m, total);
    } else if (m->blocks) {
        m->blocks->used = round_up(sizeof *m->blocks);
    }
    m->used = 0;
    m->limit = limit;
    m->methods.max_memory_to_use = limit > (size_t)INT64_MAX ? INT64_MAX : (long)limit;
    m->arrays = NULL;
    m->out_of_memory = false;
}

void fv_jpeg_memory_free(fv_jpeg_memory *m) {
    free_blocks(m);
}
