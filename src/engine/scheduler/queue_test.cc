// The order in which waiting requests are admitted, and when their time is over.
#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "engine/scheduler/scheduler.h"

namespace fd {
namespace {

EngineOptions Options(int64_t seqs, int64_t pages) {
  EngineOptions o;
  o.max_num_seqs = seqs;
  o.max_num_batched_tokens = 64;
  o.num_kv_pages = pages;
  return o;
}

GenerateRequest Request(RequestId id, int64_t priority, int64_t prompt = 3, int64_t max_tokens = 1) {
  GenerateRequest r;
  r.id = id;
  r.priority = priority;
  r.token_ids.assign(prompt, 5);
  r.sampling.max_tokens = max_tokens;
  return r;
}

// Ids in the order of their first step; every request has one token.
std::vector<RequestId> AdmissionOrder(Scheduler& scheduler) {
  std::vector<RequestId> order;
  while (!scheduler.idle()) {
    const StepPlan plan = scheduler.Schedule();
    for (const SequenceStep& s : plan.sequences) {
      order.push_back(s.request_id);
      scheduler.Append(*scheduler.Find(s.request_id), 7);
      scheduler.Remove(s.request_id);
    }
  }
  return order;
}

TEST(Queue, LowerPrioritiesFirstAndFirstComeFirstServedWithinOne) {
  Scheduler scheduler(Options(1, 20));
  constexpr int64_t kMin = std::numeric_limits<int64_t>::min(), kMax = std::numeric_limits<int64_t>::max();
  const int64_t priorities[] = {0, 5, 0, -1, 5, kMax, -1, 0, kMin, kMax};
  RequestId id = 0;
  for (int64_t priority : priorities) scheduler.Add(Request(++id, priority));
  EXPECT_EQ(AdmissionOrder(scheduler), (std::vector<RequestId>{9, 4, 7, 1, 3, 8, 2, 5, 6, 10}));
  scheduler.CheckIdle();
}

TEST(Queue, AStableSortOfWhatWaitsWheneverItArrives) {
  std::mt19937 rng(4);
  for (int round = 0; round < 50; ++round) {
    Scheduler scheduler(Options(1, 20));
    std::vector<std::pair<int64_t, RequestId>> waiting;
    RequestId id = 0;
    while (id < 60 || !waiting.empty()) {
      if (id < 60 && rng() % 2 == 0) {
        const auto priority = static_cast<int64_t>(rng() % 4) - 2;
        scheduler.Add(Request(++id, priority));
        waiting.emplace_back(priority, id);
        continue;
      }
      if (waiting.empty()) continue;
      const auto next = std::min_element(waiting.begin(), waiting.end());
      const StepPlan plan = scheduler.Schedule();
      ASSERT_EQ(plan.sequences.size(), 1u);
      ASSERT_EQ(plan.sequences[0].request_id, next->second);
      scheduler.Append(*scheduler.Find(next->second), 7);
      scheduler.Remove(next->second);
      waiting.erase(next);
    }
  }
}

// Whoever is preempted comes back before its own kind, and behind what is more urgent; that takes its place.
TEST(Queue, APreemptedSequenceGoesToTheFrontOfItsPriority) {
  EngineOptions options = Options(2, 3);
  Scheduler scheduler(options);
  scheduler.Add(Request(1, 3, 60, 100));
  scheduler.Add(Request(2, 3, 60, 100));
  int steps = 0;
  while (scheduler.num_preemptions() == 0) {
    ASSERT_LT(++steps, 100);
    const StepPlan plan = scheduler.Schedule();
    if (steps == 1) {
      scheduler.Add(Request(3, 3));
      scheduler.Add(Request(4, 4));
    }
    for (const SequenceStep& s : plan.sequences) {
      if (s.samples) scheduler.Append(*scheduler.Find(s.request_id), 7);
    }
  }
  EXPECT_EQ(scheduler.RunningIds(), std::vector<RequestId>{1});
  scheduler.Add(Request(5, 2, 3, 90));
  scheduler.Add(Request(6, 2, 3, 90));
  // Running ones come first in AllIds, then the queue in its order.
  EXPECT_EQ(scheduler.AllIds(), (std::vector<RequestId>{1, 5, 6, 2, 3, 4}));
}

TEST(Queue, TimeIsOverAtTheDeadlineOrForWhoWaitsTooLong) {
  EngineOptions options = Options(1, 20);
  options.max_waiting_s = 10;
  Scheduler scheduler(options);
  const Clock::time_point t0 = Clock::now();
  const auto at = [t0](int s) { return t0 + std::chrono::seconds(s); };
  EXPECT_EQ(scheduler.next_end(), Clock::time_point::max());
  const auto add = [&](RequestId id, int submitted, std::optional<int> deadline) {
    GenerateRequest r = Request(id, 0, 3, 50);
    r.submitted_at = at(submitted);
    if (deadline) r.deadline = at(*deadline);
    scheduler.Add(std::move(r));
  };
  add(1, 0, 30);  // runs
  scheduler.Append(*scheduler.Find(scheduler.Schedule().sequences.at(0).request_id), 7);
  add(2, 0, std::nullopt);
  add(3, 2, 5);
  add(4, 7, 100);
  EXPECT_EQ(scheduler.Expired(at(4)), std::vector<RequestId>{});
  EXPECT_EQ(scheduler.next_end(), at(5));
  const auto expect = [&](int s, std::vector<RequestId> ids) {
    EXPECT_EQ(scheduler.Expired(at(s)), ids) << s;
    for (RequestId id : ids) scheduler.Remove(id);
  };
  expect(5, {3});
  expect(9, {});
  expect(10, {2});
  expect(16, {});
  expect(17, {4});  // its own deadline is later
  expect(29, {});
  expect(30, {1});
  EXPECT_EQ(scheduler.next_end(), Clock::time_point::max());
  scheduler.CheckIdle();
}

TEST(Queue, NobodysTimeIsOverWithoutLimits) {
  Scheduler scheduler(Options(1, 20));
  scheduler.Add(Request(1, 0));
  scheduler.Add(Request(2, 0));
  EXPECT_TRUE(scheduler.Expired(Clock::now() + std::chrono::hours(1000000)).empty());
}

// A waiting limit counts until the first step: who was preempted has had one.
TEST(Queue, WhoHasBeenInAStepWaitsNoMore) {
  EngineOptions options = Options(2, 3);
  options.max_waiting_s = 10;
  Scheduler scheduler(options);
  for (RequestId id : {1, 2}) {
    GenerateRequest r = Request(id, 0, 60, 100);
    r.submitted_at = Clock::now();
    scheduler.Add(std::move(r));
  }
  while (scheduler.num_preemptions() == 0) {
    for (const SequenceStep& s : scheduler.Schedule().sequences) {
      if (s.samples) scheduler.Append(*scheduler.Find(s.request_id), 7);
    }
  }
  ASSERT_EQ(scheduler.num_waiting(), 1);
  EXPECT_TRUE(scheduler.Expired(Clock::now() + std::chrono::hours(1)).empty());
}

}  // namespace
}  // namespace fd
