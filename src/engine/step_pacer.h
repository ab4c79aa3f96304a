// How many tokens of prompts a step gets so that it takes about as long as wished, learnt from the steps that
// ran. Engine thread. What the sequences get does not depend on it, only when.
#pragma once

#include <algorithm>
#include <cstdint>

#include "engine/plan/step_plan.h"

namespace fd {

class StepPacer {
 public:
  // Chunks are multiples of it, and no smaller (max_tokens permitting): a chunk costs at least the reading of
  // the weights and, deep in a prompt, of the cache.
  static constexpr int64_t kChunkTokens = 8;
  // While others decode, long prompts take so much time as these, on average.
  static constexpr double kLongShareOfOthers = 1.0;
  // But no fewer tokens a step, on average, however dear.
  static constexpr double kLeastLongTokens = 0.125;
  // In chunks of this share of the largest: what a chunk costs beside its tokens (experts that are read for a
  // few rows, launches) would otherwise be most of it.
  static constexpr double kLeastLongChunk = 0.25;

  // A newcomer waits for the step that runs. Where nobody says how long that may be, it is this many steps of
  // one token, so that a short request takes a few times as long as alone, whatever the device and model.
  static constexpr double kTargetSteps = 12, kLeastTargetMs = 5, kMostTargetMs = 250;

  // Where steps overlap, the next one is planned when this much of a long one is left, so that who comes
  // meanwhile waits for the one that runs alone; shorter steps are planned ahead.
  static constexpr double kLeadShare = 0.125, kLeadMs = 1, kMarkedMs = 3;

  // target_ms 0: everything is unlimited; below 0: from Start on, kTargetSteps.
  StepPacer(double target_ms, int64_t max_tokens) : target_ms_(target_ms), max_tokens_(max_tokens) {}

  // Measured at start: a step of one token, and one of `tokens`.
  void Start(double one_token_ms, int64_t tokens, double ms) {
    if (target_ms_ < 0) target_ms_ = std::clamp(kTargetSteps * one_token_ms, kLeastTargetMs, kMostTargetMs);
    base_ms_ = one_token_ms;
    token_ms_ = std::max(ms - one_token_ms, ms / 20) / static_cast<double>(tokens);
  }

  // A step took ms, without its pictures.
  void Add(const StepPlan& plan, double ms) {
    if (target_ms_ <= 0 || plan.num_tokens == 0) return;
    const int64_t prompt_tokens = plan.num_tokens - plan.num_decodes;
    int64_t unfinished = 0;  // tokens of prompts that go on: mostly long ones
    for (const SequenceStep& s : plan.sequences) {
      if (!s.samples) unfinished += static_cast<int64_t>(s.token_ids.size());
    }
    if (prompt_tokens == 0) {
      base_ms_ = base_ms_ == 0 ? ms : 0.8 * base_ms_ + 0.2 * ms;
    } else if (prompt_tokens >= kChunkTokens) {
      const double token_ms = std::max(ms - base_ms_, ms / 20) / static_cast<double>(prompt_tokens);
      token_ms_ = token_ms_ == 0 ? token_ms : 0.5 * token_ms_ + 0.5 * token_ms;
    }
    if (plan.num_tokens == unfinished) {
      long_credit_ = 0;
    } else if (token_ms_ > 0) {
      long_credit_ += std::max(kLongShareOfOthers * base_ms_ / token_ms_, kLeastLongTokens) -
                      static_cast<double>(unfinished);
      long_credit_ = std::clamp(long_credit_, 0.0, static_cast<double>(max_tokens_));
    }
  }

  double target_ms() const { return target_ms_; }
  // The share of a step to be run before the next one is planned; 0: planned at once.
  double PlanNextAfter(const StepPlan& plan) const {
    const double ms = base_ms_ + token_ms_ * static_cast<double>(plan.num_tokens - plan.num_decodes);
    return ms < kMarkedMs ? 0 : 1 - std::max(kLeadShare, kLeadMs / ms);
  }
  // Tokens of prompts in the next step.
  int64_t prefill_tokens() const {
    if (target_ms_ <= 0 || token_ms_ <= 0) return max_tokens_;
    return Chunk((target_ms_ - base_ms_) / token_ms_);
  }
  // Tokens of long prompts where others are in the step; 0: none is due.
  int64_t long_tokens() const {
    if (target_ms_ <= 0 || token_ms_ <= 0) return max_tokens_;
    const double least = std::max(kLeastLongChunk * static_cast<double>(prefill_tokens()),
                                  static_cast<double>(std::min(kChunkTokens, max_tokens_)));
    return long_credit_ < least ? 0 : Chunk(long_credit_);
  }

 private:
  int64_t Chunk(double tokens) const {
    const auto wanted = static_cast<int64_t>(std::clamp(tokens, 0.0, static_cast<double>(max_tokens_)));
    return std::min(std::max<int64_t>(wanted / kChunkTokens, 1) * kChunkTokens, max_tokens_);
  }

  double target_ms_;
  int64_t max_tokens_;
  double base_ms_ = 0;      // of a step without prompts
  double token_ms_ = 0;     // of a prompt's token beside it
  double long_credit_ = 0;  // tokens
};

}  // namespace fd
