/* data_files.h: `data check` and `data info` of pictures in files. */
#ifndef FV_TOOLS_DATA_FILES_H
#define FV_TOOLS_DATA_FILES_H

#include "tools/tool.h"

fv_status fv_data_files_check(fv_tool *tool, const char *name);
fv_status fv_data_files_info(fv_tool *tool, const char *name);

#endif
