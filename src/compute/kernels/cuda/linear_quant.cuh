// Panels of quantised weights as operands of mma.sync (mma.cuh).
//
// A panel is a row of units of 64 bytes: [16 features][4 bytes], 4 k at 8 bits and 8 k at 4 bits. A step of
// 32 k is two products: thread (g, c) holds k 8c to 8c + 7 of every operand, the lower four for the first
// product and the upper four for the second. Rows g and g + 8 of the product are features 2g and 2g + 1, so
// that a thread takes 8 consecutive bytes of a unit and its results are neighbours in the output.
#pragma once

#include "compute/kernels/cuda/copy_async.cuh"
#include "compute/kernels/cuda/linear_finish.cuh"
#include "compute/kernels/cuda/linear_quant.h"

namespace fd::cuda {

constexpr int kPanelFeatures = 16;
constexpr int kQuantStepK = 64;  // of k copied at once

template <int kBits>
inline constexpr int kSlabBytes = kQuantStepK * kPanelFeatures * kBits / 8;  // a panel's part of a step
template <int kBits>
inline constexpr int kSlabChunks = kSlabBytes<kBits> / 16;

inline int64_t PanelBytes(int64_t k, int bits) { return (k + 7) / 8 * kPanelFeatures * bits; }
inline int64_t NumGroups(int64_t k, int64_t group_size) {
  return group_size == 0 ? 1 : (k + group_size - 1) / group_size;
}

// run<bits, whether groups have scales of their own>().
template <typename Run>
void ByWeight(const QuantLinear& q, const Run& run) {
  const bool grouped = q.group_size != 0;
  if (q.bits == 8) {
    grouped ? run.template operator()<8, true>() : run.template operator()<8, false>();
  } else {
    grouped ? run.template operator()<4, true>() : run.template operator()<4, false>();
  }
}

// Where chunk i (16 bytes: 4 features of a unit) of a slab lies in shared memory: the 8-byte reads of half a
// warp, of 4 features and 4 units, then meet every bank once.
template <int kBits>
__device__ __forceinline__ int SlabOffset(int i) {
  return (i ^ (i / 8 % (kBits == 8 ? 4 : 2) * 2)) * 16;
}
// The 8 bytes of features 2g and 2g + 1 in unit `unit` of a slab.
template <int kBits>
__device__ __forceinline__ uint2 LoadUnit(const char* slab, int unit, int g) {
  return *reinterpret_cast<const uint2*>(slab + SlabOffset<kBits>(unit * 4 + g / 2) + g % 2 * 8);
}

// a + b on pairs of bfloat16, exact for what stands here.
__device__ __forceinline__ uint32_t AddPairs(uint32_t a, uint32_t b) {
  uint32_t sum;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(sum) : "r"(a), "r"(0x3f803f80u), "r"(b));
  return sum;
}
// Four bytes q + 128 as two pairs. 0x4300 + x is 128 + x for x below 128; the highest bit says whether 128 or
// 256 is too much.
__device__ __forceinline__ void Widen8(uint32_t bytes, uint32_t* low, uint32_t* high) {
  const uint32_t a = __byte_perm(bytes, 0x43434343u, 0x4140), b = __byte_perm(bytes, 0x43434343u, 0x4342);
  *low = AddPairs(a & 0xff7fff7fu, (a & 0x00800080u) ^ 0xc380c380u);
  *high = AddPairs(b & 0xff7fff7fu, (b & 0x00800080u) ^ 0xc380c380u);
}
// Four bytes q + 8.
__device__ __forceinline__ void Widen4(uint32_t bytes, uint32_t* low, uint32_t* high) {
  *low = AddPairs(__byte_perm(bytes, 0x43434343u, 0x4140), 0xc308c308u);
  *high = AddPairs(__byte_perm(bytes, 0x43434343u, 0x4342), 0xc308c308u);
}

// Step h (of 32 k) of a slab as the first operand of its two products.
template <int kBits>
__device__ __forceinline__ void LoadWeights(const char* slab, int h, int g, int c, uint32_t (&first)[4],
                                            uint32_t (&second)[4]) {
  if constexpr (kBits == 8) {
    const uint2 low = LoadUnit<8>(slab, 8 * h + 2 * c, g), high = LoadUnit<8>(slab, 8 * h + 2 * c + 1, g);
    Widen8(low.x, &first[0], &first[2]);
    Widen8(low.y, &first[1], &first[3]);
    Widen8(high.x, &second[0], &second[2]);
    Widen8(high.y, &second[1], &second[3]);
  } else {
    const uint2 both = LoadUnit<4>(slab, 4 * h + c, g);
    Widen4(both.x & 0x0f0f0f0fu, &first[0], &first[2]);
    Widen4(both.y & 0x0f0f0f0fu, &first[1], &first[3]);
    Widen4(both.x >> 4 & 0x0f0f0f0fu, &second[0], &second[2]);
    Widen4(both.y >> 4 & 0x0f0f0f0fu, &second[1], &second[3]);
  }
}

// Scales of features 2g and 2g + 1 of a panel: `scales` points at the group's 16.
__device__ __forceinline__ uint32_t LoadScales(const bf16* scales, int g) {
  return __ldg(reinterpret_cast<const unsigned int*>(scales) + g);
}
__device__ __forceinline__ float LowScale(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float HighScale(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

}  // namespace fd::cuda
