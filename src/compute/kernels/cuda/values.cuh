// Elements of activation types as float32, vectors of 16 bytes, and sums over a block.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "compute/kernels/cuda/cuda_check.cuh"
#include "compute/tensor/dtype.h"

namespace fd::cuda {

using bf16 = __nv_bfloat16;

__device__ __forceinline__ float Load(float v) { return v; }
__device__ __forceinline__ float Load(bf16 v) { return __bfloat162float(v); }
template <typename T>
__device__ __forceinline__ T Round(float v) {
  if constexpr (sizeof(T) == 2) {
    return __float2bfloat16_rn(v);
  } else {
    return v;
  }
}

// silu(gate) * up, rounded after each of the two.
template <typename T>
__device__ __forceinline__ T SiluTimes(T gate, T up) {
  const float g = Load(gate);
  return Round<T>(Load(Round<T>(g / (1.0f + expf(-g)))) * Load(up));
}

// kWidth elements that travel as one access.
template <typename T, int kWidth>
struct alignas(sizeof(T) * kWidth) Vec {
  T v[kWidth];
};

// Elements in 16 bytes.
template <typename T>
inline constexpr int kVec = 16 / static_cast<int>(sizeof(T));

// True when base and stride (in elements) allow 16-byte accesses at every row.
template <typename T>
inline bool Aligned16(const void* base, int64_t stride) {
  return reinterpret_cast<uintptr_t>(base) % 16 == 0 && stride % kVec<T> == 0;
}

__device__ __forceinline__ float WarpSum(float v) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(0xffffffffu, v, offset);
  return v;
}

// The sum over all threads of the block, to all of them. blockDim.x is a multiple of 32, at most 1024;
// `partial` has 32 floats of shared memory and may be used again right after.
__device__ __forceinline__ float BlockSum(float v, float* partial) {
  v = WarpSum(v);
  const int warp = threadIdx.x / 32, warps = blockDim.x / 32;
  if (threadIdx.x % 32 == 0) partial[warp] = v;
  __syncthreads();
  float sum = 0;
  for (int i = 0; i < warps; ++i) sum += partial[i];  // the same order in every thread
  __syncthreads();
  return sum;
}

inline cudaStream_t AsStream(void* stream) { return static_cast<cudaStream_t>(stream); }

// fn(T{}) with T the element type of an activation.
template <typename Fn>
void ForAct(DType act, const Fn& fn) {
  if (act == DType::kFloat32) {
    fn(float{});
  } else {
    FD_CHECK(act == DType::kBFloat16, "activations are float32 or bfloat16");
    fn(bf16{});
  }
}

}  // namespace fd::cuda
