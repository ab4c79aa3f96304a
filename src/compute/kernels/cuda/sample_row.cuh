// One row of logits read by a block: its largest logit and sum, weights, the tokens that top-k or top-p
// leave. For sample.cu and score.cu.
#pragma once

#include <cfloat>
#include <climits>

#include "compute/kernels/cuda/values.cuh"

namespace fd::cuda {
namespace {

constexpr int kSplits = 32;  // blocks that read one row for its largest logit and its sum
constexpr int kStatThreads = 256;
constexpr int kThreads = 512;
constexpr int kWarps = kThreads / 32;
constexpr int kBins = 32;
constexpr int kPart = 1024;  // tokens whose weights are summed together, in index order
constexpr int kMaxParts = 1024;

// Of a row or a piece of it.
struct Stats {
  float max;   // -FLT_MAX when nothing is finite or larger
  int index;   // the first with that value; INT_MAX when there is none
  double sum;  // of e^(x - max)
  int nan;
};

__device__ float Clamp(float x) { return fminf(fmaxf(x, -FLT_MAX), FLT_MAX); }

__device__ Stats Merge(const Stats& a, const Stats& b) {
  Stats s;
  s.nan = a.nan | b.nan;
  s.max = fmaxf(a.max, b.max);
  s.index = min(a.max == s.max ? a.index : INT_MAX, b.max == s.max ? b.index : INT_MAX);
  s.sum = (a.sum > 0 ? a.sum * exp(static_cast<double>(a.max) - static_cast<double>(s.max)) : 0) +
          (b.sum > 0 ? b.sum * exp(static_cast<double>(b.max) - static_cast<double>(s.max)) : 0);
  return s;
}
__device__ Stats WarpMerge(Stats s) {
  for (int d = 16; d > 0; d /= 2) {
    Stats o;
    o.max = __shfl_xor_sync(0xffffffffu, s.max, d);
    o.index = __shfl_xor_sync(0xffffffffu, s.index, d);
    o.sum = __shfl_xor_sync(0xffffffffu, s.sum, d);
    o.nan = __shfl_xor_sync(0xffffffffu, s.nan, d);
    s = Merge(s, o);
  }
  return s;
}

// stats [rows][kSplits]. Rows whose wanted[r] is not above 0 are left out; null: all are wanted.
__global__ void __launch_bounds__(kStatThreads)
    RowStats(const float* logits, int64_t logits_stride, int n, const int32_t* wanted, Stats* stats) {
  if (wanted != nullptr && wanted[blockIdx.y] <= 0) return;
  const float* row = logits + blockIdx.y * logits_stride;
  const int chunk = (n + kSplits - 1) / kSplits;
  const int begin = blockIdx.x * chunk, end = min(n, begin + chunk);
  float max = -FLT_MAX, sum = 0;
  int index = INT_MAX, nan = 0;
#pragma unroll 4
  for (int i = begin + static_cast<int>(threadIdx.x); i < end; i += kStatThreads) {
    const float raw = row[i];
    nan |= isnan(raw);
    const float x = Clamp(raw);
    if (x > max) {
      sum *= expf(max - x);
      max = x;
      index = i;
    } else if (x == max && index == INT_MAX && raw == max) {
      index = i;
    }
    sum += expf(Clamp(raw) - max);
  }
  Stats s = WarpMerge({max, index, static_cast<double>(sum), nan});
  __shared__ Stats warps[kStatThreads / 32];
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = s;
  __syncthreads();
  if (threadIdx.x >= 32) return;
  s = WarpMerge(threadIdx.x < kStatThreads / 32 ? warps[threadIdx.x] : Stats{-FLT_MAX, INT_MAX, 0.0, 0});
  if (threadIdx.x == 0) stats[blockIdx.y * kSplits + blockIdx.x] = s;
}

// fn(i, row[i]) for every i that is this thread's; several loads in flight before the first use.
template <typename Fn>
__device__ void ForRow(const float* row, int n, const Fn& fn) {
  constexpr int kBatch = 8;
  int i = static_cast<int>(threadIdx.x);
  for (; i + (kBatch - 1) * kThreads < n; i += kBatch * kThreads) {
    float x[kBatch];
#pragma unroll
    for (int j = 0; j < kBatch; ++j) x[j] = row[i + j * kThreads];
#pragma unroll
    for (int j = 0; j < kBatch; ++j) fn(i + j * kThreads, x[j]);
  }
  for (; i < n; i += kThreads) fn(i, row[i]);
}

// Orders as the floats do; -0 equals 0.
__device__ uint32_t OrderedKey(float x) {
  const uint32_t bits = __float_as_uint(x + 0.0f);
  return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}

// e^((x - max) / temperature); the argument in two parts, because its rounding alone would cost a relative
// error of |z| 2^-24.
struct Weigher {
  float max, inverse, inverse_low;
  __device__ Weigher(float max_value, float temperature) : max(max_value) {
    const double exact = 1.0 / static_cast<double>(temperature);
    inverse = static_cast<float>(exact);
    inverse_low = static_cast<float>(exact - static_cast<double>(inverse));
  }
  __device__ float operator()(float raw) const {
    const float x = Clamp(raw);
    const float d = __fsub_rn(x, max), back = __fsub_rn(d, x);
    const float d_low = __fadd_rn(__fsub_rn(x, __fsub_rn(d, back)), __fsub_rn(-max, back));
    const float z = __fmul_rn(d, inverse);
    float z_low = __fmaf_rn(d, inverse, -z) + __fmaf_rn(d, inverse_low, d_low * inverse);
    z_low = fmaxf(fminf(z_low, 1e-3f), -1e-3f);  // also for the NaN of an overflow
    const float w = expf(z);
    return __fmaf_rn(w, z_low, w);
  }
};

// A token and its weight as one integer, so that sums do not depend on the order of the additions: the weight
// in units of 2^-37 below bit 48, the token above. A thread adds at most 2^11 of them.
__device__ unsigned long long Fixed(float weight) {
  return 1ull << 48 | __float2ull_rn(weight * 137438953472.0f);
}

struct Shared {
  unsigned long long bins[kBins][kThreads];  // one column per thread: no two touch the same word
  double costs[kBins];
  int counts[kBins];
  double parts[kMaxParts];
  double warp_sums[kWarps];
  double before;
  Stats stats;
  uint32_t low;
  int shift, bins_used, done, ties, tie_end;
};

// The tokens that stay: keys above `key`, and those equal to it with an index below tie_end.
struct Threshold {
  uint32_t key = 0;
  int tie_end = INT_MAX;
  __device__ bool Keeps(uint32_t k, int i) const { return k > key || (k == key && i < tie_end); }
};

__device__ double BlockSum(double v, Shared& s) {
  for (int d = 16; d > 0; d /= 2) v += __shfl_xor_sync(0xffffffffu, v, d);
  if (threadIdx.x % 32 == 0) s.warp_sums[threadIdx.x / 32] = v;
  __syncthreads();
  v = 0;
  for (int w = 0; w < kWarps; ++w) v += s.warp_sums[w];
  __syncthreads();
  return v;
}

// Walks the keys from the largest down until their accumulated cost (tokens, or their weights) reaches
// `budget`: the key where that happens is the threshold; with kMass, tokens of that very key stay, in index
// order, while the cost before them is below the budget. Five bits per pass over the row; ends early when the
// chosen bin holds one token.
template <bool kMass>
__device__ Threshold Descend(const float* row, int n, const Weigher& weigh, uint32_t floor, uint32_t top,
                             double budget, Shared& s) {
  __syncthreads();
  if (threadIdx.x == 0) {
    s.low = floor;
    s.shift = top - floor < kBins ? 0 : 27 - __clz(static_cast<int>(top - floor));
    s.bins_used = kBins;
    s.before = 0;
    s.done = 0;
  }
  __syncthreads();
  while (!s.done) {
    const uint32_t low = s.low, bins_used = static_cast<uint32_t>(s.bins_used);
    const int shift = s.shift;
    for (int b = 0; b < kBins; ++b) s.bins[b][threadIdx.x] = 0;
    ForRow(row, n, [&](int, float x) {
      const uint32_t key = OrderedKey(x), bin = (key - low) >> shift;
      if (key >= low && bin < bins_used) s.bins[bin][threadIdx.x] += Fixed(kMass ? weigh(x) : 0.0f);
    });
    __syncthreads();
    for (int b = threadIdx.x / 32; b < kBins; b += kWarps) {
      unsigned long long mass = 0;
      int count = 0;
      for (int t = threadIdx.x % 32; t < kThreads; t += 32) {
        mass += s.bins[b][t] & ((1ull << 48) - 1);
        count += static_cast<int>(s.bins[b][t] >> 48);
      }
      for (int d = 16; d > 0; d /= 2) mass += __shfl_xor_sync(0xffffffffu, mass, d);
      count = __reduce_add_sync(0xffffffffu, count);
      if (threadIdx.x % 32 == 0) {
        s.counts[b] = count;
        s.costs[b] = kMass ? static_cast<double>(mass) * 0x1p-37 : static_cast<double>(count);
      }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int chosen = 0;
      double before = s.before, chosen_before = before;
      for (int b = kBins; b-- > 0;) {
        if (s.counts[b] == 0) continue;
        chosen = b;
        chosen_before = before;
        if (before + s.costs[b] >= budget) break;
        before += s.costs[b];
      }
      s.before = chosen_before;
      s.low = low + (static_cast<uint32_t>(chosen) << shift);
      s.done = shift == 0 || s.counts[chosen] == 1;
      s.shift = shift > 5 ? shift - 5 : 0;
      s.bins_used = 1 << (shift - s.shift);
      s.ties = INT_MAX;
      if (kMass && s.done && s.counts[chosen] > 1) {
        const double each = s.costs[chosen] / s.counts[chosen];
        const double needed = ceil((budget - chosen_before) / each);
        if (needed < s.counts[chosen]) s.ties = needed < 1 ? 1 : static_cast<int>(needed);
      }
      s.tie_end = INT_MAX;
    }
    __syncthreads();
  }
  if (s.ties != INT_MAX && threadIdx.x < 32) {
    int left = s.ties;
    for (int base = 0; base < n; base += 32) {
      const int i = base + static_cast<int>(threadIdx.x);
      const uint32_t mask = __ballot_sync(0xffffffffu, i < n && OrderedKey(row[i]) == s.low);
      if (__popc(mask) >= left) {
        if (threadIdx.x == 0) s.tie_end = base + static_cast<int>(__fns(mask, 0, left)) + 1;
        break;
      }
      left -= __popc(mask);
    }
  }
  __syncthreads();
  Threshold result;
  result.key = s.low;
  result.tie_end = s.tie_end;
  return result;
}

}  // namespace
}  // namespace fd::cuda
