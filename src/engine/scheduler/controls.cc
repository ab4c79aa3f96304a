#include "engine/scheduler/controls.h"

#include <algorithm>

#include "base/check.h"

namespace fd {
namespace {

// The bans on the token at `end`. Of a word's tokens before its last one, the host compares all but the
// nearest, which may be drawn by a step that still runs; the device compares that.
std::vector<TokenBan> BansAt(const Sequence& sequence, int64_t end, const std::vector<int32_t>& end_tokens) {
  const SamplingParams& sampling = sequence.request.sampling;
  std::vector<TokenBan> bans;
  for (const std::vector<int32_t>& word : sampling.bad_words) {
    const int64_t before = static_cast<int64_t>(word.size()) - 1;
    if (before == 0) {
      bans.push_back({word[0], -1});
      continue;
    }
    if (before > end) continue;
    // The token at end - 1 alone may be unknown.
    FD_CHECK_LE(end - 1, static_cast<int64_t>(sequence.tokens.size()));
    if (std::equal(word.begin(), word.end() - 2, sequence.tokens.begin() + (end - before))) {
      bans.push_back({word.back(), word[static_cast<size_t>(before - 1)]});
    }
  }
  if (end - sequence.prompt_tokens < sampling.min_tokens) {
    for (int32_t id : sampling.stop_token_ids) bans.push_back({id, -1});
    if (!sampling.ignore_eos) {
      for (int32_t id : end_tokens) bans.push_back({id, -1});
    }
  }
  return bans;
}

}  // namespace

bool LeavesNothingToDraw(const Sequence& sequence, const std::vector<int32_t>& end_tokens) {
  const std::vector<int32_t>& allowed = sequence.request.sampling.allowed_token_ids;
  if (allowed.empty()) return false;
  FD_CHECK(!sequence.tokens.empty(), "a sequence without a prompt");
  const auto bans = BansAt(sequence, static_cast<int64_t>(sequence.tokens.size()), end_tokens);
  return std::all_of(allowed.begin(), allowed.end(), [&](int32_t id) {
    return std::any_of(bans.begin(), bans.end(), [&](const TokenBan& ban) {
      return ban.token_id == id && (ban.after < 0 || ban.after == sequence.tokens.back());
    });
  });
}

std::optional<SequenceControls> PlanControls(Sequence& sequence, int64_t begin, int64_t end, bool samples,
                                             const std::vector<int32_t>& end_tokens) {
  const SamplingParams& sampling = sequence.request.sampling;
  SequenceControls controls;
  if (sequence.seen_slot >= 0) {
    controls.seen_slot = sequence.seen_slot;
    controls.reset_seen = sequence.seen_tokens == 0;
    if (const int64_t seen = sequence.seen_tokens; seen < begin) {
      controls.found_ids.assign(sequence.tokens.begin() + seen, sequence.tokens.begin() + begin);
      controls.found_prompt = std::clamp<int64_t>(sequence.prompt_tokens - seen, 0, begin - seen);
      sequence.seen_tokens = begin;
    }
    const int64_t from = std::min(sequence.seen_tokens, end);
    controls.enter_begin = from - begin;
    controls.enter_prompt = std::clamp<int64_t>(sequence.prompt_tokens - from, 0, end - from);
    // The token drawn now is counted where it goes in: a forced one may stand there instead.
    sequence.seen_tokens = std::max(sequence.seen_tokens, end);
  }
  if (samples) {
    controls.repetition_penalty = sampling.repetition_penalty;
    controls.presence_penalty = sampling.presence_penalty;
    controls.frequency_penalty = sampling.frequency_penalty;
    controls.biases = sampling.logit_bias;
    controls.bans = BansAt(sequence, end, end_tokens);
    controls.allowed = sampling.allowed_token_ids;
    controls.top_logprobs = sampling.top_logprobs;
    controls.temp_scaled_logprobs = sampling.temp_scaled_logprobs;
    controls.top_p_normalized_logprobs = sampling.top_p_normalized_logprobs;
  }
  if (!controls.EditsLogits() && controls.top_logprobs < 0) return std::nullopt;
  return controls;
}

void PlanScores(Sequence& sequence, SequenceStep& step) {
  const int32_t top = sequence.request.sampling.prompt_logprobs;
  if (top < 0) return;
  const int64_t begin = step.context_tokens - std::ssize(step.token_ids);
  // Row i of the sequence scores token i + 1.
  const int64_t end = std::min(step.context_tokens + 1, sequence.prompt_tokens);
  const int64_t first = std::max(begin + 1, sequence.scored_tokens);
  if (first >= end) return;
  step.score_begin = first - 1 - begin;
  step.score_ids.assign(sequence.tokens.begin() + first, sequence.tokens.begin() + end);
  step.score_top = top;
  sequence.scored_tokens = end;
}

}  // namespace fd
