// Queues and policy: which sequences compute how many tokens in the next step. No tensors, no devices.
// Engine thread.
//
// Order of a step: decodes, then running prefills, then waiting requests, each oldest first, until
// max_num_batched_tokens is used up. Prompts are always cut into chunks by what is left of it.
//
// Nobody starves: a request is admitted only when every running sequence has got all it could use in this
// step, at least one token is left, and there are not yet as many sequences as a step has tokens. So each
// decode gets its token in every step, and where there are prefills the oldest of those that do not wait for
// the encoder gets at least one. A preempted sequence goes to the front of the queue, and the oldest one is
// never preempted for another, so it always finishes. Priorities order the queue alone: who runs is never
// preempted for one, and the front is that of the sequence's own priority. Who waits behind a stream of more
// urgent requests waits as long as it lasts.
//
// Prefix tree: a page is published when the plan that fills it is made, so later steps may read it; what a
// sequence leaves is published with it, the begun page included. Who waits holds the pages that he will find;
// only when a running sequence or an older waiting one cannot go on otherwise, the newest waiting ones let
// go. A page that lies on the host is brought back when its sequence is admitted; the newcomer's own pages
// may push others out to the host before. With penalties the found tokens are entered into the sequence's
// record by its first chunk, max_model_len of them a step, which is enough for any sequence; who does not fit
// into the rest waits for the next step.
//
// Pictures: a chunk takes up to max_encoder_batch_tokens of pictures that are not in the encoder slab,
// together with the other chunks of the step; it ends before the first one that finds no budget or no room. A
// sequence holds rows of the slab beyond a step only while it is in the middle of that picture. Whoever waits
// for room keeps younger ones from beginning another picture; those in the middle of one come to its end,
// then nothing is held, and the oldest finds the whole slab, which is at least as large as the largest
// picture.
#pragma once

#include <deque>
#include <memory>
#include <unordered_map>
#include <vector>

#include "base/status.h"
#include "engine/kvcache/page_pool.h"
#include "engine/kvcache/prefix_tree.h"
#include "engine/plan/options.h"
#include "engine/plan/request.h"
#include "engine/plan/step_plan.h"
#include "engine/scheduler/encoder_slots.h"
#include "engine/scheduler/sequence.h"

namespace fd {

// Whether a request can ever run under these limits; the message has both numbers. Pure, any thread. Where
// the engine pools max_tokens is not looked at, and a prompt may have all of max_model_len.
Status CheckFits(int64_t prompt_tokens, int64_t max_tokens, const EngineOptions& options);

class Scheduler {
 public:
  // end_tokens: the model's, which min_tokens keeps away.
  explicit Scheduler(const EngineOptions& options, std::vector<int32_t> end_tokens = {});

  // Behind those of its priority in the queue. CheckFits holds; the id is not in use.
  void Add(GenerateRequest request);
  // Null when there is no such sequence. Valid until Remove.
  Sequence* Find(RequestId id);
  // Gives pages and media back and forgets the sequence, running or waiting, also while a step that computes
  // it is in flight: steps run in order, so whoever gets its pages writes them after that step.
  void Remove(RequestId id);
  // The same for a sequence whose keys and values may be wrong: nobody else will find them.
  void Discard(RequestId id);

  // What the next step computes; no sequences when there is nothing to do. May preempt. The plan counts as
  // done: the next one goes on where it ends, also before its drawn tokens are known. At most one plan may be
  // without its tokens (Append) when Schedule is called.
  StepPlan Schedule();
  // The token that the plan before drew for this sequence. Returns what stands there now: that token, or the
  // one that the thinking budget forces.
  int32_t Append(Sequence& sequence, int32_t token_id);
  // A step failed, and nothing runs any more: what it and the one after it should have computed cannot be
  // used.
  void ForgetComputed();

  // From now on pages come back from the host, and go there, only where that costs less than computing them.
  void SetMoveCosts(const MoveCosts& costs) { prefix_tree_.SetMoveCosts(costs); }

  // Whose time is over: the request's own deadline, or max_waiting_s without a first step. They are still
  // there. Cheap while nobody's time is over.
  std::vector<RequestId> Expired(Clock::time_point now);
  // Nobody's time is over before this; may be too early.
  Clock::time_point next_end() const { return next_end_; }

  std::vector<RequestId> RunningIds() const;
  std::vector<RequestId> AllIds() const;
  int64_t num_running() const { return static_cast<int64_t>(running_.size()); }
  int64_t num_waiting() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t num_preempted() const;  // of the waiting ones
  bool idle() const { return running_.empty() && waiting_.empty(); }
  int64_t num_preemptions() const { return num_preemptions_; }  // since start
  const PagePool& pages() const { return pages_; }
  const HostPages& host_pages() const { return prefix_tree_.host_pages(); }
  const EncoderSlots& encoder_slots() const { return encoder_slots_; }
  // With no sequence left every page must be free or cached and no encoder output pinned.
  void CheckIdle() const;

 private:
  // What is left for the step in hand.
  struct StepBudget {
    int64_t tokens = 0;
    int64_t encode_tokens = 0;
    int64_t found_tokens = 0;  // that may be entered into records of seen tokens without being computed
    bool awaits_room = false;  // somebody found no room in the encoder slab
  };
  bool PlanDecodes(StepPlan& plan, StepBudget& budget);
  void PlanPrefills(StepPlan& plan, StepBudget& budget);
  void AdmitWaiting(StepPlan& plan, StepBudget& budget);
  void PlanPrefill(Sequence& sequence, StepPlan& plan, StepBudget& budget);
  void PlanChunk(Sequence& sequence, SequenceStep step, StepPlan& plan, StepBudget& budget);
  int64_t PlanMedia(Sequence& sequence, int64_t end, StepPlan& plan, StepBudget& budget,
                    std::vector<MediaSlice>& slices);
  int64_t RowsFor(const std::shared_ptr<const MediaItem>& item, StepPlan& plan, StepBudget& budget);
  bool UsesPrefixTree(const Sequence& sequence) const;
  void HashPages(Sequence& sequence) const;
  PrefixMatch FindPrefix(Sequence& sequence) const;
  void HoldPrefix(Sequence& sequence);
  bool ReleaseHold(const Sequence* keep);
  bool AllocateFor(Sequence& sequence, StepPlan& plan, const StepBudget& budget);
  void PublishPages(Sequence& sequence, bool with_tail);
  void GivePagesBack(Sequence& sequence);
  void PreemptNewest();
  Clock::time_point EndOf(const Sequence& sequence) const;
  void FreeSeenSlot(Sequence& sequence);
  void UnpinMedia(Sequence& sequence);

  const EngineOptions options_;
  const std::vector<int32_t> end_tokens_;
  std::vector<int32_t> free_seen_slots_;  // of records of seen tokens, one for each sequence that can run
  PagePool pages_;
  PrefixTree prefix_tree_;
  EncoderSlots encoder_slots_;
  std::deque<std::unique_ptr<Sequence>> waiting_;   // by priority, oldest first within one
  std::vector<std::unique_ptr<Sequence>> running_;  // oldest first
  std::unordered_map<RequestId, Sequence*> by_id_;
  Clock::time_point next_end_ = Clock::time_point::max();
  int64_t step_ = 0;
  int64_t num_preemptions_ = 0;
};

}  // namespace fd
