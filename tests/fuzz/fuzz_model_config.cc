// Any bytes as config.json: an error, or a configuration whose sizes fit together and multiply without
// overflow.
#include <cmath>
#include <cstdlib>

#include "model/layers/rope_frequencies.h"
#include "model/model.h"

namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto json = fd::ParseJson({reinterpret_cast<const char*>(data), size});
  if (!json.ok()) return 0;
  auto config = fd::ParseModelConfig(*json);
  if (!config.ok()) return 0;
  const fd::ModelConfig& c = *config;
  Require(c.num_heads > 0 && c.num_kv_heads > 0 && c.num_heads % c.num_kv_heads == 0);
  Require(c.head_dim > 0 && c.head_dim % 2 == 0);
  Require(static_cast<int64_t>(c.layer_is_sparse.size()) == c.num_layers);
  Require(fd::KvBytesPerPage(c, fd::DType::kFloat32) > 0);
  Require(fd::ForwardScratchBytes({}, c, fd::DType::kFloat32, 8192, 256, 131072) > 0);
  Require(fd::MaxContextTokens(c) > 0 && fd::MaxContextTokens(c) <= 1 << 24);
  const fd::RopeFrequencies rope = fd::TextRopeFrequencies(c);
  Require(static_cast<int64_t>(rope.inv_freq.size()) == c.head_dim / 2);
  for (float f : rope.inv_freq) Require(std::isfinite(f) && f >= 0.0f);
  Require(std::isfinite(rope.attention_factor) && rope.attention_factor > 0.0f);
  for (bool sparse : c.layer_is_sparse) Require(!sparse || c.moe.has_value());
  if (c.moe) Require(c.moe->top_k > 0 && c.moe->top_k <= c.moe->num_experts);
  if (c.family == "ernie4_5_vl_moe") {
    Require(c.mrope_section.size() == 3 && c.vision.has_value());
    Require(c.mrope_section[0] + c.mrope_section[1] + c.mrope_section[2] == c.head_dim / 2);
    Require(c.vision->hidden_size % c.vision->num_heads == 0);
    Require(fd::EncodeScratchBytes({}, c, fd::DType::kFloat32, 1 << 20, 1 << 16) > 0);
  }
  for (int32_t id : c.eos_token_ids) Require(id >= 0 && id < c.vocab_size);
  return 0;
}
