// Weights from a mapped file to the device, through page-locked buffers: the thread pool copies the next
// piece (which reads the file) while the copy engine moves the last ones.
#pragma once

#include <vector>

#include "compute/ops/stream.h"

namespace fd::ops {

// CUDA alone. One thread.
class Uploader {
 public:
  explicit Uploader(const Context& ctx);
  // When it returns `from` has been read and may be unmapped; the copy is ordered on ctx's stream.
  void Copy(void* to, const void* from, int64_t bytes);
  static int64_t HostBytes();

 private:
  struct Piece {
    Tensor memory;
    Event moved;
  };
  const Context ctx_;
  std::vector<Piece> ring_;
  size_t next_ = 0;
};

// Host memory to ctx's device, through ctx.uploader where there is one. When it returns `from` has been read.
void CopyToDevice(const Context& ctx, void* to, const void* from, int64_t bytes);

// The first bytes of Tensor::Staging memory to ctx's device in one transfer that runs beside kernels;
// `staged` must not be written before it has.
void CopyStaged(const Context& ctx, const TensorView& to, const Tensor& staged);

}  // namespace fd::ops
