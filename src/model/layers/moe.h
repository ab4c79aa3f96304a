// Mixture of experts of one layer (reference 3): a router and experts, for vision-language models a second,
// separate set of both, and one shared MLP that every token passes.
#pragma once

#include <optional>
#include <string>

#include "compute/ops/moe.h"
#include "model/config/model_config.h"
#include "model/layers/mlp.h"
#include "model/weights/weight_loader.h"

namespace fd {

struct ExpertSet {
  ops::LinearWeight router;   // [experts, hidden]
  TensorView selection_bias;  // float32 [experts], a row of MoeWeights::selection_bias
  ops::ExpertWeights experts;
  int64_t top_k = 0;
  float norm_min = 0.0f;
};
struct MoeWeights {
  Tensor selection_bias;  // float32 [sets, experts]
  ExpertSet text;
  std::optional<ExpertSet> vision;
  std::optional<MlpWeights> shared;
};
// `prefix` ends in "mlp.".
MoeWeights LoadMoe(WeightLoader& loader, const std::string& prefix, const ModelConfig& config);

// Which rows go to which set. Both empty: every row is text.
struct ExpertRows {
  TensorView text;    // int32
  TensorView vision;  // int32
};
// out, in [rows, hidden] act, distinct. Only the sets that have rows are touched.
void Moe(const ops::Context& ctx, const TensorView& out, const TensorView& in, const MoeWeights& weights,
         const ExpertRows& rows);
// An upper bound, what ops::MoeExperts takes for itself included.
int64_t MoeScratchBytes(const ops::Context& ctx, const ModelConfig& config, DType act, int64_t rows);

}  // namespace fd
