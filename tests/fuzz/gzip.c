/* gzip.c: a stream, plain or gzipped. Read in pieces of any size it gives the same bytes and the same end. Input: one
 * byte (size of the pieces), then the file. */
#include "data/internal.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

enum { MOST = 1 << 20, ROUND = 1 << 16 };

typedef struct outcome {
    fv_status status;
    size_t bytes;
    uint8_t first[ROUND];
} outcome;

static void read_all(fvt_world *w, size_t piece, outcome *o) {
    static uint8_t buf[ROUND];
    fv_stream s;
    size_t got = 1;
    o->bytes = 0;
    o->status = fv_stream_open(&s, &w->ctx, "/m/file");
    if (o->status != FV_OK) return;
    while (o->status == FV_OK && got > 0 && o->bytes < MOST) {
        uint64_t bound = fv_stream_bound(&s);
        o->status = fv_stream_some(&s, buf, piece, &got);
        FVT_HOLDS(got <= piece && (!s.gzip || got <= bound + ROUND)); /* zlib may hold back what it has unpacked */
        if (o->bytes < ROUND) memcpy(o->first + o->bytes, buf, got < ROUND - o->bytes ? got : ROUND - o->bytes);
        o->bytes += got;
    }
    if (o->status == FV_OK && got == 0) o->status = fv_stream_finish(&s);
    fv_stream_close(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static outcome whole, pieces;
    fvt_world w;
    size_t piece = size > 0 ? 1 + (size_t)data[0] * data[0] : 1;
    fvt_world_open(&w, FVT_WORLD_LIMIT);
    fvt_world_put(&w, "/m/file", data + (size > 0), size - (size > 0));
    read_all(&w, ROUND, &whole);
    fvt_world_judge(&w, whole.status, FVT_BIT(FV_E_DATA));
    if (whole.bytes < (size_t)ROUND) { /* byte by byte through a bomb takes too long */
        read_all(&w, piece, &pieces);
        fvt_world_judge(&w, pieces.status, FVT_BIT(FV_E_DATA));
        FVT_HOLDS(pieces.status == whole.status && (whole.status == FV_OK || w.ctx.error.offset >= 0));
        FVT_HOLDS(whole.status != FV_OK ||
                  (pieces.bytes == whole.bytes && !memcmp(pieces.first, whole.first, whole.bytes)));
    }
    fvt_world_close(&w);
    return 0;
}
