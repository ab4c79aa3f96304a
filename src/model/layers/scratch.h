// Scratch tensors of one block of code: taken from the step's workspace, given back at the closing brace.
#pragma once

#include "compute/ops/context.h"

namespace fd {

class Scratch {
 public:
  explicit Scratch(const ops::Context& ctx) : workspace_(*ctx.workspace), mark_(workspace_.Mark()) {}
  ~Scratch() { workspace_.Release(mark_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  TensorView Take(DType dtype, Shape shape) { return workspace_.Take(dtype, shape); }

 private:
  Workspace& workspace_;
  int64_t mark_;
};

// An upper bound of what ops::PagedAttention and ops::SegmentAttention take for themselves: buffers of one
// tile of query rows for each thread, and partial results where a few tiles with long contexts are split
// between threads.
inline int64_t AttentionOpBytes(int64_t heads, int64_t kv_heads, int64_t head_dim, int64_t tokens,
                                int64_t max_context, int64_t threads) {
  constexpr int64_t kTileRows = 128, kBlock = 64, kSplit = 512;
  const int64_t group = heads / kv_heads, columns = (head_dim + 15) / 16 * 16;
  const int64_t tile = group > kTileRows ? group : kTileRows;
  const int64_t tile_rows = tokens * group < tile ? tokens * group : tile;
  const int64_t per_thread = 4 * (tile_rows * (3 * columns + kBlock + 5) + 3 * kBlock * columns) + 1024;
  const int64_t rows = tokens * heads < 4 * threads * tile ? tokens * heads : 4 * threads * tile;
  const int64_t splits = (max_context + kSplit - 1) / kSplit;
  const int64_t partials = splits > 1 ? 4 * splits * (rows * (columns + 2) + 64 * threads) : 0;
  return threads * per_thread + partials + 4096;
}

// What Take adds to the workspace; for arithmetic ahead of a step.
inline int64_t ScratchBytes(DType dtype, int64_t elements) {
  return (elements * DTypeBytes(dtype) + 63) / 64 * 64;
}

}  // namespace fd
