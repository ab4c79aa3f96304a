// Plain float32 arithmetic for what the tensor cores cannot multiply exactly or fetch: float32 rows, and rows
// of bfloat16 off 16 bytes. And weights that are drawn and quantised at once.
#include <algorithm>

#include "base/rng.h"
#include "compute/kernels/cuda/linear_quant.cuh"

namespace fd::cuda {
namespace {

constexpr int kTile = 64;   // rows and features of a block
constexpr int kDepth = 16;  // of k
constexpr int kThreads = 256;

template <int kBits>
__device__ __forceinline__ int Value(uint32_t word, int i) {
  if constexpr (kBits == 8) {
    return static_cast<int>(word >> 8 * i & 0xff) - 128;
  } else {
    return static_cast<int>(word >> (8 * (i % 4) + i / 4 * 4) & 0xf) - 8;
  }
}

// Block (x, y): feature tile x of the y-th row tile, counted over the experts. Each thread: 4 x 4 results.
template <typename In, int kBits>
__global__ void __launch_bounds__(kThreads) Simple(QuantLinear q, int64_t groups) {
  const LinearArgs& a = q.linear;
  const void* weight = a.weight;
  const void* scale_table = q.scales;
  int64_t first_row = blockIdx.y * int64_t{kTile}, end_row = a.m;
  if (q.offsets != nullptr) {
    int expert = 0, tile = static_cast<int>(blockIdx.y);
    for (;; ++expert) {
      if (expert == q.experts) return;
      first_row = q.offsets[expert];
      end_row = q.offsets[expert + 1];
      const int tiles = static_cast<int>(end_row - first_row + kTile - 1) / kTile;
      if (tile < tiles) break;
      tile -= tiles;
    }
    first_row += tile * kTile;
    weight = q.expert_weights[expert];
    scale_table = q.expert_scales[expert];
  }
  __shared__ float rows[kDepth][kTile + 1], features[kDepth][kTile + 1];
  const int64_t first_feature = static_cast<int64_t>(blockIdx.x) * kTile, octets = (a.k + 7) / 8;
  const In* in = static_cast<const In*>(a.in);
  // A thread unpacks one word of a step: these k of this feature.
  constexpr int kOfWord = 32 / kBits;
  const int own = threadIdx.x % kTile, part = static_cast<int>(threadIdx.x) / kTile * kOfWord;
  const int64_t panel = (first_feature + own) / kPanelFeatures;
  const uint32_t* words = static_cast<const uint32_t*>(weight) +
                          panel * octets * (kPanelFeatures * kBits / 4) + own % kPanelFeatures;
  const bf16* scales =
      static_cast<const bf16*>(scale_table) + panel * groups * kPanelFeatures + own % kPanelFeatures;
  const int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
  float sum[4][4] = {};
  for (int64_t k = 0; k < a.k; k += kDepth) {
    for (int i = threadIdx.x; i < kTile * kDepth; i += kThreads) {
      const int r = i / kDepth, p = i % kDepth;
      rows[p][r] =
          k + p < a.k && first_row + r < end_row ? Load(in[(first_row + r) * a.in_stride + k + p]) : 0.0f;
    }
    if (part < kDepth) {
      const bool inside = first_feature + own < a.n && k + part < a.k;
      const uint32_t word = inside ? words[(k + part) / kOfWord * kPanelFeatures] : 0;
      const float scale =
          inside ? Load(scales[q.group_size == 0 ? 0 : k / q.group_size * kPanelFeatures]) : 0.0f;
#pragma unroll
      for (int i = 0; i < kOfWord; ++i) {
        features[part + i][own] =
            k + part + i < a.k ? static_cast<float>(Value<kBits>(word, i)) * scale : 0.0f;
      }
    }
    __syncthreads();
#pragma unroll
    for (int p = 0; p < kDepth; ++p) {
      float x[4], y[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        x[i] = rows[p][ty + 16 * i];
        y[i] = features[p][tx + 16 * i];
      }
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] = fmaf(x[i], y[j], sum[i][j]);
    }
    __syncthreads();
  }
  const LinearFinish finish = {a.out, a.bias, a.out_stride, a.out_type == DType::kBFloat16,
                               a.bias_type == DType::kBFloat16};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t row = first_row + ty + 16 * i;
    if (row >= end_row) continue;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t feature = first_feature + tx + 16 * j;
      if (feature < a.n) finish.Store(row, feature, sum[i][j]);
    }
  }
}

// A warp takes a group of one feature.
template <int kBits>
__global__ void __launch_bounds__(kThreads)
    Quantize(uint32_t* panels, bf16* scales, int64_t first_feature, int64_t rows, int64_t k,
             int64_t group_size, int64_t groups, uint64_t key, float random_scale) {
  const int64_t task = blockIdx.x * int64_t{kThreads / 32} + threadIdx.x / 32;
  if (task >= rows * groups) return;
  const int lane = threadIdx.x % 32;
  const int64_t row = task / groups, group = task % groups, feature = first_feature + row;
  const int64_t begin = group * group_size, end = group_size == 0 ? k : min(begin + group_size, k);
  const auto value_at = [&](int64_t i) {  // as ops/random
    if (i >= k) return 0.0f;
    const uint32_t bits = FillBits(key, static_cast<uint64_t>(row * k + i));
    return Load(Round<bf16>(static_cast<float>(static_cast<int32_t>(bits)) * 0x1p-31f * random_scale));
  };
  constexpr float kLimit = kBits == 8 ? 127.0f : 7.0f;
  float most = 0;
  for (int64_t i = begin + lane; i < end; i += 32) most = fmaxf(most, fabsf(value_at(i)));
#pragma unroll
  for (int d = 16; d > 0; d /= 2) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, d));
  const bf16 rounded = Round<bf16>(__fdiv_rn(most, kLimit));
  const bool zero = Load(rounded) == 0;
  const int64_t panel = feature / kPanelFeatures, octets = (k + 7) / 8, at = feature % kPanelFeatures;
  if (lane == 0) scales[(panel * groups + group) * kPanelFeatures + at] = rounded;
  constexpr int kOfWord = 32 / kBits, kOffset = kBits == 8 ? 128 : 8;
  // Of whole octets, the last one's padding included.
  for (int64_t word = begin / kOfWord + lane; word < (end + 7) / 8 * (8 / kOfWord); word += 32) {
    uint32_t packed = 0;
#pragma unroll
    for (int i = 0; i < kOfWord; ++i) {
      const float value = value_at(word * kOfWord + i);
      // roundf: halves away from zero, as quantize_weights of the CPU.
      const float q = zero ? 0.0f : roundf(__fmul_rn(__fdiv_rn(value, most), kLimit));
      const uint32_t stored = static_cast<uint32_t>(static_cast<int>(q) + kOffset);
      packed |= stored << (kBits == 8 ? 8 * i : 8 * (i % 4) + i / 4 * 4);
    }
    panels[panel * octets * (kPanelFeatures * kBits / 4) + word * kPanelFeatures + at] = packed;
  }
}

}  // namespace

void LinearQuantSimple(const QuantLinear& q, void* stream) {
  const LinearArgs& a = q.linear;
  if (a.m == 0 || a.n == 0) return;
  const int64_t tiles =
      q.offsets == nullptr ? (a.m + kTile - 1) / kTile : a.m / kTile + std::min(a.m, q.experts);
  FD_CHECK(tiles <= 65535, a.m, " rows");
  const dim3 grid(static_cast<unsigned>((a.n + kTile - 1) / kTile), static_cast<unsigned>(tiles));
  const int64_t groups = NumGroups(a.k, q.group_size);
  ForAct(a.in_type, [&]<typename In>(In) {
    if (q.bits == 8) {
      Simple<In, 8><<<grid, kThreads, 0, AsStream(stream)>>>(q, groups);
    } else {
      Simple<In, 4><<<grid, kThreads, 0, AsStream(stream)>>>(q, groups);
    }
  });
  FD_CUDA_CHECK(cudaGetLastError());
}

void QuantizeRandom(void* panels, void* scales, int64_t first_feature, int64_t rows, int64_t k, int bits,
                    int64_t group_size, uint64_t key, float scale, void* stream) {
  if (rows == 0) return;
  const int64_t groups = NumGroups(k, group_size), warps = kThreads / 32;
  const unsigned blocks = static_cast<unsigned>((rows * groups + warps - 1) / warps);
  const auto kernel = bits == 8 ? Quantize<8> : Quantize<4>;
  kernel<<<blocks, kThreads, 0, AsStream(stream)>>>(static_cast<uint32_t*>(panels),
                                                    static_cast<bf16*>(scales), first_feature, rows, k,
                                                    group_size, groups, key, scale);
  FD_CUDA_CHECK(cudaGetLastError());
}

}  // namespace fd::cuda
