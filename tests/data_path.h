/* data_path.h: where tests find real data: $FOVEA_DATA, which tools/prepare-data.sh fills. */
#ifndef FV_TESTS_DATA_PATH_H
#define FV_TESTS_DATA_PATH_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Path of a file of the data folder into buf; false if it is not there. */
static inline bool fvt_data(const char *name, char *buf, size_t size) {
    const char *root = getenv("FOVEA_DATA");
    snprintf(buf, size, "%s/%s", root && root[0] ? root : "datasets", name);
    return access(buf, R_OK) == 0;
}

#endif
