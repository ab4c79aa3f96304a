// The limits an engine works under: one struct for the scheduler, the executor and the memory plan.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "compute/tensor/dtype.h"

namespace fd {

// Tokens of one page of the key/value cache; the attention op works in the same unit (the executor asserts
// that they agree).
inline constexpr int64_t kKvPageTokens = 64;

// Pages of a cache at most: a token's place, page * 64 + offset, is an int32 on the device.
inline constexpr int64_t kMaxKvPages = int64_t{1} << 25;

constexpr int64_t PagesForTokens(int64_t tokens) { return (tokens + kKvPageTokens - 1) / kKvPageTokens; }

// What an engine gives for a prompt: tokens (kNone), or one vector of last hidden states, those after the
// final norm: of the last token, the mean of all, or of the first token.
enum class PoolingType : uint8_t { kNone, kLast, kMean, kCls };

// What stands for how likely a token is. Raw: of the logits as the model gives them; processed: after
// penalties, biases, bans and temperature. Logits come without their softmax. A prompt's tokens, which
// nothing processes, have raw ones.
enum class LogprobsMode : uint8_t { kRawLogprobs, kProcessedLogprobs, kRawLogits, kProcessedLogits };
constexpr bool IsProcessed(LogprobsMode mode) {
  return mode == LogprobsMode::kProcessedLogprobs || mode == LogprobsMode::kProcessedLogits;
}
constexpr bool IsLogits(LogprobsMode mode) {
  return mode == LogprobsMode::kRawLogits || mode == LogprobsMode::kProcessedLogits;
}

struct EngineOptions {
  int64_t max_model_len = 2048;           // prompt and output of a sequence, in tokens
  int64_t max_num_seqs = 8;               // sequences that run at once
  int64_t max_num_batched_tokens = 2048;  // strict, in every step
  // Prompts of which a step leaves a part for later ones, at once; 0: as many as run. And of these, long
  // ones: those of which more is missing than long_prefill_token_threshold and than the step has room for.
  int64_t max_num_partial_prefills = 0;
  int64_t max_long_partial_prefills = 1;
  int64_t long_prefill_token_threshold = 0;  // 0: 4 % of max_model_len
  // Steps get so many tokens of prompts that they take about this long, as far as the engine can tell from
  // those before; never more than max_num_batched_tokens. 0: steps are as large as they may be; below 0: by
  // what a step of one token takes (step_pacer.h).
  double target_step_ms = 0;
  int64_t num_kv_pages = 0;  // of 64 tokens; 1 to kMaxKvPages
  // What pages hold (ops/attention.h): the activation type, kFloat8E4M3 or kInt8. None: the activation type.
  std::optional<DType> kv_dtype;
  bool prefix_caching = true;  // pages of earlier requests are used again
  int64_t num_host_pages = 0;  // of host memory, for cached pages that lose theirs; 0: none
  double page_in_ms = -1;  // what bringing one of them back takes; below 0: measured before the first step
  int64_t max_waiting_requests = 1024;  // beyond max_num_seqs and these Submit refuses
  double max_waiting_s = -1;            // without a first step in this time a request ends; below 0: no limit
  // A step that takes longer than so many seconds never ends: the engine gives up (step_watchdog.h). 0: 20
  // times the longest step so far, but not less than min_step_timeout_s; below 0: never.
  double step_timeout_s = -1;
  double min_step_timeout_s = 60;
  int64_t max_media_tokens = 0;  // encoder output tokens of the largest picture; Submit refuses larger ones
  // Encoder outputs kept for whoever sends the same picture again, in tokens; raised to what steps need.
  // 0: an output is dropped as soon as no sequence is in the middle of it.
  int64_t encoder_cache_tokens = 0;
  // Pictures encoded in one step, in tokens as EncodeTokens counts them; one always goes, however large.
  int64_t max_encoder_batch_tokens = 2048;
  bool overlap = false;      // a step is planned while the one before runs
  bool cuda_graphs = false;  // steps of decodes alone are recorded once and replayed
  // What a request may ask of sampling; the buffers of a step are as large as that for every sequence.
  int64_t max_logit_bias = 1024;     // tokens with a bias
  int64_t max_banned_tokens = 1024;  // tokens of bad words, and with min_tokens end and stop tokens
  int64_t max_allowed_token_ids = 1024;
  int64_t max_logprobs = 20;  // likeliest tokens at each place; at most ops::kMaxTopLogprobs
  // Ids at or above it are never drawn (a model may have more logits than its tokenizer has tokens); 0: all.
  int64_t sampled_vocab_size = 0;
  LogprobsMode logprobs_mode = LogprobsMode::kRawLogprobs;
  // Not kNone: every request is a prompt alone, the model has no head, and sampling does not exist.
  PoolingType pooling = PoolingType::kNone;

  // Prompt and output of the longest sequence that can ever run.
  int64_t MaxSequenceTokens() const { return std::min(max_model_len, num_kv_pages * kKvPageTokens); }
  // Rows of the encoder slab. What steps need: the largest picture, and beside it those of one chunk; with
  // less than the largest picture a prompt could never go on.
  int64_t EncoderSlabTokens() const {
    return max_media_tokens == 0 ? 0
                                 : std::max(encoder_cache_tokens, max_media_tokens + max_num_batched_tokens);
  }
  // Patches of the largest call of the encoder.
  int64_t MaxEncodePatches() const { return 4 * std::max(max_encoder_batch_tokens, max_media_tokens); }
  // Sequences that can be in one step: each has at least one token of it.
  int64_t MaxStepSequences() const { return std::min(max_num_seqs, max_num_batched_tokens); }
  int64_t LongPrefillTokens() const {
    return long_prefill_token_threshold > 0 ? long_prefill_token_threshold : max_model_len / 25;
  }
  // Rows of a step for which the model gives logits, or last hidden states.
  int64_t MaxStepOutputs() const {
    return pooling == PoolingType::kMean ? max_num_batched_tokens : MaxStepSequences();
  }
};

}  // namespace fd
