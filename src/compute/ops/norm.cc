#include "compute/ops/norm.h"

#include "compute/kernels/cpu/rows.h"
#include "compute/kernels/cuda/rows.h"
#include "compute/ops/row_ranges.h"

namespace fd::ops {
namespace {

void Rms(const Context& ctx, const TensorView& out, const TensorView* residual, const TensorView& in,
         const TensorView& weight, float eps) {
  CheckAct(in, "in");
  FD_CHECK_EQ(in.rank(), 2);
  const int64_t rows = in.dim(0), n = in.dim(1);
  CheckRows(out, "out", in.dtype, rows, n);
  CheckVector(weight, "weight", in.dtype, n);
  if (residual != nullptr) CheckRows(*residual, "residual", in.dtype, rows, n);
  if (OnCuda(ctx)) {
    CheckOnDevice(ctx, {&out, residual != nullptr ? residual : &in, &in, &weight});
    return cuda::RmsNorm(in.dtype, out.data, out.row_stride, residual ? residual->data : nullptr,
                         residual ? residual->row_stride : 0, in.data, in.row_stride, weight.data, rows, n,
                         eps, ctx.stream);
  }
  const cpu::RowKernels& kernels = cpu::GetRowKernels(in.dtype);
  ForRowRanges(ctx, rows, n, [&](int64_t begin, int64_t end) {
    kernels.rms_norm(RowAt(out, begin), out.row_stride, residual ? RowAt(*residual, begin) : nullptr,
                     residual ? residual->row_stride : 0, RowAt(in, begin), in.row_stride, weight.data,
                     end - begin, n, eps);
  });
}

}  // namespace

void RmsNorm(const Context& ctx, const TensorView& out, const TensorView& in, const TensorView& weight,
             float eps) {
  Rms(ctx, out, nullptr, in, weight, eps);
}

void AddRmsNorm(const Context& ctx, const TensorView& out, const TensorView& residual, const TensorView& in,
                const TensorView& weight, float eps) {
  Rms(ctx, out, &residual, in, weight, eps);
}

void LayerNorm(const Context& ctx, const TensorView& out, const TensorView& in, const TensorView& weight,
               const TensorView& bias, float eps) {
  CheckAct(in, "in");
  FD_CHECK_EQ(in.rank(), 2);
  const int64_t rows = in.dim(0), n = in.dim(1);
  CheckRows(out, "out", in.dtype, rows, n);
  CheckVector(weight, "weight", in.dtype, n);
  CheckVector(bias, "bias", in.dtype, n);
  if (OnCuda(ctx)) {
    CheckOnDevice(ctx, {&out, &in, &weight, &bias});
    return cuda::LayerNorm(in.dtype, out.data, out.row_stride, in.data, in.row_stride, weight.data, bias.data,
                           rows, n, eps, ctx.stream);
  }
  const cpu::RowKernels& kernels = cpu::GetRowKernels(in.dtype);
  ForRowRanges(ctx, rows, n, [&](int64_t begin, int64_t end) {
    kernels.layer_norm(RowAt(out, begin), out.row_stride, RowAt(in, begin), in.row_stride, weight.data,
                       bias.data, end - begin, n, eps);
  });
}

}  // namespace fd::ops
