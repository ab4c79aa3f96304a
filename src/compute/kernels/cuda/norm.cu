#include <algorithm>

#include "compute/kernels/cuda/launch.cuh"
#include "compute/kernels/cuda/rows.h"
#include "compute/kernels/cuda/values.cuh"

namespace fd::cuda {
namespace {

// One block per row. A thread owns the same elements in every pass, so that out may be in and the later
// passes read what it just read or wrote (from L1).
template <typename T, int kWidth, bool kResidual>
__global__ void RmsNormRows(T* out, int64_t out_stride, T* residual, int64_t residual_stride, const T* in,
                            int64_t in_stride, const T* weight, int n, float eps) {
  using V = Vec<T, kWidth>;
  __shared__ float partial[32];
  LetNextBegin();
  const int own = threadIdx.x * kWidth, step = blockDim.x * kWidth;
  V own_weight = {}, own_x = {};  // of the first pass of a thread, mostly the only one
  if (own < n) own_weight = *reinterpret_cast<const V*>(weight + own);
  WaitForPrevious();
  const int64_t row = blockIdx.x;
  const T* from = in + row * in_stride;
  T* sum_row = kResidual ? residual + row * residual_stride : nullptr;
  T* to = out + row * out_stride;
  float squares = 0;
  for (int i = own; i < n; i += step) {
    V x = *reinterpret_cast<const V*>(from + i);
    if constexpr (kResidual) {
      const V r = *reinterpret_cast<const V*>(sum_row + i);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) x.v[j] = Round<T>(Load(r.v[j]) + Load(x.v[j]));
      *reinterpret_cast<V*>(sum_row + i) = x;
    }
#pragma unroll
    for (int j = 0; j < kWidth; ++j) squares += Load(x.v[j]) * Load(x.v[j]);
    if (i == own) own_x = x;
  }
  const float scale = rsqrtf(BlockSum(squares, partial) / static_cast<float>(n) + eps);
  const T* source = kResidual ? sum_row : from;
  for (int i = own; i < n; i += step) {
    V x = i == own ? own_x : *reinterpret_cast<const V*>(source + i);
    const V w = i == own ? own_weight : *reinterpret_cast<const V*>(weight + i);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) x.v[j] = Round<T>(Load(Round<T>(Load(x.v[j]) * scale)) * Load(w.v[j]));
    *reinterpret_cast<V*>(to + i) = x;
  }
}

template <typename T, int kWidth>
__global__ void LayerNormRows(T* out, int64_t out_stride, const T* in, int64_t in_stride, const T* weight,
                              const T* bias, int n, float eps) {
  using V = Vec<T, kWidth>;
  __shared__ float partial[32];
  const T* from = in + blockIdx.x * in_stride;
  T* to = out + blockIdx.x * out_stride;
  float sum = 0;
  for (int i = threadIdx.x * kWidth; i < n; i += blockDim.x * kWidth) {
    const V x = *reinterpret_cast<const V*>(from + i);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) sum += Load(x.v[j]);
  }
  const float mean = BlockSum(sum, partial) / static_cast<float>(n);
  float squares = 0;
  for (int i = threadIdx.x * kWidth; i < n; i += blockDim.x * kWidth) {
    const V x = *reinterpret_cast<const V*>(from + i);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      const float d = Load(x.v[j]) - mean;
      squares += d * d;
    }
  }
  const float scale = rsqrtf(BlockSum(squares, partial) / static_cast<float>(n) + eps);
  for (int i = threadIdx.x * kWidth; i < n; i += blockDim.x * kWidth) {
    V x = *reinterpret_cast<const V*>(from + i);
    const V w = *reinterpret_cast<const V*>(weight + i), b = *reinterpret_cast<const V*>(bias + i);
#pragma unroll
    for (int j = 0; j < kWidth; ++j)
      x.v[j] = Round<T>((Load(x.v[j]) - mean) * scale * Load(w.v[j]) + Load(b.v[j]));
    *reinterpret_cast<V*>(to + i) = x;
  }
}

// A multiple of 32 that gives every thread about one unit.
unsigned ThreadsFor(int64_t units) {
  return static_cast<unsigned>(std::clamp<int64_t>((units + 31) / 32 * 32, 32, 1024));
}

template <typename T, int kWidth>
void LaunchRms(T* out, int64_t out_stride, T* residual, int64_t residual_stride, const T* in,
               int64_t in_stride, const T* weight, int64_t rows, int64_t n, float eps, cudaStream_t stream) {
  const unsigned threads = ThreadsFor(n / kWidth), blocks = static_cast<unsigned>(rows);
  if (residual != nullptr) {
    LaunchOverlapped(RmsNormRows<T, kWidth, true>, dim3(blocks), threads, 0, stream, out, out_stride,
                     residual, residual_stride, in, in_stride, weight, static_cast<int>(n), eps);
  } else {
    LaunchOverlapped(RmsNormRows<T, kWidth, false>, dim3(blocks), threads, 0, stream, out, out_stride,
                     residual, residual_stride, in, in_stride, weight, static_cast<int>(n), eps);
  }
}

}  // namespace

void RmsNorm(DType act, void* out, int64_t out_stride, void* residual, int64_t residual_stride,
             const void* in, int64_t in_stride, const void* weight, int64_t rows, int64_t n, float eps,
             void* stream) {
  if (rows == 0 || n == 0) return;
  ForAct(act, [&]<typename T>(T) {
    T *o = static_cast<T*>(out), *r = static_cast<T*>(residual);
    const T *x = static_cast<const T*>(in), *w = static_cast<const T*>(weight);
    if (n % kVec<T> == 0 && Aligned16<T>(o, out_stride) && Aligned16<T>(r, residual_stride) &&
        Aligned16<T>(x, in_stride) && Aligned16<T>(w, 0)) {
      LaunchRms<T, kVec<T>>(o, out_stride, r, residual_stride, x, in_stride, w, rows, n, eps,
                            AsStream(stream));
    } else {
      LaunchRms<T, 1>(o, out_stride, r, residual_stride, x, in_stride, w, rows, n, eps, AsStream(stream));
    }
  });
  FD_CUDA_CHECK(cudaGetLastError());
}

void LayerNorm(DType act, void* out, int64_t out_stride, const void* in, int64_t in_stride,
               const void* weight, const void* bias, int64_t rows, int64_t n, float eps, void* stream) {
  if (rows == 0 || n == 0) return;
  ForAct(act, [&]<typename T>(T) {
    T* o = static_cast<T*>(out);
    const T *x = static_cast<const T*>(in), *w = static_cast<const T*>(weight),
            *b = static_cast<const T*>(bias);
    const unsigned blocks = static_cast<unsigned>(rows);
    if (n % kVec<T> == 0 && Aligned16<T>(o, out_stride) && Aligned16<T>(x, in_stride) && Aligned16<T>(w, 0) &&
        Aligned16<T>(b, 0)) {
      LayerNormRows<T, kVec<T>><<<blocks, ThreadsFor(n / kVec<T>), 0, AsStream(stream)>>>(
          o, out_stride, x, in_stride, w, b, static_cast<int>(n), eps);
    } else {
      LayerNormRows<T, 1><<<blocks, ThreadsFor(n), 0, AsStream(stream)>>>(o, out_stride, x, in_stride, w, b,
                                                                          static_cast<int>(n), eps);
    }
  });
  FD_CUDA_CHECK(cudaGetLastError());
}

}  // namespace fd::cuda
