// Which quantised form --quantization gives to which weights of a model.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "compute/ops/linear.h"
#include "model/config/model_config.h"

namespace fd {

// A kind for the layers that a pattern matches.
struct LayerChoice {
  std::string pattern;
  ops::QuantScheme scheme;  // bits 0: as stored
  bool must_match = true;   // a pattern that meets no layer is an error
  bool operator==(const LayerChoice&) const = default;
};

// How the weights of the text network's linear layers are kept (FastDeploy's names; quantization_config.h
// reads it). Embeddings, norms, routers, vision encoder and resampler stay as stored, and so does the head
// unless asked.
struct Quantization {
  int bits = 0;            // 0: as stored; 8: wint8; 4: wint4, of a MoE model the experts, the rest has 8
  int64_t group_size = 0;  // a multiple of 32, of the weights of `bits` bits; 0: one scale an output feature
  ops::QuantScheme lm_head;  // a HeadScheme, whatever `bits`; a tied head is then a copy of the table's rows
  bool mixed = false;        // mix_quant: the next three instead of bits and group_size
  ops::QuantScheme dense, experts, vision_experts;
  std::vector<LayerChoice> layers;  // the first whose pattern matches wins over all of the former but lm_head
  bool operator==(const Quantization&) const = default;
};
// What a kind of `bits` bits, 0, 8 or 4, means for a head: wint4 has groups of 32 inputs, since one scale a
// row costs a head too much there (docs/PERFORMANCE.md).
constexpr ops::QuantScheme HeadScheme(int bits) { return {bits, bits == 4 ? 32 : 0}; }
// Whether any layer may be quantised, the head aside.
bool IsQuantized(const Quantization& quantization);

struct WeightSchemes {
  ops::QuantScheme dense;           // attention, MLPs, shared experts
  ops::QuantScheme experts;         // routed experts
  ops::QuantScheme vision_experts;  // routed experts of vision rows
  ops::QuantScheme head;            // lm_head
  std::vector<LayerChoice> layers;  // as in Quantization
};
WeightSchemes SchemesFor(const Quantization& quantization, const ModelConfig& config);

// The part of the model that a linear layer belongs to.
enum class LinearRole { kAsStored, kDense, kExpert, kVisionExpert, kHead };

// name: a layer's (model.layers.0.self_attn.q_proj); patterns meet it or its FusedName.
struct LayerScheme {
  ops::QuantScheme scheme;
  int choice = -1;  // in schemes.layers; -1: the role decided
};
LayerScheme SchemeOf(const WeightSchemes& schemes, LinearRole role, std::string_view name);

// "a.b.weight" -> "a.b"
std::string_view LayerOfTensor(std::string_view tensor);
// The name of the matrix that q_proj, k_proj, v_proj or gate_proj, up_proj become together (qkv_proj,
// up_gate_proj), else the name itself.
std::string FusedName(std::string_view name);

}  // namespace fd
