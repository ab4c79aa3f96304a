// StepPlan in, StepResult out: upload, encode pictures, forward, sample. Engine thread.
#pragma once

#include "engine/executor/encoder_cache.h"
#include "engine/executor/step_inputs.h"
#include "engine/plan/options.h"
#include "engine/plan/step_plan.h"
#include "model/model.h"

namespace fd {

// What an Executor allocates on `options` besides the key/value pages and the workspace, in bytes: step
// inputs, logits, embeddings of media rows, encoder outputs kept. For the memory plan.
int64_t ExecutorBytes(const ModelConfig& config, DType dtype, const EngineOptions& options);

class Executor {
 public:
  // The model outlives the executor; ctx.workspace is the executor's alone. Allocates the pages and all
  // buffers; a step without new pictures allocates nothing on the device.
  Executor(Model& model, const ops::Context& ctx, const EngineOptions& options);

  // Never throws: what went wrong is in the result's status.
  StepResult Execute(const StepPlan& plan);

  int64_t encoder_cache_tokens() const { return encoder_cache_.kept_tokens(); }

 private:
  void Run(const StepPlan& plan, StepResult& result);

  Model& model_;
  const ops::Context ctx_;
  const int64_t valid_vocab_;
  KvStorage kv_;
  StepInputs inputs_;
  EncoderCache encoder_cache_;
  Tensor media_embeddings_;  // [max_num_batched_tokens, hidden] act; empty for text models
  Tensor logits_;            // float32 [step sequences, vocab]
  Tensor token_ids_;         // int32 [step sequences]
  Tensor logprobs_;          // float32 [step sequences]
  Tensor host_token_ids_;
  Tensor host_logprobs_;
};

}  // namespace fd
