/* blocks.h: what the two halves of the emulation tell each other. */
#ifndef FV_TESTS_EMULATE_BLOCKS_H
#define FV_TESTS_EMULATE_BLOCKS_H

#include "tests/cuda/emulate/cuda_runtime.h"

/* Whether a GPU would take the launch. */
cudaError_t fv_emulated_check(const fv_emulated_launch *launch);
/* Run it to its end. The number decides in which order blocks and threads run. */
void fv_emulated_run(const fv_emulated_launch *launch, uint64_t number);

#endif
