#include "model/layers/mlp.h"

#include <algorithm>

#include "model/layers/scratch.h"

namespace fd {
namespace {

// A CPU takes a long chunk in parts: each `product` is read while the cache still has it, and the workspace
// holds one of them. Equal parts, so that none is too short for the kernels of many rows.
constexpr int64_t kCpuPartRows = 512;

int64_t NumParts(const ops::Context& ctx, int64_t rows) {
  return ctx.device.type == DeviceType::kCpu ? (rows + kCpuPartRows - 1) / kCpuPartRows : 1;
}

}  // namespace

MlpWeights LoadMlp(WeightLoader& loader, const std::string& prefix, int64_t hidden, int64_t width,
                   LinearRole role) {
  MlpWeights w;
  w.gate_up = loader.Linear({{prefix + "gate_proj.weight", width}, {prefix + "up_proj.weight", width}},
                            hidden, {.role = role});
  w.down = loader.Linear({{prefix + "down_proj.weight", hidden}}, width, {.role = role});
  return w;
}

void Mlp(const ops::Context& ctx, const TensorView& out, const TensorView& in, const MlpWeights& weights) {
  const int64_t rows = in.dim(0), width = weights.down.k, parts = NumParts(ctx, rows);
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t begin = rows * part / parts, count = rows * (part + 1) / parts - begin;
    Scratch scratch(ctx);
    TensorView product = scratch.Take(in.dtype, {count, width});
    ops::LinearSwiGlu(ctx, product, in.Rows(begin, count), weights.gate_up);
    ops::Linear(ctx, out.Rows(begin, count), product, weights.down);
  }
}

int64_t MlpScratchBytes(const ops::Context& ctx, DType act, int64_t rows, int64_t width) {
  const int64_t parts = std::max<int64_t>(NumParts(ctx, rows), 1);
  rows = (rows + parts - 1) / parts;
  return ScratchBytes(act, rows * 2 * width) + ScratchBytes(act, rows * width);
}

}  // namespace fd
