// Angles of rotary embeddings; the rotation of queries and keys, which also writes keys and values to their
// pages.
#include <cstdint>

#include "compute/kernels/cuda/attention.h"
#include "compute/kernels/cuda/bytes.cuh"
#include "compute/kernels/cuda/launch.cuh"
#include "compute/kernels/cuda/rope_bytes.h"
#include "compute/kernels/cuda/rows.h"
#include "compute/kernels/cuda/values.cuh"

namespace fd::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kRotateThreads = 256;

__global__ void CosSin(float* cos_sin, const int32_t* positions, int64_t positions_stride,
                       const float* inv_freq, const int32_t* axis, int64_t total, int half, float scale) {
  const int64_t at = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (at >= total) return;
  const int64_t t = at / half;
  const int i = static_cast<int>(at - t * half);
  const float angle = inv_freq[i] * static_cast<float>(positions[axis[i] * positions_stride + t]);
  // Accurate for large angles: positions reach 131072 radians.
  float sine, cosine;
  sincosf(angle, &sine, &cosine);
  cos_sin[t * 2 * half + i] = scale * cosine;
  cos_sin[t * 2 * half + half + i] = scale * sine;
}

// What a thread takes of a head: kPairs pairs, in one or two runs of neighbouring elements, which are 16-byte
// vectors where kWide.
template <typename T, bool kInterleaved, bool kWide>
struct Piece {
  static constexpr int kPairs = !kWide ? 1 : kInterleaved ? kVec<T> / 2 : kVec<T>;
  static constexpr int kRuns = kInterleaved ? 1 : 2;
  static constexpr int kRun = 2 * kPairs / kRuns;
  using Run = Vec<T, kRun>;
  Run runs[kRuns];

  // Where run r lies in a head, of which the thread's first pair is `first`.
  __device__ static int At(int r, int first, int half) { return kInterleaved ? 2 * first : first + r * half; }
  __device__ __forceinline__ void Read(const T* head, int first, int half) {
#pragma unroll
    for (int r = 0; r < kRuns; ++r) {
      const T* from = head + At(r, first, half);
      if constexpr (kWide) {
        runs[r] = *reinterpret_cast<const Run*>(from);
      } else {
#pragma unroll
        for (int i = 0; i < kRun; ++i) runs[r].v[i] = from[i];
      }
    }
  }
  __device__ __forceinline__ void Write(T* head, int first, int half) const {
#pragma unroll
    for (int r = 0; r < kRuns; ++r) {
      T* to = head + At(r, first, half);
      if constexpr (kWide) {
        *reinterpret_cast<Run*>(to) = runs[r];
      } else {
#pragma unroll
        for (int i = 0; i < kRun; ++i) to[i] = runs[r].v[i];
      }
    }
  }
  // The roundings of kernels/cpu: one product rounded, the other fused.
  __device__ __forceinline__ void Rotate(const float* cosine, const float* sine) {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      T& first = kInterleaved ? runs[0].v[2 * i] : runs[0].v[i];
      T& second = kInterleaved ? runs[0].v[2 * i + 1] : runs[kRuns - 1].v[i];
      const float a = Load(first), b = Load(second);
      first = Round<T>(__fmaf_rn(a, cosine[i], -__fmul_rn(b, sine[i])));
      second = Round<T>(__fmaf_rn(b, cosine[i], __fmul_rn(a, sine[i])));
    }
  }
};

// A thread takes the same piece of kHeads neighbouring heads of a token; heads are counted through q, k and
// v. threads = tokens * groups * pieces, pieces = head_dim / 2 / kPairs.
template <typename T, bool kInterleaved, bool kWide, int kHeads>
__global__ void __launch_bounds__(kRotateThreads)
    Rotate(RopeArgs a, uint32_t pieces, uint32_t groups, uint32_t threads) {
  using P = Piece<T, kInterleaved, kWide>;
  const uint32_t item = blockIdx.x * kRotateThreads + threadIdx.x;
  LetNextBegin();
  WaitForPrevious();
  if (item >= threads) return;
  const int64_t t = item / pieces / groups;
  const int first = static_cast<int>(item % pieces) * P::kPairs, d = static_cast<int>(a.head_dim),
            half = d / 2;
  const int heads = static_cast<int>(a.heads), kv_heads = static_cast<int>(a.kv_heads);
  const int begin = static_cast<int>(item / pieces % groups) * kHeads;
  const int end = min(begin + kHeads, heads + 2 * kv_heads);
  T* q = static_cast<T*>(a.q) + t * a.q_stride;
  const T* k = static_cast<const T*>(a.k) + t * a.k_stride;
  const T* v = static_cast<const T*>(a.v) + t * a.v_stride;

  P x[kHeads];
#pragma unroll
  for (int i = 0; i < kHeads; ++i) {
    const int h = begin + i;
    if (h >= end) break;
    const T* from = h < heads              ? q + h * d
                    : h < heads + kv_heads ? k + (h - heads) * d
                                           : v + (h - heads - kv_heads) * d;
    x[i].Read(from, first, half);
  }
  const int64_t slot = end > heads ? a.slots[t] : 0;
  float cosine[P::kPairs], sine[P::kPairs];
  if (begin < heads + kv_heads) {
    constexpr int kWidth = P::kPairs < 4 ? P::kPairs : 4;
    using Angles = Vec<float, kWidth>;
    const float* from = a.cos_sin + t * d + first;
#pragma unroll
    for (int i = 0; i < P::kPairs; i += kWidth) {
      const Angles c = *reinterpret_cast<const Angles*>(from + i);
      const Angles s = *reinterpret_cast<const Angles*>(from + half + i);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        cosine[i + j] = c.v[j];
        sine[i + j] = s.v[j];
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kHeads; ++i) {
    const int h = begin + i;
    if (h >= end) break;
    if (h < heads + kv_heads) x[i].Rotate(cosine, sine);
    if (h < heads) {
      x[i].Write(q + h * d, first, half);
    } else if (slot >= 0) {
      const bool is_key = h < heads + kv_heads;
      const int64_t kv = h - heads - (is_key ? 0 : kv_heads);
      const int64_t row = (slot / kKvPageTokens * kv_heads + kv) * kKvPageTokens + slot % kKvPageTokens;
      x[i].Write(static_cast<T*>(is_key ? a.k_pages : a.v_pages) + row * d, first, half);
    }
  }
}

template <typename T, bool kInterleaved, bool kWide>
void LaunchRotate(const RopeArgs& a, cudaStream_t stream) {
  // Below this many pieces a thread takes one, so that a small batch occupies the device too.
  constexpr int64_t kManyPieces = 1 << 19;
  constexpr int kHeads = 4;
  const int64_t pieces = a.head_dim / 2 / Piece<T, kInterleaved, kWide>::kPairs;
  const int64_t heads = a.heads + 2 * a.kv_heads;
  const bool many = a.tokens * heads * pieces >= kManyPieces;
  const int64_t groups = many ? (heads + kHeads - 1) / kHeads : heads;
  const int64_t threads = a.tokens * groups * pieces;
  FD_CHECK(threads <= INT32_MAX, a.tokens, " tokens of ", heads, " heads of ", a.head_dim);
  const auto blocks = static_cast<unsigned>((threads + kRotateThreads - 1) / kRotateThreads);
  auto* kernel = many ? Rotate<T, kInterleaved, kWide, kHeads> : Rotate<T, kInterleaved, kWide, 1>;
  LaunchOverlapped(kernel, dim3(blocks), kRotateThreads, 0, stream, a, static_cast<uint32_t>(pieces),
                   static_cast<uint32_t>(groups), static_cast<uint32_t>(threads));
}

template <typename T, bool kInterleaved>
bool CanBeWide(const RopeArgs& a) {
  return a.head_dim / 2 % Piece<T, kInterleaved, true>::kPairs == 0 && Aligned16<float>(a.cos_sin, 0) &&
         Aligned16<T>(a.q, a.q_stride) && Aligned16<T>(a.k, a.k_stride) && Aligned16<T>(a.v, a.v_stride) &&
         Aligned16<T>(a.k_pages, 0) && Aligned16<T>(a.v_pages, 0);
}

template <typename T, bool kInterleaved>
void LaunchRotate(const RopeArgs& a, cudaStream_t stream) {
  if (CanBeWide<T, kInterleaved>(a)) {
    LaunchRotate<T, kInterleaved, true>(a, stream);
  } else {
    LaunchRotate<T, kInterleaved, false>(a, stream);
  }
}

}  // namespace

void RopeCosSin(float* cos_sin, const int32_t* positions, int64_t positions_stride, const float* inv_freq,
                const int32_t* axis, int64_t tokens, int64_t half, float scale, void* stream) {
  const int64_t total = tokens * half;
  if (total == 0) return;
  CosSin<<<static_cast<unsigned>((total + kThreads - 1) / kThreads), kThreads, 0, AsStream(stream)>>>(
      cos_sin, positions, positions_stride, inv_freq, axis, total, static_cast<int>(half), scale);
  FD_CUDA_CHECK(cudaGetLastError());
}

void Rope(DType act, const RopeArgs& args, void* stream) {
  if (args.tokens == 0 || args.heads + args.kv_heads == 0 || args.head_dim == 0) return;
  if (args.kv_heads > 0 && HoldsBytes(args.page_type)) return RopeToBytes(act, args, stream);
  ForAct(act, [&]<typename T>(T) {
    if (args.interleaved) {
      LaunchRotate<T, true>(args, AsStream(stream));
    } else {
      LaunchRotate<T, false>(args, AsStream(stream));
    }
  });
}

}  // namespace fd::cuda
