#include "compute/ops/sample.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/rng.h"
#include "compute/kernels/cpu/sample.h"
#include "compute/kernels/cuda/sample.h"
#include "compute/ops/row_ranges.h"

namespace fd::ops {
namespace {

static_assert(kMaxTopLogprobs == cuda::kMaxTopLogprobs);

void CheckLogits(const TensorView& logits, int64_t valid_vocab) {
  FD_CHECK_EQ(logits.rank(), 2);
  FD_CHECK(logits.dtype == DType::kFloat32, DTypeName(logits.dtype));
  FD_CHECK(valid_vocab > 0 && valid_vocab <= logits.dim(1), valid_vocab, " of ", logits.dim(1), " columns");
}

void CheckParams(const TensorView& logits, const SampleParams& params, int64_t valid_vocab) {
  CheckLogits(logits, valid_vocab);
  const int64_t rows = logits.dim(0);
  CheckVector(params.temperature, "temperature", DType::kFloat32, rows);
  CheckVector(params.top_k, "top_k", DType::kInt32, rows);
  CheckVector(params.top_p, "top_p", DType::kFloat32, rows);
  CheckVector(params.min_p, "min_p", DType::kFloat32, rows);
}

cpu::RowSampling RowParams(const SampleParams& params, int64_t row) {
  return {params.temperature.As<float>()[row], params.top_k.As<int32_t>()[row], params.top_p.As<float>()[row],
          params.min_p.As<float>()[row]};
}

// Infinity counts as the largest finite float.
float LogProb(float logit, float largest, double log_sum) {
  const float x = std::fmin(logit, std::numeric_limits<float>::max());
  return static_cast<float>(static_cast<double>(x) - static_cast<double>(largest) - log_sum);
}

// Scratch comes from the workspace; who calls gives it back.
cuda::SampleArgs CudaArgs(const Context& ctx, const TensorView& logits, const SampleParams& params,
                          int64_t valid_vocab) {
  FD_CHECK(ctx.workspace != nullptr, "sampling needs a workspace");
  CheckOnDevice(ctx, {&logits, &params.temperature, &params.top_k, &params.top_p, &params.min_p, &params.seed,
                      &params.position});
  cuda::SampleArgs a = {};
  a.rows = logits.dim(0);
  a.vocab = logits.dim(1);
  a.valid_vocab = valid_vocab;
  a.logits = logits.As<float>();
  a.logits_stride = logits.row_stride;
  a.temperature = params.temperature.As<float>();
  a.top_k = params.top_k.As<int32_t>();
  a.top_p = params.top_p.As<float>();
  a.min_p = params.min_p.As<float>();
  a.seed = params.seed.As<int64_t>();
  a.position = params.position.As<int64_t>();
  a.scratch = ctx.workspace->Take(DType::kUInt8, {cuda::SampleScratchBytes(a.rows)}).data;
  return a;
}

}  // namespace

void Sample(const Context& ctx, const TensorView& token_ids, const TensorView& logprobs,
            const TensorView& logits, const SampleParams& params, int64_t valid_vocab) {
  CheckParams(logits, params, valid_vocab);
  const int64_t rows = logits.dim(0);
  CheckVector(token_ids, "token_ids", DType::kInt32, rows);
  CheckVector(logprobs, "logprobs", DType::kFloat32, rows);
  CheckVector(params.seed, "seed", DType::kInt64, rows);
  CheckVector(params.position, "position", DType::kInt64, rows);
  FD_CHECK(ctx.workspace != nullptr, "Sample needs a workspace");
  const int64_t mark = ctx.workspace->Mark();
  if (OnCuda(ctx)) {
    CheckOnDevice(ctx, {&token_ids, &logprobs});
    const cuda::SampleArgs args = CudaArgs(ctx, logits, params, valid_vocab);
    cuda::Sample(args, token_ids.As<int32_t>(), logprobs.As<float>(), ctx.stream);
    return ctx.workspace->Release(mark);
  }
  const TensorView weights = ctx.workspace->Take(DType::kFloat32, {rows, valid_vocab});
  ForRowRanges(ctx, rows, kMinForkElements, [&](int64_t begin, int64_t end) {
    const cpu::SampleKernels& kernels = cpu::GetSampleKernels();
    for (int64_t r = begin; r < end; ++r) {
      const float* row = reinterpret_cast<const float*>(RowAt(logits, r));
      float* weight = weights.As<float>() + r * valid_vocab;
      const cpu::RowSampling sampling = RowParams(params, r);
      int32_t token;
      const double total = cpu::WeighRow(weight, row, valid_vocab, sampling, &token);
      if (token < 0) {
        token_ids.As<int32_t>()[r] = -1;
        logprobs.As<float>()[r] = std::numeric_limits<float>::quiet_NaN();
        continue;
      }
      const float largest = std::fmin(row[token], std::numeric_limits<float>::max());
      if (sampling.temperature > 0) {
        const float u = UniformFloat(static_cast<uint64_t>(params.seed.As<int64_t>()[r]),
                                     static_cast<uint64_t>(params.position.As<int64_t>()[r]));
        token = cpu::DrawToken(weight, valid_vocab, total, static_cast<double>(u));
      }
      const double all = kernels.weigh(nullptr, row, valid_vocab, largest, 1.0);
      token_ids.As<int32_t>()[r] = token;
      logprobs.As<float>()[r] = LogProb(row[token], largest, std::log(all));
    }
  });
  ctx.workspace->Release(mark);
}

int64_t SampleScratchBytes(const Context& ctx, int64_t rows, int64_t vocab) {
  return OnCuda(ctx) ? cuda::SampleScratchBytes(rows) + 64 : (rows * vocab * 4 + 63) / 64 * 64;
}

void SampleProbs(const Context& ctx, const TensorView& probs, const TensorView& logits,
                 const SampleParams& params, int64_t valid_vocab) {
  CheckParams(logits, params, valid_vocab);
  const int64_t rows = logits.dim(0), vocab = logits.dim(1);
  CheckRows(probs, "probs", DType::kFloat32, rows, vocab);
  if (OnCuda(ctx)) {
    CheckOnDevice(ctx, {&probs});
    const int64_t mark = ctx.workspace->Mark();
    const cuda::SampleArgs args = CudaArgs(ctx, logits, params, valid_vocab);
    cuda::SampleProbs(args, probs.As<float>(), probs.row_stride, ctx.stream);
    return ctx.workspace->Release(mark);
  }
  ForRowRanges(ctx, rows, kMinForkElements, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      float* out = reinterpret_cast<float*>(RowAt(probs, r));
      int32_t largest;
      const double total = cpu::WeighRow(out, reinterpret_cast<const float*>(RowAt(logits, r)), valid_vocab,
                                         RowParams(params, r), &largest);
      for (int64_t i = 0; i < valid_vocab; ++i) {
        out[i] = total > 0 ? static_cast<float>(static_cast<double>(out[i]) / total) : 0.0f;
      }
      for (int64_t i = valid_vocab; i < vocab; ++i) out[i] = 0;
    }
  });
}

void TopLogprobs(const Context& ctx, const TensorView& token_ids, const TensorView& logprobs,
                 const TensorView& logits, const TensorView& k, int64_t valid_vocab) {
  CheckLogits(logits, valid_vocab);
  const int64_t rows = logits.dim(0), max_k = token_ids.dim(1);
  FD_CHECK(max_k <= kMaxTopLogprobs, max_k, " tokens a row, at most ", kMaxTopLogprobs);
  CheckRows(token_ids, "token_ids", DType::kInt32, rows, max_k);
  CheckRows(logprobs, "logprobs", DType::kFloat32, rows, max_k);
  CheckVector(k, "k", DType::kInt32, rows);
  if (OnCuda(ctx)) {
    CheckOnDevice(ctx, {&token_ids, &logprobs, &logits, &k});
    FD_CHECK(ctx.workspace != nullptr, "TopLogprobs needs a workspace");
    const int64_t mark = ctx.workspace->Mark();
    cuda::TopLogprobsArgs args = {};
    args.rows = rows;
    args.valid_vocab = valid_vocab;
    args.max_k = max_k;
    args.logits = logits.As<float>();
    args.logits_stride = logits.row_stride;
    args.k = k.As<int32_t>();
    args.token_ids = token_ids.As<int32_t>();
    args.ids_stride = token_ids.row_stride;
    args.logprobs = logprobs.As<float>();
    args.logprobs_stride = logprobs.row_stride;
    args.scratch = ctx.workspace->Take(DType::kUInt8, {cuda::TopLogprobsScratchBytes(rows, max_k)}).data;
    cuda::TopLogprobs(args, ctx.stream);
    return ctx.workspace->Release(mark);
  }
  ForRowRanges(ctx, rows, kMinForkElements, [&](int64_t begin, int64_t end) {
    const cpu::SampleKernels& kernels = cpu::GetSampleKernels();
    for (int64_t r = begin; r < end; ++r) {
      auto* ids = reinterpret_cast<int32_t*>(RowAt(token_ids, r));
      auto* values = reinterpret_cast<float*>(RowAt(logprobs, r));
      const auto* row = reinterpret_cast<const float*>(RowAt(logits, r));
      const int64_t wanted = std::min<int64_t>(k.As<int32_t>()[r], max_k);
      const float largest = wanted > 0 ? kernels.max(row, valid_vocab) : 0;
      const int64_t count =
          wanted > 0 && !std::isnan(largest) ? cpu::TopTokens(ids, row, valid_vocab, wanted) : 0;
      const double log_sum = count > 0 ? std::log(kernels.weigh(nullptr, row, valid_vocab, largest, 1.0)) : 0;
      for (int64_t i = 0; i < count; ++i) values[i] = LogProb(row[ids[i]], largest, log_sum);
      for (int64_t i = count; i < max_k; ++i) {
        ids[i] = -1;
        values[i] = std::numeric_limits<float>::quiet_NaN();
      }
    }
  });
}

int64_t TopLogprobsScratchBytes(const Context& ctx, int64_t rows, int64_t max_k) {
  return OnCuda(ctx) ? cuda::TopLogprobsScratchBytes(rows, max_k) + 64 : 0;
}

void TokenLogprobs(const Context& ctx, const TensorView& logprobs, const TensorView& logits,
                   const TensorView& token_ids, int64_t valid_vocab) {
  CheckLogits(logits, valid_vocab);
  const int64_t rows = logits.dim(0);
  CheckVector(logprobs, "logprobs", DType::kFloat32, rows);
  CheckVector(token_ids, "token_ids", DType::kInt32, rows);
  if (OnCuda(ctx)) {
    CheckOnDevice(ctx, {&logprobs, &logits, &token_ids});
    FD_CHECK(ctx.workspace != nullptr, "TokenLogprobs needs a workspace");
    const int64_t mark = ctx.workspace->Mark();
    cuda::TokenLogprobsArgs args = {};
    args.rows = rows;
    args.valid_vocab = valid_vocab;
    args.logits = logits.As<float>();
    args.logits_stride = logits.row_stride;
    args.token_ids = token_ids.As<int32_t>();
    args.logprobs = logprobs.As<float>();
    args.scratch = ctx.workspace->Take(DType::kUInt8, {cuda::SampleScratchBytes(rows)}).data;
    cuda::TokenLogprobs(args, ctx.stream);
    return ctx.workspace->Release(mark);
  }
  ForRowRanges(ctx, rows, kMinForkElements, [&](int64_t begin, int64_t end) {
    const cpu::SampleKernels& kernels = cpu::GetSampleKernels();
    for (int64_t r = begin; r < end; ++r) {
      const auto* row = reinterpret_cast<const float*>(RowAt(logits, r));
      const int32_t token = token_ids.As<int32_t>()[r];
      float* out = logprobs.As<float>() + r;
      *out = std::numeric_limits<float>::quiet_NaN();
      if (token < 0 || token >= valid_vocab) continue;
      const float max = kernels.max(row, valid_vocab);
      if (std::isnan(max)) continue;
      const float largest = std::fmin(max, std::numeric_limits<float>::max());
      *out = LogProb(row[token], largest, std::log(kernels.weigh(nullptr, row, valid_vocab, largest, 1.0)));
    }
  });
}

void TokenRanks(const Context& ctx, const TensorView& ranks, const TensorView& logits,
                const TensorView& token_ids, int64_t valid_vocab) {
  CheckLogits(logits, valid_vocab);
  const int64_t rows = logits.dim(0);
  CheckVector(ranks, "ranks", DType::kInt32, rows);
  CheckVector(token_ids, "token_ids", DType::kInt32, rows);
  if (OnCuda(ctx)) {
    CheckOnDevice(ctx, {&ranks, &logits, &token_ids});
    cuda::TokenRanksArgs args = {};
    args.rows = rows;
    args.valid_vocab = valid_vocab;
    args.logits = logits.As<float>();
    args.logits_stride = logits.row_stride;
    args.token_ids = token_ids.As<int32_t>();
    args.ranks = ranks.As<int32_t>();
    return cuda::TokenRanks(args, ctx.stream);
  }
  ForRowRanges(ctx, rows, kMinForkElements, [&](int64_t begin, int64_t end) {
    const cpu::SampleKernels& kernels = cpu::GetSampleKernels();
    for (int64_t r = begin; r < end; ++r) {
      const auto* row = reinterpret_cast<const float*>(RowAt(logits, r));
      const int32_t token = token_ids.As<int32_t>()[r];
      const bool ranked = token >= 0 && token < valid_vocab && !std::isnan(kernels.max(row, valid_vocab));
      ranks.As<int32_t>()[r] = ranked ? cpu::TokenRank(row, valid_vocab, token) : 0;
    }
  });
}

}  // namespace fd::ops
