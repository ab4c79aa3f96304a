// FD_CUDA_CHECK(call): a CUDA error is a DeviceError (compute/tensor/device_error.h), after which the process
// must end. After a launch: FD_CUDA_CHECK(cudaGetLastError()).
#pragma once

#include <cuda_runtime.h>

#include "base/check.h"
#include "base/strings.h"
#include "compute/tensor/device_error.h"

#define FD_CUDA_CHECK(call)                                                               \
  do {                                                                                    \
    const cudaError_t fd_error = (call);                                                  \
    if (fd_error != cudaSuccess) [[unlikely]]                                             \
      ::fd::cuda::ThrowDeviceError(__FILE__, __LINE__, #call, cudaGetErrorName(fd_error), \
                                   cudaGetErrorString(fd_error));                         \
  } while (0)

namespace fd::cuda {

[[noreturn]] void ThrowDeviceError(const char* file, int line, const char* call, const char* name,
                                   const char* text);

}  // namespace fd::cuda
