/* find.c: see find.h. */
#include "cuda/find.h"

#include <dlfcn.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATH 4096

typedef struct search {
    const char *file;
    fv_cuda_fits fits;
    void *arg;
} search;

static void *open_path(const search *s, const char *path) {
    void *library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (!library || !s->fits || s->fits(s->arg, library, path)) return library;
    dlclose(library);
    return NULL;
}

static void *open_in(const search *s, const char *folder, size_t length) {
    char path[PATH];
    int n = snprintf(path, sizeof path, "%.*s/%s", (int)length, folder, s->file);
    return n > 0 && n < PATH ? open_path(s, path) : NULL;
}

/* The first of the folders that the pattern finds. */
static void *open_glob(const search *s, const char *pattern) {
    glob_t found;
    void *library = NULL;
    if (glob(pattern, 0, NULL, &found) != 0) return NULL;
    for (size_t i = 0; i < found.gl_pathc && !library; i++)
        library = open_in(s, found.gl_pathv[i], strlen(found.gl_pathv[i]));
    globfree(&found);
    return library;
}

static void *open_in_python(const search *s, const char *root, size_t length) {
    static const char *const packages[] = {"site-packages", "dist-packages"};
    char pattern[PATH];
    void *library = NULL;
    for (int i = 0; i < 2 && !library; i++) {
        int n = snprintf(pattern, sizeof pattern, "%.*s/lib/python3*/%s/nvidia/*/lib", (int)length, root, packages[i]);
        if (n > 0 && n < PATH) library = open_glob(s, pattern);
    }
    return library;
}

/* Of each FOLDER/bin/python3 on the path, below FOLDER: not of what it links to, which in a virtual environment is
 * another one's. */
static void *open_in_path(const search *s) {
    const char *list = getenv("PATH");
    void *library = NULL;
    for (const char *p = list; p && *p && !library; p += strcspn(p, ":"), p += *p == ':') {
        const size_t length = strcspn(p, ":");
        char python[PATH];
        int n = snprintf(python, sizeof python, "%.*s/python3", (int)length, p);
        if (n <= 0 || n >= PATH || length < 4 || strncmp(p + length - 4, "/bin", 4) != 0) continue;
        if (access(python, X_OK) == 0) library = open_in_python(s, p, length - 4);
    }
    return library;
}

bool fv_cuda_libraries_wanted(void) {
    const char *list = getenv("FOVEA_CUDA_LIBRARIES");
    return !list || strcmp(list, "none") != 0;
}

void *fv_cuda_find_library(const char *file, fv_cuda_fits fits, void *arg) {
    const search s = {file, fits, arg};
    const char *environments[] = {getenv("VIRTUAL_ENV"), getenv("CONDA_PREFIX")};
    static const char *const roots[] = {"/opt/torch/.venv", "/usr/local", "/usr", "/opt/conda"};
    const char *list = getenv("FOVEA_CUDA_LIBRARIES");
    void *library = NULL;
    if (!fv_cuda_libraries_wanted()) return NULL;
    for (const char *p = list; p && *p && !library; p += strcspn(p, ":"), p += *p == ':')
        library = open_in(&s, p, strcspn(p, ":"));
    if (!library) library = open_path(&s, file);
    if (!library) library = open_in(&s, "/usr/local/cuda/lib64", strlen("/usr/local/cuda/lib64"));
    for (int i = 0; i < 2 && !library; i++)
        if (environments[i]) library = open_in_python(&s, environments[i], strlen(environments[i]));
    if (!library) library = open_in_path(&s);
    for (size_t i = 0; i < sizeof roots / sizeof *roots && !library; i++)
        library = open_in_python(&s, roots[i], strlen(roots[i]));
    return library;
}
