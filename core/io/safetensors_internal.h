/* safetensors_internal.h: what the reader and the writer of safetensors share. */
#ifndef FV_CORE_IO_SAFETENSORS_INTERNAL_H
#define FV_CORE_IO_SAFETENSORS_INTERNAL_H

#include "core/io/io.h"

#define FV_ST_LENGTH 8 /* bytes of the length before the header */
#define FV_ST_METADATA "__metadata__"

/* The format's name of an element type: "F32". */
const char *fv_st_dtype_name(fv_dtype dtype);
/* No control characters: names go into messages. */
bool fv_st_printable(const char *s);
/* Length of the UTF-8 character at s, 0 if it is none (RFC 3629: shortest form, no surrogates, at most U+10FFFF). */
size_t fv_st_utf8_length(const unsigned char *s);

#endif
