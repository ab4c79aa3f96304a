#include "engine/executor/pooler.h"

#include "compute/ops/pool.h"
#include "compute/ops/rows.h"

namespace fd {

Pooler::Pooler(const ops::Context& ctx, const ModelConfig& config, const EngineOptions& options)
    : type_(options.pooling) {
  if (type_ != PoolingType::kMean) return;
  const int64_t sequences = options.MaxStepSequences();
  sums_ = ops::NewTensor(ctx, DType::kFloat32, {sequences, 2 * config.hidden_size});
  results_ = ops::NewTensor(ctx, DType::kFloat32, {sequences, config.hidden_size});
}

int64_t Pooler::DeviceBytes(const ModelConfig& config, const EngineOptions& options) {
  if (options.pooling != PoolingType::kMean) return 0;
  const int64_t row = options.MaxStepSequences() * config.hidden_size * DTypeBytes(DType::kFloat32);
  return Arena::PaddedBytes(2 * row) + Arena::PaddedBytes(row);
}

Tensor Pooler::HostResults(const ops::Context& ctx, const ModelConfig& config, const EngineOptions& options) {
  return Tensor::Staging(ctx.device, DType::kFloat32, {options.MaxStepSequences(), config.hidden_size});
}

void Pooler::Pool(const ops::Context& ctx, const TensorView& hidden, const StepInputs& inputs,
                  const TensorView& host_results) {
  const int64_t outputs = inputs.num_outputs();
  TensorView vectors = hidden;
  if (type_ == PoolingType::kMean) {
    const StepInputs::Sums& sums = inputs.sums();
    ops::AddToSums(ctx, sums_, hidden, inputs.query_offsets(), sums.slots, sums.fresh);
    if (outputs == 0) return;
    vectors = results_.view().Rows(0, outputs);
    ops::GatherRows(ctx, vectors, sums_.view().Columns(0, hidden.dim(1)), sums.output_slots);
  }
  if (outputs > 0) ops::Copy(ctx, host_results.Rows(0, outputs), vectors);
}

}  // namespace fd
