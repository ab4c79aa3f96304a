// What is reported of given tokens: log-probabilities after the temperature, within top-p, or logits.
#include "compute/kernels/cuda/sample.h"
#include "compute/kernels/cuda/sample_row.cuh"

namespace fd::cuda {
namespace {

// One block per row.
__global__ void __launch_bounds__(kThreads) ScoreRow(ScoreTokensArgs a, const Stats* stats) {
  extern __shared__ char dynamic[];
  Shared& s = *reinterpret_cast<Shared*>(dynamic);
  const int64_t r = blockIdx.x;
  if (a.wanted != nullptr && a.wanted[r] <= 0) return;
  const float* row = a.logits + r * a.logits_stride;
  const int n = static_cast<int>(a.valid_vocab);
  const float temperature = a.temperature == nullptr ? 1.0f : a.temperature[r];
  const float top_p = a.top_p == nullptr ? 1.0f : a.top_p[r];
  static_assert(kSplits == 32);
  if (threadIdx.x < 32) {
    const Stats merged = WarpMerge(stats[r * kSplits + threadIdx.x]);
    if (threadIdx.x == 0) s.stats = merged;
  }
  __syncthreads();
  const Stats all = s.stats;
  const Weigher weigh(all.max, temperature);
  Threshold stay;
  double sum = all.sum;
  // The sum of the statistics is that at temperature 1.
  if (!a.as_logits && !all.nan && (temperature != 1.0f || top_p < 1.0f)) {
    double mass = 0;
    ForRow(row, n, [&](int, float x) { mass += static_cast<double>(weigh(x)); });
    sum = BlockSum(mass, s);
    if (top_p < 1.0f && all.index != INT_MAX) {
      const uint32_t top = OrderedKey(all.max == FLT_MAX ? __int_as_float(0x7f800000) : all.max);
      stay = Descend<true>(row, n, weigh, 0, top, static_cast<double>(top_p) * sum, s);
      mass = 0;
      ForRow(row, n, [&](int i, float x) {
        if (i == all.index || stay.Keeps(OrderedKey(x), i)) mass += static_cast<double>(weigh(x));
      });
      sum = BlockSum(mass, s);
    }
  }
  const double log_sum = log(sum);
  const auto score = [&](int32_t id) {
    if (id < 0 || id >= n || all.nan) return __int_as_float(0x7fc00000);
    const float x = row[id];
    if (a.as_logits) return __fdiv_rn(x, temperature);
    if (!(x > -INFINITY) || !(id == all.index || stay.Keeps(OrderedKey(x), id))) return -INFINITY;
    const double below = static_cast<double>(Clamp(x)) - static_cast<double>(all.max);
    return static_cast<float>(below / static_cast<double>(temperature) - log_sum);
  };
  for (const ScoreTokensArgs::Of& of : a.of) {
    for (int64_t i = threadIdx.x; i < of.count; i += kThreads)
      of.scores[r * of.scores_stride + i] = score(of.token_ids[r * of.ids_stride + i]);
  }
}

}  // namespace

void ScoreTokens(const ScoreTokensArgs& a, void* stream) {
  if (a.rows == 0) return;
  FD_CHECK(a.rows <= 65535, a.rows, " rows");
  static const cudaError_t raised = cudaFuncSetAttribute(
      ScoreRow, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(sizeof(Shared)));
  FD_CUDA_CHECK(raised);
  auto* stats = static_cast<Stats*>(a.scratch);
  RowStats<<<dim3(kSplits, static_cast<unsigned>(a.rows)), kStatThreads, 0, AsStream(stream)>>>(
      a.logits, a.logits_stride, static_cast<int>(a.valid_vocab), a.wanted, stats);
  FD_CUDA_CHECK(cudaGetLastError());
  ScoreRow<<<static_cast<unsigned>(a.rows), kThreads, sizeof(Shared), AsStream(stream)>>>(a, stats);
  FD_CUDA_CHECK(cudaGetLastError());
}

}  // namespace fd::cuda
