/* folder.c: folders of pictures as a list.
 *
 *   ROOT/train/CLASS/.../x.jpg      ROOT/CLASS/.../x.jpg
 *   ROOT/val|valid|validation/...   nothing is divided yet
 *   ROOT/test/...
 *
 * Links are followed. Whatever order the file system gives, the list is sorted by path. */
#include "data/listing.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST_DEPTH 32
#define MOST_FOLDERS 1000000

typedef struct example { /* things of a kind, and the first of them in the order of their paths */
    int64_t count;
    char first[FV_DATA_PATH];
} example;

typedef struct scan {
    fv_ctx *ctx;
    fv_listing *list;
    fv_arena names; /* of folders, while they are needed */
    char path[FV_DATA_PATH];
    size_t root; /* bytes of path in front of the part that is kept */
    int depth;
    struct {
        dev_t device;
        ino_t inode;
    } above[MOST_DEPTH];
    int64_t folders;
    int32_t label; /* of the pictures found; -1: they are only counted */
    fv_part part;
    int64_t found;
    example others, loose; /* files that are no pictures; pictures outside the class folders */
} scan;

typedef struct folder_names {
    const char **name;
    int32_t count, room;
} folder_names;

static void note(example *e, const char *path) {
    if (e->count++ == 0 || strcmp(path, e->first) < 0) snprintf(e->first, sizeof e->first, "%s", path);
}

/* ---------------------------------------------------------------- one folder */

/* What operating systems and viewers leave behind. */
static bool passed_over(const char *name) {
    static const char *const names[] = {"__MACOSX", "Thumbs.db",    "desktop.ini",
                                        "@eaDir",   "$RECYCLE.BIN", "System Volume Information"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcasecmp(name, names[i]) == 0) return true;
    return name[0] == '.';
}

typedef enum entry_kind { ENTRY_FOLDER, ENTRY_PICTURE, ENTRY_OTHER } entry_kind;
typedef fv_status (*entry_fn)(scan *s, const char *name, entry_kind kind, int64_t bytes, void *arg);

/* Append /name to the path; *length: what to cut it back to. */
static fv_status push(scan *s, const char *name, size_t *length) {
    *length = strlen(s->path);
    size_t n = strlen(name);
    if (*length + 1 + n >= FV_DATA_PATH)
        return fv_fail_at(s->ctx, FV_E_DATA, s->path, -1, "the path of '%s' is longer than %d bytes", name,
                          FV_DATA_PATH - 1);
    s->path[*length] = '/';
    memcpy(s->path + *length + 1, name, n + 1);
    return FV_OK;
}

static fv_status bad_link(scan *s, int error) {
    if (error == ELOOP) {
        fv_fail_at(s->ctx, FV_E_DATA, s->path, -1, "a link that leads back to itself");
        return fv_hint(s->ctx, "remove the link");
    }
    if (error != ENOENT && error != ENOTDIR)
        return fv_fail_at(s->ctx, FV_E_IO, s->path, -1, "cannot be looked at: %s", strerror(error));
    fv_fail_at(s->ctx, FV_E_DATA, s->path, -1, "a link to something that is not there");
    return fv_hint(s->ctx, "remove the link, or bring back what it leads to");
}

/* Only pictures, links and what readdir says nothing about cost a system call. Nothing is opened: a FIFO would block.
 */
static fv_status look_at(scan *s, int folder, const struct dirent *e, entry_fn fn, void *arg) {
    bool picture = fv_image_name(e->d_name), known = e->d_type != DT_UNKNOWN && e->d_type != DT_LNK;
    struct stat st = {0};
    entry_kind kind = ENTRY_OTHER;
    size_t length;
    if (known && (e->d_type == DT_DIR || !picture)) {
        if (e->d_type == DT_DIR) kind = ENTRY_FOLDER;
    } else if (fstatat(folder, e->d_name, &st, 0) != 0) {
        int error = errno;
        FV_TRY(push(s, e->d_name, &length));
        return bad_link(s, error);
    } else if (S_ISDIR(st.st_mode)) kind = ENTRY_FOLDER;
    else if (S_ISREG(st.st_mode) && picture) kind = ENTRY_PICTURE;
    FV_TRY(push(s, e->d_name, &length));
    FV_TRY(fn(s, e->d_name, kind, (int64_t)st.st_size, arg));
    s->path[length] = 0;
    return FV_OK;
}

/* Open the folder at `path` and note it among those above; links must not lead back to one of these. */
static fv_status enter(scan *s, DIR **out) {
    struct stat st;
    if (s->depth == MOST_DEPTH)
        return fv_fail_at(s->ctx, FV_E_DATA, s->path, -1, "folders are nested more than %d deep", MOST_DEPTH);
    if (++s->folders > MOST_FOLDERS)
        return fv_fail_at(s->ctx, FV_E_DATA, s->path, -1, "more than %d folders", MOST_FOLDERS);
    int fd = open(s->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    *out = fd < 0 ? NULL : fdopendir(fd);
    if (!*out || fstat(fd, &st) != 0) {
        fv_fail_at(s->ctx, FV_E_IO, s->path, -1, "cannot read the folder: %s", strerror(errno));
        if (*out) closedir(*out);
        else if (fd >= 0) close(fd);
        return FV_E_IO;
    }
    for (int i = 0; i < s->depth; i++) {
        if (s->above[i].device != st.st_dev || s->above[i].inode != st.st_ino) continue;
        closedir(*out);
        fv_fail_at(s->ctx, FV_E_DATA, s->path, -1, "a link that leads back to a folder above it");
        return fv_hint(s->ctx, "remove the link");
    }
    s->above[s->depth].device = st.st_dev;
    s->above[s->depth++].inode = st.st_ino;
    return FV_OK;
}

/* fn for all entries of the folder at `path`, which has the entry's name at its end meanwhile. */
static fv_status each_entry(scan *s, entry_fn fn, void *arg) {
    DIR *folder = NULL;
    FV_TRY(enter(s, &folder));
    fv_status status = FV_OK;
    const struct dirent *e = NULL;
    while (status == FV_OK && (errno = 0, e = readdir(folder)) != NULL)
        if (!passed_over(e->d_name)) status = look_at(s, dirfd(folder), e, fn, arg);
    if (status == FV_OK && errno)
        status = fv_fail_at(s->ctx, FV_E_IO, s->path, -1, "cannot read the folder: %s", strerror(errno));
    closedir(folder);
    s->depth--;
    return status;
}

static fv_status gather_entry(scan *s, const char *name, entry_kind kind, int64_t bytes, void *arg) {
    (void)name;
    if (kind == ENTRY_FOLDER) return each_entry(s, gather_entry, arg);
    if (kind == ENTRY_OTHER) {
        note(&s->others, s->path);
        return FV_OK;
    }
    s->found++;
    if (s->label < 0) return FV_OK;
    const char *path = fv_arena_strdup(s->list->arena, s->path + s->root);
    if (!path) return FV_E_MEMORY;
    const fv_listed item = {.path = path, .bytes = bytes, .labels = 1, .part = (uint8_t)s->part};
    return fv_listing_add(s->list, &item, &s->label);
}

/* All pictures below the folder `name` of the one at `path`. */
static fv_status gather(scan *s, const char *name, fv_part part, int32_t label) {
    size_t length;
    FV_TRY(push(s, name, &length));
    s->part = part;
    s->label = label;
    s->found = 0;
    FV_TRY(each_entry(s, gather_entry, NULL));
    s->path[length] = 0;
    return FV_OK;
}

static fv_status survey_entry(scan *s, const char *name, entry_kind kind, int64_t bytes, void *arg) {
    folder_names *names = arg;
    (void)bytes;
    if (kind == ENTRY_PICTURE) note(&s->loose, s->path);
    if (kind == ENTRY_OTHER) note(&s->others, s->path);
    if (kind != ENTRY_FOLDER) return FV_OK;
    if (names->count == FV_FILES_MOST_CLASSES)
        return fv_fail_at(s->ctx, FV_E_DATA, s->path, -1, "more than %d folders side by side", FV_FILES_MOST_CLASSES);
    if (names->count == names->room) {
        int32_t room = names->room ? 2 * names->room : 64;
        const char **larger = fv_arena_alloc(&s->names, (size_t)room, sizeof *larger);
        if (!larger) return FV_E_MEMORY;
        if (names->count) memcpy(larger, names->name, (size_t)names->count * sizeof *larger);
        names->name = larger;
        names->room = room;
    }
    names->name[names->count] = fv_arena_strdup(&s->names, name);
    return names->name[names->count++] ? FV_OK : FV_E_MEMORY;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The sub-folders of the folder at `path`, sorted. */
static fv_status survey(scan *s, folder_names *names) {
    *names = (folder_names){0};
    FV_TRY(each_entry(s, survey_entry, names));
    if (names->count > 1) qsort(names->name, (size_t)names->count, sizeof *names->name, by_text);
    return FV_OK;
}

/* ---------------------------------------------------------------- layouts */

static fv_status show_layouts(scan *s) {
    return fv_hint(s->ctx, "Fovea reads ROOT/train/CLASS/x.jpg with ROOT/val/ and ROOT/test/ beside train, or "
                           "ROOT/CLASS/x.jpg; x may be .jpg, .jpeg, .png or .webp");
}

/* Each folder that holds pictures is a class. */
static fv_status gather_classes(scan *s, const folder_names *folders) {
    fv_listing *list = s->list;
    list->class_names = fv_arena_alloc(list->arena, (size_t)folders->count, sizeof *list->class_names);
    if (!list->class_names) return FV_E_MEMORY;
    for (int32_t i = 0; i < folders->count; i++) {
        const char *name = folders->name[i], *problem = fv_class_name_problem(name);
        if (problem) return fv_fail_at(s->ctx, FV_E_DATA, s->path, -1, "the class name '%s' %s", name, problem);
        FV_TRY(gather(s, name, FV_PART_TRAIN, list->classes));
        if (!s->found) {
            fv_log(s->ctx, FV_LOG_WARN, "%s/%s holds no pictures: it is left out", s->path, name);
            continue;
        }
        list->class_names[list->classes] = fv_arena_strdup(list->arena, name);
        if (!list->class_names[list->classes++]) return FV_E_MEMORY;
    }
    return FV_OK;
}

/* The pictures of val or test, whose classes are those of train. */
static fv_status gather_part(scan *s, const char *folder, fv_part part) {
    fv_listing *list = s->list;
    size_t length;
    folder_names folders;
    fv_few strangers = {0};
    int64_t before = list->count;
    FV_TRY(push(s, folder, &length));
    FV_TRY(survey(s, &folders));
    for (int32_t i = 0; i < folders.count; i++) {
        const char **known = list->classes ? bsearch(&folders.name[i], list->class_names, (size_t)list->classes,
                                                     sizeof *list->class_names, by_text)
                                           : NULL;
        FV_TRY(gather(s, folders.name[i], part, known ? (int32_t)(known - list->class_names) : -1));
        if (!known && s->found) fv_few_add(&strangers, "'%s'", folders.name[i]);
    }
    if (strangers.count) {
        fv_fail_at(s->ctx, FV_E_DATA, s->path, -1, "%lld classes without pictures in train: %s",
                   (long long)strangers.count, fv_few_text(&strangers));
        return fv_hint(s->ctx,
                       "class folders have the same names in train, val and test; every class needs pictures to "
                       "train on");
    }
    list->has_part[part] = list->count > before;
    if (!list->has_part[part])
        fv_log(s->ctx, FV_LOG_WARN, "%s holds no class folders with pictures: it is taken as if it were not there",
               s->path);
    s->path[length] = 0;
    return FV_OK;
}

/* ROOT/train/..., with the class folders of train. */
static fv_status list_divided(scan *s, const char *const folder[FV_PART_COUNT], const folder_names *classes) {
    size_t length;
    FV_TRY(push(s, folder[FV_PART_TRAIN], &length));
    FV_TRY(gather_classes(s, classes));
    s->path[length] = 0;
    if (!s->list->count) return FV_OK;
    s->list->has_part[FV_PART_TRAIN] = true;
    for (fv_part part = FV_PART_VAL; part < FV_PART_COUNT; part++)
        if (folder[part]) FV_TRY(gather_part(s, folder[part], part));
    return FV_OK;
}

/* Which of the folders are parts, by their names. */
static fv_status find_parts(scan *s, const folder_names *top, const char *folder[FV_PART_COUNT]) {
    for (int32_t i = 0; i < top->count; i++) {
        fv_part part = fv_part_of(top->name[i]);
        if (part == FV_PART_COUNT) continue;
        if (folder[part])
            return fv_fail_at(s->ctx, FV_E_DATA, s->path, -1, "holds both '%s' and '%s': only one can be meant",
                              folder[part], top->name[i]);
        folder[part] = top->name[i];
    }
    return FV_OK;
}

/* The sub-folders of a sub-folder. What lies loose in it is noted only if `count`. */
static fv_status survey_below(scan *s, const char *name, bool count, folder_names *out) {
    const int64_t others = s->others.count, loose = s->loose.count;
    size_t length;
    FV_TRY(push(s, name, &length));
    FV_TRY(survey(s, out));
    s->path[length] = 0;
    if (!count) s->others.count = others, s->loose.count = loose;
    return FV_OK;
}

static fv_status list_folder(scan *s) {
    folder_names top, classes = {0}, below;
    const char *folder[FV_PART_COUNT] = {0};
    FV_TRY(survey(s, &top));
    fv_status ambiguous = find_parts(s, &top, folder);
    const char *train = folder[FV_PART_TRAIN],
               *other = folder[FV_PART_VAL] ? folder[FV_PART_VAL] : folder[FV_PART_TEST];
    if (train) FV_TRY(survey_below(s, train, false, &classes));
    if (classes.count) { /* else `train` may be a class: cars, planes, trains */
        if (ambiguous != FV_OK) return ambiguous;
        FV_TRY(survey_below(s, train, true, &classes));
        fv_few unused = {0};
        for (int32_t i = 0; i < top.count; i++)
            if (fv_part_of(top.name[i]) == FV_PART_COUNT) fv_few_add(&unused, "%s", top.name[i]);
        if (unused.count)
            fv_log(s->ctx, FV_LOG_WARN, "%s: not used, since they lie beside %s: %s", s->path, train,
                   fv_few_text(&unused));
        return list_divided(s, folder, &classes);
    }
    for (fv_part part = 0; part < FV_PART_COUNT; part++) {
        if (!folder[part]) continue;
        FV_TRY(survey_below(s, folder[part], false, &below));
        if (!below.count && !(train && other)) continue;
        if (train) fv_fail_at(s->ctx, FV_E_DATA, s->path, -1, "there are no class folders in '%s'", train);
        else fv_fail_at(s->ctx, FV_E_DATA, s->path, -1, "holds '%s', but no 'train'", folder[part]);
        return show_layouts(s);
    }
    return gather_classes(s, &top);
}

static int by_path(const void *a, const void *b) {
    return strcmp(((const fv_listed *)a)->path, ((const fv_listed *)b)->path);
}

static void report(const scan *s) {
    const struct {
        const example *what;
        const char *one, *many;
    } rows[] = {{&s->loose, "a picture lies outside the class folders and is left out",
                 "pictures lie outside the class folders and are left out"},
                {&s->others, "a file is no picture and is left out", "files are no pictures and are left out"}};
    for (int i = 0; i < 2; i++) {
        const example *e = rows[i].what;
        if (e->count == 1) fv_log(s->ctx, FV_LOG_WARN, "%s: %s", e->first, rows[i].one);
        else if (e->count)
            fv_log(s->ctx, FV_LOG_WARN, "%s: %lld %s, e.g. %s", s->list->source, (long long)e->count, rows[i].many,
                   e->first + s->root);
    }
}

static fv_status nothing_there(scan *s) {
    const example *seen = s->loose.count ? &s->loose : &s->others;
    if (s->loose.count)
        fv_fail_at(s->ctx, FV_E_DATA, s->list->source, -1, "its pictures (the first is %s) are not in class folders",
                   seen->first + s->root);
    else if (seen->count)
        fv_fail_at(s->ctx, FV_E_DATA, s->list->source, -1, "holds no pictures; the first of %lld other files is %s",
                   (long long)seen->count, seen->first + s->root);
    else
        fv_fail_at(s->ctx, FV_E_DATA, s->list->source, -1, "holds no pictures: %lld folders, all empty",
                   (long long)s->folders - 1);
    return show_layouts(s);
}

fv_status fv_folder_list(fv_listing *list, const char *path) {
    fv_ctx *ctx = list->ctx;
    FV_TRY(fv_data_path(ctx, list->root, "%s", path));
    for (size_t n = strlen(list->root); n > 1 && list->root[n - 1] == '/'; n--) list->root[n - 1] = 0;
    memcpy(list->source, list->root, sizeof list->source);
    scan *s = fv_calloc(ctx, 1, sizeof *s);
    if (!s) return FV_E_MEMORY;
    s->ctx = ctx;
    s->list = list;
    fv_arena_init(&s->names, ctx);
    memcpy(s->path, list->root, sizeof s->path);
    s->root = strlen(s->path) + 1;
    fv_status status = list_folder(s);
    if (status == FV_OK && !list->count) status = nothing_there(s);
    if (status == FV_OK) {
        report(s);
        qsort(list->item, (size_t)list->count, sizeof *list->item, by_path);
    }
    fv_arena_free(&s->names);
    fv_free(ctx, s, 1, sizeof *s);
    return status;
}

bool fv_folder_holds_pictures(const char *path) {
    DIR *folder = opendir(path);
    bool found = false;
    for (const struct dirent *e; folder && !found && (e = readdir(folder));) {
        struct stat st;
        if (passed_over(e->d_name)) continue;
        found = fv_image_name(e->d_name) || e->d_type == DT_DIR ||
                ((e->d_type == DT_LNK || e->d_type == DT_UNKNOWN) && fstatat(dirfd(folder), e->d_name, &st, 0) == 0 &&
                 S_ISDIR(st.st_mode));
    }
    if (folder) closedir(folder);
    return found;
}
