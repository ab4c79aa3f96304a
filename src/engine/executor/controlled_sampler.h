// Penalties, biases, bans and log-probabilities of a step: what follows the logits when a sequence asks for
// more than temperature and truncation. Engine thread.
//
// Steps without such wishes never come here. A step with some is launched as any other, recorded graph
// included; then its logits, which are still there, are edited and drawn from once more. So no graph knows of
// controls, and who does not use them pays nothing.
#pragma once

#include <vector>

#include "compute/ops/context.h"
#include "compute/ops/sample.h"
#include "engine/plan/options.h"
#include "engine/plan/step_plan.h"
#include "model/model.h"

namespace fd {

class ControlledSampler {
 public:
  // Allocates for the most these options allow. slots: as in StepInputs.
  ControlledSampler(const ops::Context& ctx, const ModelConfig& config, const EngineOptions& options,
                    int slots);
  static int64_t DeviceBytes(const ModelConfig& config, const EngineOptions& options);
  // Of ctx.workspace.
  static int64_t ScratchBytes(const ops::Context& ctx, const ModelConfig& config,
                              const EngineOptions& options);

  // Enters the tokens of the step's chunks, and those that the prefix tree had, into the records of their
  // sequences. token_ids int32 [tokens]: the step's, drawn ones in place. slot: as in Upload. Before Sample,
  // which enters what is left.
  void Enter(const ops::Context& ctx, const StepPlan& plan, const TensorView& token_ids, int slot);

  // Whether somebody edits logits, wants the likeliest tokens, or wants something else than log-probabilities
  // of the raw logits.
  static bool EditsLogits(const StepPlan& plan);
  static bool WantsTopLogprobs(const StepPlan& plan);
  bool WantsScores(const StepPlan& plan) const;

  struct Rows {
    TensorView logits;         // float32 [outputs, vocab]; edited in place
    TensorView drawn;          // int32 [outputs]
    TensorView logprobs;       // float32 [outputs]
    TensorView token_ids;      // int32 [tokens]: the step's, drawn ones in place
    TensorView logits_rows;    // int32 [outputs]: row of token_ids of each output
    ops::SampleParams params;  // of these outputs
  };
  // The likeliest tokens of who asked, go to top_results; where somebody edits logits, a draw from the edited
  // ones; log-probabilities of what was drawn. slot: as in StepInputs::Upload, whose transfers these follow.
  void Upload(const ops::Context& ctx, const StepPlan& plan, int slot);
  void Sample(const ops::Context& ctx, const StepPlan& plan, const Rows& rows, int64_t valid_vocab);

  // int32 [2, step sequences, max_logprobs] on the device: ids, then bits of log-probabilities.
  const Tensor& top_results() const { return top_results_; }
  // One of them on the host, for a slot's copy.
  static Tensor HostResults(const ops::Context& ctx, const EngineOptions& options);
  // The tokens of output row `row` in such a copy, at most `count`.
  static std::vector<TokenLogprob> TopOf(const Tensor& host_results, int64_t row, int64_t count);

 private:
  static bool EntersOne(const SequenceStep& s);
  void UploadFound(const ops::Context& ctx, const StepPlan& plan, int slot);
  bool WantsScores(const SequenceStep& s) const;
  void ListTop(const ops::Context& ctx, const StepPlan& plan, const TensorView& logits, int64_t valid_vocab);
  void Score(const ops::Context& ctx, const StepPlan& plan, const Rows& rows, const TensorView& logits,
             int64_t valid_vocab);
  template <typename T>
  TensorView Section(DType dtype, int64_t count, T** host);

  const int64_t max_top_;
  const LogprobsMode mode_;
  Tensor seen_;                     // int32 [step sequences, vocab]
  Tensor top_results_;              // as above; empty when max_logprobs is 0
  Tensor device_;                   // int32 [words]: the inputs of one step
  std::vector<Tensor> host_;        // the same for each slot
  Tensor found_;                    // int32 [max_model_len]: tokens to enter that no step computes
  std::vector<Tensor> host_found_;  // the same for each slot
  int32_t* writing_ = nullptr;
  int64_t used_words_ = 0;
  ops::PenaltyParams penalties_;
  TensorView count_slots_;  // int32 [outputs]: of decodes with a record; -1 for the others
  TensorView top_k_;
  ops::ScoreParams scores_;  // of a step that WantsScores
};

}  // namespace fd
