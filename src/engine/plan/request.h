// What crosses from the server to the engine and back: values that are moved, never shared. No text, no JSON.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/hash.h"
#include "base/status.h"

namespace fd {

using RequestId = uint64_t;

// How long a sequence whose prompt ends inside its reasoning may think: unless end_token_id is among the
// first max_tokens generated tokens, the ones after them are forced_ids, whatever was drawn.
struct ThinkingBudget {
  int64_t max_tokens = 0;           // 0: no budget; the rest is not looked at
  int32_t end_token_id = -1;        // </think>
  std::vector<int32_t> forced_ids;  // not empty: </think>, perhaps with newlines around it
};

struct SamplingParams {
  float temperature = 1.0f;  // 0 = greedy
  int32_t top_k = 0;         // 0 = off
  float top_p = 1.0f;
  float min_p = 0.0f;
  uint64_t seed = 0;
  int64_t max_tokens = 0;  // 0: the prompt is computed and nothing is drawn
  bool ignore_eos = false;
  std::vector<int32_t> stop_token_ids;  // besides the model's end tokens
  // Penalties: of tokens of prompt and output; of what was generated, once and for each time.
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  std::vector<std::pair<int32_t, float>> logit_bias;  // each token once
  // Token sequences that the output may not complete; each has at least one token.
  std::vector<std::vector<int32_t>> bad_words;
  std::vector<int32_t> allowed_token_ids;  // ascending, each once; no other token is drawn. Empty: all are
  int64_t min_tokens = 0;  // no end token and none of stop_token_ids before so many tokens were generated
  // Log-probabilities, under the raw logits (before penalties and temperature) unless
  // EngineOptions::logprobs_mode says otherwise: -1 = nobody reads them, 0 = of the drawn tokens, n = also of
  // the n likeliest at each place.
  int32_t top_logprobs = -1;
  // Of these: after the temperature; within the tokens that top_p leaves, -infinity for the others. Not of
  // the prompt's, and refused where the engine gives logits.
  bool temp_scaled_logprobs = false;
  bool top_p_normalized_logprobs = false;
  // The same for the prompt's tokens but the first, each given those before it.
  int32_t prompt_logprobs = -1;
  ThinkingBudget thinking;

  bool HasPenalties() const {
    return repetition_penalty != 1.0f || presence_penalty != 0.0f || frequency_penalty != 0.0f;
  }
};

// A token and its log-probability.
struct TokenLogprob {
  int32_t token_id = -1;
  float logprob = 0.0f;
};

// What the tokens before it made of a token of the prompt.
struct PromptLogprob {
  int32_t token_id = -1;
  float logprob = 0.0f;           // -infinity for an id that is never drawn
  int32_t rank = 0;               // 1: the likeliest; an id that is never drawn comes after all that are
  std::vector<TokenLogprob> top;  // the likeliest, as many as were asked for
};

// Pixels that never change and belong to everyone who holds a copy: the same picture may stand in several
// prompts and in the server's cache without lying in memory twice.
class PixelRows {
 public:
  PixelRows() = default;
  PixelRows(std::vector<uint8_t> bytes)  // NOLINT: implicit, so that rows are assigned as they are made
      : bytes_(std::make_shared<const std::vector<uint8_t>>(std::move(bytes))) {}
  const uint8_t* data() const { return bytes_ == nullptr ? nullptr : bytes_->data(); }
  size_t size() const { return bytes_ == nullptr ? 0 : bytes_->size(); }
  bool empty() const { return size() == 0; }
  const uint8_t* begin() const { return data(); }
  const uint8_t* end() const { return data() + size(); }
  void assign(size_t count, uint8_t value) { *this = PixelRows(std::vector<uint8_t>(count, value)); }
  bool operator==(const std::vector<uint8_t>& other) const {
    return std::equal(begin(), end(), other.begin(), other.end());
  }

 private:
  std::shared_ptr<const std::vector<uint8_t>> bytes_;
};

// One picture, or one pair of frames of a video, decoded and resized. Immutable, so the engine and the
// executor may share it. The pairs of a video follow each other in a prompt; the encoder knows each alone.
struct MediaItem {
  Hash128 content_hash;                        // of grid and pixels: equal hash, equal encoder output
  int32_t grid_t = 1, grid_h = 0, grid_w = 0;  // in patches
  PixelRows patch_rows;                        // uint8 [grid_t * grid_h * grid_w, 588], 2x2-block order
  int64_t first_token = 0;                     // index in the prompt of its first placeholder
  int64_t num_tokens = 0;                      // consecutive placeholders

  // The work of encoding it, in tokens of a picture: a video's cost two of them each, since frames are joined
  // in pairs.
  int64_t EncodeTokens() const { return int64_t{grid_t} * grid_h * grid_w / 4; }
};

enum class FinishReason : uint8_t { kStop, kLength, kAborted, kError };

// Sent from the engine thread. The callee must not block: it posts to its own thread.
struct TokenEvent {
  RequestId request_id = 0;
  std::vector<int32_t>
      token_ids;  // new since the last event; an end token that stopped the sequence is included
  std::vector<float> logprobs;                          // as many; natural log, see top_logprobs
  std::vector<std::vector<TokenLogprob>> top_logprobs;  // as many where top_logprobs > 0, likeliest first
  // Of the next prompt tokens, in order, from the second one on; where SamplingParams::prompt_logprobs asks
  // for them, all come before the first of token_ids, as many in an event as a step computed.
  std::vector<PromptLogprob> prompt_logprobs;
  // [hidden], in the only event of an engine with EngineOptions::pooling: not normalised. No token_ids then.
  std::vector<float> embedding;
  std::optional<FinishReason> finish_reason;  // set in the last event, and only there
  bool stopped_by_end_token = false;          // the last id is an end or stop token: not part of the text
  Status error;                               // with kError
  int64_t cached_tokens = 0;                  // prompt tokens taken from a cache
  int64_t cached_host_tokens = 0;             // of them, those whose pages lay on the host
  Clock::time_point scheduled_at{};           // first time in a step
};
using TokenSink = std::function<void(TokenEvent&&)>;

struct GenerateRequest {
  RequestId id = 0;                // given by Engine::Submit's caller; unique
  std::vector<int32_t> token_ids;  // the prompt, placeholders expanded
  std::vector<int32_t>
      positions;               // [3, prompt tokens] (t row, h row, w row), or empty: 0, 1, 2, ... on all axes
  int64_t position_delta = 0;  // position of generated index n is n + position_delta on all axes
  std::vector<uint8_t> vision_expert;  // [prompt tokens]: 1 = vision experts; empty = all text
  std::vector<std::shared_ptr<const MediaItem>> media;  // by first_token ascending
  // Requests of different salts share no pages of the prefix cache.
  std::string cache_salt;
  SamplingParams sampling;  // not looked at by an engine that pools
  int64_t priority = 0;     // lower ones leave the queue earlier; first come first served among equal ones
  TokenSink sink;
  Clock::time_point arrived_at = Clock::now();
  // The whole request must have ended by then; else kDeadlineExceeded. timeout_s: for that message.
  Clock::time_point deadline = Clock::time_point::max();
  double timeout_s = 0;
  Clock::time_point submitted_at{};  // set by Engine::Submit
};

}  // namespace fd
