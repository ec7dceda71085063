/* version.c: the commit; a file of its own, because it is built anew whenever the commit changes. */
#include "tools/tool.h"

#ifndef FV_COMMIT
#define FV_COMMIT ""
#endif

const char *fv_tool_commit(void) {
    return FV_COMMIT;
}
