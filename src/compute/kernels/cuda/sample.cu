#include "compute/kernels/cuda/sample.h"

#include "compute/kernels/cuda/sample_row.cuh"

namespace fd::cuda {
namespace {

// As Philox4x32(seed, position)[0] of base/rng.h, 24 bits of it in [0, 1).
__device__ float Uniform(uint64_t seed, uint64_t position) {
  uint32_t c0 = static_cast<uint32_t>(position), c1 = static_cast<uint32_t>(position >> 32), c2 = 0, c3 = 0;
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = static_cast<uint64_t>(0xD2511F53u) * c0, p1 = static_cast<uint64_t>(0xCD9E8D57u) * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return static_cast<float>(c0 >> 8) * 0x1p-24f;
}

struct Passing {
  int index;
  double before;  // the sum up to it
};
// One warp: the first i of [begin, end) with value(i) > 0 where *before plus the values up to and with i
// passes the target, or the last with value(i) > 0.
template <typename Value>
__device__ Passing FirstPassing(int begin, int end, double target, double* before, const Value& value) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  Passing last = {begin, *before};
  for (int base = begin; base < end; base += 32) {
    const double own = base + lane < end ? value(base + lane) : 0;
    double sum = own;
    for (int d = 1; d < 32; d *= 2) {
      const double other = __shfl_up_sync(0xffffffffu, sum, d);
      if (lane >= d) sum += other;
    }
    const uint32_t kept = __ballot_sync(0xffffffffu, own > 0);
    const uint32_t passed = __ballot_sync(0xffffffffu, own > 0 && *before + sum > target);
    if (kept != 0) {
      const int at = passed != 0 ? __ffs(static_cast<int>(passed)) - 1 : 31 - __clz(static_cast<int>(kept));
      last = {base + at, *before + __shfl_sync(0xffffffffu, sum - own, at)};
      if (passed != 0) return last;
    }
    *before += __shfl_sync(0xffffffffu, sum, 31);
  }
  return last;
}

// One block per row.
template <bool kProbs>
__global__ void __launch_bounds__(kThreads)
    ChooseToken(SampleArgs a, int32_t* token_ids, float* logprobs, float* probs, int64_t probs_stride) {
  extern __shared__ char dynamic[];
  Shared& s = *reinterpret_cast<Shared*>(dynamic);
  const int64_t r = blockIdx.x;
  const float* row = a.logits + r * a.logits_stride;
  const int n = static_cast<int>(a.valid_vocab);
  const float temperature = a.temperature[r];
  static_assert(kSplits == 32);
  if (threadIdx.x < 32) {
    const Stats merged = WarpMerge(static_cast<const Stats*>(a.scratch)[r * kSplits + threadIdx.x]);
    if (threadIdx.x == 0) s.stats = merged;
  }
  __syncthreads();
  const Stats stats = s.stats;
  float* out = kProbs ? probs + r * probs_stride : nullptr;
  if (stats.nan || stats.index == INT_MAX || !(temperature > 0)) {
    const int token = stats.nan || stats.index == INT_MAX ? -1 : stats.index;
    if (kProbs) {
      for (int64_t i = threadIdx.x; i < a.vocab; i += kThreads) out[i] = i == token ? 1.0f : 0.0f;
    } else if (threadIdx.x == 0) {
      token_ids[r] = token;
      logprobs[r] = token < 0 ? __int_as_float(0x7fc00000) : static_cast<float>(-log(stats.sum));
    }
    return;
  }
  const Weigher weigh(stats.max, temperature);
  const uint32_t top = OrderedKey(stats.max == FLT_MAX ? __int_as_float(0x7f800000) : stats.max);
  const int top_k = a.top_k[r];
  const float top_p = a.top_p[r], min_p = a.min_p[r];
  Threshold stay;
  if (top_k > 0 && top_k < n) stay = Descend<false>(row, n, weigh, 0, top, static_cast<double>(top_k), s);
  if (top_p < 1) {
    const uint32_t floor = stay.key;
    double mass = 0;
    ForRow(row, n, [&](int, float x) {
      if (OrderedKey(x) >= floor) mass += static_cast<double>(weigh(x));
    });
    mass = BlockSum(mass, s);
    stay = Descend<true>(row, n, weigh, floor, top, static_cast<double>(top_p) * mass, s);
  }
  const auto weight_of = [&](int i, float x) {
    if (i == stats.index) return 1.0f;  // the likeliest always stays
    if (!stay.Keeps(OrderedKey(x), i)) return 0.0f;
    const float w = weigh(x);
    return w < min_p ? 0.0f : w;
  };
  const int lane = static_cast<int>(threadIdx.x) % 32, parts = (n + kPart - 1) / kPart;
  for (int part = threadIdx.x / 32; part < parts; part += kWarps) {
    double sum = 0;
    const int end = min(n, (part + 1) * kPart);
    for (int base = part * kPart + lane; base < end; base += 8 * 32) {
      float x[8];
#pragma unroll
      for (int j = 0; j < 8; ++j) x[j] = base + j * 32 < end ? row[base + j * 32] : -FLT_MAX;
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        if (base + j * 32 < end) sum += static_cast<double>(weight_of(base + j * 32, x[j]));
      }
    }
    for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, d);
    if (lane == 0) s.parts[part] = sum;
  }
  __syncthreads();
  double total = 0;
  for (int i = lane; i < parts; i += 32) total += s.parts[i];
  for (int d = 16; d > 0; d /= 2) total += __shfl_xor_sync(0xffffffffu, total, d);
  if (kProbs) {
    for (int64_t i = threadIdx.x; i < a.vocab; i += kThreads) {
      out[i] = i < n ? static_cast<float>(static_cast<double>(weight_of(static_cast<int>(i), row[i])) / total)
                     : 0.0f;
    }
    return;
  }
  if (threadIdx.x >= 32) return;
  const double target = total * static_cast<double>(Uniform(static_cast<uint64_t>(a.seed[r]),
                                                            static_cast<uint64_t>(a.position[r])));
  // The first part, then the first token in it, where the running sum passes the target; the last one kept
  // when rounding leaves the target behind it.
  double before = 0;
  const Passing part = FirstPassing(0, parts, target, &before, [&](int i) { return s.parts[i]; });
  const int first = part.index * kPart;
  before = part.before;
  const int token = FirstPassing(first, min(n, first + kPart), target, &before, [&](int i) {
                      return static_cast<double>(weight_of(i, row[i]));
                    }).index;
  if (threadIdx.x == 0) {
    token_ids[r] = token;
    logprobs[r] = static_cast<float>(static_cast<double>(Clamp(row[token])) - static_cast<double>(stats.max) -
                                     log(stats.sum));
  }
}

template <bool kProbs>
void Launch(const SampleArgs& a, int32_t* token_ids, float* logprobs, float* probs, int64_t probs_stride,
            cudaStream_t stream) {
  if (a.rows == 0) return;
  FD_CHECK(a.rows <= 65535, a.rows, " rows");
  FD_CHECK(a.valid_vocab <= kPart * kMaxParts, a.valid_vocab, " tokens");
  static const cudaError_t raised = cudaFuncSetAttribute(
      ChooseToken<kProbs>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(sizeof(Shared)));
  FD_CUDA_CHECK(raised);
  RowStats<<<dim3(kSplits, static_cast<unsigned>(a.rows)), kStatThreads, 0, stream>>>(
      a.logits, a.logits_stride, static_cast<int>(a.valid_vocab), nullptr, static_cast<Stats*>(a.scratch));
  FD_CUDA_CHECK(cudaGetLastError());
  ChooseToken<kProbs><<<static_cast<unsigned>(a.rows), kThreads, sizeof(Shared), stream>>>(
      a, token_ids, logprobs, probs, probs_stride);
  FD_CUDA_CHECK(cudaGetLastError());
}

// Of two tokens the better one has the larger rank: by logit, then the lower index. 0: never listed.
using Rank = unsigned long long;
__device__ Rank RankOf(float x, int i) {
  return x > -INFINITY ? Rank{OrderedKey(Clamp(x))} << 32 | static_cast<uint32_t>(~i) : 0;
}

// One warp: lane i of *top holds the i-th largest rank so far, 0 where there is none. Takes in the ranks of
// the lanes as far as they belong to the `want` largest; want in [1, 32].
__device__ void Insert(Rank rank, int want, Rank* top) {
  constexpr uint32_t kAll = 0xffffffffu;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (;;) {
    const uint32_t better = __ballot_sync(kAll, rank > __shfl_sync(kAll, *top, want - 1));
    if (better == 0) return;
    const int from = __ffs(static_cast<int>(better)) - 1;
    const Rank x = __shfl_sync(kAll, rank, from);
    const int at = __popc(__ballot_sync(kAll, *top > x));
    const Rank above = __shfl_up_sync(kAll, *top, 1);
    if (lane == at) *top = x;
    if (lane > at) *top = above;
    if (lane == from) rank = 0;
  }
}

__device__ int Wanted(const TopLogprobsArgs& a, int64_t r) { return min(a.k[r], static_cast<int>(a.max_k)); }

// tops [rows][kSplits][max_k]: the largest ranks of each piece of a row, the pieces of RowStats.
__global__ void __launch_bounds__(kStatThreads) TopOfPieces(TopLogprobsArgs a, Rank* tops) {
  constexpr int kBatch = 4;
  const int64_t r = blockIdx.y;
  const int want = Wanted(a, r);
  if (want <= 0) return;
  const float* row = a.logits + r * a.logits_stride;
  const int n = static_cast<int>(a.valid_vocab), chunk = (n + kSplits - 1) / kSplits;
  const int begin = blockIdx.x * chunk, end = min(n, begin + chunk);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  Rank top = 0;
  for (int base = begin; base < end; base += kBatch * kStatThreads) {
    float x[kBatch];
#pragma unroll
    for (int j = 0; j < kBatch; ++j) {
      const int i = base + j * kStatThreads + thread;
      x[j] = i < end ? row[i] : -INFINITY;
    }
#pragma unroll
    for (int j = 0; j < kBatch; ++j) Insert(RankOf(x[j], base + j * kStatThreads + thread), want, &top);
  }
  __shared__ Rank warps[kStatThreads / 32][32];
  warps[thread / 32][lane] = lane < want ? top : 0;
  __syncthreads();
  if (thread >= 32) return;
  for (int w = 1; w < kStatThreads / 32; ++w) Insert(warps[w][lane], want, &top);
  if (lane < a.max_k) tops[(r * kSplits + blockIdx.x) * a.max_k + lane] = lane < want ? top : 0;
}

// One warp per row.
__global__ void __launch_bounds__(32) TopOfRow(TopLogprobsArgs a, const Stats* stats, const Rank* tops) {
  constexpr int kBatch = 8;
  static_assert(kSplits == 32 && kMaxTopLogprobs <= 32);
  const int64_t r = blockIdx.x;
  const int want = Wanted(a, r), lane = static_cast<int>(threadIdx.x);
  Rank top = 0;
  Stats all = {-FLT_MAX, INT_MAX, 0.0, 0};
  if (want > 0) {
    all = WarpMerge(stats[r * kSplits + lane]);
    for (int split = 0; split < kSplits; split += kBatch) {
      Rank ranks[kBatch];
#pragma unroll
      for (int j = 0; j < kBatch; ++j) {
        ranks[j] = lane < want ? tops[(r * kSplits + split + j) * a.max_k + lane] : 0;
      }
#pragma unroll
      for (int j = 0; j < kBatch; ++j) Insert(ranks[j], want, &top);
    }
  }
  if (lane >= a.max_k) return;
  const bool listed = lane < want && top != 0 && !all.nan;
  const int token = listed ? static_cast<int>(~static_cast<uint32_t>(top)) : -1;
  a.token_ids[r * a.ids_stride + lane] = token;
  a.logprobs[r * a.logprobs_stride + lane] =
      listed ? static_cast<float>(static_cast<double>(Clamp(a.logits[r * a.logits_stride + token])) -
                                  static_cast<double>(all.max) - log(all.sum))
             : __int_as_float(0x7fc00000);
}

// One warp per row.
__global__ void __launch_bounds__(32) LogprobOfToken(TokenLogprobsArgs a, const Stats* stats) {
  static_assert(kSplits == 32);
  const int64_t r = blockIdx.x;
  const Stats all = WarpMerge(stats[r * kSplits + threadIdx.x]);
  if (threadIdx.x != 0) return;
  const int32_t token = a.token_ids[r];
  a.logprobs[r] = token >= 0 && token < a.valid_vocab && !all.nan
                      ? static_cast<float>(static_cast<double>(Clamp(a.logits[r * a.logits_stride + token])) -
                                           static_cast<double>(all.max) - log(all.sum))
                      : __int_as_float(0x7fc00000);
}

// One block per row.
__global__ void __launch_bounds__(kThreads) RankOfToken(TokenRanksArgs a) {
  const int64_t r = blockIdx.x;
  const float* row = a.logits + r * a.logits_stride;
  const int n = static_cast<int>(a.valid_vocab), token = a.token_ids[r];
  if (token < 0 || token >= n) {  // the same for the whole block
    if (threadIdx.x == 0) a.ranks[r] = 0;
    return;
  }
  const float own = Clamp(row[token]);
  int better = 0, nan = 0;
  ForRow(row, n, [&](int i, float raw) {
    const float x = Clamp(raw);
    nan |= isnan(raw);
    better += x > own || (x == own && i < token);
  });
  for (int d = 16; d > 0; d /= 2) better += __shfl_xor_sync(0xffffffffu, better, d);
  __shared__ int warps[kWarps];
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = better;
  nan = __syncthreads_or(nan);
  if (threadIdx.x != 0) return;
  int rank = 1;
  for (int w = 0; w < kWarps; ++w) rank += warps[w];
  a.ranks[r] = nan ? 0 : rank;
}

}  // namespace

int64_t SampleScratchBytes(int64_t rows) { return rows * kSplits * static_cast<int64_t>(sizeof(Stats)); }

void Sample(const SampleArgs& args, int32_t* token_ids, float* logprobs, void* stream) {
  Launch<false>(args, token_ids, logprobs, nullptr, 0, AsStream(stream));
}
void SampleProbs(const SampleArgs& args, float* probs, int64_t probs_stride, void* stream) {
  Launch<true>(args, nullptr, nullptr, probs, probs_stride, AsStream(stream));
}

int64_t TopLogprobsScratchBytes(int64_t rows, int64_t max_k) {
  return SampleScratchBytes(rows) + rows * kSplits * max_k * static_cast<int64_t>(sizeof(Rank));
}
void TopLogprobs(const TopLogprobsArgs& a, void* stream) {
  if (a.rows == 0 || a.max_k == 0) return;
  FD_CHECK(a.rows <= 65535, a.rows, " rows");
  FD_CHECK(a.max_k <= kMaxTopLogprobs, a.max_k, " tokens a row");
  auto* stats = static_cast<Stats*>(a.scratch);
  auto* tops = reinterpret_cast<Rank*>(stats + a.rows * kSplits);
  const dim3 grid(kSplits, static_cast<unsigned>(a.rows));
  RowStats<<<grid, kStatThreads, 0, AsStream(stream)>>>(a.logits, a.logits_stride,
                                                        static_cast<int>(a.valid_vocab), a.k, stats);
  FD_CUDA_CHECK(cudaGetLastError());
  TopOfPieces<<<grid, kStatThreads, 0, AsStream(stream)>>>(a, tops);
  FD_CUDA_CHECK(cudaGetLastError());
  TopOfRow<<<static_cast<unsigned>(a.rows), 32, 0, AsStream(stream)>>>(a, stats, tops);
  FD_CUDA_CHECK(cudaGetLastError());
}

void TokenLogprobs(const TokenLogprobsArgs& a, void* stream) {
  if (a.rows == 0) return;
  FD_CHECK(a.rows <= 65535, a.rows, " rows");
  auto* stats = static_cast<Stats*>(a.scratch);
  RowStats<<<dim3(kSplits, static_cast<unsigned>(a.rows)), kStatThreads, 0, AsStream(stream)>>>(
      a.logits, a.logits_stride, static_cast<int>(a.valid_vocab), nullptr, stats);
  FD_CUDA_CHECK(cudaGetLastError());
  LogprobOfToken<<<static_cast<unsigned>(a.rows), 32, 0, AsStream(stream)>>>(a, stats);
  FD_CUDA_CHECK(cudaGetLastError());
}

void TokenRanks(const TokenRanksArgs& a, void* stream) {
  if (a.rows == 0) return;
  RankOfToken<<<static_cast<unsigned>(a.rows), kThreads, 0, AsStream(stream)>>>(a);
  FD_CUDA_CHECK(cudaGetLastError());
}

}  // namespace fd::cuda
