// One step's small inputs (ids, positions, offsets, block tables, sampling parameters) on the device, in one
// upload. Engine thread.
#pragma once

#include "compute/ops/sample.h"
#include "engine/plan/options.h"
#include "engine/plan/step_plan.h"
#include "model/model.h"

namespace fd {

class StepInputs {
 public:
  // Allocates for the largest step these options allow; nothing is allocated later.
  StepInputs(Device device, const EngineOptions& options);
  // On the host and again on the device.
  static int64_t Bytes(const EngineOptions& options);

  // Fills batch() and sample_params(); media_embeddings is the caller's to set. Valid until the next call.
  void Upload(const ops::Context& ctx, const StepPlan& plan);

  ForwardBatch& batch() { return batch_; }
  const ops::SampleParams& sample_params() const { return sample_params_; }
  int64_t num_outputs() const { return num_outputs_; }  // sequences that sample

 private:
  template <typename T>
  TensorView Section(DType dtype, Shape shape, T** host);

  Tensor host_;    // int32 [words]; sections of other types reuse the same bytes
  Tensor device_;  // int32 [words]
  int64_t used_words_ = 0;
  ForwardBatch batch_;
  ops::SampleParams sample_params_;
  int64_t num_outputs_ = 0;
};

}  // namespace fd
