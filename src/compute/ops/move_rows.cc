#include "compute/ops/move_rows.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "compute/kernels/cuda/move_rows.h"
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

// Rows that every pair of a launch has. A number of the list is an int32; what needs more has 2^31 rows.
struct CommonRows {
  int64_t device = std::numeric_limits<int32_t>::max(), host = device;

  void Add(const RowPair& pair) {
    device = std::min(device, pair.device.empty() ? 0 : pair.device.dim(0));
    host = std::min(host, pair.host.empty() ? 0 : pair.host.dim(0));
  }
  int32_t Number(const RowMove::Place& place) const {
    const int64_t rows = place.on_host ? host : device;
    FD_CHECK(place.row >= 0 && place.row < rows, "row ", place.row, " of ", rows);
    const auto row = static_cast<int32_t>(place.row);
    return place.on_host ? ~row : row;
  }
};

// As few launches as the lists of cuda::RowMoves allow; in the order of the stream, as the moves of a pair
// ask.
void MoveOnCuda(const Context& ctx, std::span<const RowPair> pairs, std::span<const RowMove> moves) {
  cuda::RowMoves launch;
  for (auto pair = pairs.begin(); pair != pairs.end();) {
    CommonRows rows;
    launch.row_bytes = RowBytes(pair->device);
    launch.num_pairs = 0;
    for (; pair != pairs.end() && launch.num_pairs < cuda::RowMoves::kMaxPairs &&
           RowBytes(pair->device) == launch.row_bytes;
         ++pair) {
      launch.pairs[launch.num_pairs++] = {pair->device.data, pair->host.data};
      rows.Add(*pair);
    }
    for (auto move = moves.begin(); move != moves.end();) {
      launch.num_moves = 0;
      for (; move != moves.end() && launch.num_moves < cuda::RowMoves::kMaxMoves; ++move)
        launch.moves[launch.num_moves++] = {rows.Number(move->from), rows.Number(move->to)};
      cuda::MoveRows(launch, ctx.stream);
    }
  }
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
  if (OnCuda(ctx)) return MoveOnCuda(ctx, pairs, moves);
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
