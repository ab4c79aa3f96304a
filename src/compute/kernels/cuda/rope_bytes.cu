// RopeAndWriteKv into pages of bytes: a warp takes a head of a token, because a row's scale is of the whole
// head.
#include "compute/kernels/cuda/attention.h"
#include "compute/kernels/cuda/bytes.cuh"
#include "compute/kernels/cuda/launch.cuh"
#include "compute/kernels/cuda/rope_bytes.h"
#include "compute/kernels/cuda/values.cuh"

namespace fd::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kMaxHeadDim = 512;

// Heads are counted through q, k and v. A lane takes the pairs lane, lane + 32, ... of them kPairs at most.
template <typename T, DType B, bool kInterleaved, int kPairs>
__global__ void __launch_bounds__(32 * kWarps) RotateToBytes(RopeArgs a, int64_t items) {
  const int64_t item = blockIdx.x * int64_t{kWarps} + threadIdx.x / 32;
  LetNextBegin();
  WaitForPrevious();
  if (item >= items) return;
  const int lane = threadIdx.x & 31, heads = static_cast<int>(a.heads),
            kv_heads = static_cast<int>(a.kv_heads);
  const int64_t t = item / (heads + 2 * kv_heads);
  const int h = static_cast<int>(item % (heads + 2 * kv_heads)), d = static_cast<int>(a.head_dim),
            half = d / 2;
  const bool is_query = h < heads, is_key = !is_query && h < heads + kv_heads;
  T* q = static_cast<T*>(a.q) + t * a.q_stride + h * d;
  const T* from = is_query ? q
                  : is_key ? static_cast<const T*>(a.k) + t * a.k_stride + (h - heads) * d
                           : static_cast<const T*>(a.v) + t * a.v_stride + (h - heads - kv_heads) * d;
  const auto at = [half](int pair, int second) {
    return kInterleaved ? 2 * pair + second : pair + second * half;
  };

  float x[kPairs][2], top = 0;
  bool finite = true;
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    const int pair = lane + 32 * i;
    x[i][0] = x[i][1] = 0;
    if (pair >= half) continue;
    const float first = Load(from[at(pair, 0)]), second = Load(from[at(pair, 1)]);
    x[i][0] = first;
    x[i][1] = second;
    if (is_query || is_key) {
      // The roundings of kernels/cpu: one product rounded, the other fused; then to the activation type.
      const float cosine = a.cos_sin[t * d + pair], sine = a.cos_sin[t * d + half + pair];
      const T rotated_first = Round<T>(__fmaf_rn(first, cosine, -__fmul_rn(second, sine)));
      const T rotated_second = Round<T>(__fmaf_rn(second, cosine, __fmul_rn(first, sine)));
      if (is_query) {
        q[at(pair, 0)] = rotated_first;
        q[at(pair, 1)] = rotated_second;
      }
      x[i][0] = Load(rotated_first);
      x[i][1] = Load(rotated_second);
    }
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      top = fmaxf(top, fabsf(x[i][j]));
      finite = finite && isfinite(x[i][j]);
    }
  }
  if (is_query) return;
  const int64_t slot = a.slots[t];
  if (slot < 0) return;
#pragma unroll
  for (int m = 16; m > 0; m /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, m));
  finite = __all_sync(~0u, finite);
  const ByteScale<B> scale(top, finite);
  const int64_t kv = h - heads - (is_key ? 0 : kv_heads), token = slot % kKvPageTokens;
  auto* head = static_cast<uint8_t*>(is_key ? a.k_pages : a.v_pages) +
               (slot / kKvPageTokens * kv_heads + kv) * ByteHeadSize(d);
#pragma unroll
  for (int i = 0; i < kPairs; ++i) {
    const int pair = lane + 32 * i;
    if (pair >= half) continue;
    uint8_t* to = head + token * d;
    to[at(pair, 0)] = scale.Round(x[i][0]);
    to[at(pair, 1)] = scale.Round(x[i][1]);
  }
  if (lane == 0) reinterpret_cast<uint16_t*>(head + kKvPageTokens * d)[token] = scale.bits;
}

template <typename T, DType B, bool kInterleaved>
void Launch(const RopeArgs& a, cudaStream_t stream) {
  const int64_t items = a.tokens * (a.heads + 2 * a.kv_heads), blocks = (items + kWarps - 1) / kWarps;
  FD_CHECK(blocks <= INT32_MAX && a.head_dim <= kMaxHeadDim, a.tokens, " tokens, heads of ", a.head_dim);
  auto* kernel = a.head_dim <= 128 ? RotateToBytes<T, B, kInterleaved, 2>
                                   : RotateToBytes<T, B, kInterleaved, kMaxHeadDim / 64>;
  LaunchOverlapped(kernel, dim3(static_cast<unsigned>(blocks)), 32 * kWarps, 0, stream, a, items);
}

}  // namespace

void RopeToBytes(DType act, const RopeArgs& a, void* stream) {
  ForAct(act, [&]<typename T>(T) {
    ForBytes(a.page_type, [&]<DType B>(ByteType<B>) {
      if (a.interleaved) {
        Launch<T, B, true>(a, AsStream(stream));
      } else {
        Launch<T, B, false>(a, AsStream(stream));
      }
    });
  });
}

}  // namespace fd::cuda
