#include "compute/kernels/cuda/grouped_gemm.h"

#include <cuda_bf16.h>

#include "compute/kernels/cuda/cuda_check.cuh"

namespace fd::cuda {
namespace {

constexpr int kTile = 64;  // rows and features of a block
constexpr int kStep = 16;  // of k
constexpr int kThreads = 256;

// Block (x, y): feature tile x of the y-th row tile, counted over the experts. Each thread: 4 x 4 results.
template <typename Act, typename Weight>
__global__ void __launch_bounds__(kThreads) Portable(GroupedGemm g) {
  int expert = 0, tile = static_cast<int>(blockIdx.y);
  int begin = 0, end = 0;
  for (;; ++expert) {
    if (expert == g.experts) return;
    begin = g.offsets[expert];
    end = g.offsets[expert + 1];
    const int tiles = (end - begin + kTile - 1) / kTile;
    if (tile < tiles) break;
    tile -= tiles;
  }
  const int64_t first_row = begin + tile * kTile;
  const int64_t first_feature = static_cast<int64_t>(blockIdx.x) * kTile;
  const Act* in = static_cast<const Act*>(g.in);
  const Weight* weight = static_cast<const Weight* const*>(g.weights)[expert];
  __shared__ float rows[kStep][kTile + 1], features[kStep][kTile + 1];
  float sum[4][4] = {};
  const int row = threadIdx.x / 16, column = threadIdx.x % 16;
  for (int64_t k = 0; k < g.k; k += kStep) {
    for (int i = threadIdx.x; i < kTile * kStep; i += kThreads) {
      const int r = i / kStep, p = i % kStep;
      const bool inside = k + p < g.k;
      rows[p][r] =
          inside && first_row + r < end ? static_cast<float>(in[(first_row + r) * g.k + k + p]) : 0.0f;
      features[p][r] = inside && first_feature + r < g.n
                           ? static_cast<float>(weight[(first_feature + r) * g.k + k + p])
                           : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (int p = 0; p < kStep; ++p) {
      float a[4], b[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        a[i] = rows[p][row + 16 * i];
        b[i] = features[p][column + 16 * i];
      }
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] = fmaf(a[i], b[j], sum[i][j]);
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int64_t r = first_row + row + 16 * i;
    if (r >= end) continue;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t f = first_feature + column + 16 * j;
      if (f < g.n) static_cast<Act*>(g.out)[r * g.n + f] = static_cast<Act>(sum[i][j]);
    }
  }
}

}  // namespace

void GroupedGemmPortable(const GroupedGemm& g, void* stream) {
  // Each expert adds at most one tile that is not full.
  const int64_t row_tiles = g.pairs / kTile + (g.pairs < g.experts ? g.pairs : g.experts);
  FD_CHECK(row_tiles <= 65535, g.pairs, " pairs");
  const dim3 grid(static_cast<unsigned>((g.n + kTile - 1) / kTile), static_cast<unsigned>(row_tiles));
  const cudaStream_t s = static_cast<cudaStream_t>(stream);
  const bool act = g.act == DType::kBFloat16, weight = g.weight == DType::kBFloat16;
  if (act && weight) {
    Portable<__nv_bfloat16, __nv_bfloat16><<<grid, kThreads, 0, s>>>(g);
  } else if (act) {
    Portable<__nv_bfloat16, float><<<grid, kThreads, 0, s>>>(g);
  } else if (weight) {
    Portable<float, __nv_bfloat16><<<grid, kThreads, 0, s>>>(g);
  } else {
    Portable<float, float><<<grid, kThreads, 0, s>>>(g);
  }
  FD_CUDA_CHECK(cudaGetLastError());
}

}  // namespace fd::cuda
