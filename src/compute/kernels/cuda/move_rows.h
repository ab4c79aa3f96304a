// Rows between a device's tensors and page-locked host memory, in the order of a list: ops/move_rows.
//
// One launch moves num_moves * num_pairs * row_bytes. A key/value page of ERNIE-4.5-0.3B is 36 pairs of
// 32 KB, 1.18 MB: 24 us over PCIe at 50 GB/s, so 8192 tokens are 3 ms each way. A thread owns one column of
// one pair and walks the list, so that every move follows those before it without a barrier; a page's columns
// together are more than what PCIe has under way (its latency of 2 us at 50 GB/s is 100 KB). Moves out and in
// use both directions of the link at once, since columns do not wait for each other.
#pragma once

#include <cstdint>

namespace fd::cuda {

// What a launch does. Goes with it by value, so the caller's may be used again at once, whatever is in
// flight; within 4 KB, what kernel parameters hold on every device.
struct RowMoves {
  static constexpr int kMaxPairs = 64;
  static constexpr int kMaxMoves = 380;
  struct Pair {
    void* device;  // row 0; rows follow each other without a gap
    void* host;    // the same, page-locked; null where nothing moves there
  };
  struct Move {
    int32_t from, to;  // a row of Pair::device, or ~row of Pair::host; not the same
  };
  int64_t row_bytes;  // of every pair
  int32_t num_pairs, num_moves;
  Pair pairs[kMaxPairs];
  Move moves[kMaxMoves];
};
static_assert(sizeof(RowMoves) <= 4096);

// Columns are 16 bytes wide where row_bytes and every address are multiples of 16, else 4, else 1: right, but
// slow. Pairs may share no memory. Rows are not checked.
void MoveRows(const RowMoves& moves, void* stream);

}  // namespace fd::cuda
