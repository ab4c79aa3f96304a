// Plain float32 arithmetic for the type mixes the library cannot multiply exactly: a router's float32 weights
// under bfloat16 rows, bfloat16 weights under float32 rows.
#include <algorithm>

#include "compute/kernels/cuda/linear.h"
#include "compute/kernels/cuda/values.cuh"

namespace fd::cuda {
namespace {

constexpr int kTile = 64, kDepth = 16, kThreads = 256;  // 4 x 4 results a thread
constexpr int kFewRows = 8, kWarps = 4;

// Bias and the type of the output.
struct Finish {
  void* out;
  const void* bias;
  int64_t stride;
  bool out_bf16, bias_bf16;
  __device__ void Store(int64_t row, int64_t column, float v) const {
    if (bias != nullptr)
      v += bias_bf16 ? Load(static_cast<const bf16*>(bias)[column]) : static_cast<const float*>(bias)[column];
    const int64_t at = row * stride + column;
    if (out_bf16) {
      static_cast<bf16*>(out)[at] = Round<bf16>(v);
    } else {
      static_cast<float*>(out)[at] = v;
    }
  }
};

template <typename In, typename W>
__global__ void Tiled(Finish finish, const In* in, int64_t in_stride, const W* weight, int64_t m, int64_t n,
                      int64_t k) {
  __shared__ float a[kDepth][kTile + 4], b[kDepth][kTile + 4];
  const int64_t first_row = blockIdx.y * int64_t{kTile}, first_column = blockIdx.x * int64_t{kTile};
  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  float sum[4][4] = {};
  for (int64_t p = 0; p < k; p += kDepth) {
    for (int i = threadIdx.x; i < kTile * kDepth; i += kThreads) {
      const int r = i / kDepth, c = i % kDepth;
      const bool inside = p + c < k;
      a[c][r] = inside && first_row + r < m ? Load(in[(first_row + r) * in_stride + p + c]) : 0.0f;
      b[c][r] = inside && first_column + r < n ? Load(weight[(first_column + r) * k + p + c]) : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (int c = 0; c < kDepth; ++c) {
      float x[4], y[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        x[i] = a[c][ty * 4 + i];
        y[i] = b[c][tx * 4 + i];
      }
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) sum[i][j] = fmaf(x[i], y[j], sum[i][j]);
    }
    __syncthreads();
  }
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 4; ++j) {
      const int64_t row = first_row + ty * 4 + i, column = first_column + tx * 4 + j;
      if (row < m && column < n) finish.Store(row, column, sum[i][j]);
    }
  }
}

// One warp an output feature, up to kFewRows rows at once: reads each weight once.
template <typename In, typename W>
__global__ void FewRows(Finish finish, const In* in, int64_t in_stride, const W* weight, int64_t m, int64_t n,
                        int64_t k) {
  const int lane = threadIdx.x % 32;
  const int64_t column = blockIdx.x * int64_t{kWarps} + threadIdx.x / 32;
  if (column >= n) return;
  const int64_t first_row = blockIdx.y * int64_t{kFewRows};
  const W* w = weight + column * k;
  float sum[kFewRows] = {};
#pragma unroll 4
  for (int64_t p = lane; p < k; p += 32) {
    const float v = Load(w[p]);
#pragma unroll
    for (int r = 0; r < kFewRows; ++r)
      if (first_row + r < m) sum[r] = fmaf(v, Load(in[(first_row + r) * in_stride + p]), sum[r]);
  }
#pragma unroll
  for (int r = 0; r < kFewRows; ++r) {
    const float total = WarpSum(sum[r]);
    if (lane == 0 && first_row + r < m) finish.Store(first_row + r, column, total);
  }
}

template <typename In, typename W>
void Launch(const LinearArgs& a, void* stream) {
  const Finish finish = {a.out, a.bias, a.out_stride, a.out_type == DType::kBFloat16,
                         a.bias_type == DType::kBFloat16};
  const In* in = static_cast<const In*>(a.in);
  const W* weight = static_cast<const W*>(a.weight);
  // Few outputs cannot fill the chip with tiles.
  if (a.m <= kFewRows || (a.m <= 256 && a.n <= 256)) {
    const dim3 grid(static_cast<unsigned>((a.n + kWarps - 1) / kWarps),
                    static_cast<unsigned>((a.m + kFewRows - 1) / kFewRows));
    FewRows<<<grid, kWarps * 32, 0, AsStream(stream)>>>(finish, in, a.in_stride, weight, a.m, a.n, a.k);
  } else {
    const dim3 grid(static_cast<unsigned>((a.n + kTile - 1) / kTile),
                    static_cast<unsigned>((a.m + kTile - 1) / kTile));
    Tiled<<<grid, kThreads, 0, AsStream(stream)>>>(finish, in, a.in_stride, weight, a.m, a.n, a.k);
  }
  FD_CUDA_CHECK(cudaGetLastError());
}

}  // namespace

void LinearSimple(const LinearArgs& args, void* stream) {
  if (args.m == 0 || args.n == 0) return;
  ForAct(args.in_type, [&]<typename In>(In) {
    ForAct(args.weight_type, [&]<typename W>(W) { Launch<In, W>(args, stream); });
  });
}

}  // namespace fd::cuda
