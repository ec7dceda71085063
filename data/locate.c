/* locate.c: from what `--data` says to the folder that holds the files, or to a CSV file that names them. */
#include "data/listing.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

const char *fv_data_root(const char *root) {
    if (root && *root) return root;
    const char *env = getenv("FOVEA_DATA");
    return env && *env ? env : "./datasets";
}

bool fv_idx_find(fv_ctx *ctx, const char *folder, const char *stem, int rank, char out[FV_DATA_PATH]) {
    static const char *const shapes[] = {"%s/%s-idx%d-ubyte", "%s/%s-idx%d-ubyte.gz", "%s/%s.idx%d-ubyte",
                                         "%s/%s.idx%d-ubyte.gz"};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        int n = snprintf(out, FV_DATA_PATH, shapes[i], folder, stem, rank);
        if (n > 0 && n < FV_DATA_PATH && fv_data_exists(ctx, out)) return true;
    }
    return false;
}

/* How many files of a split lie in a folder; *all: how many there should be. */
static int files_there(fv_ctx *ctx, const fv_data_layout *layout, const char *folder, fv_split split, int *all) {
    int there = 0;
    char path[FV_DATA_PATH];
    for (*all = 0; layout->files[split][*all].name; ++*all) {
        const char *name = layout->files[split][*all].name;
        if (layout->format == FV_FORMAT_IDX) {
            there += fv_idx_find(ctx, folder, name, *all == 0 ? 3 : 1, path);
        } else {
            int n = snprintf(path, sizeof path, "%s/%s", folder, name);
            there += n > 0 && n < FV_DATA_PATH && fv_data_exists(ctx, path);
        }
    }
    return there;
}

typedef struct search {
    fv_ctx *ctx;
    fv_split split;
    fv_data_place *out;
    bool complete, partial; /* of what lies in *out */
    char looked[512];       /* the folders looked into, for the message */
    const char *wanted;     /* the first file looked for */
} search;

static void note_looked(search *s, const char *folder) {
    size_t n = strlen(s->looked);
    snprintf(s->looked + n, sizeof s->looked - n, "%s%s", n ? ", " : "", folder);
}

/* A folder with all files of the split wins; the first one with some of either split comes next, for its error to say
 * what is missing. */
static void try_folder(search *s, const fv_data_kind *kind, const fv_data_layout *layout, const char *folder) {
    if (s->complete) return;
    int all, other_all;
    if (!s->wanted) s->wanted = layout->files[s->split][0].name;
    int there = files_there(s->ctx, layout, folder, s->split, &all);
    bool partial = there > 0 || files_there(s->ctx, layout, folder, !s->split, &other_all) > 0;
    if (there < all && (s->partial || !partial)) return;
    s->complete = there == all;
    s->partial = true;
    s->out->kind = kind;
    s->out->layout = layout;
    memcpy(s->out->folder, folder, strlen(folder) + 1);
}

static void try_base(search *s, const fv_data_kind *kind, const char *base) {
    note_looked(s, base);
    for (const fv_data_layout *l = kind->layout; l->subfolder; l++) {
        char folder[FV_DATA_PATH];
        try_folder(s, kind, l, base);
        int n = snprintf(folder, sizeof folder, "%s/%s", base, l->subfolder);
        if (n <= 0 || n >= FV_DATA_PATH) continue;
        note_looked(s, folder);
        try_folder(s, kind, l, folder);
    }
}

static fv_status locate_named(search *s, const fv_data_kind *kind, const char *root) {
    for (int i = 0; i < 4 && kind->folders[i]; i++) {
        char base[FV_DATA_PATH];
        const char *below = kind->folders[i];
        FV_TRY(fv_data_path(s->ctx, base, "%s%s%s", root, *below ? "/" : "", below));
        try_base(s, kind, base);
    }
    s->out->named = true;
    snprintf(s->out->label, sizeof s->out->label, "%s", kind->name);
    if (s->partial) return FV_OK;
    fv_fail(s->ctx, FV_E_DATA, "%s was not found: looked for %s… in %s", kind->name, s->wanted, s->looked);
    return fv_hint(s->ctx, "'fovea data get %s' downloads it to %s; or set FOVEA_DATA to the folder that holds it",
                   kind->name, root);
}

static bool is_csv_name(const char *path) {
    size_t n = strlen(path);
    return n > 4 && strcasecmp(path + n - 4, ".csv") == 0;
}

/* What is shown for a path: its last part, without slashes behind it and without .csv, cut short at a character. */
static void last_part(const char *path, char out[64]) {
    size_t end = strlen(path), n = 0;
    while (end > 1 && path[end - 1] == '/') end--;
    size_t start = end;
    while (start > 0 && path[start - 1] != '/') start--;
    if (is_csv_name(path) && end - start > 4) end -= 4;
    while (start < end) {
        size_t length = fv_utf8_length((const unsigned char *)path + start);
        if (n + (length ? length : 1) > 63) break;
        if (length) memcpy(out + n, path + start, length);
        else out[n] = '?';
        n += length ? length : 1;
        start += length ? length : 1;
    }
    out[n] = 0;
}

static fv_status locate_files(search *s, const char *path, fv_data_files files) {
    FV_TRY(fv_data_path(s->ctx, s->out->folder, "%s", path));
    s->out->files = files;
    last_part(path, s->out->label);
    return FV_OK;
}

static fv_status locate_path(search *s, const char *path) {
    char folder[FV_DATA_PATH];
    FV_TRY(fv_data_path(s->ctx, folder, "%s", path));
    for (size_t n = strlen(folder); n > 1 && folder[n - 1] == '/'; n--) folder[n - 1] = 0;
    for (const fv_data_kind *k = fv_data_kinds(); k->name; k++)
        if (k->layout[0].format != FV_FORMAT_IDX) try_base(s, k, folder);
    const fv_data_kind *idx = fv_data_kind_of_idx(folder);
    try_base(s, idx, folder);
    s->out->named = false;
    if (!s->partial && fv_folder_holds_pictures(folder)) return locate_files(s, folder, FV_FILES_FOLDER);
    if (!s->partial) {
        fv_fail_at(s->ctx, FV_E_DATA, path, -1,
                   "this folder holds no dataset that is known: looked for CIFAR-10 and CIFAR-100 (data_batch_1.bin, "
                   "data_batch_1, train.bin, train), IDX files (train-images-idx3-ubyte, .gz too) and folders of "
                   "pictures (train/CLASS/x.jpg or CLASS/x.jpg)");
        return fv_hint(s->ctx, "name the folder that holds these files, or the one just above it");
    }
    if (s->out->kind->published[0]) snprintf(s->out->label, sizeof s->out->label, "%s", s->out->kind->name);
    else last_part(folder, s->out->label);
    return FV_OK;
}

fv_status fv_data_locate(fv_ctx *ctx, const char *name, const char *root, fv_split split, fv_data_place *out) {
    search s = {.ctx = ctx, .split = split, .out = out};
    *out = (fv_data_place){0};
    const fv_data_kind *kind = fv_data_kind_find(name);
    if (kind) return locate_named(&s, kind, fv_data_root(root));
    struct stat st;
    bool there = stat(name, &st) == 0;
    if (there && S_ISDIR(st.st_mode)) return locate_path(&s, name);
    if (there && S_ISREG(st.st_mode) && is_csv_name(name)) return locate_files(&s, name, FV_FILES_CSV);
    if (there) {
        fv_fail_at(ctx, FV_E_DATA, name, -1, "is not a folder, and no CSV file by its name");
        return fv_hint(ctx, "the name of a CSV file ends in .csv; its lines are 'path,label' or 'path,label,split'");
    }
    fv_fail(ctx, FV_E_DATA, "no dataset is called '%s', and there is no folder or CSV file of this name", name);
    kind = fv_data_kind_near(name);
    if (kind) return fv_hint(ctx, "did you mean '%s'?", kind->name);
    return fv_hint(ctx,
                   "known: cifar10, cifar100, mnist, fashion-mnist, synthetic; or a folder that holds one of these or "
                   "pictures, or a CSV file");
}

bool fv_dataset_is_files(fv_ctx *ctx, const char *name, const char *root) {
    fv_data_place place;
    if (strcmp(name, "synthetic") == 0 || fv_data_kind_find(name)) return false;
    const fv_error before = ctx->error; /* this is a question, not a failure */
    bool found = fv_data_locate(ctx, name, root, FV_SPLIT_TRAIN, &place) == FV_OK;
    ctx->error = before;
    return found && place.files != FV_FILES_NONE;
}
