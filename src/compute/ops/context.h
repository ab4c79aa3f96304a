// What every op needs besides its operands. Made by the executor; one thread at a time uses it.
#pragma once

#include "base/thread_pool.h"
#include "compute/tensor/tensor.h"

namespace fd::ops {

struct Context {
  Device device;
  ThreadPool* threads = nullptr;   // CPU: runs the kernels
  void* stream = nullptr;          // CUDA: a cudaStream_t
  Workspace* workspace = nullptr;  // scratch of a single op; an op gives back what it takes
};

}  // namespace fd::ops
