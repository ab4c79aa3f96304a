#include "engine/step_pacer.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace fd {
namespace {

StepPlan Plan(int64_t decodes, int64_t finished, int64_t unfinished) {
  StepPlan plan;
  plan.num_decodes = static_cast<int32_t>(decodes);
  plan.num_tokens = decodes + finished + unfinished;
  const auto add = [&](int64_t tokens, bool samples) {
    if (tokens == 0) return;
    plan.sequences.emplace_back();
    plan.sequences.back().token_ids.resize(static_cast<size_t>(tokens));
    plan.sequences.back().samples = samples;
  };
  for (int64_t i = 0; i < decodes; ++i) add(1, true);
  add(finished, true);
  add(unfinished, false);
  return plan;
}

StepPacer::Measured Measured(double one_token_ms, int64_t many, double many_ms) {
  return {.one_token_ms = one_token_ms, .many = many, .many_ms = many_ms};
}

TEST(StepPacer, WithoutATargetNothingIsLimited) {
  StepPacer pacer(0, 2048);
  pacer.Start(Measured(10, 64, 1000));
  pacer.Add(Plan(3, 0, 500), 1e6);
  EXPECT_EQ(pacer.prefill_tokens(), 2048);
  EXPECT_EQ(pacer.long_tokens(), 2048);
}

TEST(StepPacer, WhatIsMeasuredAtStartSetsTheFirstStep) {
  StepPacer pacer(250, 2048);
  EXPECT_EQ(pacer.prefill_tokens(), 2048);  // nothing is known
  pacer.Start(Measured(50, 64, 114));       // a token costs 1 ms
  EXPECT_EQ(pacer.prefill_tokens(), 200);   // (250 - 50) / 1, in chunks of 8
  pacer.Start(Measured(300, 64, 600));      // a decode alone is above the target
  EXPECT_EQ(pacer.prefill_tokens(), StepPacer::kChunkTokens);
  pacer.Start(Measured(0.1, 64, 0.1));
  EXPECT_EQ(pacer.prefill_tokens(), 2048);
  StepPacer tiny(250, 7);
  tiny.Start(Measured(300, 7, 600));
  EXPECT_EQ(tiny.prefill_tokens(), 7);
}

TEST(StepPacer, WithoutAWishAStepMayTakeAFewSteps) {
  StepPacer pacer(-1, 2048);
  EXPECT_EQ(pacer.prefill_tokens(), 2048);
  pacer.Add(Plan(1, 0, 0), 20);
  EXPECT_EQ(pacer.prefill_tokens(), 2048);
  pacer.Start(Measured(20, 64, 84));
  EXPECT_EQ(pacer.target_ms(), 250);
  pacer = StepPacer(-1, 2048);
  pacer.Start(Measured(10, 64, 74));
  EXPECT_EQ(pacer.target_ms(), 160);
  EXPECT_EQ(pacer.prefill_tokens(), 144);  // (160 - 10) / 1, in chunks of 8
  StepPacer fast(-1, 2048), slow(-1, 2048);
  fast.Start(Measured(0.2, 256, 0.8));
  slow.Start(Measured(100, 16, 400));
  EXPECT_EQ(fast.target_ms(), 5);
  EXPECT_EQ(slow.target_ms(), StepPacer::kMostTargetMs);
}

// Long steps leave an eighth, but enough time to plan; short ones are planned ahead.
TEST(StepPacer, TheNextStepIsPlannedNearTheEndOfALongOne) {
  StepPacer pacer(100, 2048);
  EXPECT_EQ(pacer.PlanNextAfter(Plan(1, 0, 500)), 0);  // nothing is known
  pacer.Start(Measured(1, 64, 65));
  EXPECT_EQ(pacer.PlanNextAfter(Plan(3, 0, 0)), 0);
  EXPECT_EQ(pacer.PlanNextAfter(Plan(3, 1, 0)), 0);
  EXPECT_DOUBLE_EQ(pacer.PlanNextAfter(Plan(3, 0, 79)), 0.875);  // 10 of 80 ms
  EXPECT_DOUBLE_EQ(pacer.PlanNextAfter(Plan(3, 3, 0)), 0.75);    // 1 of 4 ms
}

// A machine whose prompt tokens become dearer with depth: steps stay near the target.
TEST(StepPacer, FollowsTheDepthOfAPrompt) {
  StepPacer pacer(250, 2048);
  pacer.Start(Measured(50, 64, 114));
  double worst = 0;
  for (double depth = 0; depth < 20'000;) {
    const int64_t tokens = pacer.prefill_tokens();
    const double ms = 50 + static_cast<double>(tokens) * (1 + depth / 4000);
    worst = std::max(worst, ms);
    pacer.Add(Plan(0, 0, tokens), ms);
    depth += static_cast<double>(tokens);
  }
  EXPECT_LT(worst, 275);
  EXPECT_LT(pacer.prefill_tokens(), 64);
}

// While others decode, a long prompt takes as much time as they, on average, in chunks worth their fixed
// part, and is never left out.
TEST(StepPacer, LongPromptsTakeTheirShareOfTime) {
  for (const double token_ms : {0.05, 0.2, 1.0, 30.0, 1000.0}) {
    for (const double fixed_ms : {0.0, 15.0}) {
      SCOPED_TRACE(testing::Message() << token_ms << " ms a token and " << fixed_ms << " ms a chunk");
      StepPacer pacer(250, 2048);
      const auto cost = [&](int64_t tokens) {
        return 20 + (tokens > 0 ? fixed_ms + static_cast<double>(tokens) * token_ms : 0);
      };
      pacer.Start({.one_token_ms = 20, .few = 8, .many = 256, .few_ms = cost(8), .many_ms = cost(256)});
      double ms = 0, long_ms = 0;
      int64_t since = 0, longest_pause = 0, tokens_in_all = 0, chunks = 0;
      constexpr int kSteps = 20'000;
      for (int i = 0; i < kSteps; ++i) {
        const int64_t tokens = pacer.long_tokens();
        const double step_ms = cost(tokens);
        pacer.Plan(Plan(4, 0, tokens));
        pacer.Add(Plan(4, 0, tokens), step_ms);
        ms += step_ms;
        long_ms += step_ms - 20;
        tokens_in_all += tokens;
        chunks += tokens > 0;
        since = tokens > 0 ? 0 : since + 1;
        longest_pause = std::max(longest_pause, since);
      }
      const double dear_ms = token_ms * StepPacer::kLeastLongTokens;
      EXPECT_LT(ms / kSteps, 20 + std::max(20 * 1.1, dear_ms * 1.01));
      EXPECT_GT(long_ms / kSteps, 20 * 0.85);
      EXPECT_LE(longest_pause, static_cast<int64_t>((StepPacer::kChunkTokens + fixed_ms / token_ms) /
                                                    StepPacer::kLeastLongTokens) +
                                   1);
      // The fixed part is no more than a quarter of the time of chunks of a quarter of the target.
      if (token_ms <= 1) {
        EXPECT_GT(token_ms * static_cast<double>(tokens_in_all), 0.7 * long_ms);
      }
      EXPECT_GT(chunks, 0);
    }
  }
}

// One step that waits for something else for long costs the next ones little.
TEST(StepPacer, OneSlowStepIsForgotten) {
  StepPacer pacer(30, 2048);
  pacer.Start(Measured(3, 256, 5.56));  // 0.01 ms a token
  EXPECT_EQ(pacer.prefill_tokens(), 2048);
  pacer.Add(Plan(0, 0, 24), 22);  // 0.8 ms each
  EXPECT_GT(pacer.prefill_tokens(), 1000);
  for (int i = 0; i < 4; ++i) {
    const int64_t tokens = pacer.prefill_tokens();
    pacer.Add(Plan(0, 0, tokens), 3 + 0.01 * static_cast<double>(tokens));
  }
  EXPECT_EQ(pacer.prefill_tokens(), 2048);
}

// A chunk's fixed part is no token's: few tokens after many do not make them dear.
TEST(StepPacer, TheFixedPartIsLearntOnce) {
  StepPacer pacer(30, 2048);
  pacer.Start(
      {.one_token_ms = 3, .few = 8, .many = 256, .few_ms = 11.08, .many_ms = 13.56});  // 8 ms + 0.01 each
  EXPECT_NEAR(static_cast<double>(pacer.prefill_tokens()), 1900, 200);                 // of 19 ms
  for (int i = 0; i < 10; ++i) pacer.Add(Plan(3, 8, 0), 11.08);
  EXPECT_NEAR(static_cast<double>(pacer.prefill_tokens()), 1900, 200);
  StepPacer two(30, 2048);
  two.Start({.one_token_ms = 3,
             .few = 8,
             .many = 256,
             .few_ms = 2,
             .many_ms = 5.5});  // noise: less than one token's
  EXPECT_EQ(two.prefill_tokens(), 2048);
}

}  // namespace
}  // namespace fd
