/* backend.c: backends by name: those of the library, and those in a shared object of their own. */
#include "core/program.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FOLDER 4096

const fv_backend *fv_backend_find(const char *name) {
    if (!strcmp(name, fv_backend_ref.name)) return &fv_backend_ref;
    if (!strcmp(name, fv_backend_cpu.name)) return &fv_backend_cpu;
    return NULL;
}

static const char every_name[] = FV_VERSION
#define OP(ENUM, name, min_in, max_in, results, attr, diff, cost, onnx) " " #name
#include "core/ops.def"
#define FV_DTYPE_WORD(name, text, bytes, st) " " text
    FV_DTYPE_TABLE(FV_DTYPE_WORD)
#undef FV_DTYPE_WORD
    ;

uint64_t fv_backend_abi(void) {
    static const size_t sizes[] = {sizeof(fv_backend), sizeof(fv_device), sizeof(fv_device_opts), sizeof(fv_ctx),
                                   sizeof(fv_graph),   sizeof(fv_node),   sizeof(fv_val),         sizeof(fv_attr),
                                   sizeof(fv_plan),    sizeof(fv_place),  sizeof(fv_step),        sizeof(fv_type)};
    uint64_t abi = fv_hash_name(every_name);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) abi = (abi ^ sizes[i]) * 0x100000001b3u; /* as FNV-1a */
    return abi;
}

/* ---------------------------------------------------------------- shared objects */

/* Cut the file name off a path; false if there is no folder in it. */
static bool cut_name(char *path) {
    char *slash = strrchr(path, '/');
    if (!slash) return false;
    *slash = '\0';
    return true;
}

static bool folder_of_program(char *out) {
    ssize_t n = readlink("/proc/self/exe", out, FOLDER - 1);
    if (n <= 0) return false;
    out[n] = '\0';
    return cut_name(out);
}

static bool folder_of_library(char *out) {
    Dl_info info;
    if (!dladdr(every_name, &info) || !info.dli_fname) return false;
    snprintf(out, FOLDER, "%s", info.dli_fname);
    return cut_name(out);
}

/* The file in this folder, if there is one: *path is then where. */
static bool look_in(const char *folder, const char *below, const char *name, char *path) {
    int n = snprintf(path, FOLDER, "%s%s/libfovea-%s.so", folder, below, name);
    return n > 0 && n < FOLDER && access(path, F_OK) == 0;
}

static void find_file(const char *name, const char *folder, char *path) {
    char at[FOLDER];
    if (folder) {
        (void)look_in(folder, "", name, path);
        return;
    }
    if (folder_of_program(at) && (look_in(at, "", name, path) || look_in(at, "/../lib", name, path))) return;
    if (folder_of_library(at) && look_in(at, "", name, path)) return;
    snprintf(path, FOLDER, "libfovea-%s.so", name); /* the loader's turn */
}

static fv_status not_there(fv_ctx *ctx, const char *name, const char *path, const char *why) {
    if (strchr(path, '/') && access(path, F_OK) == 0)
        return fv_fail(ctx, FV_E_MEMORY, "the device '%s' cannot be opened: %s", name, why);
    fv_fail(ctx, FV_E_MEMORY, "this build has no device '%s': there is no libfovea-%s.so", name, name);
    return fv_hint(ctx, "it belongs beside the program or into ../lib; 'make %s' builds it", name);
}

fv_status fv_backend_load(fv_ctx *ctx, const char *name, const char *folder, const fv_backend **out) {
    char path[FOLDER];
    fv_backend_entry_fn entry = NULL;
    if ((*out = fv_backend_find(name))) return FV_OK;
    find_file(name, folder, path);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) return not_there(ctx, name, path, dlerror());
    void *symbol = dlsym(library, "fv_backend_entry");
    memcpy(&entry, &symbol, sizeof entry); /* ISO C has no cast from data to function pointers */
    *out = entry ? entry(fv_backend_abi()) : NULL;
    if (*out) return FV_OK;
    dlclose(library);
    fv_fail(ctx, FV_E_MEMORY, "the device '%s' does not fit this program: %s is of another build", name, path);
    return fv_hint(ctx, "build both from the same sources: 'make all %s'", name);
}
