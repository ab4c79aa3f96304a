// Weights that were quantised and stored before, in the layout that FastDeploy's loader takes: what Paddle's
// weight_quantize gives on GPUs of architecture 75 to 90, one scale an output feature.
#pragma once

#include <vector>

#include "compute/ops/linear.h"

namespace fd::ops {

// Features come in bundles of so many, inputs in blocks of 64.
constexpr int64_t PrequantizedFeatures(int bits) { return bits == 8 ? 2 : 4; }
constexpr int64_t kPrequantizedInputs = 64;

// A matrix of n features in host memory.
struct PrequantizedPart {
  TensorView data;    // kUInt8, n * k * bits / 8 of them
  TensorView scales;  // bfloat16 or float32 [n]
};
// Parts stacked as PackLinear does, each n a multiple of PrequantizedFeatures(bits), k of
// kPrequantizedInputs.
LinearWeight PackPrequantized(const Context& ctx, const std::vector<PrequantizedPart>& parts, int64_t k,
                              int bits);

}  // namespace fd::ops
