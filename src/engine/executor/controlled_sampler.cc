#include "engine/executor/controlled_sampler.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "compute/ops/rows.h"
#include "compute/ops/upload.h"

namespace fd {
namespace {

constexpr int64_t kAlignWords = 16;
constexpr int64_t kSections = 17;

int64_t Words(const EngineOptions& o) {
  const int64_t by_sequence = 12;  // 2 slots, 3 penalties, 3 offsets, how many likeliest, 3 of scores
  return (by_sequence + 2 * o.max_logit_bias + 2 * o.max_banned_tokens + o.max_allowed_token_ids) *
             (o.MaxStepSequences() + 1) +
         kSections * kAlignWords;
}

bool NormalizesInTopP(const StepPlan& plan) {
  return std::any_of(plan.sequences.begin(), plan.sequences.end(), [](const SequenceStep& s) {
    return s.samples && s.controls && s.controls->top_p_normalized_logprobs && s.top_p < 1;
  });
}

// The first rows of both halves of ControlledSampler::top_results.
struct TopViews {
  TensorView ids, logprobs;  // [outputs, max_logprobs]
};
TopViews TopOfStep(const Tensor& top_results, int64_t outputs) {
  const int64_t seqs = top_results.view().dim(1);
  const TensorView all = top_results.view().Reshape({2 * seqs, top_results.view().dim(2)});
  TopViews top{all.Rows(0, outputs), all.Rows(seqs, outputs)};
  top.logprobs.dtype = DType::kFloat32;
  return top;
}

int64_t TopWords(const EngineOptions& o) { return 2 * o.MaxStepSequences() * o.max_logprobs; }

}  // namespace

ControlledSampler::ControlledSampler(const ops::Context& ctx, const ModelConfig& config,
                                     const EngineOptions& options, int slots)
    : max_top_(options.max_logprobs), mode_(options.logprobs_mode) {
  FD_CHECK_LE(max_top_, ops::kMaxTopLogprobs);
  const int64_t seqs = options.MaxStepSequences();
  seen_ = ops::NewTensor(ctx, DType::kInt32, {seqs, config.vocab_size});
  if (max_top_ > 0) top_results_ = ops::NewTensor(ctx, DType::kInt32, {2, seqs, max_top_});
  device_ = ops::NewTensor(ctx, DType::kInt32, {Words(options)});
  found_ = ops::NewTensor(ctx, DType::kInt32, {options.max_model_len});
  for (int i = 0; i < slots; ++i) {
    host_.push_back(Tensor::Staging(ctx.device, DType::kInt32, {Words(options)}));
    host_found_.push_back(Tensor::Staging(ctx.device, DType::kInt32, {options.max_model_len}));
  }
}

int64_t ControlledSampler::DeviceBytes(const ModelConfig& config, const EngineOptions& options) {
  int64_t bytes = Arena::PaddedBytes(options.MaxStepSequences() * config.vocab_size * 4);
  if (options.max_logprobs > 0) bytes += Arena::PaddedBytes(TopWords(options) * 4);
  return bytes + Arena::PaddedBytes(Words(options) * 4) + Arena::PaddedBytes(options.max_model_len * 4);
}

int64_t ControlledSampler::ScratchBytes(const ops::Context& ctx, const ModelConfig& config,
                                        const EngineOptions& options) {
  const int64_t seqs = options.MaxStepSequences();
  return Arena::PaddedBytes(seqs * config.vocab_size * 4) +
         std::max({ops::SampleScratchBytes(ctx, seqs, config.vocab_size),
                   ops::TopLogprobsScratchBytes(ctx, seqs, options.max_logprobs),
                   ops::ScoreTokensScratchBytes(ctx, seqs, config.vocab_size)});
}

Tensor ControlledSampler::HostResults(const ops::Context& ctx, const EngineOptions& options) {
  if (options.max_logprobs == 0) return Tensor();
  return Tensor::Staging(ctx.device, DType::kInt32, {2, options.MaxStepSequences(), options.max_logprobs});
}

bool ControlledSampler::EditsLogits(const StepPlan& plan) {
  return std::any_of(plan.sequences.begin(), plan.sequences.end(), [](const SequenceStep& s) {
    return s.samples && s.controls && s.controls->EditsLogits();
  });
}

bool ControlledSampler::WantsTopLogprobs(const StepPlan& plan) {
  return std::any_of(plan.sequences.begin(), plan.sequences.end(), [](const SequenceStep& s) {
    return s.samples && s.controls && s.controls->top_logprobs > 0;
  });
}

bool ControlledSampler::WantsScores(const SequenceStep& s) const {
  if (!s.samples || !s.controls || s.controls->top_logprobs < 0) return false;
  return mode_ != LogprobsMode::kRawLogprobs || s.controls->temp_scaled_logprobs ||
         s.controls->top_p_normalized_logprobs;
}

bool ControlledSampler::WantsScores(const StepPlan& plan) const {
  return std::any_of(plan.sequences.begin(), plan.sequences.end(),
                     [this](const SequenceStep& s) { return WantsScores(s); });
}

// The usual case, a decode that enters its one token: Sample counts all of a step at once.
bool ControlledSampler::EntersOne(const SequenceStep& s) {
  return s.samples && s.controls && s.controls->seen_slot >= 0 && !s.controls->reset_seen &&
         s.controls->enter_prompt == 0 && s.controls->enter_begin + 1 == std::ssize(s.token_ids);
}

// Behind each other in plan order.
void ControlledSampler::UploadFound(const ops::Context& ctx, const StepPlan& plan, int slot) {
  const Tensor& host = host_found_.at(static_cast<size_t>(slot));
  int64_t count = 0;
  for (const SequenceStep& s : plan.sequences) {
    if (!s.controls) continue;
    FD_CHECK_LE(count + std::ssize(s.controls->found_ids), host.view().dim(0), "too many found tokens");
    std::copy(s.controls->found_ids.begin(), s.controls->found_ids.end(), host.view().As<int32_t>() + count);
    count += std::ssize(s.controls->found_ids);
  }
  if (count > 0) ops::CopyStaged(ctx, found_.view().Rows(0, count), host);
}

void ControlledSampler::Enter(const ops::Context& ctx, const StepPlan& plan, const TensorView& token_ids,
                              int slot) {
  UploadFound(ctx, plan, slot);
  const auto part = [](const TensorView& ids, int64_t begin, int64_t count) {
    return count > 0 ? ids.Rows(begin, count) : TensorView();
  };
  int64_t row = 0, found = 0;
  for (const SequenceStep& s : plan.sequences) {
    const auto n = static_cast<int64_t>(s.token_ids.size());
    if (s.controls && s.controls->seen_slot >= 0 && s.controls->enter_begin < n && !EntersOne(s)) {
      const SequenceControls& c = *s.controls;
      const auto before = std::ssize(c.found_ids);
      if (c.reset_seen || before > 0) {
        const auto reset_or_enter = c.reset_seen ? ops::ResetSeen : ops::EnterSeen;
        reset_or_enter(ctx, seen_, c.seen_slot, part(found_.view(), found, c.found_prompt),
                       part(found_.view(), found + c.found_prompt, before - c.found_prompt));
        found += before;
      }
      const int64_t begin = row + c.enter_begin, outputs = n - c.enter_begin - c.enter_prompt;
      ops::EnterSeen(ctx, seen_, c.seen_slot, part(token_ids, begin, c.enter_prompt),
                     part(token_ids, begin + c.enter_prompt, outputs));
    }
    row += n;
  }
}

template <typename T>
TensorView ControlledSampler::Section(DType dtype, int64_t count, T** host) {
  const int64_t begin = used_words_;
  used_words_ += (count + kAlignWords - 1) / kAlignWords * kAlignWords;
  FD_CHECK_LE(used_words_, device_.view().dim(0), "more controls than the options allow");
  *host = reinterpret_cast<T*>(writing_ + begin);
  return TensorView(device_.view().As<int32_t>() + begin, dtype, device_.view().device, {count});
}

void ControlledSampler::Upload(const ops::Context& ctx, const StepPlan& plan, int slot) {
  const int64_t rows = plan.num_outputs;
  int64_t num_biases = 0, num_bans = 0, num_allowed = 0;
  for (const SequenceStep& s : plan.sequences) {
    if (!s.samples || !s.controls) continue;
    num_biases += std::ssize(s.controls->biases);
    num_bans += std::ssize(s.controls->bans);
    num_allowed += std::ssize(s.controls->allowed);
  }
  writing_ = host_.at(static_cast<size_t>(slot)).view().As<int32_t>();
  used_words_ = 0;
  int32_t *slots, *count_slots, *bias_offsets, *bias_ids, *ban_offsets, *ban_ids, *ban_after, *allow_offsets,
      *allow_ids, *top_k, *wanted = nullptr;
  float *repetition, *presence, *frequency, *bias_values, *temperature = nullptr, *top_p = nullptr;
  const DType i32 = DType::kInt32, f32 = DType::kFloat32;
  penalties_ = {};
  penalties_.slots = Section(i32, rows, &slots);
  count_slots_ = Section(i32, rows, &count_slots);
  penalties_.repetition = Section(f32, rows, &repetition);
  penalties_.presence = Section(f32, rows, &presence);
  penalties_.frequency = Section(f32, rows, &frequency);
  penalties_.bias_offsets = Section(i32, rows + 1, &bias_offsets);
  penalties_.bias_ids = Section(i32, num_biases, &bias_ids);
  penalties_.bias_values = Section(f32, num_biases, &bias_values);
  penalties_.ban_offsets = Section(i32, rows + 1, &ban_offsets);
  penalties_.ban_ids = Section(i32, num_bans, &ban_ids);
  penalties_.ban_after = Section(i32, num_bans, &ban_after);
  penalties_.allow_offsets = Section(i32, rows + 1, &allow_offsets);
  penalties_.allow_ids = Section(i32, num_allowed, &allow_ids);
  top_k_ = Section(i32, rows, &top_k);
  scores_ = {};
  scores_.as_logits = IsLogits(mode_);
  if (WantsScores(plan)) {
    scores_.wanted = Section(i32, rows, &wanted);
    scores_.temperature = Section(f32, rows, &temperature);
  }
  if (wanted != nullptr && NormalizesInTopP(plan)) scores_.top_p = Section(f32, rows, &top_p);
  int64_t row = 0, bias = 0, ban = 0, allow = 0;
  static const SequenceControls kNone;
  for (const SequenceStep& s : plan.sequences) {
    if (!s.samples) continue;
    const SequenceControls& c = s.controls ? *s.controls : kNone;
    slots[row] = c.seen_slot;
    count_slots[row] = EntersOne(s) ? c.seen_slot : -1;
    repetition[row] = c.repetition_penalty;
    presence[row] = c.presence_penalty;
    frequency[row] = c.frequency_penalty;
    top_k[row] = std::max(c.top_logprobs, 0);
    if (wanted != nullptr) {
      const bool scaled = (c.temp_scaled_logprobs || IsProcessed(mode_)) && s.temperature > 0;
      wanted[row] = WantsScores(s) ? 1 : 0;
      temperature[row] = scaled ? s.temperature : 1.0f;
    }
    if (top_p != nullptr) top_p[row] = c.top_p_normalized_logprobs ? s.top_p : 1.0f;
    bias_offsets[row] = static_cast<int32_t>(bias);
    ban_offsets[row] = static_cast<int32_t>(ban);
    allow_offsets[row] = static_cast<int32_t>(allow);
    for (const auto& [id, value] : c.biases) {
      bias_ids[bias] = id;
      bias_values[bias++] = value;
    }
    for (const TokenBan& b : c.bans) {
      ban_ids[ban] = b.token_id;
      ban_after[ban++] = b.after;
    }
    for (int32_t id : c.allowed) allow_ids[allow++] = id;
    ++row;
  }
  FD_CHECK_EQ(row, rows);
  bias_offsets[rows] = static_cast<int32_t>(bias);
  ban_offsets[rows] = static_cast<int32_t>(ban);
  allow_offsets[rows] = static_cast<int32_t>(allow);
  ops::CopyStaged(ctx, device_.view().Rows(0, used_words_), host_[static_cast<size_t>(slot)]);
}

void ControlledSampler::ListTop(const ops::Context& ctx, const StepPlan& plan, const TensorView& logits,
                                int64_t valid_vocab) {
  if (!WantsTopLogprobs(plan)) return;
  const TopViews top = TopOfStep(top_results_, plan.num_outputs);
  ops::TopLogprobs(ctx, top.ids, top.logprobs, logits, top_k_, valid_vocab);
}

// The list stays as it is: neither a temperature nor top-p changes the order.
void ControlledSampler::Score(const ops::Context& ctx, const StepPlan& plan, const Rows& rows,
                              const TensorView& logits, int64_t valid_vocab) {
  const int64_t outputs = plan.num_outputs;
  ops::TokenScores listed;
  if (WantsTopLogprobs(plan)) {
    const TopViews top = TopOfStep(top_results_, outputs);
    listed = {top.ids, top.logprobs};
  }
  ops::ScoreTokens(ctx, {rows.drawn.Reshape({outputs, 1}), rows.logprobs.Reshape({outputs, 1})}, listed,
                   logits, scores_, valid_vocab);
}

void ControlledSampler::Sample(const ops::Context& ctx, const StepPlan& plan, const Rows& rows,
                               int64_t valid_vocab) {
  const bool scores = WantsScores(plan), of_edited = scores && IsProcessed(mode_);
  if (!of_edited) ListTop(ctx, plan, rows.logits, valid_vocab);
  const int64_t mark = ctx.workspace->Mark();
  TensorView reported = rows.logits;
  if (EditsLogits(plan)) {
    if (std::any_of(plan.sequences.begin(), plan.sequences.end(), EntersOne))
      ops::CountTokens(ctx, seen_, count_slots_, rows.token_ids, rows.logits_rows);
    // Raw log-probabilities are those of the raw logits, whoever shares the step.
    if (!of_edited) {
      reported = ctx.workspace->Take(DType::kFloat32, rows.logits.shape);
      ops::Copy(ctx, reported, rows.logits);
    }
    ops::PenaltyParams penalties = penalties_;
    penalties.tokens = rows.token_ids;
    penalties.token_rows = rows.logits_rows;
    ops::ApplyPenalties(ctx, rows.logits, seen_, penalties);
    ops::Sample(ctx, rows.drawn, rows.logprobs, rows.logits, rows.params, valid_vocab);
    if (!of_edited) ops::TokenLogprobs(ctx, rows.logprobs, reported, rows.drawn, valid_vocab);
  }
  if (of_edited) ListTop(ctx, plan, rows.logits, valid_vocab);
  if (scores) Score(ctx, plan, rows, reported, valid_vocab);
  ctx.workspace->Release(mark);
}

std::vector<TokenLogprob> ControlledSampler::TopOf(const Tensor& host_results, int64_t row, int64_t count) {
  const TensorView view = host_results.view();
  const int64_t seqs = view.dim(1), width = view.dim(2);
  const int32_t* ids = view.As<int32_t>() + row * width;
  const int32_t* bits = ids + seqs * width;
  std::vector<TokenLogprob> top;
  for (int64_t i = 0; i < std::min(count, width) && ids[i] >= 0; ++i) {
    float logprob;
    std::memcpy(&logprob, bits + i, sizeof(logprob));
    top.push_back({ids[i], logprob});
  }
  return top;
}

}  // namespace fd
