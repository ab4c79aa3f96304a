#include "engine/executor/executor.h"

#include <algorithm>
#include <exception>

#include "base/check.h"
#include "compute/ops/rows.h"
#include "compute/ops/sample.h"

namespace fd {

int64_t ExecutorBytes(const ModelConfig& config, DType dtype, const EngineOptions& options) {
  const int64_t seqs = options.MaxStepSequences();
  int64_t bytes = StepInputs::Bytes(options);
  bytes += seqs * config.vocab_size * DTypeBytes(DType::kFloat32);
  bytes += 4 * seqs * 4;  // drawn ids and log-probabilities, on the device and on the host
  if (config.vision) {
    bytes += (options.max_num_batched_tokens + options.EncoderCacheTokens()) * config.hidden_size *
             DTypeBytes(dtype);
  }
  return bytes;
}

Executor::Executor(Model& model, const ops::Context& ctx, const EngineOptions& options)
    : model_(model),
      ctx_(ctx),
      valid_vocab_(options.sampled_vocab_size > 0
                       ? std::min(options.sampled_vocab_size, model.config().vocab_size)
                       : model.config().vocab_size),
      kv_(MakeKvStorage(model.config(), model.dtype(), ctx.device, options.num_kv_pages)),
      inputs_(ctx.device, options),
      encoder_cache_(model, options.EncoderCacheTokens()) {
  const ModelConfig& config = model.config();
  const int64_t seqs = options.MaxStepSequences();
  if (config.vision) {
    media_embeddings_ =
        Tensor(model.dtype(), ctx.device, {options.max_num_batched_tokens, config.hidden_size});
  }
  logits_ = Tensor(DType::kFloat32, ctx.device, {seqs, config.vocab_size});
  token_ids_ = Tensor(DType::kInt32, ctx.device, {seqs});
  logprobs_ = Tensor(DType::kFloat32, ctx.device, {seqs});
  host_token_ids_ = Tensor(DType::kInt32, Device{}, {seqs});
  host_logprobs_ = Tensor(DType::kFloat32, Device{}, {seqs});
}

StepResult Executor::Execute(const StepPlan& plan) {
  StepResult result;
  result.step = plan.step;
  try {
    Run(plan, result);
  } catch (const std::exception& e) {
    result.tokens.clear();
    result.status = Internal(StrCat("step ", plan.step, " failed: ", e.what()));
  }
  return result;
}

void Executor::Run(const StepPlan& plan, StepResult& result) {
  for (const Hash128& hash : plan.released_media) encoder_cache_.Drop(hash);
  if (plan.sequences.empty()) return;
  ops::UseDevice(ctx_);
  ctx_.workspace->Reset();  // a step that failed may have left something

  inputs_.Upload(ctx_, plan);
  encoder_cache_.Encode(ctx_, plan);
  ForwardBatch& batch = inputs_.batch();
  int64_t media_row = 0;
  for (const SequenceStep& s : plan.sequences) {
    for (const MediaSlice& slice : s.media) {
      ops::Copy(ctx_, media_embeddings_.view().Rows(media_row, slice.count),
                encoder_cache_.Get(slice.item->content_hash).Rows(slice.media_begin, slice.count));
      media_row += slice.count;
    }
  }
  if (media_row > 0) batch.media_embeddings = media_embeddings_.view().Rows(0, media_row);

  const int64_t outputs = inputs_.num_outputs();
  const TensorView logits = logits_.view().Rows(0, outputs);
  model_.Forward(ctx_, logits, batch, kv_);
  if (outputs == 0) return;
  ops::Sample(ctx_, token_ids_.view().Rows(0, outputs), logprobs_.view().Rows(0, outputs), logits,
              inputs_.sample_params(), valid_vocab_);
  ops::Copy(ctx_, host_token_ids_.view().Rows(0, outputs), token_ids_.view().Rows(0, outputs));
  ops::Copy(ctx_, host_logprobs_.view().Rows(0, outputs), logprobs_.view().Rows(0, outputs));
  ops::Synchronize(ctx_);

  int64_t row = 0;
  result.tokens.reserve(outputs);
  for (const SequenceStep& s : plan.sequences) {
    if (!s.samples) continue;
    result.tokens.push_back(
        {s.request_id, host_token_ids_.view().As<int32_t>()[row], host_logprobs_.view().As<float>()[row]});
    ++row;
  }
}

}  // namespace fd
