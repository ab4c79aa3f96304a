// What the prefix tree does for single requests; random_workload_test has the rest.
#include <gtest/gtest.h>

#include "engine/scheduler/scheduler.h"

namespace fd {
namespace {

constexpr int32_t kEnd = 3;

EngineOptions Options(int64_t pages = 16) {
  EngineOptions o;
  o.max_model_len = 1024;
  o.max_num_seqs = 4;
  o.max_num_batched_tokens = 512;
  o.num_kv_pages = pages;
  return o;
}

std::vector<int32_t> Count(int32_t from, int64_t count) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) tokens.push_back(from + static_cast<int32_t>(i));
  return tokens;
}

GenerateRequest Request(RequestId id, std::vector<int32_t> tokens, int64_t max_tokens = 4,
                        std::string salt = "") {
  GenerateRequest r;
  r.id = id;
  r.token_ids = std::move(tokens);
  r.sampling.max_tokens = max_tokens;
  r.cache_salt = std::move(salt);
  return r;
}

struct Ran {
  int64_t computed = 0;  // tokens of all steps
  int64_t copies = 0;
  PageMoveCounts moves;
  int64_t cached = 0;
  int64_t cached_on_host = 0;
  int64_t first_chunk = 0;
};

// To its end, alone; every drawn token is 9.
Ran RunToEnd(Scheduler& scheduler, RequestId id) {
  Ran ran;
  for (int step = 0; step < 10000; ++step) {
    Sequence* sequence = scheduler.Find(id);
    if (sequence->generated_tokens() == sequence->request.sampling.max_tokens) break;
    const StepPlan plan = scheduler.Schedule();
    if (ran.computed == 0) ran.first_chunk = plan.num_tokens;
    ran.computed += plan.num_tokens;
    const PageMoveCounts moves = CountMoves(plan.page_moves);
    ran.copies += moves.copies;
    ran.moves.out += moves.out;
    ran.moves.in += moves.in;
    for (const SequenceStep& s : plan.sequences) {
      if (s.samples) scheduler.Append(*scheduler.Find(s.request_id), 9);
    }
  }
  ran.cached = scheduler.Find(id)->cached_tokens;
  ran.cached_on_host = scheduler.Find(id)->cached_host_tokens;
  scheduler.Remove(id);
  return ran;
}

Ran RunAlone(Scheduler& scheduler, GenerateRequest request) {
  const RequestId id = request.id;
  scheduler.Add(std::move(request));
  return RunToEnd(scheduler, id);
}

TEST(PrefixCache, TheSamePromptComputesItsLastTokenAlone) {
  Scheduler scheduler(Options(), {kEnd});
  for (const int64_t tokens : {1, 2, 63, 64, 65, 128, 200}) {
    const auto prompt = Count(static_cast<int32_t>(1000 * tokens), tokens);
    const Ran first = RunAlone(scheduler, Request(1, prompt));
    EXPECT_EQ(first.cached, 0) << tokens;
    EXPECT_EQ(first.computed, tokens + 3) << tokens;
    const Ran second = RunAlone(scheduler, Request(2, prompt));
    EXPECT_EQ(second.cached, tokens - 1) << tokens;
    EXPECT_EQ(second.first_chunk, 1) << tokens;
    EXPECT_EQ(second.copies, (tokens - 1) % 64 > 0 ? 1 : 0) << tokens;
  }
}

TEST(PrefixCache, TheNextTurnFindsPromptAndAnswer) {
  Scheduler scheduler(Options(), {kEnd});
  auto conversation = Count(100, 150);
  RunAlone(scheduler, Request(1, conversation, 30));
  conversation.insert(conversation.end(), 30, 9);  // what it answered
  for (int32_t token : Count(500, 20)) conversation.push_back(token);
  const Ran next = RunAlone(scheduler, Request(2, conversation));
  // The last answered token was drawn, not computed.
  EXPECT_EQ(next.cached, 150 + 29);
  EXPECT_EQ(next.first_chunk, 21);
}

TEST(PrefixCache, AForkCopiesTheBegunPage) {
  Scheduler scheduler(Options(), {kEnd});
  auto prompt = Count(100, 190);
  RunAlone(scheduler, Request(1, prompt));
  prompt[100] = 7;
  const Ran fork = RunAlone(scheduler, Request(2, prompt));
  EXPECT_EQ(fork.cached, 100);
  EXPECT_EQ(fork.copies, 1);
  // Both are there now.
  EXPECT_EQ(RunAlone(scheduler, Request(3, prompt)).cached, 189);
  prompt[100] = 200;
  EXPECT_EQ(RunAlone(scheduler, Request(4, prompt)).cached, 189);
}

TEST(PrefixCache, SaltsShareNothing) {
  Scheduler scheduler(Options(), {kEnd});
  const auto prompt = Count(100, 190);
  RunAlone(scheduler, Request(1, prompt, 4, "tenant a"));
  EXPECT_EQ(RunAlone(scheduler, Request(2, prompt, 4, "tenant b")).cached, 0);
  EXPECT_EQ(RunAlone(scheduler, Request(3, prompt)).cached, 0);
  EXPECT_EQ(RunAlone(scheduler, Request(4, prompt, 4, "tenant a")).cached, 189);
}

TEST(PrefixCache, OffFindsNothingAndKeepsNothing) {
  EngineOptions options = Options();
  options.prefix_caching = false;
  Scheduler scheduler(options, {kEnd});
  RunAlone(scheduler, Request(1, Count(100, 190)));
  EXPECT_EQ(scheduler.pages().free_pages(), 16);
  EXPECT_EQ(RunAlone(scheduler, Request(2, Count(100, 190))).cached, 0);
}

TEST(PrefixCache, WhatFailedIsNotFound) {
  Scheduler scheduler(Options(), {kEnd});
  const auto prompt = Count(100, 190);
  scheduler.Add(Request(1, prompt));
  scheduler.Schedule();
  scheduler.Discard(1);
  EXPECT_EQ(scheduler.pages().cached_pages(), 0);
  EXPECT_EQ(RunAlone(scheduler, Request(2, prompt)).cached, 0);
}

// The pages that a waiting request will find outlive all others.
TEST(PrefixCache, PagesOfWaitingRequestsStay) {
  EngineOptions options = Options(12);
  options.max_num_seqs = 1;
  Scheduler scheduler(options, {kEnd});
  const auto kept = Count(100, 190);
  RunAlone(scheduler, Request(1, kept));
  scheduler.Add(Request(2, Count(5000, 400), 150));  // 9 pages in the end: all but those of `kept`
  scheduler.Schedule();
  scheduler.Append(*scheduler.Find(2), 9);
  scheduler.Add(Request(3, kept));
  RunToEnd(scheduler, 2);
  EXPECT_EQ(RunToEnd(scheduler, 3).cached, 189);
  // Without waiting they are the oldest and go.
  RunAlone(scheduler, Request(4, Count(5000, 600), 100));
  EXPECT_EQ(RunAlone(scheduler, Request(5, kept)).cached, 0);
  scheduler.CheckIdle();
}

// A waiting request lets its pages go where a running one could not go on.
TEST(PrefixCache, RunningRequestsComeFirst) {
  EngineOptions options = Options(10);
  options.max_num_seqs = 1;
  Scheduler scheduler(options, {kEnd});
  const auto kept = Count(100, 190);
  RunAlone(scheduler, Request(1, kept));
  scheduler.Add(Request(2, Count(5000, 400), 200));  // needs 10 pages
  scheduler.Schedule();
  scheduler.Append(*scheduler.Find(2), 9);
  scheduler.Add(Request(3, kept));
  RunToEnd(scheduler, 2);
  EXPECT_EQ(scheduler.num_preemptions(), 0);
  EXPECT_LT(RunToEnd(scheduler, 3).cached, 189);
  scheduler.CheckIdle();
}

EngineOptions HostOptions(int64_t pages, int64_t host_pages) {
  EngineOptions options = Options(pages);
  options.num_host_pages = host_pages;
  return options;
}

TEST(PrefixCache, WhatLeavesTheDeviceIsFoundOnTheHost) {
  Scheduler scheduler(HostOptions(8, 8), {kEnd});
  const auto prompt = Count(100, 300);  // with its answer 303 tokens are computed: 5 pages
  RunAlone(scheduler, Request(1, prompt));
  Ran other = RunAlone(scheduler, Request(2, Count(5000, 500), 2));  // all 8 pages
  EXPECT_EQ(other.moves.out, 5);
  EXPECT_EQ(other.cached, 0);
  EXPECT_EQ(scheduler.host_pages().used_pages(), 5);
  Ran again = RunAlone(scheduler, Request(3, prompt));
  EXPECT_EQ(again.cached, 299);
  EXPECT_EQ(again.cached_on_host, 299);
  EXPECT_EQ(again.moves.in, 5);   // the begun page too, as a copy
  EXPECT_EQ(again.moves.out, 3);  // five pages of the other made room; the host had no more
  EXPECT_EQ(scheduler.host_pages().free_pages(), 0);
  EXPECT_EQ(again.computed, 4);
  // Now on the device again.
  again = RunAlone(scheduler, Request(4, prompt));
  EXPECT_EQ(again.cached, 299);
  EXPECT_EQ(again.cached_on_host, 0);
  EXPECT_EQ(again.moves.in, 0);
  scheduler.CheckIdle();
}

// A running request keeps the beginning on the device; only the rest has to come.
TEST(PrefixCache, OneChainInBothPlaces) {
  Scheduler scheduler(HostOptions(11, 20), {kEnd});
  const auto prompt = Count(100, 320);
  RunAlone(scheduler, Request(1, prompt));
  const auto beginning = Count(100, 129);  // two whole pages
  scheduler.Add(Request(2, beginning, 200));
  scheduler.Schedule();
  scheduler.Append(*scheduler.Find(2), 9);
  RunAlone(scheduler, Request(3, Count(7000, 440), 2));  // seven pages: the rest of the first leaves
  scheduler.Add(Request(4, prompt));
  StepPlan plan;
  while (scheduler.num_waiting() > 0) plan = scheduler.Schedule();
  const Sequence& sequence = *scheduler.Find(4);
  EXPECT_EQ(sequence.cached_tokens, 319);
  EXPECT_EQ(sequence.cached_host_tokens, 127);
  EXPECT_EQ(plan.prefix_host_hit_tokens, sequence.cached_host_tokens);
  scheduler.Remove(4);
  scheduler.Remove(2);
  scheduler.CheckIdle();
}

// Of two prompts that part inside a page the common tokens are copied from the host's page, which stays.
TEST(PrefixCache, AForkOfAPageOnTheHost) {
  Scheduler scheduler(HostOptions(4, 8), {kEnd});
  RunAlone(scheduler, Request(1, Count(100, 60), 2));
  RunAlone(scheduler, Request(2, Count(5000, 250), 2));
  auto fork = Count(100, 60);
  fork[40] = 9;
  const Ran ran = RunAlone(scheduler, Request(3, fork, 2));
  EXPECT_EQ(ran.cached, 40);
  EXPECT_EQ(ran.cached_on_host, 40);
  EXPECT_EQ(ran.moves.in, 1);
  EXPECT_EQ(RunAlone(scheduler, Request(4, Count(100, 60), 2)).cached, 59);
  scheduler.CheckIdle();
}

TEST(PrefixCache, ComputingIsDoneWhereItIsCheaper) {
  Scheduler scheduler(HostOptions(8, 8), {kEnd});
  const auto prompt = Count(100, 300);
  RunAlone(scheduler, Request(1, prompt));
  RunAlone(scheduler, Request(2, Count(5000, 500), 2));
  scheduler.SetMoveCosts({.page_in_ms = 65, .page_out_ms = 65, .token_ms = 1});
  Ran again = RunAlone(scheduler, Request(3, prompt));
  EXPECT_EQ(again.cached, 0);
  EXPECT_EQ(again.moves.in + again.moves.out, 0);
  RunAlone(scheduler, Request(4, Count(5000, 500), 2));
  scheduler.SetMoveCosts({.page_in_ms = 63, .page_out_ms = 63, .token_ms = 1});
  again = RunAlone(scheduler, Request(5, prompt));
  EXPECT_EQ(again.cached, 256);  // whole pages; of the begun one 43 tokens are not worth it
  EXPECT_EQ(again.cached_on_host, 256);
  scheduler.CheckIdle();
}

// A preempted sequence's pages are as good as anybody's.
TEST(PrefixCache, APreemptedSequenceComesBackFromTheHost) {
  EngineOptions options = HostOptions(8, 16);
  Scheduler scheduler(options, {kEnd});
  scheduler.Add(Request(1, Count(100, 190), 300));
  scheduler.Add(Request(2, Count(5000, 190), 100));
  int64_t in = 0, out = 0, recomputed = 0;
  while (scheduler.num_running() + scheduler.num_waiting() > 0) {
    const StepPlan plan = scheduler.Schedule();
    ASSERT_FALSE(plan.sequences.empty());
    in += CountMoves(plan.page_moves).in;
    out += CountMoves(plan.page_moves).out;
    if (scheduler.num_preemptions() > 0 && plan.num_decodes < std::ssize(plan.sequences)) {
      recomputed += plan.num_tokens - plan.num_decodes;
    }
    for (const SequenceStep& s : plan.sequences) {
      if (!s.samples) continue;
      Sequence& sequence = *scheduler.Find(s.request_id);
      scheduler.Append(sequence, 9);
      if (sequence.generated_tokens() == sequence.request.sampling.max_tokens) scheduler.Remove(s.request_id);
    }
  }
  EXPECT_GT(scheduler.num_preemptions(), 0);
  EXPECT_GT(in, 0);
  EXPECT_GT(out, 0);
  EXPECT_LE(recomputed, 2 * scheduler.num_preemptions());
  scheduler.CheckIdle();
}

TEST(PrefixCache, AFailedStepForgetsTheHost) {
  Scheduler scheduler(HostOptions(8, 8), {kEnd});
  const auto prompt = Count(100, 300);
  RunAlone(scheduler, Request(1, prompt));
  RunAlone(scheduler, Request(2, Count(5000, 500), 2));
  scheduler.ForgetComputed();
  EXPECT_EQ(scheduler.host_pages().used_pages(), 0);
  EXPECT_EQ(RunAlone(scheduler, Request(3, prompt)).cached, 0);
  scheduler.CheckIdle();
}

// What the tree has is entered into the record of seen tokens: by its first chunk, before the others.
TEST(PrefixCache, PenaltiesSeeWhatWasFound) {
  EngineOptions options = Options();
  options.max_model_len = 400;
  Scheduler scheduler(options, {kEnd});
  const auto prompt = Count(100, 150);
  RunAlone(scheduler, Request(1, prompt, 30));
  GenerateRequest again = Request(2, prompt, 10);
  again.sampling.repetition_penalty = 1.5f;
  scheduler.Add(again);
  StepPlan plan = scheduler.Schedule();
  ASSERT_TRUE(plan.sequences.at(0).controls.has_value());
  const SequenceControls first = *plan.sequences[0].controls;
  EXPECT_TRUE(first.reset_seen);
  EXPECT_EQ(first.found_ids, Count(100, 149));
  EXPECT_EQ(first.found_prompt, 149);
  EXPECT_EQ(first.enter_begin, 0);
  EXPECT_EQ(first.enter_prompt, 1);
  scheduler.Append(*scheduler.Find(2), 9);
  plan = scheduler.Schedule();
  const SequenceControls second = *plan.sequences.at(0).controls;
  EXPECT_FALSE(second.reset_seen);
  EXPECT_TRUE(second.found_ids.empty());
  EXPECT_EQ(second.enter_begin, 0);
  EXPECT_EQ(second.enter_prompt, 0);
  scheduler.Remove(2);
}

TEST(PrefixCache, FoundTokensBeyondAStepsShareWait) {
  EngineOptions options = Options(40);
  options.max_model_len = 400;
  Scheduler scheduler(options, {kEnd});
  const auto prompt = Count(100, 150);
  RunAlone(scheduler, Request(1, prompt));
  for (RequestId id = 2; id <= 5; ++id) {
    GenerateRequest r = Request(id, prompt, 10);
    r.sampling.frequency_penalty = id == 4 ? 0.0f : 1.0f;
    scheduler.Add(r);
  }
  StepPlan plan = scheduler.Schedule();  // 149 each: room for two; one needs none
  std::vector<RequestId> ids;
  for (const SequenceStep& s : plan.sequences) ids.push_back(s.request_id);
  EXPECT_EQ(ids, (std::vector<RequestId>{2, 3, 4}));
  for (const RequestId id : ids) scheduler.Append(*scheduler.Find(id), 9);
  plan = scheduler.Schedule();
  EXPECT_EQ(plan.sequences.size(), 4u);
  EXPECT_EQ(plan.sequences.back().controls->found_ids.size(), 149u);
  for (RequestId id = 2; id <= 5; ++id) scheduler.Remove(id);
}

TEST(PrefixCache, PicturesInTheFoundPartAreNotEncodedAgain) {
  EngineOptions options = Options();
  options.max_media_tokens = 100;
  Scheduler scheduler(options, {kEnd});
  const auto request = [](RequestId id, uint64_t picture) {
    GenerateRequest r = Request(id, std::vector<int32_t>(200, 1));
    for (int axis = 0; axis < 3; ++axis) {
      for (int32_t n = 0; n < 200; ++n) r.positions.push_back(n);
    }
    r.vision_expert.assign(200, 0);
    auto item = std::make_shared<MediaItem>();
    item->content_hash = {picture, 1};
    item->first_token = 20;
    item->num_tokens = 100;
    r.media = {item};
    return r;
  };
  RunAlone(scheduler, request(1, 5));
  scheduler.Add(request(2, 5));
  StepPlan plan = scheduler.Schedule();
  EXPECT_EQ(plan.num_tokens, 1);
  EXPECT_TRUE(plan.encodes.empty());
  EXPECT_TRUE(plan.sequences[0].media.empty());
  scheduler.Remove(2);
  scheduler.Add(request(3, 6));  // another picture: the text before it is the same
  plan = scheduler.Schedule();
  EXPECT_EQ(plan.num_tokens, 180);
  EXPECT_EQ(plan.encodes.size(), 1u);
  scheduler.Remove(3);
}

}  // namespace
}  // namespace fd
