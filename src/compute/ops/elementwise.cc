#include "compute/ops/elementwise.h"

#include "compute/kernels/cpu/rows.h"
#include "compute/kernels/cuda/rows.h"
#include "compute/ops/row_ranges.h"

namespace fd::ops {
namespace {

using UnaryFn = void (*)(void* out, int64_t out_stride, const void* in, int64_t in_stride, int64_t rows,
                         int64_t n);

using CudaUnaryFn = void (*)(DType act, void* out, int64_t out_stride, const void* in, int64_t in_stride,
                             int64_t rows, int64_t n, void* stream);

// `in` is [rows, in_per_out * n], `out` [rows, n].
void Unary(const Context& ctx, const TensorView& out, const TensorView& in, int64_t in_per_out,
           UnaryFn cpu::RowKernels::* kernel, CudaUnaryFn cuda_kernel) {
  CheckAct(out, "out");
  FD_CHECK_EQ(out.rank(), 2);
  const int64_t rows = out.dim(0), n = out.dim(1);
  CheckRows(in, "in", out.dtype, rows, in_per_out * n);
  if (OnCuda(ctx)) {
    CheckOnDevice(ctx, {&out, &in});
    return cuda_kernel(out.dtype, out.data, out.row_stride, in.data, in.row_stride, rows, n, ctx.stream);
  }
  const UnaryFn fn = cpu::GetRowKernels(out.dtype).*kernel;
  ForRowRanges(ctx, rows, n, [&](int64_t begin, int64_t end) {
    fn(RowAt(out, begin), out.row_stride, RowAt(in, begin), in.row_stride, end - begin, n);
  });
}

}  // namespace

void SwiGlu(const Context& ctx, const TensorView& out, const TensorView& gate_up) {
  Unary(ctx, out, gate_up, 2, &cpu::RowKernels::swiglu, cuda::SwiGlu);
}
void QuickGelu(const Context& ctx, const TensorView& out, const TensorView& in) {
  Unary(ctx, out, in, 1, &cpu::RowKernels::quick_gelu, cuda::QuickGelu);
}
void Gelu(const Context& ctx, const TensorView& out, const TensorView& in) {
  Unary(ctx, out, in, 1, &cpu::RowKernels::gelu, cuda::Gelu);
}

void Add(const Context& ctx, const TensorView& out, const TensorView& a, const TensorView& b) {
  CheckAct(out, "out");
  FD_CHECK_EQ(out.rank(), 2);
  const int64_t rows = out.dim(0), n = out.dim(1);
  CheckRows(a, "a", out.dtype, rows, n);
  CheckRows(b, "b", out.dtype, rows, n);
  if (OnCuda(ctx)) {
    CheckOnDevice(ctx, {&out, &a, &b});
    return cuda::Add(out.dtype, out.data, out.row_stride, a.data, a.row_stride, b.data, b.row_stride, rows, n,
                     ctx.stream);
  }
  const cpu::RowKernels& kernels = cpu::GetRowKernels(out.dtype);
  ForRowRanges(ctx, rows, n, [&](int64_t begin, int64_t end) {
    kernels.add(RowAt(out, begin), out.row_stride, RowAt(a, begin), a.row_stride, RowAt(b, begin),
                b.row_stride, end - begin, n);
  });
}

void NormalizePixels(const Context& ctx, const TensorView& out, const TensorView& in, const float* mean,
                     const float* std) {
  CheckAct(out, "out");
  FD_CHECK_EQ(out.rank(), 2);
  const int64_t rows = out.dim(0), n = out.dim(1);
  CheckRows(in, "in", DType::kUInt8, rows, n);
  FD_CHECK_EQ(n % 3, 0);
  float offset[3], divisor[3];
  for (int c = 0; c < 3; ++c) {
    offset[c] = 255.0f * mean[c];
    divisor[c] = 255.0f * std[c];
  }
  if (OnCuda(ctx)) {
    CheckOnDevice(ctx, {&out, &in});
    return cuda::NormalizePixels(out.dtype, out.data, out.row_stride, in.As<uint8_t>(), in.row_stride, rows,
                                 n / 3, offset, divisor, ctx.stream);
  }
  const cpu::RowKernels& kernels = cpu::GetRowKernels(out.dtype);
  ForRowRanges(ctx, rows, n, [&](int64_t begin, int64_t end) {
    kernels.normalize_pixels(RowAt(out, begin), out.row_stride,
                             reinterpret_cast<const uint8_t*>(RowAt(in, begin)), in.row_stride, end - begin,
                             n / 3, offset, divisor);
  });
}

}  // namespace fd::ops
