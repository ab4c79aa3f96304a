#include "model/weights/quantization.h"

namespace fd {
namespace {

// * any characters, ? one.
bool Matches(std::string_view pattern, std::string_view name) {
  size_t p = 0, n = 0, star = std::string_view::npos, after = 0;
  while (n < name.size()) {
    if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n]) && pattern[p] != '*') {
      ++p, ++n;
    } else if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      after = n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++after;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace

WeightSchemes SchemesFor(const Quantization& q, const ModelConfig& config) {
  WeightSchemes schemes;
  schemes.layers = q.layers;
  schemes.head = q.lm_head;
  if (q.mixed) {
    schemes.dense = q.dense;
    schemes.experts = q.experts;
    schemes.vision_experts = q.vision_experts;
    return schemes;
  }
  const ops::QuantScheme named = {q.bits, q.group_size};
  schemes.dense = named;
  if (q.bits == 4 && config.moe) schemes.dense = {8, 0};
  schemes.experts = schemes.vision_experts = named;
  return schemes;
}

bool IsQuantized(const Quantization& q) {
  bool any = q.bits != 0 || q.dense.bits != 0 || q.experts.bits != 0 || q.vision_experts.bits != 0;
  for (const LayerChoice& choice : q.layers) any = any || choice.scheme.bits != 0;
  return any;
}

LayerScheme SchemeOf(const WeightSchemes& schemes, LinearRole role, std::string_view name) {
  ops::QuantScheme scheme;
  switch (role) {
    case LinearRole::kAsStored:
      return {{}, -1};
    case LinearRole::kHead:
      return {schemes.head, -1};
    case LinearRole::kDense:
      scheme = schemes.dense;
      break;
    case LinearRole::kExpert:
      scheme = schemes.experts;
      break;
    case LinearRole::kVisionExpert:
      scheme = schemes.vision_experts;
      break;
  }
  const std::string fused = FusedName(name);
  for (size_t i = 0; i < schemes.layers.size(); ++i) {
    const std::string& pattern = schemes.layers[i].pattern;
    if (Matches(pattern, name) || Matches(pattern, fused))
      return {schemes.layers[i].scheme, static_cast<int>(i)};
  }
  return {scheme, -1};
}

std::string_view LayerOfTensor(std::string_view tensor) {
  if (tensor.ends_with(".weight")) tensor.remove_suffix(7);
  return tensor;
}

std::string FusedName(std::string_view name) {
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return std::string(name);
  const std::string_view last = name.substr(dot + 1);
  std::string out(name.substr(0, dot + 1));
  if (last == "q_proj" || last == "k_proj" || last == "v_proj") return out + "qkv_proj";
  if (last == "gate_proj" || last == "up_proj") return out + "up_gate_proj";
  return std::string(name);
}

}  // namespace fd
