// FD_CUDA_CHECK(call): a CUDA error is unrecoverable for this process, like FD_CHECK. After a launch:
// FD_CUDA_CHECK(cudaGetLastError()).
#pragma once

#include <cuda_runtime.h>

#include "base/check.h"

#define FD_CUDA_CHECK(call)                                                                            \
  do {                                                                                                 \
    const cudaError_t fd_error = (call);                                                               \
    if (fd_error != cudaSuccess) [[unlikely]]                                                          \
      ::fd::CheckFailed(__FILE__, __LINE__, #call,                                                     \
                        ::fd::StrCat(cudaGetErrorName(fd_error), ": ", cudaGetErrorString(fd_error))); \
  } while (0)
