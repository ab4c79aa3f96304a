// One step's small inputs (ids, positions, offsets, block tables, sampling parameters) on the device, in one
// transfer. Engine thread.
#pragma once

#include <vector>

#include "compute/ops/sample.h"
#include "engine/plan/options.h"
#include "engine/plan/step_plan.h"
#include "model/model.h"

namespace fd {

class StepInputs {
 public:
  // Allocates for the largest step these options allow; nothing is allocated later. slots: host copies, so
  // that the next step can be written while the transfer of an earlier one has yet to run.
  StepInputs(const ops::Context& ctx, const EngineOptions& options, int slots);
  static int64_t DeviceBytes(const EngineOptions& options);

  // Fills batch() and sample_params(), valid until the next call; media_embeddings is the caller's to set.
  // slot: its last transfer has run. rows > 0: a step of decodes alone, padded to so many sequences of one
  // token; where everything lies on the device then depends on `rows` alone. A padding row reads the first
  // token of page 0 and writes no key and value.
  void Upload(const ops::Context& ctx, const StepPlan& plan, int slot, int64_t rows = 0);

  ForwardBatch& batch() { return batch_; }
  const ops::SampleParams& sample_params() const { return sample_params_; }  // empty in an engine that pools
  // Running sums, for PoolingType::kMean: of each sequence its slot and whether the sum begins; the slots of
  // those that end.
  struct Sums {
    TensorView slots;         // int32 [sequences]
    TensorView fresh;         // int32 [sequences]
    TensorView output_slots;  // int32 [num_outputs]
  };
  const Sums& sums() const { return sums_; }
  const TensorView& query_offsets() const { return batch_.attention.query_offsets; }
  const TensorView& token_sources() const { return token_sources_; }  // for ops::TakeDrawnTokens
  // Sequences that sample, padding included, or whose vector is ready.
  int64_t num_outputs() const { return num_outputs_; }

 private:
  template <typename T>
  TensorView Section(DType dtype, Shape shape, T** host);

  std::vector<Tensor> host_;  // int32 [words] each; sections of other types reuse the same bytes
  Tensor device_;             // int32 [words]
  int32_t* writing_ = nullptr;
  int64_t used_words_ = 0;
  int64_t max_model_pages_ = 0;
  const PoolingType pooling_;
  ForwardBatch batch_;
  ops::SampleParams sample_params_;
  Sums sums_;
  TensorView token_sources_;
  int64_t num_outputs_ = 0;
};

}  // namespace fd
