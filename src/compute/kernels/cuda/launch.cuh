// Rules of a kernel launched by LaunchOverlapped: every thread calls WaitForPrevious() before it reads
// anything an earlier kernel or copy may write, before it writes anything, and before it exits. What it may
// read earlier are weights, which nothing on the stream writes after loading. WaitForPrevious returns once
// the kernel before has ended and its writes are visible; since that one waited too, so have all before it.
// Other kernels and copies on the stream wait for the end of this one as ever.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <cstdint>
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

// Gives a kernel its dynamic shared memory on the current device, once. All take the same split of shared
// memory and L1, so that blocks of two kernels fit on one multiprocessor.
template <auto kKernel>
void PrepareSharedMemory(int bytes) {
  static std::atomic<uint64_t> prepared{0};  // one bit a device
  int device = 0;
  FD_CUDA_CHECK(cudaGetDevice(&device));
  if (device < 64 && (prepared >> device & 1) != 0) return;
  FD_CUDA_CHECK(cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes));
  FD_CUDA_CHECK(cudaFuncSetAttribute(kKernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                                     cudaSharedmemCarveoutMaxShared));
  if (device < 64) prepared |= uint64_t{1} << device;
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
