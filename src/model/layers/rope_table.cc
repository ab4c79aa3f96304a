#include "model/layers/rope_table.h"

#include <vector>

#include "model/layers/rope_frequencies.h"

namespace fd {

RopeTable MakeTextRope(WeightLoader& loader, const ModelConfig& config) {
  const RopeFrequencies frequencies = TextRopeFrequencies(config);
  std::vector<int32_t> axis;
  const int64_t spatial =
      config.mrope_section.empty() ? 0 : config.mrope_section[0] + config.mrope_section[1];
  for (int64_t i = 0; i < config.head_dim / 2; ++i) axis.push_back(i >= spatial ? 0 : i % 2 == 0 ? 1 : 2);
  return {loader.Constant(DType::kFloat32, frequencies.inv_freq), loader.Constant(DType::kInt32, axis),
          frequencies.attention_factor};
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
