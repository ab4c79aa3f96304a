// From a step's last hidden states to one vector for each sequence that ends in it. Engine thread.
#pragma once

#include "engine/executor/step_inputs.h"
#include "engine/plan/options.h"
#include "model/model.h"

namespace fd {

class Pooler {
 public:
  // Allocates for the largest step; options.pooling is not kNone.
  Pooler(const ops::Context& ctx, const ModelConfig& config, const EngineOptions& options);
  static int64_t DeviceBytes(const ModelConfig& config, const EngineOptions& options);
  // float32 [step sequences, hidden] in host memory: for the results of a step.
  static Tensor HostResults(const ops::Context& ctx, const ModelConfig& config, const EngineOptions& options);

  // hidden float32 [rows, hidden]: of inputs.batch().logits_rows. The first inputs.num_outputs() rows of
  // host_results become the vectors; with kMean their sums, which whoever reads them divides by the tokens.
  void Pool(const ops::Context& ctx, const TensorView& hidden, const StepInputs& inputs,
            const TensorView& host_results);

 private:
  const PoolingType type_;
  Tensor sums_;     // kMean: float32 [step sequences, 2 * hidden], as ops::AddToSums
  Tensor results_;  // kMean: float32 [step sequences, hidden]
};

}  // namespace fd
