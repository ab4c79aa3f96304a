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

TEST(StepPacer, WithoutATargetNothingIsLimited) {
  StepPacer pacer(0, 2048);
  pacer.Start(10, 64, 1000);
  pacer.Add(Plan(3, 0, 500), 1e6);
  EXPECT_EQ(pacer.prefill_tokens(), 2048);
  EXPECT_EQ(pacer.long_tokens(), 2048);
}

TEST(StepPacer, WhatIsMeasuredAtStartSetsTheFirstStep) {
  StepPacer pacer(250, 2048);
  EXPECT_EQ(pacer.prefill_tokens(), 2048);  // nothing is known
  pacer.Start(50, 64, 114);                 // a token costs 1 ms
  EXPECT_EQ(pacer.prefill_tokens(), 200);   // (250 - 50) / 1, in chunks of 8
  pacer.Start(300, 64, 600);                // a decode alone is above the target
  EXPECT_EQ(pacer.prefill_tokens(), StepPacer::kChunkTokens);
  pacer.Start(0.1, 64, 0.1);
  EXPECT_EQ(pacer.prefill_tokens(), 2048);
  StepPacer tiny(250, 7);
  tiny.Start(300, 7, 600);
  EXPECT_EQ(tiny.prefill_tokens(), 7);
}

TEST(StepPacer, WithoutAWishAStepMayTakeAFewSteps) {
  StepPacer pacer(-1, 2048);
  EXPECT_EQ(pacer.prefill_tokens(), 2048);
  pacer.Add(Plan(1, 0, 0), 20);
  EXPECT_EQ(pacer.prefill_tokens(), 2048);
  pacer.Start(20, 64, 84);
  EXPECT_EQ(pacer.target_ms(), 240);
  EXPECT_EQ(pacer.prefill_tokens(), 216);  // (240 - 20) / 1, in chunks of 8
  StepPacer fast(-1, 2048), slow(-1, 2048);
  fast.Start(0.2, 256, 0.8);
  slow.Start(100, 16, 400);
  EXPECT_EQ(fast.target_ms(), StepPacer::kLeastTargetMs);
  EXPECT_EQ(slow.target_ms(), StepPacer::kMostTargetMs);
}

// Long steps leave an eighth, but enough time to plan; short ones are planned ahead.
TEST(StepPacer, TheNextStepIsPlannedNearTheEndOfALongOne) {
  StepPacer pacer(100, 2048);
  EXPECT_EQ(pacer.PlanNextAfter(Plan(1, 0, 500)), 0);  // nothing is known
  pacer.Start(1, 64, 65);
  EXPECT_EQ(pacer.PlanNextAfter(Plan(3, 0, 0)), 0);
  EXPECT_EQ(pacer.PlanNextAfter(Plan(3, 1, 0)), 0);
  EXPECT_DOUBLE_EQ(pacer.PlanNextAfter(Plan(3, 0, 79)), 0.875);  // 10 of 80 ms
  EXPECT_DOUBLE_EQ(pacer.PlanNextAfter(Plan(3, 3, 0)), 0.75);    // 1 of 4 ms
}

// A machine whose prompt tokens become dearer with depth: steps stay near the target.
TEST(StepPacer, FollowsTheDepthOfAPrompt) {
  StepPacer pacer(250, 2048);
  pacer.Start(50, 64, 114);
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

// While others decode, a long prompt takes as much time as they, on average, in chunks, and is never left
// out.
TEST(StepPacer, LongPromptsTakeTheirShareOfTime) {
  for (const double token_ms : {0.05, 0.2, 1.0, 30.0, 1000.0}) {
    StepPacer pacer(250, 2048);
    pacer.Start(20, 64, 20 + 64 * token_ms);
    double ms = 0, long_ms = 0;
    int64_t since = 0, longest_pause = 0;
    constexpr int kSteps = 20'000;
    for (int i = 0; i < kSteps; ++i) {
      const int64_t tokens = pacer.long_tokens();
      const double step_ms = 20 + static_cast<double>(tokens) * token_ms;
      pacer.Add(Plan(4, 0, tokens), step_ms);
      ms += step_ms;
      long_ms += static_cast<double>(tokens) * token_ms;
      since = tokens > 0 ? 0 : since + 1;
      longest_pause = std::max(longest_pause, since);
    }
    const double dear_ms = token_ms * StepPacer::kLeastLongTokens;
    EXPECT_LT(ms / kSteps, 20 + std::max(20 * 1.1, dear_ms * 1.01)) << token_ms;
    EXPECT_GT(long_ms / kSteps, 20 * 0.85) << token_ms;
    EXPECT_LE(longest_pause, static_cast<int64_t>(StepPacer::kChunkTokens / StepPacer::kLeastLongTokens));
  }
}

}  // namespace
}  // namespace fd
