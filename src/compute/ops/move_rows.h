// Rows of a device's tensors to and from host memory, in the order of a list: pages of the key/value cache.
#pragma once

#include <cstdint>
#include <span>

#include "compute/ops/context.h"

namespace fd::ops {

struct RowMove {
  struct Place {
    int64_t row = 0;
    bool on_host = false;
  };
  Place from, to;  // different; not both on the host
};

// Two tensors of which rows of the same bytes are exchanged.
struct RowPair {
  TensorView device;  // [rows, ...] on ctx's device, contiguous
  TensorView
      host;  // [other rows, ...] in Tensor::Staging memory, contiguous; empty where nothing moves there
};

// Each move in each pair, one after the other; the pairs share no memory. Host memory belongs to the stream
// until what was given to it has been done; the two lists are read before it returns. On CUDA one kernel
// (kernels/cuda/move_rows.h) for up to 64 pairs whose rows have the same bytes and 380 moves, at the speed of
// PCIe where rows are 16-byte aligned.
void MoveRows(const Context& ctx, std::span<const RowPair> pairs, std::span<const RowMove> moves);

}  // namespace fd::ops
