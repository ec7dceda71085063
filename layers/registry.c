/* registry.c: models by name. The order is that of the families and, within one, of its own table (by size). */
#include "layers/layers.h"

#include <stdio.h>
#include <string.h>

#include "layers/zoo.h"

static const fv_family *const families[] = {
#define FV_FAMILY_ADDRESS(family) &fv_family_##family,
    FV_FAMILY_TABLE(FV_FAMILY_ADDRESS)
#undef FV_FAMILY_ADDRESS
};
enum { FAMILIES = sizeof(families) / sizeof(families[0]), MAX_NAME = 64 };

int fv_model_count(void) {
    int count = 0;
    for (int f = 0; f < FAMILIES; f++) count += families[f]->count;
    return count;
}

const fv_model_entry *fv_model_at(int i) {
    if (i < 0) return NULL;
    for (int f = 0; f < FAMILIES; f++) {
        if (i < families[f]->count) return &families[f]->entries[i];
        i -= families[f]->count;
    }
    return NULL;
}

const fv_model_entry *fv_model_find(const char *name) {
    for (int f = 0; f < FAMILIES; f++)
        for (int i = 0; i < families[f]->count; i++)
            if (strcmp(families[f]->entries[i].name, name) == 0) return &families[f]->entries[i];
    return NULL;
}

int fv_model_stages(const fv_model_entry *entry, const char *const **stages) {
    if (stages) *stages = entry->stages;
    return entry->n_stages;
}

/* Levenshtein distance of strings shorter than MAX_NAME. */
static int edit_distance(const char *a, const char *b) {
    int row[MAX_NAME + 1] = {0}, na = (int)strlen(a), nb = (int)strlen(b);
    for (int j = 0; j <= nb; j++) row[j] = j;
    for (int i = 1; i <= na; i++) {
        int diagonal = row[0]; /* distance of a[0..i-1) and b[0..j-1) */
        row[0] = i;
        for (int j = 1; j <= nb; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[nb];
}

const char *fv_model_nearest(const char *name) {
    size_t length = strlen(name);
    if (length == 0 || length >= MAX_NAME) return NULL;
    const char *nearest = NULL, *longer = NULL; /* longer: the first name that goes on where this one stops */
    int limit = (int)length / 3, best = (limit > 1 ? limit : 1) + 1;
    for (int i = 0; i < fv_model_count(); i++) {
        const fv_model_entry *entry = fv_model_at(i);
        if (!entry || strlen(entry->name) >= MAX_NAME) continue;
        const char *candidate = entry->name;
        int distance = edit_distance(name, candidate);
        if (distance < best) best = distance, nearest = candidate;
        if (!longer && strncmp(name, candidate, length) == 0) longer = candidate;
    }
    return best > 2 && longer ? longer : nearest; /* "vit_tiny" is no misspelling of "lenet5" */
}

bool fv_model_has(const fv_model_cfg *cfg, const char *idea) {
    size_t length = strlen(idea);
    for (const char *p = cfg->without; p && *p; p += strcspn(p, ","), p += *p == ',')
        if (strcspn(p, ",") == length && !strncmp(p, idea, length)) return false;
    return true;
}

/* Each idea to leave out must be one of the model's. */
static bool check_without(fv_scope s, const fv_model_entry *entry, const char *without) {
    for (const char *p = without; p && *p; p += strcspn(p, ","), p += *p == ',') {
        int length = (int)strcspn(p, ","), i = 0;
        while (i < entry->n_ideas &&
               (strlen(entry->ideas[i]) != (size_t)length || strncmp(p, entry->ideas[i], (size_t)length) != 0))
            i++;
        if (i < entry->n_ideas) continue;
        char known[256] = "nothing";
        for (int k = 0, used = 0; k < entry->n_ideas && used < (int)sizeof known; k++)
            used += snprintf(known + used, sizeof known - (size_t)used, "%s%s", k ? ", " : "", entry->ideas[k]);
        fv_graph_fail(s, FV_E_USAGE, "%s: there is no '%.*s' to leave out; there is %s", entry->name, length, p, known);
        return false;
    }
    return true;
}

static fv_value unknown_model(fv_scope s, const char *name) {
    const char *nearest = fv_model_nearest(name);
    if (nearest) return fv_graph_fail(s, FV_E_USAGE, "unknown model '%.64s'; did you mean '%s'?", name, nearest);
    return fv_graph_fail(s, FV_E_USAGE, "unknown model '%.64s'; `fovea models` lists the %d known ones", name,
                         fv_model_count());
}

static bool is_rate(double p) {
    return p >= 0 && p < 1;
}

fv_value fv_model_build(fv_graph *g, const char *name, fv_value x, const fv_model_cfg *cfg) {
    fv_scope s = fv_root(g);
    const fv_model_entry *entry = fv_model_find(name);
    if (!entry) return unknown_model(s, name);
    if (g->error) return FV_NONE;
    fv_type type = fv_typeof(g, x);
    if (type.rank != 4)
        return fv_graph_fail(s, FV_E_USAGE, "%s: the input must be pictures [n,h,w,c], it has %d dimensions", name,
                             type.rank);
    if (cfg->num_classes < 1)
        return fv_graph_fail(s, FV_E_USAGE, "%s: the number of classes must be at least 1, it is %lld", name,
                             (long long)cfg->num_classes);
    if (cfg->img_size < 0 || (cfg->img_size > 0 && (type.dim[1] != cfg->img_size || type.dim[2] != cfg->img_size)))
        return fv_graph_fail(s, FV_E_USAGE, "%s: image size %lld was asked for, the input has %lldx%lld pixels", name,
                             (long long)cfg->img_size, (long long)type.dim[1], (long long)type.dim[2]);
    if (cfg->in_chans < 0 || (cfg->in_chans > 0 && type.dim[3] != cfg->in_chans))
        return fv_graph_fail(s, FV_E_USAGE, "%s: %lld input channels were asked for, the input has %lld", name,
                             (long long)cfg->in_chans, (long long)type.dim[3]);
    if (!is_rate(cfg->drop_rate) || !is_rate(cfg->drop_path))
        return fv_graph_fail(s, FV_E_USAGE, "%s: drop rates must be at least 0 and below 1 (dropout %g, drop path %g)",
                             name, cfg->drop_rate, cfg->drop_path);
    if (!check_without(s, entry, cfg->without)) return FV_NONE;
    return entry->build(s, x, cfg, entry->arg);
}
