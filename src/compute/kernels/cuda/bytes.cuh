// Elements of key/value pages that are bytes (kFloat8E4M3, kInt8): the rule of ops/attention.h. Every value
// of a byte is exact in bfloat16, so the kernels multiply by bytes and give the scales to scores and
// probabilities.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "compute/kernels/cuda/attention.h"
#include "compute/tensor/dtype.h"

namespace fd::cuda {

constexpr bool HoldsBytes(DType pages) { return pages == DType::kFloat8E4M3 || pages == DType::kInt8; }
// Bytes of one head of a page of bytes: elements, then bfloat16 scales. A multiple of 128 for even head_dim.
__host__ __device__ constexpr int64_t ByteHeadSize(int64_t head_dim) {
  return kKvPageTokens * (head_dim + 2);
}
__device__ __forceinline__ float WidenScale(uint32_t bits) { return __uint_as_float(bits << 16); }

template <DType B>
__device__ __forceinline__ float ByteValue(uint8_t byte) {
  if constexpr (B == DType::kInt8) {
    return static_cast<float>(static_cast<int8_t>(byte));
  } else {
    __nv_fp8_e4m3 v;
    v.__x = byte;
    return static_cast<float>(v);
  }
}

// Of a row whose largest value is `top`; `finite` says whether all are.
template <DType B>
struct ByteScale {
  float inverse;
  uint16_t bits;  // of the scale in bfloat16
  __device__ __forceinline__ ByteScale(float top, bool finite) {
    constexpr float kMost = B == DType::kInt8 ? 127.0f : 448.0f;
    const bool zero = !finite || top < 1e-30f;
    // Rounded up.
    const uint32_t up = (__float_as_uint(__fdiv_rn(top, kMost)) + 0xffffu) >> 16;
    bits = static_cast<uint16_t>(!finite ? 0x7fc0u : zero ? 0u : up);
    inverse = zero ? 0.0f : __fdiv_rn(1.0f, WidenScale(up));
  }
  __device__ __forceinline__ uint8_t Round(float v) const {
    if (inverse == 0.0f) return 0;
    if constexpr (B == DType::kInt8) {
      return static_cast<uint8_t>(static_cast<int8_t>(__float2int_rn(__fmul_rn(v, inverse))));
    } else {
      return __nv_cvt_float_to_fp8(__fmul_rn(v, inverse), __NV_SATFINITE, __NV_E4M3);
    }
  }
};

__device__ __forceinline__ uint32_t FmaBf16x2(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

// Two bytes as two bfloat16. Where they stand in w: the upper byte of each half for fp8, the lower one for
// int8; the other two bytes are ignored.
template <DType B>
__device__ __forceinline__ uint32_t WidenHalves(uint32_t w) {
  if constexpr (B == DType::kInt8) {
    // (128 + the low seven bits) - (128, or 256 with the sign's bit), both exact.
    const uint32_t low = (w & 0x007f007fu) | 0x43004300u, high = (w & 0x00800080u) | 0xc300c300u;
    return FmaBf16x2(low, 0x3f803f80u, high);
  } else {
    // The bits as bfloat16 are 2^-120 of the value, denormals too, which bfloat16 arithmetic keeps.
    return FmaBf16x2((w & 0x80008000u) | ((w & 0x7f007f00u) >> 4), 0x7b807b80u, 0x80008000u);
  }
}
// Bytes 0 and 2, and bytes 1 and 3 of x.
template <DType B>
__device__ __forceinline__ uint32_t WidenEven(uint32_t x) {
  return WidenHalves<B>(B == DType::kInt8 ? x : x << 8);
}
template <DType B>
__device__ __forceinline__ uint32_t WidenOdd(uint32_t x) {
  return WidenHalves<B>(B == DType::kInt8 ? x >> 8 : x);
}
// Byte i of x beside byte i of y.
template <DType B>
__device__ __forceinline__ uint32_t WidenBeside(uint32_t x, uint32_t y, int i) {
  const uint32_t both = B == DType::kInt8 ? (4u + i) << 8 | i : (4u + i) << 12 | i << 4;
  return WidenHalves<B>(__byte_perm(x, y, both));
}
// Bytes 2 i and 2 i + 1 of x in order.
template <DType B>
__device__ __forceinline__ uint32_t WidenPair(uint32_t x, int i) {
  const uint32_t a = 2 * i, b = a + 1;
  return WidenHalves<B>(__byte_perm(x, 0, B == DType::kInt8 ? b << 8 | a : b << 12 | a << 4));
}

// fn(integral_constant of the type), for a host launcher.
template <DType B>
struct ByteType {
  static constexpr DType kValue = B;
};
template <typename Fn>
void ForBytes(DType pages, const Fn& fn) {
  if (pages == DType::kInt8) {
    fn(ByteType<DType::kInt8>{});
  } else {
    fn(ByteType<DType::kFloat8E4M3>{});
  }
}

}  // namespace fd::cuda
