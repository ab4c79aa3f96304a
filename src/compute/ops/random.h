// Random weights: the same on every device.
#pragma once

#include "compute/ops/context.h"

namespace fd::ops {

// out[i] uniform in [-scale, scale], a function of (key, first_index + i) alone. bfloat16 or float32 (holding
// the same bfloat16 values), contiguous, on ctx's device; on a CUDA context also host memory.
void FillRandom(const Context& ctx, const TensorView& out, uint64_t key, int64_t first_index, float scale);

}  // namespace fd::ops
