// How many tokens of prompts a step gets so that it takes about as long as wished, learnt from the steps that
// ran. Engine thread. What the sequences get does not depend on it, only when.
#pragma once

#include <algorithm>
#include <cstdint>

#include "engine/plan/step_plan.h"

namespace fd {

// A step takes base + (fixed + token * tokens of prompts, where there are any): weights and the decodes'
// caches; launches, and experts that are read for a few rows; what a token costs, the more the deeper its
// prompt. The first two are measured at start, the first and the last followed.
class StepPacer {
 public:
  // Chunks are multiples of it, and no smaller (max_tokens permitting).
  static constexpr int64_t kChunkTokens = 8;
  // While others decode, long prompts take so much time as these, on average.
  static constexpr double kLongShareOfOthers = 1.0;
  // But no fewer tokens a step, on average, however dear.
  static constexpr double kLeastLongTokens = 0.125;
  // In chunks that take this share of the target or more, so that the fixed part is not most of them.
  static constexpr double kLeastLongChunk = 0.25;

  // A step counts as at most so many times as dear as thought.
  static constexpr double kMostDearer = 4;

  // A newcomer waits for the step that runs. Where nobody says how long that may be, it is this many steps of
  // one token, so that a short request takes a few times as long as alone, whatever the device and model.
  static constexpr double kTargetSteps = 16, kMostTargetMs = 250;

  // Where steps overlap, the next one is planned when this much of a long one is left, so that who comes
  // meanwhile waits for the one that runs alone; shorter steps are planned ahead.
  static constexpr double kLeadShare = 0.125, kLeadMs = 1, kMarkedMs = 3;

  // target_ms 0: everything is unlimited; below 0: from Start on, kTargetSteps.
  StepPacer(double target_ms, int64_t max_tokens) : target_ms_(target_ms), max_tokens_(max_tokens) {}

  // Measured at start: a step of one token, one of few tokens (0: not measured), and one of many.
  struct Measured {
    double one_token_ms = 0;
    int64_t few = 0, many = 0;
    double few_ms = 0, many_ms = 0;
    double least_target_ms = 5;  // for a target that nobody named
  };
  void Start(const Measured& m) {
    if (target_ms_ < 0)
      target_ms_ = std::clamp(kTargetSteps * m.one_token_ms, m.least_target_ms, kMostTargetMs);
    base_ms_ = m.one_token_ms;
    if (m.few > 0 && m.few < m.many) {
      const double token_ms =
          std::max(m.many_ms - m.few_ms, m.many_ms / 20) / static_cast<double>(m.many - m.few);
      fixed_ms_ = std::max(m.few_ms - base_ms_ - token_ms * static_cast<double>(m.few), 0.0);
    }
    // Not much less than the whole step says: the one of a single token may have been held up.
    token_ms_ =
        std::max(TokenMs(m.many_ms, m.many), (m.many_ms - fixed_ms_) / 4 / static_cast<double>(m.many));
  }

  // A step was planned. The next one may be planned before it has run.
  void Plan(const StepPlan& plan) {
    if (target_ms_ <= 0 || plan.num_tokens == 0) return;
    int64_t unfinished = 0;  // tokens of prompts that go on: mostly long ones
    for (const SequenceStep& s : plan.sequences) {
      if (!s.samples) unfinished += static_cast<int64_t>(s.token_ids.size());
    }
    if (plan.num_tokens == unfinished) {
      long_credit_ms_ = 0;
    } else if (token_ms_ > 0) {
      long_credit_ms_ += std::max(kLongShareOfOthers * base_ms_, kLeastLongTokens * token_ms_);
      if (unfinished > 0) long_credit_ms_ -= ChunkMs(unfinished);
      long_credit_ms_ = std::clamp(long_credit_ms_, 0.0, ChunkMs(max_tokens_));
    }
  }

  // A step took ms, without its pictures.
  void Add(const StepPlan& plan, double ms) {
    if (target_ms_ <= 0 || plan.num_tokens == 0) return;
    const int64_t prompt_tokens = plan.num_tokens - plan.num_decodes;
    if (prompt_tokens == 0) {
      base_ms_ = base_ms_ == 0 ? ms : 0.8 * base_ms_ + 0.2 * ms;
    } else if (prompt_tokens >= kChunkTokens) {
      // A step says the more of tokens the more of it they are, or were thought to be. One that took many
      // times as long as thought was held up by something else, or the next ones will say it again.
      const double found = TokenMs(ms, prompt_tokens),
                   token_ms = token_ms_ == 0 ? found : std::min(found, kMostDearer * token_ms_);
      const double n = static_cast<double>(prompt_tokens);
      const double weight = std::min(0.5, std::max(token_ms, token_ms_) * n / std::max(ms, 1e-9));
      token_ms_ = token_ms_ == 0 ? token_ms : (1 - weight) * token_ms_ + weight * token_ms;
    }
  }

  double target_ms() const { return target_ms_; }
  // The share of a step to be run before the next one is planned; 0: planned at once.
  double PlanNextAfter(const StepPlan& plan) const {
    const int64_t prompt_tokens = plan.num_tokens - plan.num_decodes;
    const double ms = base_ms_ + (prompt_tokens > 0 ? ChunkMs(prompt_tokens) : 0);
    return ms < kMarkedMs ? 0 : 1 - std::max(kLeadShare, kLeadMs / ms);
  }
  // Tokens of prompts in the next step.
  int64_t prefill_tokens() const {
    if (target_ms_ <= 0 || token_ms_ <= 0) return max_tokens_;
    return Chunk(target_ms_ - base_ms_);
  }
  // Tokens of long prompts where others are in the step; 0: none is due.
  int64_t long_tokens() const {
    if (target_ms_ <= 0 || token_ms_ <= 0) return max_tokens_;
    const double least =
        std::max(std::min(kLeastLongChunk * target_ms_, ChunkMs(max_tokens_)), ChunkMs(SmallestChunk()));
    return long_credit_ms_ < least ? 0 : Chunk(long_credit_ms_);
  }

 private:
  double TokenMs(double ms, int64_t tokens) const {
    return std::max(ms - base_ms_ - fixed_ms_, ms / 100) / static_cast<double>(tokens);
  }
  int64_t SmallestChunk() const { return std::min(kChunkTokens, max_tokens_); }
  double ChunkMs(int64_t tokens) const { return fixed_ms_ + static_cast<double>(tokens) * token_ms_; }
  // The tokens that take so long.
  int64_t Chunk(double ms) const {
    const double tokens = (ms - fixed_ms_) / token_ms_;
    const auto wanted = static_cast<int64_t>(std::clamp(tokens, 0.0, static_cast<double>(max_tokens_)));
    return std::min(std::max<int64_t>(wanted / kChunkTokens, 1) * kChunkTokens, max_tokens_);
  }

  double target_ms_;
  int64_t max_tokens_;
  double base_ms_ = 0;         // of a step without prompts
  double fixed_ms_ = 0;        // of any prompts beside it
  double token_ms_ = 0;        // of a token of them
  double long_credit_ms_ = 0;  // of time that others have taken
};

}  // namespace fd
