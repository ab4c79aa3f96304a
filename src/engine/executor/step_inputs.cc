#include "engine/executor/step_inputs.h"

#include <algorithm>

#include "base/check.h"
#include "compute/ops/rows.h"

namespace fd {
namespace {

static_assert(kKvPageTokens == ops::kPageTokens, "scheduler and attention count in the same pages");

constexpr int64_t kAlignWords = 16;  // 64 bytes: every section starts as an allocation of its own would
constexpr int64_t kSections = 20;

int64_t Words(const EngineOptions& o) {
  const int64_t tokens = o.max_num_batched_tokens, seqs = o.MaxStepSequences();
  const int64_t by_token = 8;      // id, 3 positions, slot, media row, text row, vision row
  const int64_t by_sequence = 12;  // offset, context, logits row, 4 sampling words, 2 double words
  return by_token * tokens + by_sequence * (seqs + 1) + seqs * PagesForTokens(o.max_model_len) +
         kSections * kAlignWords;
}

}  // namespace

StepInputs::StepInputs(Device device, const EngineOptions& options)
    : host_(DType::kInt32, Device{}, {Words(options)}), device_(DType::kInt32, device, {Words(options)}) {}

int64_t StepInputs::Bytes(const EngineOptions& options) {
  return 2 * Words(options) * DTypeBytes(DType::kInt32);
}

// The next part of both buffers: *host to be filled, the view to be read on the device after the upload.
template <typename T>
TensorView StepInputs::Section(DType dtype, Shape shape, T** host) {
  FD_CHECK_EQ(static_cast<int64_t>(sizeof(T)), DTypeBytes(dtype));
  const int64_t words = (shape.NumElements() * DTypeBytes(dtype) / 4 + kAlignWords - 1) / kAlignWords;
  const int64_t begin = used_words_;
  used_words_ += words * kAlignWords;
  FD_CHECK_LE(used_words_, host_.view().dim(0), "a step larger than the options allow");
  *host = reinterpret_cast<T*>(host_.view().As<int32_t>() + begin);
  return TensorView(device_.view().As<int32_t>() + begin, dtype, device_.view().device, shape);
}

void StepInputs::Upload(const ops::Context& ctx, const StepPlan& plan) {
  const int64_t seqs = static_cast<int64_t>(plan.sequences.size()), tokens = plan.num_tokens;
  int64_t max_pages = 0, max_query = 0, max_context = 0, media_count = 0, vision_count = 0;
  num_outputs_ = 0;
  for (const SequenceStep& s : plan.sequences) {
    max_pages = std::max(max_pages, static_cast<int64_t>(s.block_table.size()));
    max_query = std::max(max_query, static_cast<int64_t>(s.token_ids.size()));
    max_context = std::max(max_context, s.context_tokens);
    for (const MediaSlice& slice : s.media) media_count += slice.count;
    vision_count +=
        std::count_if(s.vision_expert.begin(), s.vision_expert.end(), [](uint8_t v) { return v; });
    num_outputs_ += s.samples;
  }
  const int64_t text_count = vision_count == 0 ? 0 : tokens - vision_count;  // both empty: all text

  used_words_ = 0;
  int32_t *token_ids, *positions, *slots, *offsets, *context, *tables, *logits_rows, *media_rows, *text_rows,
      *vision_rows, *top_k;
  float *temperature, *top_p, *min_p;
  int64_t *seed, *sample_position;
  const DType i32 = DType::kInt32, i64 = DType::kInt64, f32 = DType::kFloat32;
  batch_ = ForwardBatch{};
  batch_.num_tokens = tokens;
  batch_.token_ids = Section(i32, {tokens}, &token_ids);
  batch_.positions = Section(i32, {3, tokens}, &positions);
  batch_.attention.slots = Section(i32, {tokens}, &slots);
  batch_.attention.query_offsets = Section(i32, {seqs + 1}, &offsets);
  batch_.attention.context_tokens = Section(i32, {seqs}, &context);
  batch_.attention.block_tables = Section(i32, {seqs, max_pages}, &tables);
  batch_.attention.max_query_tokens = max_query;
  batch_.attention.max_context_tokens = max_context;
  batch_.logits_rows = Section(i32, {num_outputs_}, &logits_rows);
  batch_.media_rows = Section(i32, {media_count}, &media_rows);
  batch_.text_rows = Section(i32, {text_count}, &text_rows);
  batch_.vision_rows = Section(i32, {vision_count}, &vision_rows);
  sample_params_.temperature = Section(f32, {num_outputs_}, &temperature);
  sample_params_.top_k = Section(i32, {num_outputs_}, &top_k);
  sample_params_.top_p = Section(f32, {num_outputs_}, &top_p);
  sample_params_.min_p = Section(f32, {num_outputs_}, &min_p);
  sample_params_.seed = Section(i64, {num_outputs_}, &seed);
  sample_params_.position = Section(i64, {num_outputs_}, &sample_position);

  int64_t row = 0;
  for (int64_t i = 0; i < seqs; ++i) {
    const SequenceStep& s = plan.sequences[i];
    const int64_t n = static_cast<int64_t>(s.token_ids.size());
    FD_CHECK_LE(row + n, tokens, "num_tokens is not the sum of the chunks");
    offsets[i] = static_cast<int32_t>(row);
    context[i] = static_cast<int32_t>(s.context_tokens);
    std::copy(s.token_ids.begin(), s.token_ids.end(), token_ids + row);
    for (int axis = 0; axis < 3; ++axis) {
      std::copy_n(s.positions.begin() + axis * n, n, positions + axis * tokens + row);
    }
    std::copy(s.block_table.begin(), s.block_table.end(), tables + i * max_pages);
    std::fill(tables + i * max_pages + s.block_table.size(), tables + (i + 1) * max_pages, 0);
    for (int64_t k = 0; k < n; ++k) {
      const int64_t index = s.context_tokens - n + k;
      slots[row + k] =
          static_cast<int32_t>(s.block_table[index / kKvPageTokens] * kKvPageTokens + index % kKvPageTokens);
    }
    for (const MediaSlice& slice : s.media) {
      for (int64_t k = 0; k < slice.count; ++k) {
        *media_rows++ = static_cast<int32_t>(row + slice.row_begin + k);
      }
    }
    if (vision_count > 0) {
      for (int64_t k = 0; k < n; ++k) {
        const bool vision = !s.vision_expert.empty() && s.vision_expert[k] != 0;
        *(vision ? vision_rows : text_rows)++ = static_cast<int32_t>(row + k);
      }
    }
    row += n;
    if (s.samples) {
      *logits_rows++ = static_cast<int32_t>(row - 1);
      *temperature++ = s.temperature;
      *top_k++ = s.top_k;
      *top_p++ = s.top_p;
      *min_p++ = s.min_p;
      *seed++ = static_cast<int64_t>(s.seed);
      *sample_position++ = s.sample_position;
    }
  }
  FD_CHECK_EQ(row, tokens, "num_tokens is not the sum of the chunks");
  offsets[seqs] = static_cast<int32_t>(row);
  ops::Copy(ctx, device_.view().Rows(0, used_words_), host_.view().Rows(0, used_words_));
}

}  // namespace fd
