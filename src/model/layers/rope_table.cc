#include "model/layers/rope_table.h"

#include <cmath>
#include <vector>

namespace fd {
namespace {

// theta^(-2i / dim) with the roundings of transformers: the exponent, the power and its inverse in float32.
float InverseFrequency(float theta, int64_t i, int64_t dim) {
  return 1.0f / std::pow(theta, static_cast<float>(2 * i) / static_cast<float>(dim));
}

}  // namespace

RopeTable MakeTextRope(WeightLoader& loader, const ModelConfig& config) {
  const int64_t half = config.head_dim / 2;
  std::vector<float> inv_freq;
  std::vector<int32_t> axis;
  const int64_t spatial =
      config.mrope_section.empty() ? 0 : config.mrope_section[0] + config.mrope_section[1];
  for (int64_t i = 0; i < half; ++i) {
    inv_freq.push_back(InverseFrequency(config.rope_theta, i, config.head_dim));
    axis.push_back(i >= spatial ? 0 : i % 2 == 0 ? 1 : 2);
  }
  return {loader.Constant(DType::kFloat32, inv_freq), loader.Constant(DType::kInt32, axis)};
}

RopeTable MakeVisionRope(WeightLoader& loader, const VisionConfig& config) {
  const int64_t half = config.hidden_size / config.num_heads / 2;
  std::vector<float> inv_freq;
  std::vector<int32_t> axis;
  for (int32_t a = 0; a < 2; ++a) {
    for (int64_t j = 0; j < half / 2; ++j) {
      inv_freq.push_back(InverseFrequency(config.rope_theta, j, half));
      axis.push_back(a);
    }
  }
  return {loader.Constant(DType::kFloat32, inv_freq), loader.Constant(DType::kInt32, axis)};
}

}  // namespace fd
