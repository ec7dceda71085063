/* fuzz.h: what each fuzz target defines, as libFuzzer calls it; replay.c calls it with the files of the corpus. */
#ifndef FV_TESTS_FUZZ_FUZZ_H
#define FV_TESTS_FUZZ_FUZZ_H

#include "tests/fuzz/memory_io.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FVT_BIT(status) (1u << (status))

#endif
