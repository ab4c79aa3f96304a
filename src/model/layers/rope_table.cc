#include "model/layers/rope_table.h"

#include <cmath>
#include <vector>

#include "compute/ops/rows.h"

namespace fd {
namespace {

// theta^(-2i / dim) with the roundings of transformers: the exponent, the power and its inverse in float32.
float InverseFrequency(float theta, int64_t i, int64_t dim) {
  return 1.0f / std::pow(theta, static_cast<float>(2 * i) / static_cast<float>(dim));
}

RopeTable Upload(const ops::Context& ctx, std::vector<float> inv_freq, std::vector<int32_t> axis) {
  const int64_t half = static_cast<int64_t>(inv_freq.size());
  RopeTable table{Tensor(DType::kFloat32, ctx.device, {half}), Tensor(DType::kInt32, ctx.device, {half})};
  ops::Copy(ctx, table.inv_freq, TensorView(inv_freq.data(), DType::kFloat32, Device{}, {half}));
  ops::Copy(ctx, table.axis, TensorView(axis.data(), DType::kInt32, Device{}, {half}));
  return table;
}

}  // namespace

RopeTable MakeTextRope(const ops::Context& ctx, const ModelConfig& config) {
  const int64_t half = config.head_dim / 2;
  std::vector<float> inv_freq;
  std::vector<int32_t> axis;
  const int64_t spatial =
      config.mrope_section.empty() ? 0 : config.mrope_section[0] + config.mrope_section[1];
  for (int64_t i = 0; i < half; ++i) {
    inv_freq.push_back(InverseFrequency(config.rope_theta, i, config.head_dim));
    axis.push_back(i >= spatial ? 0 : i % 2 == 0 ? 1 : 2);
  }
  return Upload(ctx, std::move(inv_freq), std::move(axis));
}

RopeTable MakeVisionRope(const ops::Context& ctx, const VisionConfig& config) {
  const int64_t half = config.hidden_size / config.num_heads / 2;
  std::vector<float> inv_freq;
  std::vector<int32_t> axis;
  for (int32_t a = 0; a < 2; ++a) {
    for (int64_t j = 0; j < half / 2; ++j) {
      inv_freq.push_back(InverseFrequency(config.rope_theta, j, half));
      axis.push_back(a);
    }
  }
  return Upload(ctx, std::move(inv_freq), std::move(axis));
}

}  // namespace fd
