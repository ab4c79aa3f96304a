#include "compute/ops/pool.h"

#include <algorithm>

#include "compute/kernels/cuda/pool.h"
#include "compute/ops/row_ranges.h"

namespace fd::ops {
namespace {

constexpr int64_t kPieceColumns = 256;

// Columns [begin, end) of one sequence.
void AddColumns(float* sum, float* lost, const TensorView& rows, int64_t first, int64_t last, int64_t begin,
                int64_t end) {
  for (int64_t r = first; r < last; ++r) {
    const float* row = rows.As<float>() + r * rows.row_stride;
    for (int64_t c = begin; c < end; ++c) {
      const float add = row[c] - lost[c];
      const float total = sum[c] + add;
      lost[c] = (total - sum[c]) - add;
      sum[c] = total;
    }
  }
}

}  // namespace

void AddToSums(const Context& ctx, const TensorView& sums, const TensorView& rows, const TensorView& offsets,
               const TensorView& slots, const TensorView& fresh) {
  const int64_t sequences = slots.NumElements();
  FD_CHECK_EQ(rows.rank(), 2);
  const int64_t n = rows.dim(1);
  CheckRows(rows, "rows", DType::kFloat32, rows.dim(0), n);
  CheckRows(sums, "sums", DType::kFloat32, sums.dim(0), 2 * n);
  CheckVector(offsets, "offsets", DType::kInt32, sequences + 1);
  CheckVector(slots, "slots", DType::kInt32, sequences);
  CheckVector(fresh, "fresh", DType::kInt32, sequences);
  if (OnCuda(ctx)) {
    CheckOnDevice(ctx, {&sums, &rows, &offsets, &slots, &fresh});
    return cuda::AddToSums(sums.As<float>(), sums.row_stride, sums.dim(0), rows.As<float>(), rows.row_stride,
                           rows.dim(0), n, offsets.As<int32_t>(), slots.As<int32_t>(), fresh.As<int32_t>(),
                           sequences, ctx.stream);
  }
  const int64_t pieces = (n + kPieceColumns - 1) / kPieceColumns;
  const int64_t rows_each = sequences == 0 ? 0 : rows.dim(0) / sequences + 1;
  ForRowRanges(ctx, sequences * pieces, rows_each * kPieceColumns, [&](int64_t from, int64_t to) {
    for (int64_t i = from; i < to; ++i) {
      const int64_t s = i / pieces, begin = i % pieces * kPieceColumns;
      const int64_t end = std::min(begin + kPieceColumns, n);
      const int64_t slot = slots.As<int32_t>()[s];
      const int64_t first = offsets.As<int32_t>()[s], last = offsets.As<int32_t>()[s + 1];
      FD_CHECK(slot >= 0 && slot < sums.dim(0), "slot ", slot, " of ", sums.dim(0));
      FD_CHECK(first >= 0 && first <= last && last <= rows.dim(0), "rows ", first, " to ", last, " of ",
               rows.dim(0));
      float* sum = sums.As<float>() + slot * sums.row_stride;
      if (fresh.As<int32_t>()[s] != 0) {
        std::fill(sum + begin, sum + end, 0.0f);
        std::fill(sum + n + begin, sum + n + end, 0.0f);
      }
      AddColumns(sum, sum + n, rows, first, last, begin, end);
    }
  });
}

}  // namespace fd::ops
