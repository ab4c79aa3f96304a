#include "compute/kernels/cuda/rows.h"
#include "compute/kernels/cuda/values.cuh"

namespace fd::cuda {
namespace {

constexpr int kWarps = 4;

// One warp a token; lane l owns the experts l, l + 32, ... Shared memory of a warp: probabilities [experts],
// chosen ids [top_k], ascending.
__global__ void Route(int32_t* expert_ids, int64_t ids_stride, float* expert_weights, int64_t weights_stride,
                      const float* logits, int64_t logits_stride, const float* bias, int64_t tokens,
                      int experts, int top_k, float norm_min, bool round_weights) {
  extern __shared__ float shared[];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t t = int64_t{blockIdx.x} * kWarps + warp;
  if (t >= tokens) return;  // whole warps; only __syncwarp below
  float* probs = shared + warp * (experts + top_k);
  int32_t* chosen = reinterpret_cast<int32_t*>(probs + experts);
  const float* row = logits + t * logits_stride;

  float largest = -INFINITY;
  for (int e = lane; e < experts; e += 32) largest = fmaxf(largest, row[e]);
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2)
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, offset));
  float sum = 0;
  for (int e = lane; e < experts; e += 32) {
    const float p = expf(row[e] - largest);
    probs[e] = p;
    sum += p;
  }
  sum = WarpSum(sum);
  for (int e = lane; e < experts; e += 32) probs[e] /= sum;
  __syncwarp();

  uint32_t taken = 0;  // bit i: expert lane + 32 i
  for (int j = 0; j < top_k; ++j) {
    int best = experts;  // none
    float best_score = 0;
    for (int e = lane, i = 0; e < experts; e += 32, ++i) {
      if (taken >> i & 1) continue;
      const float score = probs[e] + (bias != nullptr ? bias[e] : 0.0f);
      if (best == experts || score > best_score) {
        best = e;
        best_score = score;
      }
    }
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      const int other = __shfl_xor_sync(0xffffffffu, best, offset);
      const float other_score = __shfl_xor_sync(0xffffffffu, best_score, offset);
      if (other == experts) continue;
      if (best == experts || other_score > best_score || (other_score == best_score && other < best)) {
        best = other;
        best_score = other_score;
      }
    }
    best = __shfl_sync(0xffffffffu, best, 0);  // with NaN the lanes may disagree
    if (best % 32 == lane) taken |= 1u << (best / 32);
    if (lane == 0) {
      int at = j;
      for (; at > 0 && chosen[at - 1] > best; --at) chosen[at] = chosen[at - 1];
      chosen[at] = best;
    }
  }
  __syncwarp();
  float total = 0;
  for (int j = 0; j < top_k; ++j) total += probs[chosen[j]];  // the same order in every lane
  total = fmaxf(total, norm_min);
  for (int j = lane; j < top_k; j += 32) {
    const float w = probs[chosen[j]] / total;
    expert_ids[t * ids_stride + j] = chosen[j];
    expert_weights[t * weights_stride + j] = round_weights ? Load(Round<bf16>(w)) : w;
  }
}

}  // namespace

void RouteSoftmax(int32_t* expert_ids, int64_t ids_stride, float* expert_weights, int64_t weights_stride,
                  const float* logits, int64_t logits_stride, const float* bias, int64_t tokens,
                  int64_t experts, int64_t top_k, float norm_min, bool round_weights, void* stream) {
  if (tokens == 0) return;
  FD_CHECK(experts <= kMaxRouteExperts && top_k >= 1 && top_k <= experts, top_k, " of ", experts);
  const size_t shared = static_cast<size_t>(kWarps * (experts + top_k)) * 4;
  Route<<<static_cast<unsigned>((tokens + kWarps - 1) / kWarps), kWarps * 32, shared, AsStream(stream)>>>(
      expert_ids, ids_stride, expert_weights, weights_stride, logits, logits_stride, bias, tokens,
      static_cast<int>(experts), static_cast<int>(top_k), norm_min, round_weights);
  FD_CUDA_CHECK(cudaGetLastError());
}

}  // namespace fd::cuda
