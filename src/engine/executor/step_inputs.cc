#include "engine/executor/step_inputs.h"

#include <algorithm>

#include "base/check.h"
#include "compute/ops/upload.h"

namespace fd {
namespace {

static_assert(kKvPageTokens == ops::kPageTokens, "scheduler and attention count in the same pages");

constexpr int64_t kAlignWords = 16;  // 64 bytes: every section starts as an allocation of its own would
constexpr int64_t kSections = 25;

int64_t Words(const EngineOptions& o) {
  const int64_t tokens = o.max_num_batched_tokens, seqs = o.MaxStepSequences();
  const int64_t by_token = 9;  // id, source, 3 positions, slot, media row, text row, vision row
  // 2 offsets, context, logits row, 4 sampling words, 2 double words, padding; fewer with pooling
  const int64_t by_sequence = 13;
  const int64_t pooled_rows = o.pooling == PoolingType::kMean ? tokens : 0;
  return by_token * tokens + pooled_rows + by_sequence * (seqs + 1) + seqs * PagesForTokens(o.max_model_len) +
         kSections * kAlignWords;
}

}  // namespace

StepInputs::StepInputs(const ops::Context& ctx, const EngineOptions& options, int slots)
    : device_(ops::NewTensor(ctx, DType::kInt32, {Words(options)})),
      max_model_pages_(PagesForTokens(options.max_model_len)),
      pooling_(options.pooling) {
  for (int i = 0; i < slots; ++i)
    host_.push_back(Tensor::Staging(ctx.device, DType::kInt32, {Words(options)}));
}

int64_t StepInputs::DeviceBytes(const EngineOptions& options) {
  return Arena::PaddedBytes(Words(options) * DTypeBytes(DType::kInt32));
}

// The next part of both buffers: *host to be filled, the view to be read on the device after the upload.
template <typename T>
TensorView StepInputs::Section(DType dtype, Shape shape, T** host) {
  FD_CHECK_EQ(static_cast<int64_t>(sizeof(T)), DTypeBytes(dtype));
  const int64_t words = (shape.NumElements() * DTypeBytes(dtype) / 4 + kAlignWords - 1) / kAlignWords;
  const int64_t begin = used_words_;
  used_words_ += words * kAlignWords;
  FD_CHECK_LE(used_words_, device_.view().dim(0), "a step larger than the options allow");
  *host = reinterpret_cast<T*>(writing_ + begin);
  return TensorView(device_.view().As<int32_t>() + begin, dtype, device_.view().device, shape);
}

void StepInputs::Upload(const ops::Context& ctx, const StepPlan& plan, int slot, int64_t rows) {
  const int64_t planned = static_cast<int64_t>(plan.sequences.size()),
                padding = rows == 0 ? 0 : rows - planned;
  FD_CHECK_GE(padding, 0);
  FD_CHECK(rows == 0 || (plan.num_tokens == planned && plan.num_outputs == planned), "not decodes alone");
  const int64_t seqs = planned + padding, tokens = plan.num_tokens + padding;
  int64_t table_pages = padding, max_query = 0, max_context = 0, media_count = 0, vision_count = 0;
  for (const SequenceStep& s : plan.sequences) {
    table_pages += static_cast<int64_t>(s.block_table.size());
    max_query = std::max(max_query, static_cast<int64_t>(s.token_ids.size()));
    max_context = std::max(max_context, s.context_tokens);
    for (const MediaSlice& slice : s.media) media_count += slice.count;
    vision_count +=
        std::count_if(s.vision_expert.begin(), s.vision_expert.end(), [](uint8_t v) { return v; });
  }
  if (rows > 0) {  // a recorded step must do for every context
    max_query = 1;
    max_context = max_model_pages_ * kKvPageTokens;
  }
  num_outputs_ = plan.num_outputs + padding;
  const bool sums = pooling_ == PoolingType::kMean;
  const int64_t sampling = pooling_ == PoolingType::kNone ? num_outputs_ : 0;
  const int64_t text_count = vision_count == 0 ? 0 : tokens - vision_count;  // both empty: all text

  writing_ = host_.at(static_cast<size_t>(slot)).view().As<int32_t>();
  used_words_ = 0;
  int32_t *token_ids, *sources, *positions, *slots, *offsets, *context, *table_offsets, *tables, *logits_rows,
      *media_rows, *text_rows, *vision_rows, *top_k;
  float *temperature, *top_p, *min_p;
  int64_t *seed, *sample_position;
  int32_t *sum_slots, *fresh, *output_slots;
  const DType i32 = DType::kInt32, i64 = DType::kInt64, f32 = DType::kFloat32;
  batch_ = ForwardBatch{};
  batch_.num_tokens = tokens;
  batch_.token_ids = Section(i32, {tokens}, &token_ids);
  token_sources_ = Section(i32, {tokens}, &sources);
  batch_.positions = Section(i32, {3, tokens}, &positions);
  batch_.attention.slots = Section(i32, {tokens}, &slots);
  batch_.attention.query_offsets = Section(i32, {seqs + 1}, &offsets);
  batch_.attention.context_tokens = Section(i32, {seqs}, &context);
  batch_.attention.table_offsets = Section(i32, {seqs + 1}, &table_offsets);
  batch_.attention.max_query_tokens = max_query;
  batch_.attention.max_context_tokens = max_context;
  batch_.logits_rows = Section(i32, {sums ? tokens : num_outputs_}, &logits_rows);
  batch_.media_rows = Section(i32, {media_count}, &media_rows);
  batch_.text_rows = Section(i32, {text_count}, &text_rows);
  batch_.vision_rows = Section(i32, {vision_count}, &vision_rows);
  sample_params_.temperature = Section(f32, {sampling}, &temperature);
  sample_params_.top_k = Section(i32, {sampling}, &top_k);
  sample_params_.top_p = Section(f32, {sampling}, &top_p);
  sample_params_.min_p = Section(f32, {sampling}, &min_p);
  sample_params_.seed = Section(i64, {sampling}, &seed);
  sample_params_.position = Section(i64, {sampling}, &sample_position);
  sums_.slots = Section(i32, {sums ? seqs : 0}, &sum_slots);
  sums_.fresh = Section(i32, {sums ? seqs : 0}, &fresh);
  sums_.output_slots = Section(i32, {sums ? num_outputs_ : 0}, &output_slots);
  batch_.attention.block_tables =
      Section(i32, {table_pages}, &tables);  // last: its length changes in every step

  int64_t row = 0, page = 0;
  for (int64_t i = 0; i < planned; ++i) {
    const SequenceStep& s = plan.sequences[static_cast<size_t>(i)];
    const int64_t n = static_cast<int64_t>(s.token_ids.size());
    FD_CHECK_LE(row + n, tokens, "num_tokens is not the sum of the chunks");
    offsets[i] = static_cast<int32_t>(row);
    context[i] = static_cast<int32_t>(s.context_tokens);
    std::copy(s.token_ids.begin(), s.token_ids.end(), token_ids + row);
    std::fill_n(sources + row, n, -1);
    sources[row + n - 1] = s.last_token_from_row;
    for (int axis = 0; axis < 3; ++axis) {
      std::copy_n(s.positions.begin() + axis * n, n, positions + axis * tokens + row);
    }
    table_offsets[i] = static_cast<int32_t>(page);
    std::copy(s.block_table.begin(), s.block_table.end(), tables + page);
    page += static_cast<int64_t>(s.block_table.size());
    for (int64_t k = 0; k < n; ++k) {
      const int64_t index = s.context_tokens - n + k;
      slots[row + k] = static_cast<int32_t>(
          s.block_table[static_cast<size_t>(index / kKvPageTokens)] * kKvPageTokens + index % kKvPageTokens);
    }
    for (const MediaSlice& slice : s.media) {
      for (int64_t k = 0; k < slice.count; ++k) {
        *media_rows++ = static_cast<int32_t>(row + slice.row_begin + k);
      }
    }
    if (vision_count > 0) {
      for (int64_t k = 0; k < n; ++k) {
        const bool vision = !s.vision_expert.empty() && s.vision_expert[static_cast<size_t>(k)] != 0;
        *(vision ? vision_rows : text_rows)++ = static_cast<int32_t>(row + k);
      }
    }
    row += n;
    if (sums) {
      for (int64_t k = row - n; k < row; ++k) *logits_rows++ = static_cast<int32_t>(k);
      *sum_slots++ = s.sum_slot;
      *fresh++ = s.context_tokens == n;
      if (s.samples) *output_slots++ = s.sum_slot;
    } else if (s.samples) {
      *logits_rows++ = static_cast<int32_t>(row - 1);
    }
    if (s.samples && sampling > 0) {
      *temperature++ = s.temperature;
      *top_k++ = s.top_k;
      *top_p++ = s.top_p;
      *min_p++ = s.min_p;
      *seed++ = static_cast<int64_t>(s.seed);
      *sample_position++ = s.sample_position;
    }
  }
  for (int64_t i = planned; i < seqs; ++i, ++row) {
    offsets[i] = static_cast<int32_t>(row);
    context[i] = 1;
    token_ids[row] = 0;
    sources[row] = -1;
    for (int axis = 0; axis < 3; ++axis) positions[axis * tokens + row] = 0;
    slots[row] = -1;
    table_offsets[i] = static_cast<int32_t>(page);
    tables[page++] = 0;
    *logits_rows++ = static_cast<int32_t>(row);
    *temperature++ = 0.0f;
    *top_k++ = 0;
    *top_p++ = 1.0f;
    *min_p++ = 0.0f;
    *seed++ = 0;
    *sample_position++ = 0;
  }
  FD_CHECK_EQ(row, tokens, "num_tokens is not the sum of the chunks");
  offsets[seqs] = static_cast<int32_t>(row);
  table_offsets[seqs] = static_cast<int32_t>(page);
  ops::CopyStaged(ctx, device_.view().Rows(0, used_words_), host_[static_cast<size_t>(slot)]);
}

}  // namespace fd
