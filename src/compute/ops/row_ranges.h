// How ops that work row by row check their operands and fork over the threads.
#pragma once

#include <algorithm>
#include <initializer_list>

#include "compute/ops/context.h"

namespace fd::ops {

// Elements below which waking another thread costs more than it saves.
inline constexpr int64_t kMinForkElements = 16 << 10;

// fn(begin, end) over ranges of [0, rows), about kMinForkElements each.
template <typename Fn>
void ForRowRanges(const Context& ctx, int64_t rows, int64_t elements_per_row, const Fn& fn) {
  if (rows <= 0) return;
  const int64_t grain = std::max<int64_t>(1, kMinForkElements / std::max<int64_t>(1, elements_per_row));
  if (ctx.threads == nullptr || rows <= grain) {
    fn(int64_t{0}, rows);
    return;
  }
  ctx.threads->ParallelFor(rows, grain, fn);
}

// The address of row i.
inline char* RowAt(const TensorView& t, int64_t i) {
  return static_cast<char*>(t.data) + i * t.row_stride * DTypeBytes(t.dtype);
}

inline bool OnCuda(const Context& ctx) { return ctx.device.type == DeviceType::kCuda; }
// For ops without a CUDA kernel.
inline void CheckCpu(const Context& ctx) {
  FD_CHECK(ctx.device.type == DeviceType::kCpu, "this op has no kernel for CUDA");
}
// A pointer of another device would only show as an illegal access, much later.
inline void CheckOnDevice(const Context& ctx, std::initializer_list<const TensorView*> operands) {
  for (const TensorView* t : operands)
    FD_CHECK(t->data == nullptr || t->device == ctx.device, "an operand ", t->shape.ToString(),
             " lies on another device");
}
// float32 or bfloat16.
inline void CheckAct(const TensorView& t, const char* name) {
  FD_CHECK(t.dtype == DType::kFloat32 || t.dtype == DType::kBFloat16, name, " is ", DTypeName(t.dtype));
}
// [rows, n] of this type.
inline void CheckRows(const TensorView& t, const char* name, DType dtype, int64_t rows, int64_t n) {
  FD_CHECK(t.rank() == 2 && t.dim(0) == rows && t.dim(1) == n, name, " is ", t.shape.ToString(),
           ", expected [", rows, ", ", n, "]");
  FD_CHECK(t.dtype == dtype, name, " is ", DTypeName(t.dtype), ", expected ", DTypeName(dtype));
}
// Contiguous [n] of this type.
inline void CheckVector(const TensorView& t, const char* name, DType dtype, int64_t n) {
  FD_CHECK(t.rank() == 1 && t.dim(0) == n, name, " is ", t.shape.ToString(), ", expected [", n, "]");
  FD_CHECK(t.dtype == dtype, name, " is ", DTypeName(t.dtype), ", expected ", DTypeName(dtype));
  FD_CHECK(t.IsContiguous(), name);
}

}  // namespace fd::ops
