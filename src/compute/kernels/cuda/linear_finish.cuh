// The end of every linear kernel of ours: bias and the type of the output.
#pragma once

#include "compute/kernels/cuda/linear.h"
#include "compute/kernels/cuda/values.cuh"

namespace fd::cuda {

struct LinearFinish {
  void* out;
  const void* bias;
  int64_t stride;
  bool out_bf16, bias_bf16;
  __device__ void Store(int64_t row, int64_t column, float v) const {
    if (bias != nullptr)
      v += bias_bf16 ? Load(static_cast<const bf16*>(bias)[column]) : static_cast<const float*>(bias)[column];
    const int64_t at = row * stride + column;
    if (out_bf16) {
      static_cast<bf16*>(out)[at] = Round<bf16>(v);
    } else {
      static_cast<float*>(out)[at] = v;
    }
  }
};

inline LinearFinish LinearFinishOf(const LinearArgs& a) {
  return {a.out, a.bias, a.out_stride, a.out_type == DType::kBFloat16, a.bias_type == DType::kBFloat16};
}

}  // namespace fd::cuda
