/* feed.c: a batch into a program's inputs. */
#include "data/data.h"

/* Bytes of the program's input, 0 if it has none of that name. */
static size_t input_bytes(const fv_program *p, const char *name) {
    const fv_plan *plan = fv_program_plan(p);
    return fv_bytes(fv_typeof(plan->graph, fv_find_value(plan->graph, name))) * (size_t)plan->parts;
}

fv_status fv_batch_feed(const fv_batch *b, fv_program *p) {
    size_t n = (size_t)b->size;
    if (input_bytes(p, "images")) FV_TRY(fv_program_input(p, "images", b->images, input_bytes(p, "images")));
    if (b->targets) FV_TRY(fv_program_input(p, "targets", b->targets, input_bytes(p, "targets")));
    FV_TRY(fv_program_input(p, "record", b->record, n * FV_AUG_FIELDS * sizeof *b->record));
    FV_TRY(fv_program_input(p, "labels", b->labels, n * sizeof *b->labels));
    FV_TRY(fv_program_input(p, "row_weight", b->row_weight, n * sizeof *b->row_weight));
    return fv_program_input(p, "row_key", b->row_key, n * sizeof *b->row_key);
}
