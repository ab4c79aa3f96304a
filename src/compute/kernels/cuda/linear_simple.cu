// Plain float32 arithmetic for the type mixes the library cannot multiply exactly: a router's float32 weights
// under bfloat16 rows, bfloat16 weights under float32 rows.
#include <algorithm>

#include "compute/kernels/cuda/launch.cuh"
#include "compute/kernels/cuda/linear_finish.cuh"

namespace fd::cuda {
namespace {

constexpr int kTile = 64, kDepth = 16, kThreads = 256;  // 4 x 4 results a thread
constexpr int kFewRows = 8, kWarps = 8;

template <typename In, typename W>
__global__ void Tiled(LinearFinish finish, const In* in, int64_t in_stride, const W* weight, int64_t m,
                      int64_t n, int64_t k) {
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

// kWidth consecutive values as float32.
template <int kWidth, typename T>
__device__ __forceinline__ void LoadVec(const T* p, float* v) {
  constexpr int kStep = kWidth < kVec<T> ? kWidth : kVec<T>;
#pragma unroll
  for (int i = 0; i < kWidth; i += kStep) {
    const Vec<T, kStep> part = *reinterpret_cast<const Vec<T, kStep>*>(p + i);
#pragma unroll
    for (int j = 0; j < kStep; ++j) v[i + j] = Load(part.v[j]);
  }
}

// sum[r] += row r . y for this thread's part of k. The rows' loads depend on nothing, so that they fly
// together; rows beyond count repeat the last.
template <int kRows, int kWidth, typename In>
__device__ __forceinline__ void AddProducts(float* sum, const float* y, const In* rows, int64_t in_stride,
                                            int count) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    float x[kWidth];
    LoadVec<kWidth>(rows + min(r, count - 1) * in_stride, x);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) sum[r] = fmaf(x[i], y[i], sum[r]);
  }
}

// One block an output feature and up to kFewRows rows; its threads share k.
template <typename In, typename W, int kWidth>
__global__ void FewRows(LinearFinish finish, const In* in, int64_t in_stride, const W* weight, int64_t m,
                        int64_t k) {
  __shared__ float partial[kWarps][kFewRows];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t column = blockIdx.x, first_row = blockIdx.y * int64_t{kFewRows};
  const W* w = weight + column * k;
  const In* rows = in + first_row * in_stride;
  const int count = static_cast<int>(min(m - first_row, int64_t{kFewRows}));
  float sum[kFewRows] = {}, y[kWidth];
  LetNextBegin();
  int64_t p = int64_t{threadIdx.x} * kWidth;
  if (p < k) LoadVec<kWidth>(w + p, y);
  WaitForPrevious();
  while (p < k) {
    if (count == 1) {
      AddProducts<1, kWidth>(sum, y, rows + p, in_stride, count);
    } else {
      AddProducts<kFewRows, kWidth>(sum, y, rows + p, in_stride, count);
    }
    p += kWarps * 32 * kWidth;
    if (p < k) LoadVec<kWidth>(w + p, y);
  }
#pragma unroll
  for (int r = 0; r < kFewRows; ++r) {
    const float total = WarpSum(sum[r]);
    if (lane == 0) partial[warp][r] = total;
  }
  __syncthreads();
  if (threadIdx.x < static_cast<unsigned>(count)) {
    float total = 0;
    for (int i = 0; i < kWarps; ++i) total += partial[i][threadIdx.x];
    finish.Store(first_row + threadIdx.x, column, total);
  }
}

__global__ void Split(bf16* parts, const float* weight, int64_t elements) {
  const int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (i >= elements) return;
  float rest = weight[i];
#pragma unroll
  for (int part = 0; part < 3; ++part) {
    const bf16 value = Round<bf16>(rest);
    parts[part * elements + i] = value;
    rest = isfinite(rest) ? rest - Load(value) : 0.0f;
  }
}

__global__ void AddParts(LinearFinish finish, const float* parts, int64_t m, int64_t n) {
  const int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (i >= m * n) return;
  const int64_t row = i / n, column = i - row * n;
  const float* p = parts + row * 3 * n + column;
  finish.Store(row, column, p[0] + (p[n] + p[2 * n]));
}

template <typename In, typename W>
void Launch(const LinearArgs& a, void* stream) {
  const LinearFinish finish = LinearFinishOf(a);
  const In* in = static_cast<const In*>(a.in);
  const W* weight = static_cast<const W*>(a.weight);
  // Few outputs cannot fill the chip with tiles.
  const bool few = a.invariant ? a.n <= 256 : a.m <= kFewRows || (a.m <= 256 && a.n <= 256);
  if (few && a.m <= 65535 * int64_t{kFewRows}) {
    const dim3 grid(static_cast<unsigned>(a.n), static_cast<unsigned>((a.m + kFewRows - 1) / kFewRows));
    if (a.k % 8 == 0 && Aligned16<In>(in, a.in_stride) && Aligned16<W>(weight, a.k)) {
      LaunchOverlapped(FewRows<In, W, 8>, grid, kWarps * 32, 0, AsStream(stream), finish, in, a.in_stride,
                       weight, a.m, a.k);
    } else {
      LaunchOverlapped(FewRows<In, W, 1>, grid, kWarps * 32, 0, AsStream(stream), finish, in, a.in_stride,
                       weight, a.m, a.k);
    }
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

void SplitFloat32(void* parts, const void* weight, int64_t n, int64_t k, void* stream) {
  const int64_t elements = n * k;
  if (elements == 0) return;
  Split<<<static_cast<unsigned>((elements + kThreads - 1) / kThreads), kThreads, 0, AsStream(stream)>>>(
      static_cast<bf16*>(parts), static_cast<const float*>(weight), elements);
  FD_CUDA_CHECK(cudaGetLastError());
}

void AddSplitParts(const LinearArgs& args, const float* parts, void* stream) {
  const int64_t elements = args.m * args.n;
  if (elements == 0) return;
  AddParts<<<static_cast<unsigned>((elements + kThreads - 1) / kThreads), kThreads, 0, AsStream(stream)>>>(
      LinearFinishOf(args), parts, args.m, args.n);
  FD_CUDA_CHECK(cudaGetLastError());
}

}  // namespace fd::cuda
