// Stands in for installation.cu in a build without CUDA.
#include "compute/kernels/cuda/installation.h"

#include "compute/kernels/cuda/not_built.h"

namespace fd::cuda {
Installation GetInstallation() { return {}; }
const char* TryGetDeviceInfo(int, DeviceInfo*) { NotBuilt(__func__); }
const char* TryKernels(int) { NotBuilt(__func__); }
}  // namespace fd::cuda
