#include "compute/kernels/cuda/launch.cuh"
#include "compute/kernels/cuda/rows.h"
#include "compute/kernels/cuda/values.cuh"

namespace fd::cuda {
namespace {

constexpr int kWarps = 4;

// Monotonic in v, never 0.
__device__ __forceinline__ uint32_t Ordered(float v) {
  const uint32_t bits = __float_as_uint(v + 0.0f);  // -0 becomes 0
  return bits & 0x80000000u ? max(~bits, 1u) : bits | 0x80000000u;
}

// One warp a token; lane l owns the experts l, l + 32, ... kPerLane of them at most. Shared memory of a warp:
// probabilities [experts], chosen ids [top_k], ascending.
template <int kPerLane>
__global__ void Route(int32_t* expert_ids, int64_t ids_stride, float* expert_weights, int64_t weights_stride,
                      const float* logits, int64_t logits_stride, const float* bias, int64_t tokens,
                      int experts, int top_k, float norm_min, bool round_weights) {
  LetNextBegin();
  WaitForPrevious();
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

  // Scores as unsigned numbers of the same order, so that one instruction finds the largest of a warp.
  // 0: chosen already, or no such expert. A NaN sorts above all; the ids stay valid.
  uint32_t keys[kPerLane];
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int e = lane + 32 * i;
    keys[i] = e < experts ? Ordered(probs[e] + (bias != nullptr ? bias[e] : 0.0f)) : 0;
  }
  for (int j = 0; j < top_k; ++j) {
    uint32_t key = 0;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) key = max(key, keys[i]);
    const uint32_t largest_key = __reduce_max_sync(0xffffffffu, key);
    uint32_t mine = 0xffffffffu;  // the lowest expert of this lane with that score
#pragma unroll
    for (int i = kPerLane - 1; i >= 0; --i)
      if (keys[i] == largest_key) mine = static_cast<uint32_t>(lane + 32 * i);
    const int best = static_cast<int>(__reduce_min_sync(0xffffffffu, mine));
#pragma unroll
    for (int i = 0; i < kPerLane; ++i)
      if (best == lane + 32 * i) keys[i] = 0;
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
  const auto kernel = experts <= 64 ? Route<2> : experts <= 256 ? Route<8> : Route<32>;
  LaunchOverlapped(kernel, dim3(static_cast<unsigned>((tokens + kWarps - 1) / kWarps)), kWarps * 32, shared,
                   AsStream(stream), expert_ids, ids_stride, expert_weights, weights_stride, logits,
                   logits_stride, bias, tokens, static_cast<int>(experts), static_cast<int>(top_k), norm_min,
                   round_weights);
}

}  // namespace fd::cuda
