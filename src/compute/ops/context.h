// What every op needs besides its operands. Made by the executor; one thread at a time uses it.
#pragma once

#include "base/thread_pool.h"
#include "compute/tensor/tensor.h"

namespace fd::ops {

class SideLine;
class Uploader;

struct Context {
  Device device;
  ThreadPool* threads = nullptr;   // CPU: runs the kernels
  void* stream = nullptr;          // CUDA: a cudaStream_t
  Workspace* workspace = nullptr;  // scratch of a single op; an op gives back what it takes
  Arena* arena = nullptr;          // where tensors that stay are cut from; null: each is an allocation
  SideLine* side = nullptr;        // CUDA: where small independent work may run beside the rest
  Uploader* uploader = nullptr;    // CUDA, while loading: takes weights from mapped files to the device
  // CUDA: a row has the same bits whoever shares its batch and however its sequence was cut into chunks, at
  // the price that docs/PERFORMANCE.md gives. The CPU's kernels always do so.
  bool batch_invariant = false;
};

// A tensor that stays: weights, pages, buffers of the executor.
inline Tensor NewTensor(const Context& ctx, DType dtype, Shape shape) {
  return ctx.arena != nullptr ? ctx.arena->Take(dtype, shape) : Tensor(dtype, ctx.device, shape);
}

}  // namespace fd::ops
