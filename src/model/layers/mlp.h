// down(silu(gate x) * up x), gate and up fused into one linear.
#pragma once

#include <string>

#include "compute/ops/linear.h"
#include "model/weights/weight_loader.h"

namespace fd {

struct MlpWeights {
  ops::LinearWeight gate_up;  // [2 * width, hidden], gate rows first
  ops::LinearWeight down;     // [hidden, width]
};
// `prefix` ends in "mlp." or the like.
MlpWeights LoadMlp(WeightLoader& loader, const std::string& prefix, int64_t hidden, int64_t width,
                   LinearRole role = LinearRole::kDense);

// out, in [rows, hidden] act; out may be in.
void Mlp(const ops::Context& ctx, const TensorView& out, const TensorView& in, const MlpWeights& weights);
int64_t MlpScratchBytes(const ops::Context& ctx, DType act, int64_t rows, int64_t width);

}  // namespace fd
