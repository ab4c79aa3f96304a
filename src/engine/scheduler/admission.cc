// Whose prompt goes on, who comes in, and who has to leave for whom: the policy of scheduler.h.
#include <algorithm>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/check.h"
#include "engine/scheduler/scheduler.h"

namespace fd {

// So that which prompt is long does not change while the step is planned, it is compared with all tokens that
// the step has for prompts. Of a waiting one it is not known yet how much it finds; at least what it holds.
bool Scheduler::IsLong(const Sequence& sequence, const StepBudget& budget) const {
  if (options_.pooling == PoolingType::kCls) return false;  // of which one token is computed
  const int64_t held = sequence.running ? 0 : std::ssize(sequence.block_table) * kKvPageTokens;
  const int64_t missing = sequence.remaining_tokens() - held;
  return missing > std::max(options_.LongPrefillTokens(), budget.prefill_tokens);
}

int64_t Scheduler::LongShare(const StepBudget& budget) const {
  const int64_t share =
      budget.prefill_tokens > 1 ? std::max<int64_t>(budget.prefill_tokens / 4, 1) : step_ % 2;
  return std::min(share, long_prefill_limit_);
}

void Scheduler::PlanPrefills(StepPlan& plan, StepBudget& budget) {
  for (const auto& sequence : running_) {
    if (sequence->InPrefill() && IsLong(*sequence, budget)) budget.long_share = LongShare(budget);
  }
  // Else those that are not long could begin pictures step after step before the long one asks for room.
  if (long_awaits_room_) return PlanUnplanned(plan, budget, /*with_long=*/true);
  for (const auto& sequence : running_) {
    const int64_t most = budget.tokens - budget.long_share;
    if (most <= 0) return;
    if (sequence->InPrefill() && !IsLong(*sequence, budget)) PlanPrefill(*sequence, most, plan, budget);
  }
}

void Scheduler::AdmitWaiting(StepPlan& plan, StepBudget& budget) {
  // Of those whose prompts are begun. Who is less urgent than a newcomer does not count against it.
  std::vector<int64_t> partial_priorities, long_priorities;
  const auto count = [&](const Sequence& sequence) {
    if (!sequence.InPrefill()) return;
    partial_priorities.push_back(sequence.rank_priority);
    if (IsLong(sequence, budget)) long_priorities.push_back(sequence.rank_priority);
  };
  for (const auto& sequence : running_) count(*sequence);
  const auto num_before = [](const std::vector<int64_t>& priorities, const Sequence& newcomer) {
    return std::count_if(priorities.begin(), priorities.end(),
                         [&](int64_t priority) { return priority <= newcomer.rank_priority; });
  };
  const int64_t most_partial =
      options_.max_num_partial_prefills > 0 ? options_.max_num_partial_prefills : options_.max_num_seqs;
  size_t index = 0;
  while (index < waiting_.size() && budget.tokens > budget.long_share &&
         num_running() < options_.MaxStepSequences()) {
    Sequence& waiting = *waiting_[index];
    if (waiting.preempted_step == step_) return;  // its token may still be on its way
    if (IsLong(waiting, budget) &&
        num_before(long_priorities, waiting) >= options_.max_long_partial_prefills) {
      ++index;
      continue;
    }
    const int64_t missing = waiting.num_tokens() - std::ssize(waiting.block_table) * kKvPageTokens;
    if (missing > budget.tokens - budget.long_share &&
        num_before(partial_priorities, waiting) >= most_partial) {
      return;
    }
    // Pages for all that is known, so that a prefill never runs out half-way, and one for each running
    // sequence, so that admitting it does not soon cause a preemption. Alone it always fits (CheckFits).
    // First come, first served: who does not fit holds up those behind it. Who only waits for the encoder
    // does not.
    FD_CHECK(waiting.pending_tokens == 0, "a waiting sequence whose token is still being drawn");
    if (!AllocateFor(waiting, plan, budget)) return;
    Sequence& sequence = Admit(index);
    if (IsLong(sequence, budget)) {  // it gets what the others leave
      budget.long_share = std::min(LongShare(budget), budget.tokens);
    } else {
      PlanPrefill(sequence, budget.tokens - budget.long_share, plan, budget);
    }
    count(sequence);
  }
}

// That of waiting_[index], which has its pages, becomes a running one.
Sequence& Scheduler::Admit(size_t index) {
  const auto place = waiting_.begin() + static_cast<std::ptrdiff_t>(index);
  std::unique_ptr<Sequence> admitted = std::move(*place);
  waiting_.erase(place);
  Sequence& sequence = *admitted;
  sequence.running = true;
  if (sequence.urgent_preemptions >= kMaxUrgentPreemptions) sequence.rank_priority = kMostUrgent;
  if (sequence.scheduled_at != Clock::time_point{}) --num_preempted_;
  if (sequence.request.sampling.HasPenalties() || options_.pooling == PoolingType::kMean) {
    FD_CHECK(!free_seen_slots_.empty(), "more sequences run than can");
    sequence.seen_slot = free_seen_slots_.back();
    free_seen_slots_.pop_back();
    sequence.seen_tokens = 0;
  }
  running_.insert(std::lower_bound(running_.begin(), running_.end(), sequence, RanksBefore),
                  std::move(admitted));
  return sequence;
}

void Scheduler::PlanLongPrefills(StepPlan& plan, StepBudget& budget) {
  int64_t most = budget.tokens;
  if (!plan.sequences.empty()) most = std::min(most, long_prefill_limit_);
  const bool awaited_room = budget.awaits_room;
  for (const auto& sequence : running_) {
    if (most <= 0) break;
    if (!sequence->InPrefill() || sequence->planned_step == step_ || !IsLong(*sequence, budget)) continue;
    const int64_t before = budget.tokens;
    PlanPrefill(*sequence, most, plan, budget);
    most -= before - budget.tokens;
  }
  long_awaits_room_ = budget.awaits_room && !awaited_room;
  PlanUnplanned(plan, budget, /*with_long=*/false);  // what long ones left that wait for the encoder
}

// By rank alone.
void Scheduler::PlanUnplanned(StepPlan& plan, StepBudget& budget, bool with_long) {
  for (const auto& sequence : running_) {
    if (budget.tokens == 0) return;
    if (!sequence->InPrefill() || sequence->planned_step == step_) continue;
    if (with_long || !IsLong(*sequence, budget)) PlanPrefill(*sequence, budget.tokens, plan, budget);
  }
}

// The first of the queue takes place and pages of running ones with higher priority numbers, the last ones
// first, and only if it then has what it needs. Before anything is planned, so nobody who leaves is in the
// step.
void Scheduler::MakeRoomForUrgent() {
  if (waiting_.empty() || running_.empty()) return;
  Sequence& urgent = *waiting_.front();
  const int64_t priority = urgent.request.priority;
  if (priority >= running_.back()->rank_priority || urgent.preempted_step == step_) return;
  if (urgent.block_table.empty()) HoldPrefix(urgent);
  const int64_t needed = PagesForTokens(urgent.num_tokens()) - std::ssize(urgent.block_table);
  const auto missing = [&] { return needed + num_running() - pages_.available_pages(); };
  while (missing() > 0 && ReleaseHold(&urgent)) {
  }
  if (missing() > 0 && !VictimsSuffice(urgent, missing())) return;
  while (!running_.empty() && priority < running_.back()->rank_priority) {
    if (missing() <= 0 && num_running() < options_.MaxStepSequences()) return;
    PreemptLast(priority);
    while (missing() > 0 && ReleaseHold(&urgent)) {
    }
  }
}

// Whether all who may be preempted for it own so many pages together that nobody else needs.
bool Scheduler::VictimsSuffice(const Sequence& urgent, int64_t missing_pages) const {
  std::unordered_map<int32_t, int64_t> owned;
  for (auto it = running_.rbegin(); it != running_.rend(); ++it) {
    if (urgent.request.priority >= (*it)->rank_priority) return false;
    --missing_pages;  // nothing is kept for it any more
    for (const int32_t page : (*it)->block_table) {
      if (++owned[page] == pages_.owners(page)) --missing_pages;
    }
    if (missing_pages <= 0) return true;
  }
  return false;
}

// for_priority: of the sequence that gains by it.
void Scheduler::PreemptLast(int64_t for_priority) {
  std::unique_ptr<Sequence> sequence = std::move(running_.back());
  running_.pop_back();
  UnpinMedia(*sequence);
  FreeSeenSlot(*sequence);
  GivePagesBack(*sequence);
  sequence->next_media = 0;  // it needs all its pictures again
  sequence->running = false;
  sequence->preempted_step = step_;
  HoldPrefix(*sequence);
  if (for_priority < sequence->rank_priority) ++sequence->urgent_preemptions;
  if (sequence->scheduled_at != Clock::time_point{}) ++num_preempted_;
  const auto place = std::lower_bound(waiting_.begin(), waiting_.end(), *sequence, RanksBefore);
  waiting_.insert(place, std::move(sequence));
  ++num_preemptions_;
}

}  // namespace fd
