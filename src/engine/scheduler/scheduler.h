// Queues and policy: which sequences compute how many tokens in the next step. No tensors, no devices.
// Engine thread.
//
// Order of a step: decodes, then running prefills, then waiting requests, each oldest first, until
// max_num_batched_tokens is used up. Prompts are always cut into chunks by what is left of it.
//
// Nobody starves: a request is admitted only when every running sequence has got all it asked for in this
// step and at least one token is left. So running <= max_num_batched_tokens holds for ever, and each running
// sequence gets at least one token in every step. A preempted sequence goes to the front of the queue, and
// the oldest one is never preempted for another, so it always finishes.
#pragma once

#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/hash.h"
#include "base/status.h"
#include "engine/kvcache/page_pool.h"
#include "engine/plan/options.h"
#include "engine/plan/request.h"
#include "engine/plan/step_plan.h"
#include "engine/scheduler/sequence.h"

namespace fd {

// Whether a request can ever run under these limits; the message has both numbers. Pure, any thread.
Status CheckFits(int64_t prompt_tokens, int64_t max_tokens, const EngineOptions& options);

class Scheduler {
 public:
  explicit Scheduler(const EngineOptions& options);

  // At the back of the queue. CheckFits holds; the id is not in use.
  void Add(GenerateRequest request);
  // Null when there is no such sequence. Valid until Remove.
  Sequence* Find(RequestId id);
  // Gives pages and media back and forgets the sequence, running or waiting, also while a step that computes
  // it is in flight: steps run in order, so whoever gets its pages writes them after that step.
  void Remove(RequestId id);

  // What the next step computes; no sequences when there is nothing to do. May preempt. The plan counts as
  // done: the next one goes on where it ends, also before its drawn tokens are known. At most one plan may be
  // without its tokens (Append) when Schedule is called.
  StepPlan Schedule();
  // The token that the plan before drew for this sequence.
  void Append(Sequence& sequence, int32_t token_id);

  std::vector<RequestId> RunningIds() const;
  std::vector<RequestId> AllIds() const;
  int64_t num_running() const { return static_cast<int64_t>(running_.size()); }
  int64_t num_waiting() const { return static_cast<int64_t>(waiting_.size()); }
  bool idle() const { return running_.empty() && waiting_.empty(); }
  int64_t num_preemptions() const { return num_preemptions_; }  // since start
  const PagePool& pages() const { return pages_; }
  // With no sequence left every page must be free or cached and no media item may be held.
  void CheckIdle() const;

 private:
  bool PlanDecodes(StepPlan& plan, int64_t& budget);
  void PlanPrefills(StepPlan& plan, int64_t& budget);
  void AdmitWaiting(StepPlan& plan, int64_t& budget);
  void PlanChunk(Sequence& sequence, int64_t count, StepPlan& plan, int64_t& budget);
  void PreemptNewest();
  void HoldMedia(const Sequence& sequence);
  void ReleaseMedia(Sequence& sequence, int64_t until_token);

  const EngineOptions options_;
  PagePool pages_;
  std::deque<std::unique_ptr<Sequence>> waiting_;   // oldest first
  std::vector<std::unique_ptr<Sequence>> running_;  // oldest first
  std::unordered_map<RequestId, Sequence*> by_id_;
  // How many sequences still have to compute placeholders of a media item; 0: released in the next plan.
  std::unordered_map<Hash128, int64_t, Hash128Hasher> media_holders_;
  int64_t step_ = 0;
  int64_t num_preemptions_ = 0;
};

}  // namespace fd
