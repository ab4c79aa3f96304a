// mma.sync on bfloat16 (sm_80 and newer). Fragments of thread (g, c) = (lane / 4, lane % 4): a = {row g k 2c,
// row g + 8 k 2c, row g k 2c + 8, row g + 8 k 2c + 8}, b = {k 2c, k 2c + 8} of column g, each a pair of
// consecutive k; d = {row g, row g + 8} x columns {2c, 2c + 1}. The sum over k may be taken in any order, so
// 16 consecutive bytes of a row serve as the k of two products, if both operands are loaded alike.
#pragma once

#include <cstdint>

namespace fd::cuda {

__device__ inline void Mma16816(float* d, const uint32_t* a, uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace fd::cuda
