#include <algorithm>

#include "compute/kernels/cuda/launch.cuh"
#include "compute/kernels/cuda/rows.h"
#include "compute/kernels/cuda/values.cuh"

namespace fd::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxGridY = 65535;

struct SwiGluOf {
  template <typename T>
  __device__ T Do(T gate, T up) const {
    return SiluTimes(gate, up);
  }
};
struct QuickGeluOf {
  template <typename T>
  __device__ T Do(T v, T) const {
    const float x = Load(v);
    return Round<T>(x / (1.0f + expf(-1.702f * x)));
  }
};
struct GeluOf {
  template <typename T>
  __device__ T Do(T v, T) const {
    const float x = Load(v);
    return Round<T>(0.5f * x * erfcf(-x * 0.70710678118654752f));
  }
};
struct SumOf {
  template <typename T>
  __device__ T Do(T a, T b) const {
    return Round<T>(Load(a) + Load(b));
  }
};

// out = op(a, b); functions of one operand get it twice. No restrict: out may be a or b.
template <typename T, int kWidth, typename Op>
__global__ void Elements(T* out, int64_t out_stride, const T* a, int64_t a_stride, const T* b,
                         int64_t b_stride, int64_t rows, int64_t n) {
  using V = Vec<T, kWidth>;
  LetNextBegin();
  WaitForPrevious();
  const int64_t i = (blockIdx.x * int64_t{kThreads} + threadIdx.x) * kWidth;
  if (i >= n) return;
  for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
    const V x = *reinterpret_cast<const V*>(a + r * a_stride + i);
    const V y = *reinterpret_cast<const V*>(b + r * b_stride + i);
    V z;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) z.v[j] = Op().Do(x.v[j], y.v[j]);
    *reinterpret_cast<V*>(out + r * out_stride + i) = z;
  }
}

template <typename Op>
void Launch(DType act, void* out, int64_t out_stride, const void* a, int64_t a_stride, const void* b,
            int64_t b_stride, int64_t rows, int64_t n, void* stream) {
  if (rows == 0 || n == 0) return;
  ForAct(act, [&]<typename T>(T) {
    T* o = static_cast<T*>(out);
    const T *x = static_cast<const T*>(a), *y = static_cast<const T*>(b);
    const bool wide = n % kVec<T> == 0 && Aligned16<T>(o, out_stride) && Aligned16<T>(x, a_stride) &&
                      Aligned16<T>(y, b_stride);
    const int64_t per_block = kThreads * (wide ? kVec<T> : 1);
    const dim3 grid(static_cast<unsigned>((n + per_block - 1) / per_block),
                    static_cast<unsigned>(std::min(rows, kMaxGridY)));
    if (wide) {
      LaunchOverlapped(Elements<T, kVec<T>, Op>, grid, kThreads, 0, AsStream(stream), o, out_stride, x,
                       a_stride, y, b_stride, rows, n);
    } else {
      LaunchOverlapped(Elements<T, 1, Op>, grid, kThreads, 0, AsStream(stream), o, out_stride, x, a_stride, y,
                       b_stride, rows, n);
    }
  });
}

struct ThreeFloats {
  float v[3];
};

template <typename T>
__global__ void Pixels(T* out, int64_t out_stride, const uint8_t* in, int64_t in_stride, int64_t rows,
                       int plane, ThreeFloats offset, ThreeFloats divisor) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= 3 * plane) return;
  const int c = i / plane;
  const float minus = c == 0 ? offset.v[0] : c == 1 ? offset.v[1] : offset.v[2];
  const float by = c == 0 ? divisor.v[0] : c == 1 ? divisor.v[1] : divisor.v[2];
  for (int64_t r = blockIdx.y; r < rows; r += gridDim.y)
    out[r * out_stride + i] = Round<T>((static_cast<float>(in[r * in_stride + i]) - minus) / by);
}

}  // namespace

void SwiGlu(DType act, void* out, int64_t out_stride, const void* gate_up, int64_t in_stride, int64_t rows,
            int64_t n, void* stream) {
  const void* up = static_cast<const char*>(gate_up) + n * DTypeBytes(act);
  Launch<SwiGluOf>(act, out, out_stride, gate_up, in_stride, up, in_stride, rows, n, stream);
}
void QuickGelu(DType act, void* out, int64_t out_stride, const void* in, int64_t in_stride, int64_t rows,
               int64_t n, void* stream) {
  Launch<QuickGeluOf>(act, out, out_stride, in, in_stride, in, in_stride, rows, n, stream);
}
void Gelu(DType act, void* out, int64_t out_stride, const void* in, int64_t in_stride, int64_t rows,
          int64_t n, void* stream) {
  Launch<GeluOf>(act, out, out_stride, in, in_stride, in, in_stride, rows, n, stream);
}
void Add(DType act, void* out, int64_t out_stride, const void* a, int64_t a_stride, const void* b,
         int64_t b_stride, int64_t rows, int64_t n, void* stream) {
  Launch<SumOf>(act, out, out_stride, a, a_stride, b, b_stride, rows, n, stream);
}

void NormalizePixels(DType act, void* out, int64_t out_stride, const uint8_t* in, int64_t in_stride,
                     int64_t rows, int64_t plane, const float* offset, const float* divisor, void* stream) {
  if (rows == 0 || plane == 0) return;
  const ThreeFloats minus = {{offset[0], offset[1], offset[2]}};
  const ThreeFloats by = {{divisor[0], divisor[1], divisor[2]}};
  const dim3 grid(static_cast<unsigned>((3 * plane + kThreads - 1) / kThreads),
                  static_cast<unsigned>(std::min(rows, kMaxGridY)));
  ForAct(act, [&]<typename T>(T) {
    Pixels<T><<<grid, kThreads, 0, AsStream(stream)>>>(static_cast<T*>(out), out_stride, in, in_stride, rows,
                                                       static_cast<int>(plane), minus, by);
  });
  FD_CUDA_CHECK(cudaGetLastError());
}

}  // namespace fd::cuda
