/* kinds.c: the datasets that are known by name, and how their files are laid out. The checksums are those that
 * torchvision checks. */
#include "data/internal.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

static const char *const cifar10_names[] = {"airplane", "automobile", "bird",  "cat",  "deer",
                                            "dog",      "frog",       "horse", "ship", "truck"};
static const char *const cifar100_names[] = {
    "apple",      "aquarium_fish", "baby",         "bear",       "beaver",      "bed",         "bee",
    "beetle",     "bicycle",       "bottle",       "bowl",       "boy",         "bridge",      "bus",
    "butterfly",  "camel",         "can",          "castle",     "caterpillar", "cattle",      "chair",
    "chimpanzee", "clock",         "cloud",        "cockroach",  "couch",       "crab",        "crocodile",
    "cup",        "dinosaur",      "dolphin",      "elephant",   "flatfish",    "forest",      "fox",
    "girl",       "hamster",       "house",        "kangaroo",   "keyboard",    "lamp",        "lawn_mower",
    "leopard",    "lion",          "lizard",       "lobster",    "man",         "maple_tree",  "motorcycle",
    "mountain",   "mouse",         "mushroom",     "oak_tree",   "orange",      "orchid",      "otter",
    "palm_tree",  "pear",          "pickup_truck", "pine_tree",  "plain",       "plate",       "poppy",
    "porcupine",  "possum",        "rabbit",       "raccoon",    "ray",         "road",        "rocket",
    "rose",       "sea",           "seal",         "shark",      "shrew",       "skunk",       "skyscraper",
    "snail",      "snake",         "spider",       "squirrel",   "streetcar",   "sunflower",   "sweet_pepper",
    "table",      "tank",          "telephone",    "television", "tiger",       "tractor",     "train",
    "trout",      "tulip",         "turtle",       "wardrobe",   "whale",       "willow_tree", "wolf",
    "woman",      "worm"};
_Static_assert(sizeof cifar100_names / sizeof *cifar100_names == 100, "CIFAR-100 has 100 fine classes");
static const char *const fashion_names[] = {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
                                            "Sandal",      "Shirt",   "Sneaker",  "Bag",   "Ankle boot"};

#define IDX_LAYOUT(folder) \
    { \
        .format = FV_FORMAT_IDX, .subfolder = folder, .files = { \
            {{"train-images"}, {"train-labels"}}, \
            {{"t10k-images"}, {"t10k-labels"}} \
        } \
    }

static const fv_data_kind kinds[] = {
    {.name = "cifar10",
     .folders = {"", "cifar10"},
     .layout = {{.format = FV_FORMAT_CIFAR_BINARY,
                 .subfolder = "cifar-10-batches-bin",
                 .files = {{{"data_batch_1.bin"},
                            {"data_batch_2.bin"},
                            {"data_batch_3.bin"},
                            {"data_batch_4.bin"},
                            {"data_batch_5.bin"}},
                           {{"test_batch.bin"}}},
                 .names_file = "batches.meta.txt",
                 .label_bytes = 1},
                {.format = FV_FORMAT_CIFAR_PYTHON,
                 .subfolder = "cifar-10-batches-py",
                 .files = {{{"data_batch_1", "c99cafc152244af753f735de768cd75f"},
                            {"data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"},
                            {"data_batch_3", "54ebc095f3ab1f0389bbae665268c751"},
                            {"data_batch_4", "634d18415352ddfa80567beed471001a"},
                            {"data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"}},
                           {{"test_batch", "40351d587109b95175f43aff81a1287e"}}},
                 .names_file = "batches.meta",
                 .names_key = "label_names",
                 .label_key = "labels"}},
     .h = 32,
     .w = 32,
     .c = 3,
     .classes = 10,
     .class_names = cifar10_names,
     .published = {50000, 10000}},
    {.name = "cifar100",
     .folders = {"", "cifar100"},
     .layout = {{.format = FV_FORMAT_CIFAR_BINARY,
                 .subfolder = "cifar-100-binary",
                 .files = {{{"train.bin"}}, {{"test.bin"}}},
                 .names_file = "fine_label_names.txt",
                 .label_bytes = 2, /* coarse, fine */
                 .label_at = 1},
                {.format = FV_FORMAT_CIFAR_PYTHON,
                 .subfolder = "cifar-100-python",
                 .files = {{{"train", "16019d7e3df5f24257cddd939b257f8d"}},
                           {{"test", "f0ef6b0ae62326f3e7ffdfab6717acfc"}}},
                 .names_file = "meta",
                 .names_key = "fine_label_names",
                 .label_key = "fine_labels"}},
     .h = 32,
     .w = 32,
     .c = 3,
     .classes = 100,
     .class_names = cifar100_names,
     .published = {50000, 10000}},
    {.name = "mnist",
     .folders = {"mnist", "MNIST"},
     .layout = {IDX_LAYOUT("raw")},
     .classes = 10,
     .published = {60000, 10000}},
    {.name = "fashion-mnist",
     .folders = {"fashion-mnist", "FashionMNIST", "fashion"},
     .layout = {IDX_LAYOUT("raw")},
     .classes = 10,
     .class_names = fashion_names,
     .published = {60000, 10000}},
    {.name = NULL},
};

/* A folder of IDX files that is neither MNIST nor Fashion-MNIST: shape and classes are what the files say. */
static const fv_data_kind other_idx = {.name = "idx", .layout = {IDX_LAYOUT("raw")}};

const fv_data_kind *fv_data_kinds(void) {
    return kinds;
}

const fv_data_kind *fv_data_kind_find(const char *name) {
    for (const fv_data_kind *k = kinds; k->name; k++)
        if (strcmp(k->name, name) == 0) return k;
    return NULL;
}

/* Letters and digits only, in lower case. */
static void plain_name(const char *name, char *out, size_t size) {
    size_t n = 0;
    for (; *name && n + 1 < size; name++)
        if (isalnum((unsigned char)*name)) out[n++] = (char)tolower((unsigned char)*name);
    out[n] = 0;
}

const fv_data_kind *fv_data_kind_near(const char *name) {
    char asked[64], known[64];
    plain_name(name, asked, sizeof asked);
    for (const fv_data_kind *k = kinds; k->name; k++) {
        plain_name(k->name, known, sizeof known);
        if (strcmp(asked, known) == 0) return k;
    }
    return NULL;
}

const fv_data_kind *fv_data_kind_of_idx(const char *folder) {
    if (strcasestr(folder, "fashion")) return fv_data_kind_find("fashion-mnist");
    size_t n = strlen(folder);
    while (n > 1 && folder[n - 1] == '/') n--;
    if (n > 4 && strncmp(folder + n - 4, "/raw", 4) == 0) n -= 4; /* torchvision: MNIST/raw */
    bool mnist = n >= 5 && strncasecmp(folder + n - 5, "mnist", 5) == 0 && (n == 5 || folder[n - 6] == '/');
    return mnist ? fv_data_kind_find("mnist") : &other_idx;
}
