/* csv.c: a list of pictures `path,label[,split]`. Rows that are read can be written, and are read again as the same
 * cells. */
#include "data/listing.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

enum { MOST = 1 << 16 };

/* All rows as cells in quotes; false when something in the file is wrong. */
static bool rewrite(fvt_world *w, const char *path, char *to, size_t *size) {
    fv_csv csv;
    fv_arena arena;
    bool more = false;
    int64_t line = 0;
    *size = 0;
    fv_arena_init(&arena, &w->ctx);
    fv_status status = fv_csv_open(&csv, &w->ctx, &arena, path);
    if (status == FV_OK) status = fv_csv_next(&csv, &more);
    while (status == FV_OK && more) {
        FVT_HOLDS(csv.line > line && csv.cells > 0 && csv.cells <= FV_CSV_MOST_CELLS);
        line = csv.line;
        for (int32_t i = 0; i < csv.cells; i++) {
            FVT_HOLDS(*size + 2 * strlen(csv.cell[i]) + 4 < MOST);
            to[(*size)++] = '"';
            for (const char *c = csv.cell[i]; *c; c++) {
                if (*c == '"') to[(*size)++] = '"';
                to[(*size)++] = *c;
            }
            to[(*size)++] = '"';
            to[(*size)++] = i + 1 < csv.cells ? ',' : '\n';
        }
        status = fv_csv_next(&csv, &more);
    }
    fvt_world_judge(w, status, FVT_BIT(FV_E_DATA));
    FVT_HOLDS(status == FV_OK || w->ctx.error.offset >= 0 || strncmp(w->ctx.error.message, "line ", 5) == 0);
    fv_arena_free(&arena);
    return status == FV_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static char first[MOST], second[MOST];
    size_t first_size, second_size;
    fvt_world w;
    fv_listing list;
    fv_arena arena;
    const fv_dataset_opts opts = {.root = "."};
    fvt_world_open(&w, FVT_WORLD_LIMIT);
    fvt_world_put(&w, "list.csv", data, size);
    if (rewrite(&w, "list.csv", first, &first_size)) {
        fvt_world_put(&w, "again.csv", first, first_size);
        FVT_HOLDS(rewrite(&w, "again.csv", second, &second_size));
        FVT_HOLDS(first_size == second_size && memcmp(first, second, first_size) == 0);
    }
    fv_arena_init(&arena, &w.ctx);
    fv_listing_init(&list, &w.ctx, &arena);
    fv_status status = fv_csv_list(&list, "list.csv", &opts); /* the pictures are looked for in the real folder */
    fvt_world_judge(&w, status, FVT_BIT(FV_E_DATA) | FVT_BIT(FV_E_IO));
    for (int64_t i = 0; status == FV_OK && i < list.count; i++)
        for (int32_t k = 0; k < list.item[i].labels; k++) {
            int32_t label = list.label[list.item[i].first + k];
            FVT_HOLDS(label >= 0 && label < list.classes);
        }
    fv_listing_free(&list);
    fv_arena_free(&arena);
    fvt_world_close(&w);
    return 0;
}
