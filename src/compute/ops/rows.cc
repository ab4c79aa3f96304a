#include "compute/ops/rows.h"

#include <algorithm>
#include <cstring>

#include "compute/kernels/cpu/rows.h"
#include "compute/kernels/cuda/device.h"
#include "compute/kernels/cuda/rows.h"
#include "compute/ops/row_ranges.h"
#include "compute/ops/upload.h"

namespace fd::ops {
namespace {

// n elements from one activation type to another; the same type is copied bit by bit.
void ConvertRow(void* out, DType out_type, const void* in, DType in_type, int64_t n) {
  if (out_type == in_type) {
    std::memcpy(out, in, static_cast<size_t>(n * DTypeBytes(in_type)));
  } else if (out_type == DType::kFloat32 && in_type == DType::kBFloat16) {
    cpu::GetRowKernels(in_type).to_float(static_cast<float*>(out), in, n);
  } else if (out_type == DType::kBFloat16 && in_type == DType::kFloat32) {
    cpu::GetRowKernels(out_type).from_float(out, static_cast<const float*>(in), n);
  } else {
    FD_CHECK(false, "no conversion from ", DTypeName(in_type), " to ", DTypeName(out_type));
  }
}

constexpr int64_t kUploadBytes = int64_t{256} << 10;

// Rows of the same type from anywhere to anywhere.
void CopySameType(const Context& ctx, const TensorView& out, const TensorView& in) {
  const int64_t bytes = DTypeBytes(in.dtype);
  if (out.IsContiguous() && in.IsContiguous()) {
    // Large host memory is what a file or a picture holds; small buffers are page-locked or copied at once.
    if (in.device.type == DeviceType::kCpu && out.device == ctx.device &&
        in.NumElements() * bytes >= kUploadBytes) {
      return CopyToDevice(ctx, out.data, in.data, in.NumElements() * bytes);
    }
    cuda::CopyAsync(out.data, in.data, in.NumElements() * bytes, ctx.stream);
  } else {
    cuda::CopyRowsAsync(out.data, out.row_stride * bytes, in.data, in.row_stride * bytes,
                        TensorView::RowElements(in.shape) * bytes, in.dim(0), ctx.stream);
  }
}

// One side or both on ctx's device. Conversions happen there.
void CopyCuda(const Context& ctx, const TensorView& out, const TensorView& in) {
  FD_CHECK(out.device == ctx.device || in.device == ctx.device, "neither side is on this device");
  if (out.dtype == in.dtype) return CopySameType(ctx, out, in);
  FD_CHECK((out.dtype == DType::kFloat32 && in.dtype == DType::kBFloat16) ||
               (out.dtype == DType::kBFloat16 && in.dtype == DType::kFloat32),
           "no conversion from ", DTypeName(in.dtype), " to ", DTypeName(out.dtype));
  const int64_t mark = ctx.workspace->Mark();
  TensorView from = in, to = out;
  if (in.device != ctx.device) {
    from = ctx.workspace->Take(in.dtype, in.shape);
    CopySameType(ctx, from, in);
  }
  if (out.device != ctx.device) to = ctx.workspace->Take(out.dtype, out.shape);
  cuda::GatherRows(to.data, to.dtype, to.row_stride, from.data, from.dtype, from.row_stride, from.dim(0),
                   nullptr, from.dim(0), TensorView::RowElements(from.shape), ctx.stream);
  if (out.device != ctx.device) CopySameType(ctx, out, to);
  ctx.workspace->Release(mark);
}

}  // namespace

void Embedding(const Context& ctx, const TensorView& out, const TensorView& table, const TensorView& ids) {
  CheckAct(out, "out");
  CheckAct(table, "table");
  FD_CHECK_EQ(table.rank(), 2);
  const int64_t hidden = table.dim(1);
  CheckRows(out, "out", out.dtype, ids.NumElements(), hidden);
  CheckVector(ids, "ids", DType::kInt32, out.dim(0));
  if (OnCuda(ctx)) {
    CheckOnDevice(ctx, {&out, &table, &ids});
    return cuda::GatherRows(out.data, out.dtype, out.row_stride, table.data, table.dtype, table.row_stride,
                            table.dim(0), ids.As<int32_t>(), out.dim(0), hidden, ctx.stream);
  }
  const int32_t* id = ids.As<int32_t>();
  ForRowRanges(ctx, out.dim(0), hidden, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      FD_CHECK(id[i] >= 0 && id[i] < table.dim(0), "token id ", id[i], " of ", table.dim(0));
      ConvertRow(RowAt(out, i), out.dtype, RowAt(table, id[i]), table.dtype, hidden);
    }
  });
}

void GatherRows(const Context& ctx, const TensorView& out, const TensorView& in, const TensorView& rows) {
  FD_CHECK_EQ(in.rank(), 2);
  const int64_t n = in.dim(1);
  CheckVector(rows, "rows", DType::kInt32, rows.NumElements());
  CheckRows(out, "out", in.dtype, rows.dim(0), n);
  if (OnCuda(ctx)) {
    CheckOnDevice(ctx, {&out, &in, &rows});
    return cuda::GatherRows(out.data, out.dtype, out.row_stride, in.data, in.dtype, in.row_stride, in.dim(0),
                            rows.As<int32_t>(), out.dim(0), n, ctx.stream);
  }
  const int32_t* row = rows.As<int32_t>();
  ForRowRanges(ctx, out.dim(0), n, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      FD_CHECK(row[i] >= 0 && row[i] < in.dim(0), "row ", row[i], " of ", in.dim(0));
      ConvertRow(RowAt(out, i), out.dtype, RowAt(in, row[i]), in.dtype, n);
    }
  });
}

void ScatterRows(const Context& ctx, const TensorView& out, const TensorView& in, const TensorView& rows) {
  FD_CHECK_EQ(out.rank(), 2);
  const int64_t n = out.dim(1);
  CheckVector(rows, "rows", DType::kInt32, rows.NumElements());
  CheckRows(in, "in", out.dtype, rows.dim(0), n);
  if (OnCuda(ctx)) {
    CheckOnDevice(ctx, {&out, &in, &rows});
    return cuda::ScatterRows(out.data, out.row_stride, out.dim(0), in.data, in.row_stride, in.dtype,
                             rows.As<int32_t>(), in.dim(0), n, ctx.stream);
  }
  const int32_t* row = rows.As<int32_t>();
  ForRowRanges(ctx, in.dim(0), n, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      FD_CHECK(row[i] >= 0 && row[i] < out.dim(0), "row ", row[i], " of ", out.dim(0));
      ConvertRow(RowAt(out, row[i]), out.dtype, RowAt(in, i), in.dtype, n);
    }
  });
}

void Copy(const Context& ctx, const TensorView& out, const TensorView& in) {
  FD_CHECK(out.shape == in.shape, out.shape.ToString(), " vs ", in.shape.ToString());
  if (in.empty()) return;
  if (OnCuda(ctx)) return CopyCuda(ctx, out, in);
  FD_CHECK(out.device == ctx.device && in.device == ctx.device, "an operand lies on another device");
  int64_t rows = in.dim(0), n = TensorView::RowElements(in.shape);
  int64_t out_stride = out.row_stride, in_stride = in.row_stride;
  if (out.IsContiguous() && in.IsContiguous()) {  // one long row is cut as the threads like it
    constexpr int64_t kPiece = 4096;
    const int64_t total = in.NumElements();
    ForRowRanges(ctx, (total + kPiece - 1) / kPiece, kPiece, [&](int64_t begin, int64_t end) {
      const int64_t first = begin * kPiece, count = std::min(end * kPiece, total) - first;
      ConvertRow(out.As<char>() + first * DTypeBytes(out.dtype), out.dtype,
                 in.As<char>() + first * DTypeBytes(in.dtype), in.dtype, count);
    });
    return;
  }
  ForRowRanges(ctx, rows, n, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      ConvertRow(out.As<char>() + i * out_stride * DTypeBytes(out.dtype), out.dtype,
                 in.As<char>() + i * in_stride * DTypeBytes(in.dtype), in.dtype, n);
    }
  });
}

void TakeDrawnTokens(const Context& ctx, const TensorView& ids, const TensorView& source,
                     const TensorView& drawn) {
  const int64_t tokens = ids.NumElements();
  CheckVector(ids, "ids", DType::kInt32, tokens);
  CheckVector(source, "source", DType::kInt32, tokens);
  CheckVector(drawn, "drawn", DType::kInt32, drawn.NumElements());
  if (OnCuda(ctx)) {
    CheckOnDevice(ctx, {&ids, &source, &drawn});
    return cuda::TakeDrawnTokens(ids.As<int32_t>(), source.As<int32_t>(), drawn.As<int32_t>(), tokens,
                                 drawn.dim(0), ctx.stream);
  }
  for (int64_t i = 0; i < tokens; ++i) {
    const int32_t row = source.As<int32_t>()[i];
    if (row < 0) continue;
    FD_CHECK(row < drawn.dim(0), "row ", row, " of ", drawn.dim(0));
    ids.As<int32_t>()[i] = std::max(drawn.As<int32_t>()[row], 0);
  }
}

}  // namespace fd::ops
