// Kernels that work row by row: norms, activations, rope, conversions. Pointers are to the activation type of
// the table (float32 or bfloat16); strides are in elements from row to row.
#pragma once

#include <cstdint>

#include "compute/tensor/dtype.h"

namespace fd::cpu {

struct RowKernels {
  // residual may be null; otherwise residual += in first and the sum is normalised.
  void (*rms_norm)(void* out, int64_t out_stride, void* residual, int64_t residual_stride, const void* in,
                   int64_t in_stride, const void* weight, int64_t rows, int64_t n, float eps);
  void (*layer_norm)(void* out, int64_t out_stride, const void* in, int64_t in_stride, const void* weight,
                     const void* bias, int64_t rows, int64_t n, float eps);
  void (*swiglu)(void* out, int64_t out_stride, const void* gate_up, int64_t in_stride, int64_t rows,
                 int64_t n);
  void (*quick_gelu)(void* out, int64_t out_stride, const void* in, int64_t in_stride, int64_t rows,
                     int64_t n);
  void (*gelu)(void* out, int64_t out_stride, const void* in, int64_t in_stride, int64_t rows, int64_t n);
  void (*add)(void* out, int64_t out_stride, const void* a, int64_t a_stride, const void* b, int64_t b_stride,
              int64_t rows, int64_t n);
  // Row = 3 planes of `plane` values: (in - offset[c]) / divisor[c].
  void (*normalize_pixels)(void* out, int64_t out_stride, const uint8_t* in, int64_t in_stride, int64_t rows,
                           int64_t plane, const float* offset, const float* divisor);
  // cos_sin [rows][2][head_dim / 2] float32.
  void (*rope)(void* x, int64_t stride, const float* cos_sin, int64_t rows, int64_t heads, int64_t head_dim,
               bool interleaved);
  void (*to_float)(float* out, const void* in, int64_t n);
  void (*from_float)(void* out, const float* in, int64_t n);
};

// The table of the current instruction set for float32 or bfloat16.
const RowKernels& GetRowKernels(DType act);

}  // namespace fd::cpu
