// The ops of sample.h that change logits before a token is drawn, and what they remember of sequences.
#include <algorithm>
#include <cmath>
#include <limits>

#include "compute/kernels/cpu/sample.h"
#include "compute/kernels/cuda/sample.h"
#include "compute/ops/row_ranges.h"
#include "compute/ops/sample.h"

namespace fd::ops {
namespace {

constexpr int32_t kInPrompt = std::numeric_limits<int32_t>::min();  // bit 31

void CheckSeen(const TensorView& seen) {
  FD_CHECK(seen.rank() == 2 && seen.dtype == DType::kInt32, "seen is ", seen.shape.ToString(), " of ",
           DTypeName(seen.dtype), ", expected [slots, vocab] of int32");
}

int32_t* SeenRow(const TensorView& seen, int64_t slot) {
  FD_CHECK(slot >= 0 && slot < seen.dim(0), "slot ", slot, " of ", seen.dim(0));
  return reinterpret_cast<int32_t*>(RowAt(seen, slot));
}

// 0 for a view that is not there.
int64_t CheckIds(const TensorView& ids, const char* name) {
  const int64_t count = ids.empty() ? 0 : ids.dim(0);
  if (count > 0) CheckVector(ids, name, DType::kInt32, count);
  return count;
}

cuda::SeenTable DeviceTable(const TensorView& seen) {
  return {seen.As<int32_t>(), seen.row_stride, seen.dim(0), seen.dim(1)};
}

void ApplyBiases(float* logits, int64_t vocab, const PenaltyParams& params, int64_t row) {
  constexpr float kBanned = -std::numeric_limits<float>::infinity();
  const int32_t end = params.bias_offsets.As<int32_t>()[row + 1];
  for (int32_t i = params.bias_offsets.As<int32_t>()[row]; i < end; ++i) {
    const int32_t id = params.bias_ids.As<int32_t>()[i];
    const float bias = params.bias_values.As<float>()[i];
    if (id < 0 || id >= vocab) continue;
    logits[id] = bias == kBanned && !std::isnan(logits[id]) ? kBanned : logits[id] + bias;
  }
}

void ApplyBans(float* logits, int64_t vocab, const PenaltyParams& params, int64_t row) {
  if (params.ban_ids.empty()) return;
  const int32_t last = params.tokens.As<int32_t>()[params.token_rows.As<int32_t>()[row]];
  const int32_t end = params.ban_offsets.As<int32_t>()[row + 1];
  for (int32_t i = params.ban_offsets.As<int32_t>()[row]; i < end; ++i) {
    const int32_t id = params.ban_ids.As<int32_t>()[i], after = params.ban_after.As<int32_t>()[i];
    if (id < 0 || id >= vocab || (after >= 0 && after != last)) continue;
    if (!std::isnan(logits[id])) logits[id] = -std::numeric_limits<float>::infinity();
  }
}

// All but these, which ascend.
void AllowOnly(float* logits, int64_t vocab, const PenaltyParams& params, int64_t row) {
  if (params.allow_ids.empty()) return;
  const int32_t begin = params.allow_offsets.As<int32_t>()[row],
                end = params.allow_offsets.As<int32_t>()[row + 1];
  if (begin == end) return;
  const auto ban = [logits](int64_t from, int64_t to) {
    constexpr float kBanned = -std::numeric_limits<float>::infinity();
    for (int64_t i = from; i < to; ++i) logits[i] = std::isnan(logits[i]) ? logits[i] : kBanned;
  };
  int64_t next = 0;
  for (int32_t i = begin; i < end; ++i) {
    const int64_t id = params.allow_ids.As<int32_t>()[i];
    if (id < next || id >= vocab) continue;
    ban(next, id);
    next = id + 1;
  }
  ban(next, vocab);
}

}  // namespace

void ResetSeen(const Context& ctx, const TensorView& seen, int64_t slot, const TensorView& prompt_ids,
               const TensorView& output_ids) {
  CheckSeen(seen);
  int32_t* row = SeenRow(seen, slot);
  if (OnCuda(ctx)) {
    CheckOnDevice(ctx, {&seen});
    cuda::ClearSeen(DeviceTable(seen), slot, ctx.stream);
  } else {
    std::fill(row, row + seen.dim(1), 0);
  }
  EnterSeen(ctx, seen, slot, prompt_ids, output_ids);
}

void EnterSeen(const Context& ctx, const TensorView& seen, int64_t slot, const TensorView& prompt_ids,
               const TensorView& output_ids) {
  CheckSeen(seen);
  int32_t* row = SeenRow(seen, slot);
  const int64_t prompt_tokens = CheckIds(prompt_ids, "prompt_ids"),
                output_tokens = CheckIds(output_ids, "output_ids");
  if (OnCuda(ctx)) {
    CheckOnDevice(ctx, {&seen, &prompt_ids, &output_ids});
    return cuda::EnterSeen(DeviceTable(seen), slot, prompt_ids.As<int32_t>(), prompt_tokens,
                           output_ids.As<int32_t>(), output_tokens, ctx.stream);
  }
  const int64_t vocab = seen.dim(1);
  for (int64_t i = 0; i < prompt_tokens; ++i) {
    const int32_t id = prompt_ids.As<int32_t>()[i];
    if (id >= 0 && id < vocab) row[id] |= kInPrompt;
  }
  for (int64_t i = 0; i < output_tokens; ++i) {
    const int32_t id = output_ids.As<int32_t>()[i];
    if (id >= 0 && id < vocab) ++row[id];
  }
}

void CountTokens(const Context& ctx, const TensorView& seen, const TensorView& slots,
                 const TensorView& tokens, const TensorView& token_rows) {
  CheckSeen(seen);
  const int64_t rows = slots.NumElements(), vocab = seen.dim(1);
  CheckVector(slots, "slots", DType::kInt32, rows);
  CheckVector(tokens, "tokens", DType::kInt32, tokens.NumElements());
  CheckVector(token_rows, "token_rows", DType::kInt32, rows);
  if (OnCuda(ctx)) {
    CheckOnDevice(ctx, {&seen, &slots, &tokens, &token_rows});
    return cuda::CountTokens(DeviceTable(seen), slots.As<int32_t>(), tokens.As<int32_t>(),
                             token_rows.As<int32_t>(), rows, ctx.stream);
  }
  for (int64_t r = 0; r < rows; ++r) {
    const int32_t slot = slots.As<int32_t>()[r];
    const int32_t id = tokens.As<int32_t>()[token_rows.As<int32_t>()[r]];
    if (slot >= 0 && id >= 0 && id < vocab) ++SeenRow(seen, slot)[id];
  }
}

void ApplyPenalties(const Context& ctx, const TensorView& logits, const TensorView& seen,
                    const PenaltyParams& params) {
  CheckSeen(seen);
  FD_CHECK_EQ(logits.rank(), 2);
  FD_CHECK(logits.dtype == DType::kFloat32, DTypeName(logits.dtype));
  const int64_t rows = logits.dim(0), vocab = seen.dim(1);
  FD_CHECK(vocab <= logits.dim(1), vocab, " tokens, ", logits.dim(1), " columns");
  CheckVector(params.slots, "slots", DType::kInt32, rows);
  CheckVector(params.repetition, "repetition", DType::kFloat32, rows);
  CheckVector(params.presence, "presence", DType::kFloat32, rows);
  CheckVector(params.frequency, "frequency", DType::kFloat32, rows);
  CheckVector(params.bias_offsets, "bias_offsets", DType::kInt32, rows + 1);
  const int64_t entries = params.bias_ids.empty() ? 0 : params.bias_ids.dim(0);
  if (entries > 0) {
    CheckVector(params.bias_ids, "bias_ids", DType::kInt32, entries);
    CheckVector(params.bias_values, "bias_values", DType::kFloat32, entries);
  }
  const int64_t bans = params.ban_ids.empty() ? 0 : params.ban_ids.dim(0);
  if (bans > 0) {
    CheckVector(params.ban_offsets, "ban_offsets", DType::kInt32, rows + 1);
    CheckVector(params.ban_ids, "ban_ids", DType::kInt32, bans);
    CheckVector(params.ban_after, "ban_after", DType::kInt32, bans);
    CheckVector(params.tokens, "tokens", DType::kInt32, params.tokens.NumElements());
    CheckVector(params.token_rows, "token_rows", DType::kInt32, rows);
  }
  const int64_t allowed = params.allow_ids.empty() ? 0 : params.allow_ids.dim(0);
  if (allowed > 0) {
    CheckVector(params.allow_offsets, "allow_offsets", DType::kInt32, rows + 1);
    CheckVector(params.allow_ids, "allow_ids", DType::kInt32, allowed);
  }
  if (OnCuda(ctx)) {
    CheckOnDevice(ctx, {&params.allow_offsets, &params.allow_ids});
    CheckOnDevice(
        ctx, {&params.ban_offsets, &params.ban_ids, &params.ban_after, &params.tokens, &params.token_rows});
    CheckOnDevice(ctx, {&logits, &seen, &params.slots, &params.repetition, &params.presence,
                        &params.frequency, &params.bias_offsets, &params.bias_ids, &params.bias_values});
    cuda::PenaltyArgs args = {};
    args.rows = rows;
    args.logits = logits.As<float>();
    args.logits_stride = logits.row_stride;
    args.seen = DeviceTable(seen);
    args.slots = params.slots.As<int32_t>();
    args.repetition = params.repetition.As<float>();
    args.presence = params.presence.As<float>();
    args.frequency = params.frequency.As<float>();
    args.bias_offsets = params.bias_offsets.As<int32_t>();
    args.bias_ids = params.bias_ids.As<int32_t>();
    args.bias_values = params.bias_values.As<float>();
    if (bans > 0) {
      args.ban_offsets = params.ban_offsets.As<int32_t>();
      args.ban_ids = params.ban_ids.As<int32_t>();
      args.ban_after = params.ban_after.As<int32_t>();
      args.tokens = params.tokens.As<int32_t>();
      args.token_rows = params.token_rows.As<int32_t>();
    }
    if (allowed > 0) {
      args.allow_offsets = params.allow_offsets.As<int32_t>();
      args.allow_ids = params.allow_ids.As<int32_t>();
    }
    return cuda::ApplyPenalties(args, ctx.stream);
  }
  ForRowRanges(ctx, rows, vocab, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      auto* row = reinterpret_cast<float*>(RowAt(logits, r));
      const int32_t slot = params.slots.As<int32_t>()[r];
      const float repetition = params.repetition.As<float>()[r], presence = params.presence.As<float>()[r],
                  frequency = params.frequency.As<float>()[r];
      if (slot >= 0 && (repetition != 1 || presence != 0 || frequency != 0)) {
        cpu::Penalize(row, SeenRow(seen, slot), vocab, repetition, presence, frequency);
      }
      ApplyBiases(row, vocab, params, r);
      ApplyBans(row, vocab, params, r);
      AllowOnly(row, vocab, params, r);
    }
  });
}

}  // namespace fd::ops
