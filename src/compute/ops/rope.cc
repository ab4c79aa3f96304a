#include "compute/ops/rope.h"

#include <cmath>

#include "compute/kernels/cpu/rows.h"
#include "compute/kernels/cuda/rows.h"
#include "compute/ops/row_ranges.h"

namespace fd::ops {

void RopeCosSin(const Context& ctx, const TensorView& cos_sin, const TensorView& positions,
                const TensorView& inv_freq, const TensorView& axis, float scale) {
  FD_CHECK_EQ(positions.rank(), 2);
  FD_CHECK(positions.dtype == DType::kInt32, DTypeName(positions.dtype));
  const int64_t axes = positions.dim(0), tokens = positions.dim(1), half = inv_freq.NumElements();
  CheckVector(inv_freq, "inv_freq", DType::kFloat32, half);
  CheckVector(axis, "axis", DType::kInt32, half);
  FD_CHECK(cos_sin.rank() == 3 && cos_sin.dtype == DType::kFloat32 &&
               cos_sin.shape == Shape({tokens, 2, half}) && cos_sin.IsContiguous(),
           cos_sin.shape.ToString(), ", expected [", tokens, ", 2, ", half, "]");
  if (OnCuda(ctx)) {  // axes are not looked at: they lie on the device
    CheckOnDevice(ctx, {&cos_sin, &positions, &inv_freq, &axis});
    return cuda::RopeCosSin(cos_sin.As<float>(), positions.As<int32_t>(), positions.row_stride,
                            inv_freq.As<float>(), axis.As<int32_t>(), tokens, half, scale, ctx.stream);
  }
  const float* freq = inv_freq.As<float>();
  const int32_t* axis_of = axis.As<int32_t>();
  for (int64_t i = 0; i < half; ++i) FD_CHECK(axis_of[i] >= 0 && axis_of[i] < axes, axis_of[i], " of ", axes);
  // A sine costs about as much as 32 simple elements.
  ForRowRanges(ctx, tokens, 32 * half, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* row = cos_sin.As<float>() + t * 2 * half;
      for (int64_t i = 0; i < half; ++i) {
        const int32_t position = positions.As<int32_t>()[axis_of[i] * positions.row_stride + t];
        const float angle = freq[i] * static_cast<float>(position);
        row[i] = scale * std::cos(angle);
        row[half + i] = scale * std::sin(angle);
      }
    }
  });
}

void ApplyRope(const Context& ctx, const TensorView& x, const TensorView& cos_sin, RopeStyle style) {
  CheckAct(x, "x");
  FD_CHECK_EQ(x.rank(), 3);
  const int64_t tokens = x.dim(0), heads = x.dim(1), head_dim = x.dim(2);
  FD_CHECK_EQ(head_dim % 2, 0);
  FD_CHECK(cos_sin.dtype == DType::kFloat32 && cos_sin.shape == Shape({tokens, 2, head_dim / 2}) &&
               cos_sin.IsContiguous(),
           cos_sin.shape.ToString(), ", expected [", tokens, ", 2, ", head_dim / 2, "]");
  if (OnCuda(ctx)) {
    CheckOnDevice(ctx, {&x, &cos_sin});
    cuda::RopeArgs args;
    args.q = x.data;
    args.cos_sin = cos_sin.As<float>();
    args.q_stride = x.row_stride;
    args.tokens = tokens;
    args.heads = heads;
    args.head_dim = head_dim;
    args.interleaved = style == RopeStyle::kInterleaved;
    return cuda::Rope(x.dtype, args, ctx.stream);
  }
  const cpu::RowKernels& kernels = cpu::GetRowKernels(x.dtype);
  ForRowRanges(ctx, tokens, heads * head_dim, [&](int64_t begin, int64_t end) {
    kernels.rope(RowAt(x, begin), x.row_stride, cos_sin.As<float>() + begin * head_dim, end - begin, heads,
                 head_dim, style == RopeStyle::kInterleaved);
  });
}

}  // namespace fd::ops
