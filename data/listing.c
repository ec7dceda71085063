/* listing.c: lists of picture files, an index of texts, and the words that both kinds of set share. */
#include "data/listing.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <xxhash.h>

/* ---------------------------------------------------------------- lists */

void fv_listing_init(fv_listing *list, fv_ctx *ctx, fv_arena *arena) {
    memset(list, 0, sizeof *list);
    list->ctx = ctx;
    list->arena = arena;
}

void fv_listing_free(fv_listing *list) {
    fv_free(list->ctx, list->item, (size_t)list->room, sizeof *list->item);
    fv_free(list->ctx, list->label, (size_t)list->label_room, sizeof *list->label);
    list->item = NULL;
    list->label = NULL;
}

/* Make room for `needed` elements of `size` bytes, at least doubling it. */
static fv_status grow(fv_ctx *ctx, void **block, int64_t *room, int64_t needed, size_t size) {
    if (needed <= *room) return FV_OK;
    int64_t wanted = *room ? *room * 2 : 256;
    if (wanted < needed) wanted = needed;
    void *larger = fv_alloc(ctx, (size_t)wanted, size);
    if (!larger) return FV_E_MEMORY;
    if (*room) memcpy(larger, *block, (size_t)*room * size);
    fv_free(ctx, *block, (size_t)*room, size);
    *block = larger;
    *room = wanted;
    return FV_OK;
}

fv_status fv_listing_add(fv_listing *list, const fv_listed *item, const int32_t *labels) {
    if (list->count >= FV_FILES_MOST)
        return fv_fail_at(list->ctx, FV_E_DATA, list->source, -1, "more than %lld pictures", (long long)FV_FILES_MOST);
    void *items = list->item, *all = list->label;
    fv_status status = grow(list->ctx, &items, &list->room, list->count + 1, sizeof *list->item);
    list->item = items;
    if (status != FV_OK) return status;
    status = grow(list->ctx, &all, &list->label_room, list->labels + item->labels, sizeof *list->label);
    list->label = all;
    if (status != FV_OK) return status;
    fv_listed *to = &list->item[list->count++];
    *to = *item;
    to->first = list->labels;
    if (item->labels) memcpy(list->label + list->labels, labels, (size_t)item->labels * sizeof *labels);
    list->labels += item->labels;
    return FV_OK;
}

/* ---------------------------------------------------------------- words */

fv_part fv_part_of(const char *word) {
    static const struct {
        const char *word;
        fv_part part;
    } words[] = {{"train", FV_PART_TRAIN},
                 {"val", FV_PART_VAL},
                 {"valid", FV_PART_VAL},
                 {"validation", FV_PART_VAL},
                 {"test", FV_PART_TEST}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcasecmp(word, words[i].word) == 0) return words[i].part;
    return FV_PART_COUNT;
}

const char *fv_part_name(fv_part part) {
    static const char *const names[] = {"train", "val", "test"};
    return part < FV_PART_COUNT ? names[part] : "none";
}

const char *fv_class_name_problem(const char *name) {
    const unsigned char *s = (const unsigned char *)name;
    if (!*s) return "is empty";
    if (strlen(name) > 255) return "is longer than 255 bytes";
    for (size_t n; *s; s += n) {
        n = fv_utf8_length(s);
        if (n == 0) return "is no UTF-8";
        if (*s < 0x20 || *s == 0x7f) return "holds a control character";
    }
    return NULL;
}

void fv_few_add(fv_few *few, const char *fmt, ...) {
    if (few->count++ >= 3) return;
    size_t used = strlen(few->text), room = FV_FEW_ROOM - 2; /* a comma stands in front */
    if (few->count > 1) used += (size_t)snprintf(few->text + used, 3, ", ");
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(few->text + used, room, fmt, args);
    va_end(args);
    if (n >= (int)room) memcpy(few->text + used + room - 4, "...", 4); /* cut short */
}

const char *fv_few_text(fv_few *few) {
    size_t used = strlen(few->text);
    if (few->count > 3)
        snprintf(few->text + used, sizeof few->text - used, " and %lld more", (long long)few->count - 3);
    return few->text;
}

/* ---------------------------------------------------------------- index */

void fv_index_init(fv_index *index, fv_ctx *ctx) {
    *index = (fv_index){.ctx = ctx};
}

void fv_index_free(fv_index *index) {
    fv_free(index->ctx, index->text, (size_t)index->room, sizeof *index->text);
    fv_free(index->ctx, index->slot, index->slots, sizeof *index->slot);
    fv_index_init(index, index->ctx);
}

/* The slot that holds a text, or the free one where it belongs. */
static size_t slot_of(const fv_index *index, const char *text) {
    size_t mask = index->slots - 1, at = (size_t)XXH3_64bits(text, strlen(text)) & mask;
    while (index->slot[at] >= 0 && strcmp(index->text[index->slot[at]], text) != 0) at = (at + 1) & mask;
    return at;
}

static fv_status enlarge(fv_index *index) {
    int32_t room = index->room ? index->room * 2 : 128;
    const char **text = fv_alloc(index->ctx, (size_t)room, sizeof *text);
    int32_t *slot = fv_alloc(index->ctx, 2 * (size_t)room, sizeof *slot);
    if (!text || !slot) {
        fv_free(index->ctx, text, (size_t)room, sizeof *text);
        fv_free(index->ctx, slot, 2 * (size_t)room, sizeof *slot);
        return FV_E_MEMORY;
    }
    if (index->count) memcpy(text, index->text, (size_t)index->count * sizeof *text);
    memset(slot, 0xff, 2 * (size_t)room * sizeof *slot); /* -1 */
    int32_t count = index->count;
    fv_index_free(index);
    *index = (fv_index){
        .ctx = index->ctx, .text = text, .count = count, .room = room, .slot = slot, .slots = 2 * (size_t)room};
    for (int32_t i = 0; i < count; i++) slot[slot_of(index, text[i])] = i;
    return FV_OK;
}

fv_status fv_index_add(fv_index *index, const char *text, int32_t *number, bool *fresh) {
    if (index->count == index->room) FV_TRY(enlarge(index));
    size_t at = slot_of(index, text);
    *fresh = index->slot[at] < 0;
    if (*fresh) {
        index->text[index->count] = text;
        index->slot[at] = index->count++;
    }
    *number = index->slot[at];
    return FV_OK;
}

int32_t fv_index_find(const fv_index *index, const char *text) {
    return index->slots ? index->slot[slot_of(index, text)] : -1;
}
