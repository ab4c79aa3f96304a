// Who runs before whom: preemption by priority, and long prompts beside short ones.
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "engine/scheduler/machine_for_tests.h"
#include "engine/scheduler/scheduler.h"

namespace fd {
namespace {

EngineOptions Options(int64_t seqs, int64_t batched, int64_t pages) {
  EngineOptions o;
  o.max_num_seqs = seqs;
  o.max_num_batched_tokens = batched;
  o.num_kv_pages = pages;
  return o;
}

// A server of one scheduler and a machine; prompts share nothing.
struct Server {
  explicit Server(const EngineOptions& o) : options(o), scheduler(o), machine(o) {}

  void Submit(RequestId id, int64_t priority, int64_t prompt, int64_t max_tokens) {
    GenerateRequest r;
    r.id = id;
    r.priority = priority;
    for (int64_t i = 0; i < prompt; ++i) {
      r.token_ids.push_back(static_cast<int32_t>((id * 31 + i * 7) % kMachineVocab));
    }
    r.sampling.max_tokens = max_tokens;
    r.cache_salt = StrCat(id);
    expected[id] = Alone(r);
    scheduler.Add(std::move(r));
  }

  // Tokens of each sequence in the step.
  std::map<RequestId, int64_t> Step() {
    const StepPlan plan = scheduler.Schedule();
    EXPECT_FALSE(plan.sequences.empty() && !scheduler.idle());
    EXPECT_LE(plan.num_tokens, options.max_num_batched_tokens);
    ++steps;
    std::map<RequestId, int64_t> tokens;
    for (const SequenceStep& s : plan.sequences) tokens[s.request_id] = std::ssize(s.token_ids);
    for (const auto& drawn : machine.Run(plan)) {
      Sequence& s = *scheduler.Find(drawn.request_id);
      scheduler.Append(s, drawn.token_id);
      std::vector<int32_t>& got = output[drawn.request_id];
      got.push_back(drawn.token_id);
      if (std::ssize(got) < s.request.sampling.max_tokens) continue;
      EXPECT_EQ(got, expected[drawn.request_id]) << drawn.request_id;
      ended[drawn.request_id] = steps;
      scheduler.Remove(drawn.request_id);
    }
    return tokens;
  }
  void Finish() {
    for (int i = 0; !scheduler.idle(); ++i) {
      ASSERT_LT(i, 100'000) << "somebody never ends";
      Step();
    }
    scheduler.CheckIdle();
    EXPECT_EQ(ended.size(), expected.size());
  }

  const EngineOptions options;
  Scheduler scheduler;
  Machine machine;
  int64_t steps = 0;
  std::map<RequestId, std::vector<int32_t>> output, expected;
  std::map<RequestId, int64_t> ended;  // the step that brought the last token
};

TEST(Priority, AnUrgentRequestTakesThePlaceOfTheNewestOfTheLeastUrgent) {
  Server s(Options(3, 64, 40));
  s.Submit(1, 5, 10, 50);
  s.Submit(2, 1, 10, 50);
  s.Submit(3, 5, 10, 50);
  s.Step();
  EXPECT_EQ(s.scheduler.RunningIds(), (std::vector<RequestId>{2, 1, 3}));
  s.Submit(4, 5, 10, 50);  // as urgent as 1 and 3: it waits
  s.Step();
  EXPECT_EQ(s.scheduler.num_preemptions(), 0);
  s.Submit(5, 4, 10, 50);
  EXPECT_TRUE(s.Step().contains(5));
  EXPECT_EQ(s.scheduler.AllIds(), (std::vector<RequestId>{2, 5, 1, 3, 4}));
  s.Submit(6, 0, 10, 50);
  s.Submit(7, 4, 10, 50);  // not more urgent than 5
  EXPECT_TRUE(s.Step().contains(6));
  s.Step();
  EXPECT_EQ(s.scheduler.AllIds(), (std::vector<RequestId>{6, 2, 5, 7, 1, 3, 4}));
  EXPECT_EQ(s.scheduler.num_preemptions(), 2);
  EXPECT_EQ(s.scheduler.num_preempted(), 2);
  s.Finish();
}

TEST(Priority, AnUrgentRequestTakesPagesOnlyWhereTheySuffice) {
  Server s(Options(8, 2048, 12));
  s.Submit(1, 1, 300, 20);  // 5 pages
  s.Submit(2, 9, 300, 20);  // 5 pages
  s.Step();
  s.Submit(3, 2, 600, 4);  // 10 pages: more than the two that are free and the five of 2
  for (int i = 0; i < 5; ++i) s.Step();
  EXPECT_EQ(s.scheduler.num_preemptions(), 0);
  s.Submit(4, 2, 300, 4);  // behind 3
  s.Submit(5, 0, 300, 4);  // 5 pages: those of 2 suffice
  EXPECT_TRUE(s.Step().contains(5));
  EXPECT_EQ(s.scheduler.num_preemptions(), 1);
  EXPECT_EQ(s.scheduler.AllIds(), (std::vector<RequestId>{5, 1, 3, 4, 2}));
  s.Finish();
}

TEST(Priority, ADecodeTakesThePagesOfTheLeastUrgentWhoeverCameFirst) {
  Server s(Options(4, 64, 4));
  s.Submit(1, 9, 30, 200);
  s.Step();
  s.Submit(2, 0, 40, 150);
  while (s.scheduler.num_preemptions() == 0 && !s.scheduler.idle()) s.Step();
  EXPECT_EQ(s.scheduler.RunningIds(), std::vector<RequestId>{2});
  s.Finish();
  EXPECT_LT(s.ended[2], s.ended[1]);
}

// However many more urgent ones come, it is preempted for them so often and no more, and ends.
TEST(Priority, PreemptionsForMoreUrgentOnesAreBounded) {
  Server s(Options(1, 64, 40));
  s.Submit(1, 9, 10, 200);
  RequestId id = 1;
  while (!s.ended.contains(1)) {
    ASSERT_LT(s.steps, 3000);
    s.Step();
    // Each time it runs again, somebody more urgent comes.
    if (s.scheduler.RunningIds() == std::vector<RequestId>{1}) s.Submit(++id, 0, 5, 2);
  }
  EXPECT_EQ(s.scheduler.num_preemptions(), kMaxUrgentPreemptions);
  s.Finish();
}

TEST(LongPrompts, ShortOnesOvertakeAndLeaveAQuarter) {
  EngineOptions options = Options(8, 100, 200);
  options.max_model_len = 8192;
  options.long_prefill_token_threshold = 200;
  Server s(options);
  s.Submit(1, 0, 5000, 3);
  EXPECT_EQ(s.Step(), (std::map<RequestId, int64_t>{{1, 100}}));
  s.Submit(2, 0, 40, 3);
  EXPECT_EQ(s.Step(), (std::map<RequestId, int64_t>{{1, 60}, {2, 40}}));  // admitted at once
  s.Submit(3, 0, 160, 3);
  s.Submit(4, 0, 150, 3);
  EXPECT_EQ(s.Step(), (std::map<RequestId, int64_t>{{1, 24}, {2, 1}, {3, 75}}));  // a quarter of 99 is 24
  EXPECT_EQ(s.Step(), (std::map<RequestId, int64_t>{{1, 24}, {2, 1}, {3, 75}}));
  EXPECT_EQ(s.Step(), (std::map<RequestId, int64_t>{{1, 25}, {3, 10}, {4, 65}}));
  s.Finish();
}

TEST(LongPrompts, SoManyAtOnceAndTheOthersAreOvertaken) {
  EngineOptions options = Options(8, 100, 400);
  options.max_model_len = 8192;
  options.long_prefill_token_threshold = 200;
  for (int64_t most : {1, 2, 3}) {
    options.max_long_partial_prefills = most;
    Server s(options);
    for (RequestId id = 1; id <= 4; ++id) s.Submit(id, 0, 1500, 1);
    s.Submit(5, 0, 50, 1);
    s.Step();
    EXPECT_EQ(s.scheduler.num_running(), most);
    EXPECT_TRUE(s.ended.contains(5)) << "a short one behind four long ones";
    s.Submit(6, -1, 1500, 1);  // less urgent ones do not count against it
    s.Step();
    EXPECT_EQ(s.scheduler.num_running(), most + 1);
    s.Finish();
    EXPECT_LT(s.ended[6], s.ended[1]);
    for (RequestId id = 1; id < 4; ++id) EXPECT_LT(s.ended[id], s.ended[id + 1]);
  }
}

TEST(LongPrompts, SoManyUnfinishedPromptsAtOnce) {
  EngineOptions options = Options(8, 100, 400);
  options.long_prefill_token_threshold = options.max_model_len - 1;  // none is long
  for (int64_t most : {1, 2}) {
    options.max_num_partial_prefills = most;
    options.encoder_cache_tokens = 0;
    Server s(options);
    s.Submit(1, 0, 120, 1);
    s.Submit(2, 0, 130, 1);
    s.Submit(3, 0, 40, 1);
    s.Step();
    EXPECT_EQ(s.scheduler.num_running(), 1);  // the step is full
    // 20 are left of 1, then 2 gets 80: unfinished, one; the step is full again.
    EXPECT_EQ(s.Step(), (std::map<RequestId, int64_t>{{1, 20}, {2, 80}}));
    // 50 are left of 2; 3 fits beside it; 4 would be left unfinished, where that is allowed.
    s.Submit(4, 0, 40, 1);
    EXPECT_EQ(s.Step(), (std::map<RequestId, int64_t>{{2, 50}, {3, 40}, {4, 10}}));
    s.Finish();
  }
  // A picture-less prompt never waits for the encoder, so two unfinished ones need a share: a long one
  // beside.
  options.long_prefill_token_threshold = 200;
  options.max_num_partial_prefills = 1;
  Server s(options);
  s.Submit(1, 0, 1500, 1);
  s.Step();
  s.Submit(2, 0, 80, 1);  // does not fit into 75
  s.Submit(3, 0, 10, 1);
  EXPECT_EQ(s.Step(), (std::map<RequestId, int64_t>{{1, 100}})) << "2 would be the second";
  s.Finish();
}

TEST(LongPrompts, OneTokenAStepGoesInTurns) {
  EngineOptions options = Options(1, 1, 40);
  options.max_num_seqs = 4;
  options.max_long_partial_prefills = 1;
  options.long_prefill_token_threshold = 50;
  Server s(options);
  s.Submit(1, 0, 300, 3);
  s.Submit(2, 0, 30, 3);
  s.Finish();
}

TEST(LongPrompts, LimitsOfTheNextSteps) {
  EngineOptions options = Options(8, 100, 400);
  options.max_model_len = 8192;
  options.long_prefill_token_threshold = 200;
  Server s(options);
  s.Submit(1, 0, 3000, 1);
  s.scheduler.SetPrefillLimits(40, 0);
  EXPECT_EQ(s.Step(), (std::map<RequestId, int64_t>{{1, 40}})) << "alone it is always due";
  s.Submit(2, 0, 30, 5);
  EXPECT_EQ(s.Step(), (std::map<RequestId, int64_t>{{2, 30}}));
  EXPECT_EQ(s.Step(), (std::map<RequestId, int64_t>{{2, 1}}));
  s.scheduler.SetPrefillLimits(40, 8);
  EXPECT_EQ(s.Step(), (std::map<RequestId, int64_t>{{1, 8}, {2, 1}}));
  s.scheduler.SetPrefillLimits(400, 400);
  EXPECT_EQ(s.Step(), (std::map<RequestId, int64_t>{{1, 99}, {2, 1}}));
  s.Finish();
}

}  // namespace
}  // namespace fd
