// A product as the CUDA kernels take it.
#pragma once

#include "compute/kernels/cuda/linear.h"
#include "compute/kernels/cuda/linear_quant.h"
#include "compute/ops/linear.h"

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

// The same of a quantised weight.
inline cuda::QuantLinear CudaQuantArgs(const TensorView& out, const TensorView& in,
                                       const LinearWeight& weight, const TensorView& bias = {}) {
  cuda::QuantLinear args;
  args.linear = CudaLinearArgs(out, in, weight.data, bias);
  args.linear.n = weight.n;
  args.linear.k = weight.k;
  args.scales = weight.scales.view().data;
  args.bits = weight.kind == WeightKind::kInt8 ? 8 : 4;
  args.group_size = weight.group_size;
  return args;
}

// RandomLinear with a scheme, on CUDA.
LinearWeight RandomQuantized(const Context& ctx, const std::vector<RandomRows>& parts, int64_t k, float scale,
                             const QuantScheme& scheme);

}  // namespace fd::ops
