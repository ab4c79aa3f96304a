// How long a prompt's token takes to compute, measured as steps go by: what a token found in the prefix tree
// saves. Engine thread.
#pragma once

#include <algorithm>
#include <cstdint>

namespace fd {

class PrefillMeter {
 public:
  // Steps with fewer tokens of prompts are not measured: reading the weights is most of their time. Chunks of
  // a slow device have no more (StepPacer::kChunkTokens).
  static constexpr int64_t kLeastTokens = 8;

  // A step of `prefill_tokens` of prompts and `decodes` tokens of decodes took step_ms, of which encode_ms
  // went to pictures. Each of its tokens is taken to cost the same.
  void Add(int64_t prefill_tokens, int64_t decodes, double step_ms, double encode_ms) {
    if (prefill_tokens < kLeastTokens || prefill_tokens < decodes) return;
    const double share = static_cast<double>(prefill_tokens) / static_cast<double>(prefill_tokens + decodes);
    ms_ += std::max(step_ms - encode_ms, 0.0) * share;
    tokens_ += prefill_tokens;
  }

  // Milliseconds that computing them would have taken at the mean of all measured tokens; 0 before any was
  // measured.
  double MsOf(int64_t tokens) const {
    return tokens_ == 0 ? 0 : ms_ / static_cast<double>(tokens_) * static_cast<double>(tokens);
  }

 private:
  double ms_ = 0;
  int64_t tokens_ = 0;
};

}  // namespace fd
