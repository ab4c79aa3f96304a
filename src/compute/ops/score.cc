// ScoreTokens of sample.h: what is reported of tokens where requests or the server ask for something else
// than the log-probabilities of the logits.
#include <cmath>
#include <limits>

#include "compute/kernels/cpu/sample.h"
#include "compute/kernels/cuda/sample.h"
#include "compute/ops/row_ranges.h"
#include "compute/ops/sample.h"

namespace fd::ops {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kLargest = std::numeric_limits<float>::max();

void CheckTokens(const TokenScores& of, int64_t rows) {
  if (of.token_ids.empty() && of.scores.empty()) return;
  CheckRows(of.token_ids, "token_ids", DType::kInt32, rows, of.token_ids.dim(1));
  CheckRows(of.scores, "scores", DType::kFloat32, rows, of.token_ids.dim(1));
}

void CheckParams(const ScoreParams& params, int64_t rows) {
  if (!params.wanted.empty()) CheckVector(params.wanted, "wanted", DType::kInt32, rows);
  if (!params.temperature.empty()) CheckVector(params.temperature, "temperature", DType::kFloat32, rows);
  if (!params.top_p.empty()) CheckVector(params.top_p, "top_p", DType::kFloat32, rows);
}

cuda::ScoreTokensArgs::Of CudaOf(const TokenScores& of) {
  if (of.token_ids.empty()) return {};
  return {of.token_ids.As<int32_t>(), of.scores.As<float>(), of.token_ids.row_stride, of.scores.row_stride,
          of.token_ids.dim(1)};
}

void ScoreOnCuda(const Context& ctx, const TokenScores& drawn, const TokenScores& listed,
                 const TensorView& logits, const ScoreParams& params, int64_t valid_vocab) {
  CheckOnDevice(ctx, {&logits, &params.wanted, &params.temperature, &params.top_p, &drawn.token_ids,
                      &drawn.scores, &listed.token_ids, &listed.scores});
  FD_CHECK(ctx.workspace != nullptr, "ScoreTokens needs a workspace");
  const int64_t mark = ctx.workspace->Mark();
  cuda::ScoreTokensArgs args = {};
  args.rows = logits.dim(0);
  args.valid_vocab = valid_vocab;
  args.logits = logits.As<float>();
  args.logits_stride = logits.row_stride;
  if (!params.wanted.empty()) args.wanted = params.wanted.As<int32_t>();
  if (!params.temperature.empty()) args.temperature = params.temperature.As<float>();
  if (!params.top_p.empty()) args.top_p = params.top_p.As<float>();
  args.as_logits = params.as_logits;
  args.of[0] = CudaOf(drawn);
  args.of[1] = CudaOf(listed);
  args.scratch = ctx.workspace->Take(DType::kUInt8, {cuda::SampleScratchBytes(args.rows)}).data;
  cuda::ScoreTokens(args, ctx.stream);
  ctx.workspace->Release(mark);
}

// One row: fn(token id) is its score.
template <typename Fn>
void ForTokens(const TokenScores& of, int64_t row, const Fn& fn) {
  if (of.token_ids.empty()) return;
  const auto* ids = reinterpret_cast<const int32_t*>(RowAt(of.token_ids, row));
  auto* scores = reinterpret_cast<float*>(RowAt(of.scores, row));
  for (int64_t i = 0; i < of.token_ids.dim(1); ++i) scores[i] = fn(ids[i]);
}

}  // namespace

void ScoreTokens(const Context& ctx, const TokenScores& drawn, const TokenScores& listed,
                 const TensorView& logits, const ScoreParams& params, int64_t valid_vocab) {
  FD_CHECK_EQ(logits.rank(), 2);
  FD_CHECK(logits.dtype == DType::kFloat32, DTypeName(logits.dtype));
  FD_CHECK(valid_vocab > 0 && valid_vocab <= logits.dim(1), valid_vocab, " of ", logits.dim(1), " columns");
  const int64_t rows = logits.dim(0);
  CheckTokens(drawn, rows);
  CheckTokens(listed, rows);
  CheckParams(params, rows);
  if (OnCuda(ctx)) return ScoreOnCuda(ctx, drawn, listed, logits, params, valid_vocab);
  const bool truncates = !params.top_p.empty() && !params.as_logits;
  FD_CHECK(!truncates || ctx.workspace != nullptr, "ScoreTokens needs a workspace");
  const int64_t mark = truncates ? ctx.workspace->Mark() : 0;
  const TensorView weights =
      truncates ? ctx.workspace->Take(DType::kFloat32, {rows, valid_vocab}) : TensorView();
  ForRowRanges(ctx, rows, kMinForkElements, [&](int64_t begin, int64_t end) {
    const cpu::SampleKernels& kernels = cpu::GetSampleKernels();
    for (int64_t r = begin; r < end; ++r) {
      if (!params.wanted.empty() && params.wanted.As<int32_t>()[r] <= 0) continue;
      const auto* row = reinterpret_cast<const float*>(RowAt(logits, r));
      const float max = kernels.max(row, valid_vocab), largest = std::fmin(max, kLargest);
      const float temperature = params.temperature.empty() ? 1.0f : params.temperature.As<float>()[r];
      const float top_p = truncates ? params.top_p.As<float>()[r] : 1.0f;
      const float* weight = nullptr;
      double sum = 1;
      if (top_p < 1 && !std::isnan(max)) {
        float* row_weights = weights.As<float>() + r * valid_vocab;
        int32_t likeliest;
        sum = cpu::WeighRow(row_weights, row, valid_vocab, {temperature, 0, top_p, 0}, &likeliest);
        weight = row_weights;
      } else if (!params.as_logits) {
        sum = kernels.weigh(nullptr, row, valid_vocab, largest, 1.0 / static_cast<double>(temperature));
      }
      const double log_sum = std::log(sum);
      const auto score = [&](int32_t id) {
        if (id < 0 || id >= valid_vocab || std::isnan(max)) return kNan;
        if (params.as_logits) return row[id] / temperature;
        if (weight != nullptr && weight[id] == 0) return -std::numeric_limits<float>::infinity();
        const double below = static_cast<double>(std::fmin(row[id], kLargest)) - static_cast<double>(largest);
        return static_cast<float>(below / static_cast<double>(temperature) - log_sum);
      };
      ForTokens(drawn, r, score);
      ForTokens(listed, r, score);
    }
  });
  if (truncates) ctx.workspace->Release(mark);
}

int64_t ScoreTokensScratchBytes(const Context& ctx, int64_t rows, int64_t vocab) {
  return SampleScratchBytes(ctx, rows, vocab);
}

}  // namespace fd::ops
