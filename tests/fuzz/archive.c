/* archive.c: unpacking a .tar (the gzip around it is optional). Whatever it holds, only the files asked for appear. An
 * input whose first byte is even gets its header checksums put right, so that mutations reach what lies behind them. */
#include "data/internal.h"
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <string.h>

enum { BLOCK = 512, MOST = 1 << 16 };

static void repair(uint8_t *bytes, size_t size) {
    for (size_t at = 0; at + BLOCK <= size; at += BLOCK) {
        uint8_t *head = bytes + at;
        unsigned sum = 0;
        if (memcmp(head + 257, "ustar", 5) != 0) continue;
        for (int i = 0; i < BLOCK; i++) sum += i >= 148 && i < 156 ? ' ' : head[i];
        snprintf((char *)head + 148, 8, "%06o", sum);
        head[155] = ' ';
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char *const members[] = {"set/one.bin", "set/two.bin", NULL};
    static uint8_t copy[MOST];
    fvt_world w;
    if (size > MOST) return 0;
    if (size) memcpy(copy, data, size);
    bool whole = size > 0 && data[0] % 2;
    if (size && !whole) repair(copy + 1, size - 1);
    fvt_world_open(&w, FVT_WORLD_LIMIT);
    fvt_world_put(&w, "/m/set.tar.gz", copy + (size > 0), size - (size > 0));
    fv_status status = fv_archive_unpack(&w.ctx, "/m/set.tar.gz", members, "/m/out");
    fvt_world_judge(&w, status, FVT_BIT(FV_E_DATA));
    for (size_t i = 0; i < sizeof w.file / sizeof *w.file; i++) {
        const char *path = w.file[i].path;
        FVT_HOLDS(!path[0] || !strcmp(path, "/m/set.tar.gz") || !strcmp(path, "/m/out/one.bin") ||
                  !strcmp(path, "/m/out/two.bin"));
    }
    if (status == FV_OK) FVT_HOLDS(fvt_world_find(&w, "/m/out/one.bin") && fvt_world_find(&w, "/m/out/two.bin"));
    fvt_world_close(&w);
    return 0;
}
