#include "machine.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace fd {
namespace {

class Machine : public testing::Test {
 protected:
  void SetUp() override {
    root_ = testing::TempDir() + "/fd_machine";
    std::filesystem::remove_all(root_);
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root_ + path).parent_path());
    std::ofstream(root_ + path) << text;
  }
  std::string root_;
};

TEST_F(Machine, Cpu) {
  Write("/proc/cpuinfo",
        "processor\t: 0\nmodel name\t: Some CPU @ 2.0: fast\nflags\t\t: fpu avx2 fma f16c avx512f "
        "avx512_vnni\n\n"
        "processor\t: 1\nmodel name\t: Another\nflags\t\t: fpu amx_tile\n");
  const MachineFacts facts = ReadMachine(root_);
  EXPECT_EQ(facts.processors, 2);
  EXPECT_EQ(facts.cpu_model, "Some CPU @ 2.0: fast");
  EXPECT_EQ(facts.cpu_features, (std::vector<std::string>{"AVX2", "FMA", "F16C", "AVX-512", "AVX-512 VNNI"}));
  EXPECT_TRUE(facts.HasFeature("AVX-512"));
  EXPECT_FALSE(facts.HasFeature("AVX-512 BF16"));
  EXPECT_FALSE(facts.HasFeature("AMX"));
}

TEST_F(Machine, MemoryAndPages) {
  Write("/proc/meminfo", "MemTotal:       24586112 kB\nMemFree:  1 kB\nMemAvailable:   1000 kB\n");
  Write("/sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]\n");
  const MachineFacts facts = ReadMachine(root_);
  EXPECT_EQ(facts.memory_total_bytes, int64_t{24586112} * 1024);
  EXPECT_EQ(facts.memory_free_bytes, 1000 * 1024);
  EXPECT_EQ(facts.transparent_huge_pages, "never");
}

TEST_F(Machine, NvidiaDriver) {
  EXPECT_EQ(ReadMachine(root_).nvidia_kernel_driver, "");
  EXPECT_FALSE(ReadMachine(root_).nvidia_device_files);
  Write("/dev/nvidiactl", "");
  EXPECT_TRUE(ReadMachine(root_).nvidia_device_files);
  for (const char* line :
       {"NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 07:20:03 UTC 2025",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build"}) {
    Write("/proc/driver/nvidia/version", std::string(line) + "\nGCC version:  gcc 12.2.0\n");
    EXPECT_EQ(ReadMachine(root_).nvidia_kernel_driver, "580.65.06");
  }
}

TEST_F(Machine, NothingThere) {
  const MachineFacts facts = ReadMachine(root_);
  EXPECT_EQ(facts.processors, 0);
  EXPECT_EQ(facts.memory_total_bytes, 0);
  EXPECT_TRUE(facts.cpu_features.empty());
  EXPECT_EQ(facts.transparent_huge_pages, "");
  Write("/sys/kernel/mm/transparent_hugepage/enabled", "] always [");
  Write("/proc/meminfo", "MemTotal\nMemAvailable: none\n");
  EXPECT_EQ(ReadMachine(root_).transparent_huge_pages, "");
  EXPECT_EQ(ReadMachine(root_).memory_free_bytes, 0);
}

TEST(MachineHere, IsPlausible) {
  const MachineFacts facts = ReadMachine();
  EXPECT_GE(facts.processors, 1);
  EXPECT_TRUE(facts.HasFeature("AVX2"));  // or no other test would run
  EXPECT_GT(facts.memory_total_bytes, facts.memory_free_bytes);
}

}  // namespace
}  // namespace fd
