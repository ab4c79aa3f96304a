// Log-probabilities of prompt tokens: the likeliest tokens, the next one's own and its rank, of the rows of a
// step that somebody asks for. Engine thread.
//
// A prompt has as many rows of logits as tokens, so the model hands them over in slices
// (ForwardBatch::on_scored); what is kept of a row is a few words. Steps without such rows never come here.
#pragma once

#include <vector>

#include "compute/ops/context.h"
#include "engine/plan/options.h"
#include "engine/plan/step_plan.h"
#include "model/model.h"

namespace fd {

class PromptScorer {
 public:
  // Allocates for the largest step that these options allow. slots: as in StepInputs. Ids from valid_vocab on
  // are never drawn.
  PromptScorer(const ops::Context& ctx, const EngineOptions& options, int slots, int64_t valid_vocab);
  static int64_t DeviceBytes(const EngineOptions& options);

  // Sets what the forward needs in `batch` and uploads it; nothing where the plan scores no rows. Until the
  // forward is over neither moves. slot: as in StepInputs::Upload.
  void Upload(const ops::Context& ctx, const StepPlan& plan, int slot, ForwardBatch& batch);
  // After the forward: the results go to the slot's memory.
  void Download(const ops::Context& ctx, int slot);
  // Once that has run: one entry for each sequence with score_ids, in plan order.
  std::vector<StepResult::Scores> Take(int slot);

 private:
  struct Slot {
    Tensor inputs;   // host, as inputs_
    Tensor results;  // host, as results_
    Tensor tops;     // host, as tops_
    struct Sequence {
      RequestId request_id = 0;
      std::vector<int32_t> ids;
      int32_t top = 0;
    };
    std::vector<Sequence> sequences;
  };
  void Score(const ops::Context& ctx, int64_t begin, const TensorView& logits);

  const int64_t max_tokens_;
  const int64_t max_top_;
  const int64_t valid_vocab_;
  const bool as_logits_;  // logits in place of log-probabilities
  Tensor inputs_;   // int32 [3 * tokens]: rows, then tokens, then how many likeliest, of a step's scored rows
  Tensor results_;  // int32 [2 * tokens]: bits of log-probabilities, then ranks
  Tensor tops_;     // int32 [2 * tokens, max_logprobs]: ids, then bits of log-probabilities; empty without
  int64_t scored_ = 0;  // rows of the step in hand
  bool wants_top_ = false;
  std::vector<Slot> slots_;
};

}  // namespace fd
