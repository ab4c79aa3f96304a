// What is installed for CUDA on this machine, read so that a broken driver is an answer: nothing here ends
// the process. Thread-safe.
#pragma once

#include <cstdint>

#include "compute/kernels/cuda/device.h"

namespace fd::cuda {

struct Installation {
  int driver_version = 0;         // CUDA version that the driver knows: 13000 is 13.0; 0 without a driver
  int runtime_version = 0;        // that this build is linked with; 0 without CUDA kernels
  int64_t cublas_lt_version = 0;  // 130100 is 13.1.0
  int device_count = 0;
  const char* error = nullptr;  // CUDA's words when looking for devices failed; lives as long as the process
};
Installation GetInstallation();

// Null when *info has been filled, else CUDA's words for what went wrong.
const char* TryGetDeviceInfo(int index, DeviceInfo* info);
// Null when this build holds machine code that the device can run, else CUDA's words.
const char* TryKernels(int index);

}  // namespace fd::cuda
