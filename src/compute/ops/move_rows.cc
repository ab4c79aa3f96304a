#include "compute/ops/move_rows.h"

#include <cstring>

#include "compute/kernels/cuda/device.h"
#include "compute/ops/row_ranges.h"

namespace fd::ops {
namespace {

int64_t RowBytes(const TensorView& t) { return TensorView::RowElements(t.shape) * DTypeBytes(t.dtype); }

char* RowOf(const RowPair& pair, const RowMove::Place& place) {
  const TensorView& tensor = place.on_host ? pair.host : pair.device;
  FD_CHECK(place.row >= 0 && !tensor.empty() && place.row < tensor.dim(0), "row ", place.row, " of ",
           tensor.shape.ToString());
  return RowAt(tensor, place.row);
}

}  // namespace

void MoveRows(const Context& ctx, std::span<const RowPair> pairs, std::span<const RowMove> moves) {
  if (moves.empty()) return;
  for (const RowPair& pair : pairs) {
    CheckOnDevice(ctx, {&pair.device});
    FD_CHECK(pair.device.IsContiguous() && pair.host.IsContiguous());
    FD_CHECK(pair.host.empty() || RowBytes(pair.host) == RowBytes(pair.device));
    FD_CHECK(pair.host.device.type == DeviceType::kCpu);
  }
  for (const RowMove& move : moves) FD_CHECK(!move.from.on_host || !move.to.on_host);
  if (OnCuda(ctx)) {
    for (const RowMove& move : moves) {
      for (const RowPair& pair : pairs)
        cuda::CopyAsync(RowOf(pair, move.to), RowOf(pair, move.from), RowBytes(pair.device), ctx.stream);
    }
    return;
  }
  // A move must follow those before it in its own tensors alone.
  const auto of_pairs = [&](int64_t begin, int64_t end) {
    for (const RowPair& pair : pairs.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin))) {
      for (const RowMove& move : moves) {
        std::memcpy(RowOf(pair, move.to), RowOf(pair, move.from), static_cast<size_t>(RowBytes(pair.device)));
      }
    }
  };
  const auto count = std::ssize(pairs);
  if (ctx.threads == nullptr) {
    of_pairs(0, count);
  } else {
    ctx.threads->ParallelFor(count, 1, of_pairs);
  }
}

}  // namespace fd::ops
