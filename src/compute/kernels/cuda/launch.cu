#include <atomic>

#include "compute/kernels/cuda/launch.cuh"

namespace fd::cuda {
namespace {

constexpr int kMaxDevices = 64;
std::atomic<bool> allowed{true};

}  // namespace

void SetLaunchOverlap(bool on) { allowed = on; }

bool CanOverlapLaunches() {
  static std::atomic<int> majors[kMaxDevices];  // 0: not asked yet
  if (!allowed) return false;
  int device = 0;
  FD_CUDA_CHECK(cudaGetDevice(&device));
  if (device >= kMaxDevices) return false;
  int major = majors[device];
  if (major == 0) {
    FD_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    majors[device] = major;
  }
  return major >= 9;
}

}  // namespace fd::cuda
