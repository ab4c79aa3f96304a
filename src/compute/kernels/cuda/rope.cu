#include <algorithm>

#include "compute/kernels/cuda/rows.h"
#include "compute/kernels/cuda/values.cuh"

namespace fd::cuda {
namespace {

constexpr int kThreads = 128;

__global__ void CosSin(float* cos_sin, const int32_t* positions, int64_t positions_stride,
                       const float* inv_freq, const int32_t* axis, int64_t total, int half) {
  const int64_t at = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (at >= total) return;
  const int64_t t = at / half;
  const int i = static_cast<int>(at - t * half);
  const float angle = inv_freq[i] * static_cast<float>(positions[axis[i] * positions_stride + t]);
  // Accurate for large angles: positions reach 131072 radians.
  float sine, cosine;
  sincosf(angle, &sine, &cosine);
  cos_sin[t * 2 * half + i] = cosine;
  cos_sin[t * 2 * half + half + i] = sine;
}

// One thread a pair; blockIdx.x is the token.
template <typename T, bool kInterleaved>
__global__ void Rotate(T* x, int64_t stride, const float* cos_sin, int heads, int half) {
  const int64_t t = blockIdx.x;
  T* row = x + t * stride;
  const float* angles = cos_sin + t * 2 * half;
  for (int p = threadIdx.x; p < heads * half; p += blockDim.x) {
    const int h = p / half, i = p - h * half;
    T* first = row + int64_t{h} * 2 * half + (kInterleaved ? 2 * i : i);
    T* second = first + (kInterleaved ? 1 : half);
    const float c = angles[i], s = angles[half + i], a = Load(*first), b = Load(*second);
    *first = Round<T>(a * c - b * s);
    *second = Round<T>(b * c + a * s);
  }
}

}  // namespace

void RopeCosSin(float* cos_sin, const int32_t* positions, int64_t positions_stride, const float* inv_freq,
                const int32_t* axis, int64_t tokens, int64_t half, void* stream) {
  const int64_t total = tokens * half;
  if (total == 0) return;
  CosSin<<<static_cast<unsigned>((total + kThreads - 1) / kThreads), kThreads, 0, AsStream(stream)>>>(
      cos_sin, positions, positions_stride, inv_freq, axis, total, static_cast<int>(half));
  FD_CUDA_CHECK(cudaGetLastError());
}

void ApplyRope(DType act, void* x, int64_t stride, const float* cos_sin, int64_t tokens, int64_t heads,
               int64_t head_dim, bool interleaved, void* stream) {
  const int64_t pairs = heads * head_dim / 2;
  if (tokens == 0 || pairs == 0) return;
  const unsigned threads = static_cast<unsigned>(std::clamp<int64_t>((pairs + 31) / 32 * 32, 32, 512));
  const unsigned blocks = static_cast<unsigned>(tokens);
  ForAct(act, [&]<typename T>(T) {
    if (interleaved) {
      Rotate<T, true><<<blocks, threads, 0, AsStream(stream)>>>(
          static_cast<T*>(x), stride, cos_sin, static_cast<int>(heads), static_cast<int>(head_dim / 2));
    } else {
      Rotate<T, false><<<blocks, threads, 0, AsStream(stream)>>>(
          static_cast<T*>(x), stride, cos_sin, static_cast<int>(heads), static_cast<int>(head_dim / 2));
    }
  });
  FD_CUDA_CHECK(cudaGetLastError());
}

}  // namespace fd::cuda
