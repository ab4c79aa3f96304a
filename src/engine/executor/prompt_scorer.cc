#include "engine/executor/prompt_scorer.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "base/check.h"
#include "compute/ops/rows.h"
#include "compute/ops/sample.h"
#include "compute/ops/upload.h"

namespace fd {
namespace {

float FloatOf(int32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

TensorView AsFloats(TensorView view) {
  view.dtype = DType::kFloat32;
  return view;
}

}  // namespace

PromptScorer::PromptScorer(const ops::Context& ctx, const EngineOptions& options, int slots,
                           int64_t valid_vocab)
    : max_tokens_(options.max_num_batched_tokens),
      max_top_(options.max_logprobs),
      valid_vocab_(valid_vocab),
      as_logits_(IsLogits(options.logprobs_mode)),
      slots_(static_cast<size_t>(slots)) {
  inputs_ = ops::NewTensor(ctx, DType::kInt32, {3 * max_tokens_});
  results_ = ops::NewTensor(ctx, DType::kInt32, {2 * max_tokens_});
  if (max_top_ > 0) tops_ = ops::NewTensor(ctx, DType::kInt32, {2 * max_tokens_, max_top_});
  for (Slot& slot : slots_) {
    slot.inputs = Tensor::Staging(ctx.device, DType::kInt32, {3 * max_tokens_});
    slot.results = Tensor::Staging(ctx.device, DType::kInt32, {2 * max_tokens_});
    if (max_top_ > 0) slot.tops = Tensor::Staging(ctx.device, DType::kInt32, {2 * max_tokens_, max_top_});
  }
}

int64_t PromptScorer::DeviceBytes(const EngineOptions& options) {
  const int64_t tokens = options.max_num_batched_tokens;
  int64_t bytes = Arena::PaddedBytes(3 * tokens * 4) + Arena::PaddedBytes(2 * tokens * 4);
  if (options.max_logprobs > 0) bytes += Arena::PaddedBytes(2 * tokens * options.max_logprobs * 4);
  return bytes;
}

void PromptScorer::Upload(const ops::Context& ctx, const StepPlan& plan, int slot_index,
                          ForwardBatch& batch) {
  Slot& slot = slots_.at(static_cast<size_t>(slot_index));
  slot.sequences.clear();
  scored_ = 0;
  wants_top_ = false;
  for (const SequenceStep& s : plan.sequences) scored_ += std::ssize(s.score_ids);
  if (scored_ == 0) return;
  FD_CHECK_LE(scored_, max_tokens_, "more scored rows than a step has tokens");
  // Behind each other without gaps, so that one transfer takes them all.
  int32_t* rows = slot.inputs.view().As<int32_t>();
  int32_t* ids = rows + scored_;
  int32_t* tops = ids + scored_;
  int64_t row = 0, at = 0;
  for (const SequenceStep& s : plan.sequences) {
    for (size_t i = 0; i < s.score_ids.size(); ++i, ++at) {
      rows[at] = static_cast<int32_t>(row + s.score_begin + static_cast<int64_t>(i));
      ids[at] = s.score_ids[i];
      tops[at] = s.score_top;
    }
    if (!s.score_ids.empty()) slot.sequences.push_back({s.request_id, s.score_ids, s.score_top});
    wants_top_ |= !s.score_ids.empty() && s.score_top > 0;
    row += std::ssize(s.token_ids);
  }
  ops::CopyStaged(ctx, inputs_.view().Rows(0, 3 * scored_), slot.inputs);
  batch.scored_rows = inputs_.view().Rows(0, scored_);
  batch.on_scored = [this, &ctx](int64_t begin, const TensorView& logits) { Score(ctx, begin, logits); };
}

void PromptScorer::Score(const ops::Context& ctx, int64_t begin, const TensorView& logits) {
  const int64_t count = logits.dim(0);
  const TensorView ids = inputs_.view().Rows(scored_ + begin, count);
  const TensorView scores = AsFloats(results_.view().Rows(begin, count));
  if (!as_logits_) ops::TokenLogprobs(ctx, scores, logits, ids, valid_vocab_);
  ops::TokenRanks(ctx, results_.view().Rows(max_tokens_ + begin, count), logits, ids, valid_vocab_);
  ops::TokenScores listed;
  if (wants_top_) {
    const TensorView wanted = inputs_.view().Rows(2 * scored_ + begin, count);
    listed = {tops_.view().Rows(begin, count), AsFloats(tops_.view().Rows(max_tokens_ + begin, count))};
    ops::TopLogprobs(ctx, listed.token_ids, listed.scores, logits, wanted, valid_vocab_);
  }
  if (!as_logits_) return;
  ops::ScoreTokens(ctx, {ids.Reshape({count, 1}), scores.Reshape({count, 1})}, listed, logits,
                   {.as_logits = true}, valid_vocab_);
}

void PromptScorer::Download(const ops::Context& ctx, int slot_index) {
  if (scored_ == 0) return;
  Slot& slot = slots_.at(static_cast<size_t>(slot_index));
  for (const int64_t begin : {int64_t{0}, max_tokens_}) {
    ops::Copy(ctx, slot.results.view().Rows(begin, scored_), results_.view().Rows(begin, scored_));
    if (wants_top_) ops::Copy(ctx, slot.tops.view().Rows(begin, scored_), tops_.view().Rows(begin, scored_));
  }
}

std::vector<StepResult::Scores> PromptScorer::Take(int slot_index) {
  Slot& slot = slots_.at(static_cast<size_t>(slot_index));
  std::vector<StepResult::Scores> all;
  const int32_t* logprobs = slot.results.view().As<int32_t>();
  const int32_t* ranks = logprobs + max_tokens_;
  int64_t at = 0;
  for (const Slot::Sequence& sequence : std::exchange(slot.sequences, {})) {
    StepResult::Scores scores{sequence.request_id, {}};
    for (const int32_t id : sequence.ids) {
      PromptLogprob p{id, FloatOf(logprobs[at]), ranks[at], {}};
      if (id >= valid_vocab_) {
        p.logprob = -std::numeric_limits<float>::infinity();
        p.rank = static_cast<int32_t>(valid_vocab_) + 1;
      }
      for (int32_t k = 0; k < sequence.top; ++k) {
        const int32_t* top = slot.tops.view().As<int32_t>() + at * max_top_ + k;
        if (*top < 0) break;
        p.top.push_back({*top, FloatOf(top[max_tokens_ * max_top_])});
      }
      scores.prompt_logprobs.push_back(std::move(p));
      ++at;
    }
    all.push_back(std::move(scores));
  }
  return all;
}

}  // namespace fd
