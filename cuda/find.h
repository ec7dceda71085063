/* find.h: where NVIDIA's libraries lie. Knows nothing of CUDA: files, folders and the environment. In this order:
 *
 *   $FOVEA_CUDA_LIBRARIES    folders, separated by colons; "none": no library is to be used
 *   where the loader looks   LD_LIBRARY_PATH, ld.so.conf
 *   /usr/local/cuda/lib64
 *   ROOT/lib/python3.*       the Python packages nvidia-*, which PyTorch brings along: site-packages/nvidia/X/lib.
 * ROOT: $VIRTUAL_ENV, $CONDA_PREFIX, that of each python3 on $PATH, /opt/torch/.venv, /usr/local, /usr, /opt/conda */
#ifndef FV_CUDA_FIND_H
#define FV_CUDA_FIND_H

#include <stdbool.h>

/* Whether an opened library is what is wanted; one that is not is closed again, and the search goes on. */
typedef bool (*fv_cuda_fits)(void *arg, void *library, const char *path);

/* Whether libraries may be used: $FOVEA_CUDA_LIBRARIES is not "none". */
bool fv_cuda_libraries_wanted(void);
/* The first file of this name that opens and fits (NULL: any does), open and with its symbols global; NULL: there is
 * none. */
void *fv_cuda_find_library(const char *file, fv_cuda_fits fits, void *arg);

#endif
