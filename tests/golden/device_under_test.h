// Golden tests run on the CPU, or on CUDA device 0 with FASTDEPLOY_TEST_DEVICE=cuda; without a device they
// skip.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <string_view>

#include "compute/kernels/cuda/device.h"
#include "compute/ops/context.h"

namespace fd::golden {

inline bool OnCuda() {
  const char* name = std::getenv("FASTDEPLOY_TEST_DEVICE");
  return name != nullptr && std::string_view(name) == "cuda";
}
inline Device DeviceUnderTest() { return OnCuda() ? Device{DeviceType::kCuda, 0} : Device{}; }
// One stream for the whole program; null on the CPU.
inline void* StreamUnderTest() {
  static void* const stream = OnCuda() ? cuda::CreateStream(0) : nullptr;
  return stream;
}

// Threads, stream and a growing workspace on the device under test.
struct TestContext {
  explicit TestContext(int num_threads = 2) : threads(num_threads) {
    ctx.device = DeviceUnderTest();
    ctx.stream = StreamUnderTest();
    ctx.threads = &threads;
    ctx.workspace = &workspace;
  }
  ThreadPool threads;
  Workspace workspace{DeviceUnderTest(), int64_t{1} << 20};
  ops::Context ctx;
};

class DeviceEnvironment : public testing::Environment {
 public:
  void SetUp() override {
    if (OnCuda() && cuda::DeviceCount() == 0) GTEST_SKIP() << "no CUDA device on this machine";
  }
};
inline const auto* const kDeviceEnvironment = testing::AddGlobalTestEnvironment(new DeviceEnvironment);

}  // namespace fd::golden
