// The text network that all ERNIE-4.5 families share (reference 2, 3): dense or mixture-of-experts layers,
// interleaved rope in one or three dimensions.
#pragma once

#include <optional>
#include <vector>

#include "model/layers/attention.h"
#include "model/layers/mlp.h"
#include "model/layers/moe.h"
#include "model/layers/rope_table.h"
#include "model/model.h"

namespace fd {

struct Ernie45Layer {
  Tensor input_norm;
  AttentionWeights attention;
  Tensor post_norm;
  std::optional<MlpWeights> mlp;  // exactly one of mlp and moe
  std::optional<MoeWeights> moe;
};
struct Ernie45Text {
  Tensor embedding;  // [vocab, hidden]
  std::vector<Ernie45Layer> layers;
  Tensor final_norm;
  ops::LinearWeight head;  // [vocab, hidden]; of the embedding when tied; empty without has_head
  RopeTable rope;
};
Ernie45Text LoadErnie45Text(WeightLoader& loader, const ModelConfig& config);

// See Model::Forward. act: activation type. Probes "embed", "layer0" ... (after the residual, [tokens,
// hidden]) and "final_norm" ([outputs, hidden]).
void ForwardErnie45Text(const ops::Context& ctx, const TensorView& logits, const ForwardBatch& batch,
                        KvStorage& kv, const Ernie45Text& weights, const ModelConfig& config, DType act,
                        const TensorProbe& probe);

}  // namespace fd
