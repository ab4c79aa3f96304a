// StepPlan in, StepResult out: upload, encode pictures, forward, sample. Engine thread.
//
// On CUDA a step is launched and waited for apart, so that the next one can be planned meanwhile; steps run
// in the order of their launches. Steps of decodes alone replay a recorded graph.
#pragma once

#include <deque>
#include <optional>
#include <vector>

#include "compute/ops/stream.h"
#include "compute/ops/upload.h"
#include "engine/executor/controlled_sampler.h"
#include "engine/executor/encoder_slab.h"
#include "engine/executor/page_mover.h"
#include "engine/executor/pooler.h"
#include "engine/executor/prompt_scorer.h"
#include "engine/executor/step_inputs.h"
#include "engine/plan/options.h"
#include "engine/plan/step_plan.h"
#include "model/model.h"

namespace fd {

// What an Executor allocates on its device besides the key/value pages and the workspace, in bytes: step
// inputs, logits, log-probabilities, embeddings of media rows; EncoderSlabBytes: encoder outputs. For the
// memory plan.
int64_t ExecutorBytes(const ModelConfig& config, DType dtype, const EngineOptions& options);
int64_t EncoderSlabBytes(const ModelConfig& config, DType dtype, const EngineOptions& options);
// Scratch of drawing the tokens of the largest step, of ctx.workspace.
int64_t SampleStepScratchBytes(const ops::Context& ctx, const ModelConfig& config,
                               const EngineOptions& options);
// Scratch of a step that encodes as much as one may, of ctx.workspace.
int64_t EncodeStepScratchBytes(const ops::Context& ctx, const ModelConfig& config, DType dtype,
                               const EngineOptions& options);

// Numbers of sequences for which decode steps are recorded: powers of two up to 8, then steps of 8, the last
// is the most that a step can have.
std::vector<int64_t> DecodeGraphRows(const EngineOptions& options);

class Executor {
 public:
  // The model outlives the executor; ctx.workspace is the executor's alone. Allocates the pages and all
  // buffers (from ctx.arena where there is one); a step allocates nothing on the device.
  Executor(Model& model, const ops::Context& ctx, const EngineOptions& options);
  ~Executor();  // waits for what is in flight

  // Runs a decode step of every size once and records it, where options.cuda_graphs and the device allow, and
  // measures moving pages where there are host pages. Before the first Launch; any thread.
  Status Prepare();
  // Measured by Prepare, or as the options say; 0: unknown.
  const PageMoveMs& page_move_ms() const { return page_move_ms_; }

  // At most kSlots - 1 steps are in flight. Never throws: what went wrong is in the step's result. A plan
  // without sequences is nothing and has no result. mark_share: see WaitForMark.
  void Launch(const StepPlan& plan, double mark_share = 0);
  // Until the step that was launched last has run through this share of its layers; at once where that was 0
  // or the step failed. Never throws.
  void WaitForMark();
  // The result of the oldest step in flight, once it has run.
  StepResult Wait();

  int64_t in_flight() const { return static_cast<int64_t>(in_flight_.size()); }

 private:
  static constexpr int kSlots = 3;
  struct Slot {
    Tensor top_results;               // host, as ControlledSampler::top_results
    std::vector<int32_t> top_counts;  // of each request, how many of them; empty: of none
    Tensor results;  // host, int32 [2, step sequences]: token ids, then bits of log-probabilities
    ops::Event begin, end, done, encode_begin, encode_end;
    ops::Event mark;
    bool marked = false;
    bool encodes = false;
    double encode_host_ms = 0;  // on the CPU
    int64_t step = 0;
    std::vector<RequestId> requests;  // those that sample, by output row
    Tensor embeddings;                // with pooling: Pooler::HostResults
    std::vector<int64_t> divisors;    // of each request: what its vector is to be divided by
    Status status;
  };
  struct DecodeGraph {
    int64_t rows = 0;
    ops::Graph graph;
  };

  void Run(const StepPlan& plan, Slot& slot, int index, double mark_share);
  void Compute(bool samples = true);
  void Pool(Slot& slot);
  void SampleWithControls(const StepPlan& plan, int index, bool sampled);
  TensorView Drawn() const;
  TensorView Logprobs() const;
  void Encode(const StepPlan& plan, Slot& slot);
  void PlaceMedia(const StepPlan& plan);
  const DecodeGraph* GraphFor(const StepPlan& plan) const;
  Status StatusOf(const char* doing, int64_t step, const std::exception& error);

  Model& model_;
  const ops::Context ctx_;
  const EngineOptions options_;
  const int64_t valid_vocab_;
  KvStorage kv_;
  PageMover page_mover_;
  StepInputs inputs_;
  std::optional<ControlledSampler> controls_;  // these two, or the pooler
  std::optional<PromptScorer> prompt_scorer_;
  std::optional<Pooler> pooler_;
  EncoderSlab encoder_slab_;
  Tensor media_embeddings_;  // [max_num_batched_tokens, hidden] act; empty for text models
  Tensor logits_;            // float32 [step outputs, vocab or, with pooling, hidden]
  Tensor results_;           // int32 [2, step sequences], as in Slot
  std::vector<Slot> slots_;
  std::deque<int> in_flight_;  // indices of slots_, oldest first
  int next_slot_ = 0;
  int64_t ended_step_ = 0;  // the last step that was waited for, and its slot
  int ended_slot_ = -1;
  std::vector<DecodeGraph> graphs_;  // by rows ascending
  int64_t workspace_overflows_ = 0;  // told so far
  bool device_lost_ = false;
  PageMoveMs page_move_ms_;
};

}  // namespace fd
