/* backend.c: backends by name. */
#include "core/backend.h"

#include <string.h>

const fv_backend *fv_backend_find(const char *name) {
    if (!strcmp(name, fv_backend_ref.name)) return &fv_backend_ref;
    if (!strcmp(name, fv_backend_cpu.name)) return &fv_backend_cpu;
    return NULL;
}
