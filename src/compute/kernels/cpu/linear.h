// y = x W^T over packed weights. A weight of n rows lies in panels of 16 output features; inside a panel the
// features are interleaved, so that one vector load feeds 16 accumulators and no sum ever runs across lanes.
//   bfloat16: [panels][ceil(k / 2)][16][2]   pairs of k; an odd k is padded with zero
//   float32:  [panels][k][16]
// Features beyond n are zero. Every output has one accumulator that walks k upwards: a row's result does not
// depend on other rows.
#pragma once

#include <cstdint>

namespace fd::cpu {

inline constexpr int64_t kPanelFeatures = 16;
// The most rows of one call; more are cut by the caller.
inline constexpr int64_t kMaxBlockRows = 128;

struct LinearBlock {
  int64_t m = 0;                         // rows, 1 .. kMaxBlockRows
  const void* const* in_rows = nullptr;  // [m]: k elements each
  void* const* out_rows = nullptr;       // [m]: n elements each
  bool out_bf16 = false;                 // else float32
  const void* weight = nullptr;          // packed, from panel 0
  int64_t n = 0;
  int64_t k = 0;
  int64_t first_panel = 0;  // this call's columns
  int64_t num_panels = 0;
  const void* bias = nullptr;  // [n] or null
  bool bias_bf16 = false;
};

struct LinearKernels {
  // bfloat16 rows and weights; null where the CPU has no bfloat16 dot product.
  void (*bf16_bf16)(const LinearBlock& block);
  void (*f32_bf16)(const LinearBlock& block);
  void (*f32_f32)(const LinearBlock& block);
  // out[i] = float(in[i]).
  void (*widen)(float* out, const uint16_t* in, int64_t count);
};
// For CurrentIsa().
const LinearKernels& GetLinearKernels();

// Packs `rows` weight rows into panels starting at feature `first` of `packed`. Element (i, j) of the source
// is source[i * row_stride + j * column_stride]. Only full features are written; padding stays zero.
void PackBFloat16(uint16_t* packed, int64_t first, const uint16_t* source, int64_t rows, int64_t k,
                  int64_t row_stride, int64_t column_stride);
void PackFloat32(float* packed, int64_t first, const float* source, int64_t rows, int64_t k,
                 int64_t row_stride, int64_t column_stride);
// Back to plain rows [rows, k]: features first .. first + rows of `packed`.
void UnpackBFloat16(uint16_t* out, const uint16_t* packed, int64_t first, int64_t rows, int64_t k);
void UnpackFloat32(float* out, const float* packed, int64_t first, int64_t rows, int64_t k);

}  // namespace fd::cpu
