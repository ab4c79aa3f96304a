// Pages of bytes on their way to wgmma: 128 keys or values come as they lie in two pages, and a warpgroup
// writes them as wgmma reads them.
#pragma once

#include "compute/kernels/cuda/bytes.cuh"

namespace fd::cuda::attention {

// Two heads of 64 tokens, elements and scales.
template <int D>
inline constexpr int kRawTileBytes = static_cast<int>(2 * ByteHeadSize(D));

// Called by 128 threads, thread 0 to 127. raw: two heads behind each other. to: boxes [D / 64][2][64 tokens]
// of 64 bfloat16, swizzled by 128 bytes, as TMA would leave them. Keys are the bytes' values and their scales
// go to key_scales[128], to meet the scores; values are multiplied by theirs, one rounding (probabilities
// have one too). A thread takes 16 bytes of a token; eight neighbours read and write all banks once: four
// take 64 bytes of a token, four those of the next token and, where there are two boxes, of the other one.
template <int D, DType B, bool kValues>
__device__ __forceinline__ void WidenTile(const uint8_t* raw, uint8_t* to, uint16_t* key_scales, int thread) {
  static_assert(D == 64 || D == 128);
  constexpr int kBoxes = D / 64, kBoxBytes = 64 * 128;
  const int half = thread / 64, part = thread % 4, row = thread % 32 / 4;
  raw += half * ByteHeadSize(D);
  const auto* scales = reinterpret_cast<const uint16_t*>(raw + kKvPageTokens * D);
  if constexpr (!kValues) key_scales[thread] = scales[thread % 64];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const int token = thread % 64 / 32 * 32 + 8 * j + row;  // of its page; token % 8 == row
    [[maybe_unused]] uint32_t by = 0;
    if constexpr (kValues) by = scales[token] * 0x10001u;
#pragma unroll
    for (int b = 0; b < kBoxes; ++b) {
      const int box = (b + row) % kBoxes;
      const uint4 unit = *reinterpret_cast<const uint4*>(raw + token * D + 64 * box + 16 * part);
      const uint32_t x[4] = {unit.x, unit.y, unit.z, unit.w};
      uint32_t wide[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        wide[i] = WidenPair<B>(x[i / 2], i % 2);
        if constexpr (kValues) wide[i] = FmaBf16x2(wide[i], by, 0x80008000u);
      }
      uint8_t* at = to + (2 * box + half) * kBoxBytes + token * 128;
      const int chunk = 2 * part ^ row;
      *reinterpret_cast<uint4*>(at + 16 * chunk) = make_uint4(wide[0], wide[1], wide[2], wide[3]);
      *reinterpret_cast<uint4*>(at + 16 * (chunk ^ 1)) = make_uint4(wide[4], wide[5], wide[6], wide[7]);
    }
  }
}

}  // namespace fd::cuda::attention
