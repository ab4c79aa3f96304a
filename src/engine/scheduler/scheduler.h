// Queues and policy: which sequences compute how many tokens in the next step. No tensors, no devices.
// Engine thread.
//
// Rank: all sequences stand in one order, by priority (lower numbers first), then by arrival. Running and
// waiting ones keep it; "first" and "last" below mean it.
//
// Order of a step: decodes; then prompts that are not long, running ones first, then waiting ones, each by
// rank; then long prompts by rank, until the step has max_num_batched_tokens, or as many tokens of prompts as
// SetPrefillLimits says. A prompt is long in a step when more of it is missing than
// long_prefill_token_threshold and than the whole step has room for. Where a long one runs, a quarter of the
// tokens is its share, which the others leave (of a single token: every second step). At most
// max_long_partial_prefills long ones run; waiting ones beyond are overtaken by those that are not long. At
// most max_num_partial_prefills prompts are left unfinished by a step (who waits for the encoder does not
// count): a newcomer that would be one more waits. Neither limit counts less urgent ones against a newcomer.
//
// Preemption: when a decode finds no page, the last running sequence goes back into the queue, to its rank.
// When the first of the queue has a lower priority number than the last running sequence and finds no place
// or no pages, that one goes, if the pages of all such suffice. It goes before anything is planned. A
// sequence is preempted at most kMaxUrgentPreemptions times for those of lower priority numbers: when it runs
// again after that, it counts as the most urgent, by arrival among others of the kind.
//
// Nobody starves.
// (1) The first running sequence is never preempted. In each step it gets its token or a part of its prompt,
// unless it waits for the encoder (which has its own rule below) or its prompt is long and not due by
// SetPrefillLimits, which brings it a chunk after a bounded number of steps. So it ends.
// (2) A running sequence is preempted only for those that rank before it. Of its own priority these arrived
// before it, so they are finitely many and end by (1). Those of lower priority numbers may come without end,
// but only kMaxUrgentPreemptions times; afterwards nobody who arrives later ranks before it.
// (3) Whoever is first in the queue holds up those behind it, but for a long prompt while as many of its
// priority or more urgent ones run as may, which end by (1). So a waiting request waits only for those that
// rank before it and for a finite number of others: behind a stream of more urgent requests it waits as long
// as that lasts, never for later ones of its own priority but those that overtake it while it is long.
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

// How often a sequence may be preempted for more urgent ones.
inline constexpr int64_t kMaxUrgentPreemptions = 4;

// Whether a request can ever run under these limits; the message has both numbers. Pure, any thread. Where
// the engine pools max_tokens is not looked at, and a prompt may have all of max_model_len.
Status CheckFits(int64_t prompt_tokens, int64_t max_tokens, const EngineOptions& options);

class Scheduler {
 public:
  // end_tokens: the model's, which min_tokens keeps away.
  explicit Scheduler(const EngineOptions& options, std::vector<int32_t> end_tokens = {});

  // At most so many tokens of prompts in the steps to come, and of long prompts where others are in the same
  // step; at least 1 and 0. What the sequences get does not depend on it, only when.
  void SetPrefillLimits(int64_t tokens, int64_t long_tokens);
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
  int64_t num_preempted() const { return num_preempted_; }  // of the waiting ones
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
    int64_t prefill_tokens = 0;  // that there were for prompts, and of these the share of long ones
    int64_t long_share = 0;
    int64_t encode_tokens = 0;
    int64_t found_tokens = 0;  // that may be entered into records of seen tokens without being computed
    bool awaits_room = false;  // somebody found no room in the encoder slab
  };
  bool PlanDecodes(StepPlan& plan, StepBudget& budget);
  void PlanPrefills(StepPlan& plan, StepBudget& budget);
  void AdmitWaiting(StepPlan& plan, StepBudget& budget);
  void PlanLongPrefills(StepPlan& plan, StepBudget& budget);
  void PlanUnplanned(StepPlan& plan, StepBudget& budget, bool with_long);
  void PlanPrefill(Sequence& sequence, int64_t most_tokens, StepPlan& plan, StepBudget& budget);
  bool IsLong(const Sequence& sequence, const StepBudget& budget) const;
  int64_t LongShare(const StepBudget& budget) const;
  Sequence& Admit(size_t index);
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
  void MakeRoomForUrgent();
  bool VictimsSuffice(const Sequence& urgent, int64_t missing_pages) const;
  void PreemptLast(int64_t for_priority);
  Clock::time_point EndOf(const Sequence& sequence) const;
  void FreeSeenSlot(Sequence& sequence);
  void UnpinMedia(Sequence& sequence);

  const EngineOptions options_;
  const std::vector<int32_t> end_tokens_;
  std::vector<int32_t> free_seen_slots_;  // of records of seen tokens, one for each sequence that can run
  PagePool pages_;
  PrefixTree prefix_tree_;
  EncoderSlots encoder_slots_;
  std::deque<std::unique_ptr<Sequence>> waiting_;   // by rank
  std::vector<std::unique_ptr<Sequence>> running_;  // by rank
  std::unordered_map<RequestId, Sequence*> by_id_;
  Clock::time_point next_end_ = Clock::time_point::max();
  int64_t step_ = 0;
  int64_t arrivals_ = 0;
  bool long_awaits_room_ = false;               // in the encoder slab, in the step before
  int64_t prefill_limit_, long_prefill_limit_;  // SetPrefillLimits
  int64_t num_preemptions_ = 0;
  int64_t num_preempted_ = 0;  // waiting ones that have been in a step
};

}  // namespace fd
