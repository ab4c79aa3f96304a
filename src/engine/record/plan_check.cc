#include "engine/record/plan_check.h"

#include <algorithm>
#include <cmath>

#include "base/strings.h"
#include "model/model.h"

namespace fd {
namespace {

// Below an overflow of the products, far above any picture.
constexpr int64_t kMaxGridSide = int64_t{1} << 20;

struct Checker {
  const ModelConfig& config;
  const EngineOptions& options;

  bool Pools() const { return options.pooling != PoolingType::kNone; }
  bool IsToken(int64_t id) const { return id >= 0 && id < config.vocab_size; }
  bool AreTokens(const std::vector<int32_t>& ids) const {
    return std::all_of(ids.begin(), ids.end(), [this](int32_t id) { return IsToken(id); });
  }

  Status Sampling(const SequenceStep& s) const;
  Status Controls(const SequenceStep& s, const SequenceControls& c) const;
  Status Media(const SequenceStep& s) const;
  Status Sequence(const SequenceStep& s, int64_t previous_outputs) const;
  Status Encodes(const StepPlan& plan) const;
};

Status Refusal(const SequenceStep& s, const std::string& what) {
  return InvalidArgument(StrCat("the step of request ", s.request_id, " has ", what));
}

Status Checker::Sampling(const SequenceStep& s) const {
  if (!s.samples || Pools()) return OkStatus();
  const bool ok = std::isfinite(s.temperature) && s.temperature >= 0 && s.top_k >= 0 && s.top_p > 0 &&
                  s.top_p <= 1 && s.min_p >= 0 && s.min_p <= 1;
  if (ok) return OkStatus();
  return Refusal(s, StrCat("temperature ", s.temperature, ", top_k ", s.top_k, ", top_p ", s.top_p,
                           ", min_p ", s.min_p));
}

Status Checker::Controls(const SequenceStep& s, const SequenceControls& c) const {
  const auto n = std::ssize(s.token_ids), found = std::ssize(c.found_ids);
  if (Pools()) return Refusal(s, "sampling controls, but this engine pools");
  if (c.seen_slot < -1 || c.seen_slot >= options.MaxStepSequences())
    return Refusal(s, StrCat("the record of seen tokens ", c.seen_slot));
  if (c.enter_begin < 0 || c.enter_begin > n || c.enter_prompt < 0 || c.enter_prompt > n - c.enter_begin)
    return Refusal(s, StrCat("tokens to enter from ", c.enter_begin, ", ", c.enter_prompt, " of the prompt"));
  if (!AreTokens(c.found_ids) || c.found_prompt < 0 || c.found_prompt > found)
    return Refusal(s, StrCat(found, " found tokens, ", c.found_prompt, " of the prompt"));
  if (found > 0 && (c.seen_slot < 0 || c.enter_begin == n))
    return Refusal(s, "found tokens without a record of seen tokens");
  const bool few = std::ssize(c.biases) <= options.max_logit_bias &&
                   std::ssize(c.bans) <= options.max_banned_tokens &&
                   std::ssize(c.allowed) <= options.max_allowed_token_ids;
  const bool known =  // a ban of an id that is never drawn changes nothing
      AreTokens(c.allowed) && std::is_sorted(c.allowed.begin(), c.allowed.end()) &&
      std::all_of(c.biases.begin(), c.biases.end(), [this](const auto& b) { return IsToken(b.first); }) &&
      std::all_of(c.bans.begin(), c.bans.end(),
                  [](const TokenBan& b) { return b.token_id >= 0 && b.after >= -1; });
  if (!few || !known)
    return Refusal(s, StrCat(c.biases.size(), " biases, ", c.bans.size(), " bans and ", c.allowed.size(),
                             " allowed tokens, too many or of unknown ids"));
  if (c.top_logprobs < -1 || c.top_logprobs > options.max_logprobs)
    return Refusal(s, StrCat("top_logprobs ", c.top_logprobs));
  if ((c.temp_scaled_logprobs || c.top_p_normalized_logprobs) && IsLogits(options.logprobs_mode))
    return Refusal(s, "scaled log-probabilities, but this engine gives logits");
  return OkStatus();
}

// In order and apart, so that they fit the buffer of the step's embeddings.
Status Checker::Media(const SequenceStep& s) const {
  if (!s.media.empty() && (!config.vision || options.EncoderSlabTokens() == 0))
    return Refusal(s, "pictures, but this model takes text only");
  int64_t end = 0;
  for (const MediaSlice& m : s.media) {
    const int64_t slab = options.EncoderSlabTokens();
    const bool rows = m.count > 0 && m.row_begin >= end && m.row_begin < std::ssize(s.token_ids) &&
                      m.count <= std::ssize(s.token_ids) - m.row_begin;
    const bool kept = m.slab_row >= 0 && m.slab_row < slab && m.media_begin >= 0 && m.media_begin < slab &&
                      m.count <= slab - m.slab_row - m.media_begin;
    if (!rows || !kept)
      return Refusal(s, StrCat("a slice of ", m.count, " rows at ", m.row_begin, " from rows ", m.slab_row,
                               " + ", m.media_begin, " of the encoder slab"));
    end = m.row_begin + m.count;
  }
  return OkStatus();
}

Status Checker::Sequence(const SequenceStep& s, int64_t previous_outputs) const {
  const auto n = std::ssize(s.token_ids);
  if (n == 0 || n > options.max_num_batched_tokens || !AreTokens(s.token_ids))
    return Refusal(s, StrCat(n, " tokens, or ids that this model does not know"));
  if (s.last_token_from_row < -1 || s.last_token_from_row >= previous_outputs)
    return Refusal(
        s, StrCat("the token of row ", s.last_token_from_row, "; the step before drew ", previous_outputs));
  if (std::ssize(s.positions) != 3 * n) return Refusal(s, StrCat(s.positions.size(), " positions for ", n));
  if (!s.vision_expert.empty() && std::ssize(s.vision_expert) != n)
    return Refusal(s, StrCat(s.vision_expert.size(), " expert marks for ", n, " tokens"));
  const auto vision = std::count_if(s.vision_expert.begin(), s.vision_expert.end(), [](auto v) { return v; });
  if (std::any_of(s.vision_expert.begin(), s.vision_expert.end(), [](uint8_t v) { return v > 1; }) ||
      (vision > 0 && !config.vision))
    return Refusal(s, "marks of vision experts that this model does not have");
  if (s.context_tokens < n || s.context_tokens > options.max_model_len ||
      std::ssize(s.block_table) != PagesForTokens(s.context_tokens))
    return Refusal(s, StrCat(s.block_table.size(), " pages for a context of ", s.context_tokens, " tokens"));
  for (const int32_t page : s.block_table) {
    if (page < 0 || page >= options.num_kv_pages)
      return Refusal(s, StrCat("page ", page, " of ", options.num_kv_pages));
  }
  const auto scored = std::ssize(s.score_ids);
  if (scored > 0 && (Pools() || s.score_begin < 0 || s.score_begin >= n || scored > n - s.score_begin ||
                     !AreTokens(s.score_ids) || s.score_top < 0 || s.score_top > options.max_logprobs))
    return Refusal(s, StrCat(scored, " scored tokens from ", s.score_begin, ", ", s.score_top, " beside"));
  const bool sums = options.pooling == PoolingType::kMean;
  if (sums && (s.sum_slot < 0 || s.sum_slot >= options.MaxStepSequences()))
    return Refusal(s, StrCat("the running sum ", s.sum_slot));
  FD_RETURN_IF_ERROR(Media(s));
  FD_RETURN_IF_ERROR(Sampling(s));
  return s.controls ? Controls(s, *s.controls) : OkStatus();
}

Status Checker::Encodes(const StepPlan& plan) const {
  if (plan.encodes.empty()) return OkStatus();
  if (!config.vision || options.max_media_tokens == 0)
    return InvalidArgument("the step encodes pictures, but this model takes text only");
  const int64_t row_bytes =
      config.vision->in_channels * config.vision->patch_size * config.vision->patch_size;
  int64_t patches = 0;
  std::vector<std::pair<int64_t, int64_t>> rows;
  for (const MediaEncode& e : plan.encodes) {
    if (e.item == nullptr) return InvalidArgument("the step encodes a picture that is not there");
    const MediaItem& item = *e.item;
    const auto refusal = [&item](const std::string& what) {
      return InvalidArgument(StrCat("the step encodes a picture of ", item.grid_t, " x ", item.grid_h, " x ",
                                    item.grid_w, " patches ", what));
    };
    for (const int64_t side : {item.grid_t, item.grid_h, item.grid_w}) {
      if (side < 1 || side > kMaxGridSide) return refusal("");
    }
    if (item.grid_h % 2 != 0 || item.grid_w % 2 != 0 || (item.grid_t != 1 && item.grid_t % 2 != 0))
      return refusal("that do not pair");
    const int64_t item_patches = int64_t{item.grid_t} * item.grid_h * item.grid_w;
    const int64_t frame = int64_t{item.grid_h} * item.grid_w;
    if (std::ssize(item.patch_rows) % row_bytes != 0 ||
        std::ssize(item.patch_rows) / row_bytes != item_patches)
      return refusal(StrCat("with ", item.patch_rows.size(), " bytes of pixels"));
    EncodeBatch batch;
    batch.grids = {{item.grid_t, item.grid_h, item.grid_w}};
    if (item.num_tokens != batch.OutputTokens() || frame > 4 * options.max_media_tokens)
      return refusal(StrCat("as ", item.num_tokens, " tokens"));
    if (e.slab_row < 0 || e.slab_row > options.EncoderSlabTokens() - item.num_tokens)
      return refusal(StrCat("into row ", e.slab_row, " of ", options.EncoderSlabTokens()));
    patches += item_patches;
    if (patches > options.MaxEncodePatches())
      return refusal(StrCat("behind others; ", options.MaxEncodePatches(), " patches fit a step"));
    rows.emplace_back(e.slab_row, e.slab_row + item.num_tokens);
  }
  std::sort(rows.begin(), rows.end());
  for (size_t i = 1; i < rows.size(); ++i) {
    if (rows[i].first < rows[i - 1].second)
      return InvalidArgument(StrCat("the step encodes two pictures into row ", rows[i].first));
  }
  return OkStatus();
}

}  // namespace

Status CheckPlan(const StepPlan& plan, int64_t previous_outputs, const ModelConfig& config,
                 const EngineOptions& options) {
  const Checker checker{config, options};
  const auto sequences = std::ssize(plan.sequences);
  if (sequences == 0 || sequences > options.MaxStepSequences())
    return InvalidArgument(StrCat("a step of ", sequences, " sequences; from 1 to ",
                                  options.MaxStepSequences(), " can be in one"));
  int64_t tokens = 0, outputs = 0, found = 0;
  for (const SequenceStep& s : plan.sequences) {
    FD_RETURN_IF_ERROR(checker.Sequence(s, previous_outputs));
    tokens += std::ssize(s.token_ids);
    outputs += s.samples ? 1 : 0;
    if (s.controls) found += std::ssize(s.controls->found_ids);
  }
  if (tokens != plan.num_tokens || tokens > options.max_num_batched_tokens || outputs != plan.num_outputs ||
      plan.num_decodes < 0 || plan.num_decodes > sequences || found > options.max_model_len)
    return InvalidArgument(StrCat("a step of ", plan.num_tokens, " tokens, ", plan.num_outputs,
                                  " outputs and ", plan.num_decodes, " decodes; its sequences have ", tokens,
                                  " tokens, ", found, " found ones and ", outputs, " outputs"));
  for (const PageMove& move : plan.page_moves) {
    for (const PagePlace& place : {move.from, move.to}) {
      const int64_t pages = place.on_host ? options.num_host_pages : options.num_kv_pages;
      if (place.page < 0 || place.page >= pages)
        return InvalidArgument(StrCat("the step moves page ", place.page, " of ", pages,
                                      place.on_host ? " on the host" : " on the device"));
    }
    if (move.from.on_host && move.to.on_host)
      return InvalidArgument(StrCat("the step moves page ", move.from.page, " within the host"));
  }
  return checker.Encodes(plan);
}

}  // namespace fd
