/* safetensors_internal.h: what the reader and the writer of safetensors share. */
#ifndef FV_CORE_IO_SAFETENSORS_INTERNAL_H
#define FV_CORE_IO_SAFETENSORS_INTERNAL_H

#include "core/io/io.h"

#define FV_ST_LENGTH 8 /* bytes of the length before the header */
#define FV_ST_METADATA "__metadata__"
/* Metadata of our files: XXH3 (64 bits, 16 digits of hexadecimal in lower case) of the whole file, with zeros in the
 * place of these digits. */
#define FV_ST_CHECKSUM "fovea_xxh3"
#define FV_ST_CHECKSUM_MARK "\"" FV_ST_CHECKSUM "\":\""
#define FV_ST_DIGITS 16
#define FV_ST_ZEROS "0000000000000000"

/* The format's name of an element type: "F32". */
const char *fv_st_dtype_name(fv_dtype dtype);
/* No control characters: names go into messages. */
bool fv_st_printable(const char *s);

/* fv_st_save_with; what was at `path` gets the name `keep`, if that is not NULL. */
fv_status fv_st_save_keeping(fv_ctx *ctx, const char *path, const char *keep, const fv_st_tensor *tensors, int32_t n,
                             const char *const (*meta)[2], int32_t n_meta, fv_st_fill fill, void *user);

#endif
