// What doctor asks a device for.
#include "compute/kernels/cuda/installation.h"
#include "tests/parity/cuda_parity.h"

namespace fd {
namespace {

using namespace parity;

TEST(CudaInstallation, TellsWhatIsThere) {
  FD_SKIP_WITHOUT_GPU();
  const cuda::Installation found = cuda::GetInstallation();
  EXPECT_EQ(found.device_count, cuda::DeviceCount());
  EXPECT_EQ(found.error, nullptr);
  EXPECT_GE(found.runtime_version, 13000);
  EXPECT_GE(found.driver_version / 1000, found.runtime_version / 1000);
  EXPECT_GE(found.cublas_lt_version, 130000);
  cuda::DeviceInfo info;
  ASSERT_EQ(cuda::TryGetDeviceInfo(0, &info), nullptr);
  EXPECT_GT(info.multiprocessors, 0);
  EXPECT_GT(info.total_bytes, info.free_bytes);
  EXPECT_STREQ(info.name, cuda::GetDeviceInfo(0).name);
  EXPECT_EQ(cuda::TryKernels(0), nullptr);
}

TEST(CudaInstallation, AWrongDeviceIsAnAnswer) {
  FD_SKIP_WITHOUT_GPU();
  cuda::DeviceInfo info;
  EXPECT_NE(cuda::TryGetDeviceInfo(cuda::DeviceCount(), &info), nullptr);
  EXPECT_NE(cuda::TryKernels(cuda::DeviceCount()), nullptr);
  CudaContext gpu;  // and nothing is left behind that a later call would report
  EXPECT_EQ(cuda::TryKernels(0), nullptr);
}

}  // namespace
}  // namespace fd
