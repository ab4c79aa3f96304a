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

// What Take adds to the workspace; for arithmetic ahead of a step.
inline int64_t ScratchBytes(DType dtype, int64_t elements) {
  return (elements * DTypeBytes(dtype) + 63) / 64 * 64;
}

}  // namespace fd
