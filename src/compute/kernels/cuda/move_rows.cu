#include "compute/kernels/cuda/move_rows.h"

#include "compute/kernels/cuda/cuda_check.cuh"

namespace fd::cuda {
namespace {

constexpr int kThreads = 256;

// Whatever is loaded may be what this thread stored for an earlier move: no __restrict__, no read-only path.
template <typename Column>
__global__ void __launch_bounds__(kThreads) MoveColumns(const __grid_constant__ RowMoves list) {
  const int64_t columns = list.row_bytes / static_cast<int64_t>(sizeof(Column));
  const int64_t column = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (column >= columns) return;
  Column* const device = static_cast<Column*>(list.pairs[blockIdx.y].device) + column;
  Column* const host = static_cast<Column*>(list.pairs[blockIdx.y].host) + column;
  const auto at = [&](int32_t row) { return row < 0 ? host + ~row * columns : device + row * columns; };
  for (int i = 0; i < list.num_moves; ++i) *at(list.moves[i].to) = *at(list.moves[i].from);
}

template <typename Column>
void Launch(const RowMoves& list, cudaStream_t stream) {
  const int64_t columns = list.row_bytes / static_cast<int64_t>(sizeof(Column));
  const dim3 grid(static_cast<unsigned>((columns + kThreads - 1) / kThreads),
                  static_cast<unsigned>(list.num_pairs));
  MoveColumns<Column><<<grid, kThreads, 0, stream>>>(list);
  FD_CUDA_CHECK(cudaGetLastError());
}

}  // namespace

void MoveRows(const RowMoves& moves, void* stream) {
  FD_CHECK(moves.num_pairs <= RowMoves::kMaxPairs && moves.num_moves <= RowMoves::kMaxMoves);
  if (moves.row_bytes == 0 || moves.num_pairs == 0 || moves.num_moves == 0) return;
  uint64_t all = static_cast<uint64_t>(moves.row_bytes);
  for (int i = 0; i < moves.num_pairs; ++i) {
    all |=
        reinterpret_cast<uint64_t>(moves.pairs[i].device) | reinterpret_cast<uint64_t>(moves.pairs[i].host);
  }
  const auto at = static_cast<cudaStream_t>(stream);
  if (all % sizeof(uint4) == 0) {
    Launch<uint4>(moves, at);
  } else if (all % sizeof(uint32_t) == 0) {
    Launch<uint32_t>(moves, at);
  } else {
    Launch<uint8_t>(moves, at);
  }
}

}  // namespace fd::cuda
