/* blas.h: the BLAS library of a CPU device, opened at run time. There is no link-time dependency. */
#ifndef FV_CORE_CPU_BLAS_H
#define FV_CORE_CPU_BLAS_H

#include "core/cpu/cpu.h"

/* Open `path` (NULL: the usual names, and none is fine; "": none), set it to one thread and take its cblas_sgemm.
 * `text` gets "OpenBLAS 0.3.21 SkylakeX", or "" without a library. A path that was asked for and does not serve is
 * FV_E_USAGE. */
fv_status fv_blas_open(fv_cpu_device *dev, const char *path, char *text, size_t size);
void fv_blas_close(fv_cpu_device *dev);

#endif
