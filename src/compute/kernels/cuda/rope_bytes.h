// Rope's launch for pages of bytes; rope.cu calls it.
#pragma once

#include "compute/kernels/cuda/rows.h"

namespace fd::cuda {

void RopeToBytes(DType act, const RopeArgs& args, void* stream);

}  // namespace fd::cuda
