#include "compute/kernels/cuda/installation.h"

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <cstring>

namespace fd::cuda {
namespace {

// Compiled for the architectures of all portable kernels.
__global__ void Probe() {}

cudaError_t CheckIndex(int index) {
  int count = 0;
  if (cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess) return error;
  return index >= 0 && index < count ? cudaSuccess : cudaErrorInvalidDevice;
}

// Goes back to the thread's device at the closing brace.
class CurrentDevice {
 public:
  explicit CurrentDevice(int index) {
    error_ = cudaGetDevice(&before_);
    if (error_ == cudaSuccess) error_ = cudaSetDevice(index);
  }
  ~CurrentDevice() {
    cudaSetDevice(before_);
    cudaGetLastError();
  }
  cudaError_t error() const { return error_; }

 private:
  int before_ = 0;
  cudaError_t error_;
};

// Forgets an error that is no sticky one, so that the next launch does not report it.
const char* Words(cudaError_t error) {
  if (error == cudaSuccess) return nullptr;
  cudaGetLastError();
  return cudaGetErrorString(error);
}

cudaError_t ReadDeviceInfo(int index, DeviceInfo* info) {
  if (cudaError_t error = CheckIndex(index); error != cudaSuccess) return error;
  cudaDeviceProp p;
  if (cudaError_t error = cudaGetDeviceProperties(&p, index); error != cudaSuccess) return error;
  std::memcpy(info->name, p.name, sizeof(info->name) - 1);
  info->major = p.major;
  info->minor = p.minor;
  info->multiprocessors = p.multiProcessorCount;
  info->l2_bytes = p.l2CacheSize;
  info->shared_bytes_per_block = static_cast<int64_t>(p.sharedMemPerBlockOptin);
  // The first call that makes a context: where a device in exclusive use or a broken one shows.
  const CurrentDevice current(index);
  if (current.error() != cudaSuccess) return current.error();
  size_t free_bytes = 0, total_bytes = 0;
  if (cudaError_t error = cudaMemGetInfo(&free_bytes, &total_bytes); error != cudaSuccess) return error;
  info->free_bytes = static_cast<int64_t>(free_bytes);
  info->total_bytes = static_cast<int64_t>(total_bytes);
  if (cudaError_t error = cudaDriverGetVersion(&info->driver_version); error != cudaSuccess) return error;
  return cudaRuntimeGetVersion(&info->runtime_version);
}

}  // namespace

Installation GetInstallation() {
  Installation found;
  // Both answer without a driver; the first with 0.
  if (Words(cudaDriverGetVersion(&found.driver_version)) != nullptr) found.driver_version = 0;
  if (Words(cudaRuntimeGetVersion(&found.runtime_version)) != nullptr) found.runtime_version = 0;
  found.cublas_lt_version = static_cast<int64_t>(cublasLtGetVersion());
  found.error = Words(cudaGetDeviceCount(&found.device_count));
  if (found.error != nullptr) found.device_count = 0;
  return found;
}

const char* TryGetDeviceInfo(int index, DeviceInfo* info) { return Words(ReadDeviceInfo(index, info)); }

const char* TryKernels(int index) {
  if (cudaError_t error = CheckIndex(index); error != cudaSuccess) return Words(error);
  const CurrentDevice current(index);
  if (current.error() != cudaSuccess) return Words(current.error());
  cudaFuncAttributes attributes;
  return Words(cudaFuncGetAttributes(&attributes, Probe));
}

}  // namespace fd::cuda
