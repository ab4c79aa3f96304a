// How the rotary embedding of the text part reaches beyond the length a model was trained on: `rope_scaling`
// beside `rope_theta`, or `rope_parameters` (transformers 5), under transformers' names and with its
// defaults.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "model/config/config_reader.h"

namespace fd {

// "mrope" is kDefault: what it says beyond is mrope_section. "su" is an older name of kLongRope.
enum class RopeKind : uint8_t { kDefault, kLinear, kDynamic, kYarn, kLongRope, kLlama3 };
const char* RopeKindName(RopeKind kind);

struct RopeScaling {
  RopeKind kind = RopeKind::kDefault;
  double factor = 1.0;
  // The length before scaling; where nothing says it, max_position_embeddings. Not of linear and dynamic.
  int64_t original_max_position_embeddings = 0;
  std::optional<double> attention_factor;  // yarn, longrope; absent: from `factor`
  // yarn: rotations within the original length above which a frequency stays and below which it is divided.
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  double mscale = 0.0;  // both or none count
  double mscale_all_dim = 0.0;
  bool truncate = true;
  // llama3
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  // longrope: a divisor for each of head_dim / 2 frequencies.
  std::vector<double> short_factor;
  std::vector<double> long_factor;
  bool operator==(const RopeScaling&) const = default;
};

// Over what config.json says: --rope-scaling and --rope-theta.
struct RopeOverrides {
  std::optional<JsonObject> scaling;
  std::optional<double> theta;
};

struct ModelConfig;
// Sets config.rope_theta, rope_scaling and mrope_section from `text`, the part of config.json with the text
// model; of `config`, family, head_dim and max_position_embeddings must be set.
void ReadRope(ConfigReader& text, const RopeOverrides& overrides, ModelConfig& config);

// The longest sequence that the file promises: max_position_embeddings; linear and dynamic say in it what
// they scale, so times factor; yarn: original_max_position_embeddings times factor where that is more.
int64_t MaxContextTokens(const ModelConfig& config);
// What makes it so, for messages: "max_position_embeddings", "rope_scaling yarn, 4 times 32768".
std::string MaxContextReason(const ModelConfig& config);

}  // namespace fd
