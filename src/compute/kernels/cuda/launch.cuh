// Rules of a kernel launched by LaunchOverlapped: every thread calls WaitForPrevious() before it reads
// anything an earlier kernel or copy may write, before it writes anything, and before it exits. What it may
// read earlier are weights, which nothing on the stream writes after loading. WaitForPrevious returns once
// the kernel before has ended and its writes are visible; since that one waited too, so have all before it.
// Other kernels and copies on the stream wait for the end of this one as ever.
#pragma once

#include <cuda_runtime.h>

#include <utility>

#include "compute/kernels/cuda/cuda_check.cuh"
#include "compute/kernels/cuda/launch.h"

namespace fd::cuda {

__device__ __forceinline__ void WaitForPrevious() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// The next kernel may begin as soon as every block of this one has got here and there is room beside it.
__device__ __forceinline__ void LetNextBegin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// The current device is of Hopper or newer and SetLaunchOverlap has not forbidden it.
bool CanOverlapLaunches();

template <typename... Params, typename... Args>
void LaunchOverlapped(void (*kernel)(Params...), dim3 grid, unsigned threads, size_t shared_bytes,
                      cudaStream_t stream, Args&&... args) {
  cudaLaunchAttribute overlap;
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(threads);
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &overlap;
  config.numAttrs = CanOverlapLaunches() ? 1 : 0;
  FD_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...));
}

}  // namespace fd::cuda
