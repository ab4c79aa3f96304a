#include "compute/ops/rows.h"

#include <cstring>

#include "compute/kernels/cpu/rows.h"
#include "compute/ops/row_ranges.h"

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

}  // namespace

void Embedding(const Context& ctx, const TensorView& out, const TensorView& table, const TensorView& ids) {
  CheckCpu(ctx);
  CheckAct(out, "out");
  CheckAct(table, "table");
  FD_CHECK_EQ(table.rank(), 2);
  const int64_t hidden = table.dim(1);
  CheckRows(out, "out", out.dtype, ids.NumElements(), hidden);
  CheckVector(ids, "ids", DType::kInt32, out.dim(0));
  const int32_t* id = ids.As<int32_t>();
  ForRowRanges(ctx, out.dim(0), hidden, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      FD_CHECK(id[i] >= 0 && id[i] < table.dim(0), "token id ", id[i], " of ", table.dim(0));
      ConvertRow(RowAt(out, i), out.dtype, RowAt(table, id[i]), table.dtype, hidden);
    }
  });
}

void GatherRows(const Context& ctx, const TensorView& out, const TensorView& in, const TensorView& rows) {
  CheckCpu(ctx);
  FD_CHECK_EQ(in.rank(), 2);
  const int64_t n = in.dim(1);
  CheckVector(rows, "rows", DType::kInt32, rows.NumElements());
  CheckRows(out, "out", in.dtype, rows.dim(0), n);
  const int32_t* row = rows.As<int32_t>();
  ForRowRanges(ctx, out.dim(0), n, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      FD_CHECK(row[i] >= 0 && row[i] < in.dim(0), "row ", row[i], " of ", in.dim(0));
      ConvertRow(RowAt(out, i), out.dtype, RowAt(in, row[i]), in.dtype, n);
    }
  });
}

void ScatterRows(const Context& ctx, const TensorView& out, const TensorView& in, const TensorView& rows) {
  CheckCpu(ctx);
  FD_CHECK_EQ(out.rank(), 2);
  const int64_t n = out.dim(1);
  CheckVector(rows, "rows", DType::kInt32, rows.NumElements());
  CheckRows(in, "in", out.dtype, rows.dim(0), n);
  const int32_t* row = rows.As<int32_t>();
  ForRowRanges(ctx, in.dim(0), n, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      FD_CHECK(row[i] >= 0 && row[i] < out.dim(0), "row ", row[i], " of ", out.dim(0));
      ConvertRow(RowAt(out, row[i]), out.dtype, RowAt(in, i), in.dtype, n);
    }
  });
}

void Copy(const Context& ctx, const TensorView& out, const TensorView& in) {
  CheckCpu(ctx);
  FD_CHECK(out.shape == in.shape, out.shape.ToString(), " vs ", in.shape.ToString());
  FD_CHECK(out.device == in.device, "this build has one device");
  if (in.empty()) return;
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

}  // namespace fd::ops
