#include "engine/request_check.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <unordered_set>
#include <utility>

#include "base/strings.h"
#include "engine/scheduler/scheduler.h"
#include "model/model.h"

namespace fd {
namespace {

// Positions are int32 on the device; index + delta must stay inside with room to spare.
constexpr int64_t kMaxPositionDelta = int64_t{1} << 30;
// A side of a grid in patches: far above any picture, far below an overflow of the products.
constexpr int64_t kMaxGridSide = int64_t{1} << 20;

Status CheckSampling(const SamplingParams& p) {
  if (!std::isfinite(p.temperature) || p.temperature < 0.0f) {
    return InvalidArgument(
        StrCat("temperature is ", p.temperature, "; it must be 0 or more, for example 0.7"), "temperature");
  }
  if (!(p.top_p > 0.0f && p.top_p <= 1.0f)) {
    return InvalidArgument(
        StrCat("top_p is ", p.top_p, "; it must be above 0 and at most 1, for example 0.9"), "top_p");
  }
  if (!(p.min_p >= 0.0f && p.min_p <= 1.0f)) {
    return InvalidArgument(StrCat("min_p is ", p.min_p, "; it must be from 0 to 1, for example 0.05"),
                           "min_p");
  }
  if (p.top_k < 0) {
    return InvalidArgument(StrCat("top_k is ", p.top_k, "; it must be 0 (off) or more, for example 40"),
                           "top_k");
  }
  return OkStatus();
}

Status CheckPenalties(const SamplingParams& p) {
  if (!std::isfinite(p.repetition_penalty) || p.repetition_penalty <= 0.0f) {
    return InvalidArgument(StrCat("repetition_penalty is ", p.repetition_penalty,
                                  "; it must be above 0, for example 1.1 (1: off)"),
                           "repetition_penalty");
  }
  for (const auto& [name, value] : {std::pair{"presence_penalty", p.presence_penalty},
                                    std::pair{"frequency_penalty", p.frequency_penalty}}) {
    if (!(value >= -2.0f && value <= 2.0f)) {
      return InvalidArgument(StrCat(name, " is ", value, "; it must be from -2 to 2, for example 0.5"), name);
    }
  }
  return OkStatus();
}

// Each token id in [0, vocab_size).
Status CheckId(int32_t id, const char* param, int64_t vocab_size) {
  if (id >= 0 && id < vocab_size) return OkStatus();
  return InvalidArgument(
      StrCat(param, " has the token id ", id, "; ids of this model run from 0 to ", vocab_size - 1), param);
}

// Whether this token ends the request's sequence.
bool Ends(int32_t id, const SamplingParams& p, const ModelConfig& config) {
  const auto contains = [id](const std::vector<int32_t>& ids) {
    return std::find(ids.begin(), ids.end(), id) != ids.end();
  };
  return contains(p.stop_token_ids) || (!p.ignore_eos && contains(config.eos_token_ids));
}

// Ids in range and ascending, no more than allowed, and one of them at least that may stand first.
Status CheckAllowed(const SamplingParams& p, const ModelConfig& config, const EngineOptions& options) {
  constexpr const char* kField = "allowed_token_ids";
  const std::vector<int32_t>& ids = p.allowed_token_ids;
  if (ids.empty()) return OkStatus();
  if (std::ssize(ids) > options.max_allowed_token_ids) {
    return InvalidArgument(StrCat(kField, " has ", ids.size(), " ids; at most ",
                                  options.max_allowed_token_ids, " may be given (--max-allowed-token-ids)"),
                           kField);
  }
  const int64_t drawable = options.sampled_vocab_size > 0
                               ? std::min(options.sampled_vocab_size, config.vocab_size)
                               : config.vocab_size;
  bool any = false;
  for (size_t i = 0; i < ids.size(); ++i) {
    FD_RETURN_IF_ERROR(CheckId(ids[i], kField, drawable));
    if (i > 0 && ids[i] <= ids[i - 1])
      return InvalidArgument("allowed_token_ids must ascend, each id once", kField);
    const bool word = std::any_of(p.bad_words.begin(), p.bad_words.end(),
                                  [&](const auto& bad) { return bad.size() == 1 && bad[0] == ids[i]; });
    any |= !word && (p.min_tokens == 0 || !Ends(ids[i], p, config));
  }
  if (any) return OkStatus();
  return InvalidArgument(StrCat(kField, ": bad_words and min_tokens forbid all ", ids.size(),
                                " of them, so no token can be drawn: allow another one or forbid less"),
                         kField);
}

Status CheckControls(const SamplingParams& p, const ModelConfig& config, const EngineOptions& options) {
  FD_RETURN_IF_ERROR(CheckPenalties(p));
  if (std::ssize(p.logit_bias) > options.max_logit_bias) {
    return InvalidArgument(StrCat("logit_bias has ", p.logit_bias.size(), " tokens; at most ",
                                  options.max_logit_bias, " are allowed (--max-logit-bias)"),
                           "logit_bias");
  }
  std::unordered_set<int32_t> biased;
  for (const auto& [id, bias] : p.logit_bias) {
    FD_RETURN_IF_ERROR(CheckId(id, "logit_bias", config.vocab_size));
    if (!(bias >= -100.0f && bias <= 100.0f)) {
      return InvalidArgument(
          StrCat("logit_bias of token ", id, " is ", bias, "; it must be from -100 to 100"), "logit_bias");
    }
    if (!biased.insert(id).second) {
      return InvalidArgument(StrCat("logit_bias names token ", id, " twice"), "logit_bias");
    }
  }
  int64_t banned = 0;
  for (const std::vector<int32_t>& word : p.bad_words) {
    if (word.empty()) return InvalidArgument("bad_words: a word without tokens", "bad_words");
    for (int32_t id : word) FD_RETURN_IF_ERROR(CheckId(id, "bad_words", config.vocab_size));
    banned += std::ssize(word);
  }
  FD_RETURN_IF_ERROR(CheckAllowed(p, config, options));
  if (p.min_tokens < 0 || p.min_tokens > p.max_tokens) {
    return InvalidArgument(StrCat("min_tokens is ", p.min_tokens, " and max_tokens is ", p.max_tokens,
                                  "; min_tokens must be from 0 to max_tokens"),
                           "min_tokens");
  }
  const int64_t ends =
      p.min_tokens == 0 ? 0 : std::ssize(p.stop_token_ids) + std::ssize(config.eos_token_ids);
  if (banned + ends > options.max_banned_tokens) {
    return InvalidArgument(
        StrCat("bad_words have ", banned, " tokens", ends > 0 ? StrCat(" and min_tokens bans ", ends) : "",
               "; at most ", options.max_banned_tokens, " are allowed (--max-banned-tokens)"),
        "bad_words");
  }
  if (p.prompt_logprobs < -1 || p.prompt_logprobs > options.max_logprobs) {
    return InvalidArgument(StrCat("prompt_logprobs is ", p.prompt_logprobs, "; it must be from 0 to ",
                                  options.max_logprobs, " (--max-logprobs)"),
                           "prompt_logprobs");
  }
  for (const auto& [name, asked] : {std::pair{"temp_scaled_logprobs", p.temp_scaled_logprobs},
                                    std::pair{"top_p_normalized_logprobs", p.top_p_normalized_logprobs}}) {
    if (!asked || p.top_logprobs < 0 || !IsLogits(options.logprobs_mode)) continue;
    return InvalidArgument(
        StrCat(name, " is true, but this server gives logits in place of log-probabilities",
               " (--logprobs-mode): leave it out"),
        name);
  }
  if (p.top_logprobs < -1 || p.top_logprobs > options.max_logprobs) {
    return InvalidArgument(StrCat("top_logprobs is ", p.top_logprobs, "; it must be from 0 to ",
                                  options.max_logprobs, " (--max-logprobs)"),
                           "top_logprobs");
  }
  return OkStatus();
}

Status CheckThinking(const ThinkingBudget& budget, int64_t vocab_size) {
  if (budget.max_tokens == 0) return OkStatus();
  if (budget.max_tokens < 0) {
    return InvalidArgument(
        StrCat("reasoning_max_tokens is ", budget.max_tokens, "; it must be at least 1, for example 1024"),
        "reasoning_max_tokens");
  }
  const auto valid = [vocab_size](int32_t id) { return id >= 0 && id < vocab_size; };
  if (budget.forced_ids.empty() || !valid(budget.end_token_id) ||
      !std::all_of(budget.forced_ids.begin(), budget.forced_ids.end(), valid)) {
    return Internal("a thinking budget without the tokens that end the thought");
  }
  return OkStatus();
}

Status CheckMedia(const GenerateRequest& request, const ModelConfig& config, const EngineOptions& options) {
  if (request.media.empty()) return OkStatus();
  if (!config.vision) return InvalidArgument("this model takes text only: send no pictures", "messages");
  const VisionConfig& vision = *config.vision;
  const int64_t row_bytes = vision.in_channels * vision.patch_size * vision.patch_size;
  const int64_t prompt_tokens = static_cast<int64_t>(request.token_ids.size());
  int64_t end = 0;
  for (size_t i = 0; i < request.media.size(); ++i) {
    auto wrong = [i](const std::string& what) {
      return InvalidArgument(StrCat("media item ", i, " of the prompt: ", what), "messages");
    };
    if (request.media[i] == nullptr) return wrong("missing");
    const MediaItem& item = *request.media[i];
    for (int64_t side : {item.grid_t, item.grid_h, item.grid_w}) {
      if (side < 1 || side > kMaxGridSide) return wrong(StrCat("a grid side of ", side, " patches"));
    }
    if (item.grid_h % 2 != 0 || item.grid_w % 2 != 0 || (item.grid_t != 1 && item.grid_t % 2 != 0)) {
      return wrong(StrCat("a grid of ", item.grid_t, " x ", item.grid_h, " x ", item.grid_w,
                          " patches; the sides must be even"));
    }
    const int64_t patches = int64_t{item.grid_t} * item.grid_h * item.grid_w;
    const int64_t bytes = static_cast<int64_t>(item.patch_rows.size());
    if (bytes % row_bytes != 0 || bytes / row_bytes != patches) {
      return wrong(StrCat(bytes, " bytes of pixels; ", patches, " patches of ", row_bytes, " were expected"));
    }
    EncodeBatch batch;
    batch.grids = {{item.grid_t, item.grid_h, item.grid_w}};
    if (item.num_tokens != batch.OutputTokens()) {
      return wrong(
          StrCat(item.num_tokens, " placeholders; its encoder output has ", batch.OutputTokens(), " tokens"));
    }
    if (item.num_tokens > options.EncoderSlabTokens()) {
      return wrong(StrCat(
          item.num_tokens, " tokens, but the encoder cache holds ", options.EncoderSlabTokens(),
          ": send a smaller picture or start the server with --encoder-cache-tokens ", item.num_tokens));
    }
    if (item.first_token < end || item.first_token > prompt_tokens - item.num_tokens) {
      return wrong(StrCat("placeholders from ", item.first_token, " for ", item.num_tokens,
                          " tokens; they must follow each other inside the prompt of ", prompt_tokens));
    }
    end = item.first_token + item.num_tokens;
  }
  return OkStatus();
}

}  // namespace

Status CheckRequest(const GenerateRequest& request, const ModelConfig& config, const EngineOptions& options) {
  const int64_t prompt_tokens = static_cast<int64_t>(request.token_ids.size());
  FD_RETURN_IF_ERROR(CheckFits(prompt_tokens, request.sampling.max_tokens, options));
  for (int64_t i = 0; i < prompt_tokens; ++i) {
    if (request.token_ids[i] < 0 || request.token_ids[i] >= config.vocab_size) {
      return InvalidArgument(StrCat("token ", i, " of the prompt is ", request.token_ids[i],
                                    "; ids of this model run from 0 to ", config.vocab_size - 1),
                             "prompt");
    }
  }
  if (!request.positions.empty() && static_cast<int64_t>(request.positions.size()) != 3 * prompt_tokens) {
    return InvalidArgument(
        StrCat(request.positions.size(), " positions for a prompt of ", prompt_tokens, " tokens; 3 each"));
  }
  if (std::llabs(request.position_delta) > kMaxPositionDelta) {
    return InvalidArgument(StrCat("a position delta of ", request.position_delta));
  }
  if (!request.vision_expert.empty() && static_cast<int64_t>(request.vision_expert.size()) != prompt_tokens) {
    return InvalidArgument(
        StrCat(request.vision_expert.size(), " expert marks for a prompt of ", prompt_tokens, " tokens"));
  }
  FD_RETURN_IF_ERROR(CheckMedia(request, config, options));
  if (options.pooling != PoolingType::kNone) return OkStatus();
  FD_RETURN_IF_ERROR(CheckThinking(request.sampling.thinking, config.vocab_size));
  FD_RETURN_IF_ERROR(CheckSampling(request.sampling));
  return CheckControls(request.sampling, config, options);
}

}  // namespace fd
