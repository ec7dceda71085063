/* version.c: the commit; a file of its own, because it is built anew whenever the commit changes. */
#include "tools/tool.h"

#ifndef FV_COMMIT
#define FV_COMMIT ""
#endif
#ifndef FV_COMMIT_DATE
#define FV_COMMIT_DATE ""
#endif

const char *fv_tool_commit(void) {
    return FV_COMMIT;
}

const char *fv_tool_date(void) {
    return FV_COMMIT_DATE;
}
