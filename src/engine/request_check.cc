#include "engine/request_check.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

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
  FD_RETURN_IF_ERROR(CheckThinking(request.sampling.thinking, config.vocab_size));
  return CheckSampling(request.sampling);
}

}  // namespace fd
