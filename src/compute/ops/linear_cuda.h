// A product as the CUDA kernels take it.
#pragma once

#include "compute/kernels/cuda/linear.h"
#include "compute/tensor/tensor.h"

namespace fd::ops {

// out [m, n], in [m, k], weight [n, k], bias [n] or empty; all on one device, only out and in may be strided.
inline cuda::LinearArgs CudaLinearArgs(const TensorView& out, const TensorView& in, const TensorView& weight,
                                       const TensorView& bias = {}) {
  cuda::LinearArgs args;
  args.out = out.data;
  args.in = in.data;
  args.weight = weight.data;
  args.bias = bias.data;
  args.out_type = out.dtype;
  args.in_type = in.dtype;
  args.weight_type = weight.dtype;
  args.bias_type = bias.dtype;
  args.m = in.dim(0);
  args.n = weight.dim(0);
  args.k = weight.dim(1);
  args.out_stride = out.row_stride;
  args.in_stride = in.row_stride;
  return args;
}

}  // namespace fd::ops
