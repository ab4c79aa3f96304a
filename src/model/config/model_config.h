// What a checkpoint's config.json says, in one form whatever its style (hub nested, transformers 5 nested,
// original flat). Plain data, read by every tier above.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/status.h"
#include "model/config/rope_config.h"

namespace fd {

struct MoeConfig {
  int64_t num_experts = 0;  // per modality
  int64_t top_k = 0;
  int64_t intermediate_size = 0;         // width of a text expert
  int64_t vision_intermediate_size = 0;  // width of a vision expert; 0 when there are none
  int64_t num_shared_experts = 0;        // one MLP of num_shared_experts * intermediate_size
  float norm_min = 1e-12f;
  bool operator==(const MoeConfig&) const = default;
};

struct VisionConfig {
  int64_t depth = 0;
  int64_t hidden_size = 0;
  int64_t num_heads = 0;
  int64_t intermediate_size = 0;
  int64_t in_channels = 3;
  int64_t patch_size = 14;
  int64_t spatial_merge_size = 2;
  int64_t temporal_merge_size = 2;
  float layer_norm_eps = 1e-6f;
  float rope_theta = 10000.0f;
  // Pixels are normalised as (x / 255 - mean) / std per colour; from preprocessor_config.json where present.
  std::array<float, 3> image_mean = {0.48145466f, 0.4578275f, 0.40821073f};
  std::array<float, 3> image_std = {0.26862954f, 0.26130258f, 0.27577711f};
  bool operator==(const VisionConfig&) const = default;
};

struct ModelConfig {
  std::string family;  // registry key: "ernie4_5", "ernie4_5_moe", "ernie4_5_vl_moe"
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;  // dense MLP
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t max_position_embeddings = 0;
  float rms_norm_eps = 1e-5f;
  float rope_theta = 500000.0f;
  RopeScaling rope_scaling;
  // The length that is served, 0: MaxContextTokens. Not of config.json. dynamic and longrope depend on the
  // length of a sequence; frequencies that changed while it grows would not fit the keys that lie in pages,
  // and a sequence's tokens would depend on its neighbours. So one length counts for all: the longest that
  // can come.
  int64_t rope_tokens = 0;
  std::vector<int64_t> mrope_section;  // frequencies of h, w, t; empty: one-dimensional rope
  bool use_bias = false;
  bool tie_word_embeddings = false;  // a hint; a checkpoint with lm_head.weight is untied whatever this says
  std::optional<MoeConfig> moe;
  std::vector<bool> layer_is_sparse;  // [num_layers]
  std::optional<VisionConfig> vision;
  int64_t num_nextn_predict_layers = 0;
  std::vector<int32_t> eos_token_ids;  // config.json and generation_config.json together
  int32_t bos_token_id = -1;
  int32_t pad_token_id = -1;
  // Whether parts of a last hidden state, its first values, are embeddings too, and which lengths; empty:
  // any.
  bool is_matryoshka = false;
  std::vector<int64_t> matryoshka_dimensions;
  // false: no language-model head is loaded, and a forward pass gives last hidden states. Not of config.json.
  bool has_head = true;
  int64_t OutputFeatures() const { return has_head ? vocab_size : hidden_size; }
  // generation_config.json, where present.
  std::optional<float> default_temperature;
  std::optional<float> default_top_p;
  std::optional<int32_t> default_top_k;
  std::optional<float> default_min_p;
  std::optional<float> default_repetition_penalty;
  std::optional<float> default_presence_penalty;
  std::optional<float> default_frequency_penalty;
  // As config.json has it: how weights are quantised or to be (model/weights/quantization_config.h).
  std::optional<Json> quantization_config;
  bool operator==(const ModelConfig&) const = default;
};

// From a checkpoint folder: config.json (another name through `config_name`), generation_config.json and, for
// a model with a vision tower, preprocessor_config.json. Errors name the file, the key, the value and what is
// allowed; no later code has to check sizes again: no size exceeds 2^24, no product of two 2^48.
StatusOr<ModelConfig> LoadModelConfig(const std::string& model_dir,
                                      const std::string& config_name = "config.json",
                                      const RopeOverrides& rope = {});
StatusOr<ModelConfig> ParseModelConfig(const Json& config, const RopeOverrides& rope = {});
// The defaults of sampling, and more end tokens, of folder/generation_config.json, over those that `config`
// has.
Status LoadGenerationConfig(const std::string& folder, ModelConfig& config);

// The families that config.json can name, as an error message lists them.
std::vector<std::string> KnownFamilies();

}  // namespace fd
