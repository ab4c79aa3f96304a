// Which quantised form --quantization gives to which weights of a model.
#pragma once

#include <cstdint>

#include "compute/ops/linear.h"
#include "model/config/model_config.h"

namespace fd {

// How the weights of the text network's linear layers are kept (FastDeploy's names). Embeddings, norms,
// routers, vision encoder and resampler stay as stored, and so does the head unless asked.
struct Quantization {
  int bits = 0;            // 0: as stored; 8: wint8; 4: wint4, of a MoE model the experts, the rest has 8
  int64_t group_size = 0;  // a multiple of 32, of the weights of `bits` bits; 0: one scale an output feature
  bool lm_head = false;    // the head in 8 bits, whatever `bits`; a tied one is a copy of the table's rows
};

struct WeightSchemes {
  ops::QuantScheme dense;    // attention, MLPs, shared experts
  ops::QuantScheme experts;  // routed experts
  ops::QuantScheme head;     // lm_head
};
inline WeightSchemes SchemesFor(const Quantization& quantization, const ModelConfig& config) {
  const ops::QuantScheme named = {quantization.bits, quantization.group_size};
  const ops::QuantScheme head = {quantization.lm_head ? 8 : 0, 0};
  if (quantization.bits == 4 && config.moe) return {{8, 0}, named, head};
  return {named, named, head};
}

// The part of the model that a linear layer belongs to.
enum class LinearRole { kAsStored, kDense, kExpert, kHead };
inline ops::QuantScheme SchemeOf(const WeightSchemes& schemes, LinearRole role) {
  switch (role) {
    case LinearRole::kAsStored:
      return {};
    case LinearRole::kDense:
      return schemes.dense;
    case LinearRole::kExpert:
      return schemes.experts;
    case LinearRole::kHead:
      return schemes.head;
  }
  return {};
}

}  // namespace fd
