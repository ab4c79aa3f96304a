#include "model/layers/mlp.h"

#include "model/layers/scratch.h"

namespace fd {

MlpWeights LoadMlp(WeightLoader& loader, const std::string& prefix, int64_t hidden, int64_t width,
                   LinearRole role) {
  MlpWeights w;
  w.gate_up = loader.Linear({{prefix + "gate_proj.weight", width}, {prefix + "up_proj.weight", width}},
                            hidden, {.role = role});
  w.down = loader.Linear({{prefix + "down_proj.weight", hidden}}, width, {.role = role});
  return w;
}

void Mlp(const ops::Context& ctx, const TensorView& out, const TensorView& in, const MlpWeights& weights) {
  const int64_t rows = in.dim(0), width = weights.down.k;
  Scratch scratch(ctx);
  TensorView product = scratch.Take(in.dtype, {rows, width});
  ops::LinearSwiGlu(ctx, product, in, weights.gate_up);
  ops::Linear(ctx, out, product, weights.down);
}

int64_t MlpScratchBytes(DType act, int64_t rows, int64_t width) {
  return ScratchBytes(act, rows * 2 * width) + ScratchBytes(act, rows * width);
}

}  // namespace fd
