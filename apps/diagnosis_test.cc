#include "diagnosis.h"

#include <gtest/gtest.h>

#include <cstring>

namespace fd {
namespace {

constexpr int64_t kGb = 1000 * 1000 * 1000;

Facts Healthy() {
  Facts facts;
  facts.machine.cpu_features = {"AVX2", "FMA", "F16C"};
  facts.machine.memory_free_bytes = facts.usable_memory_bytes = 20 * kGb;
  facts.machine.transparent_huge_pages = "madvise";
  facts.topology.cpus = {{0, 0, 0}};
  facts.machine.nvidia_kernel_driver = "580.65.06";
  facts.machine.nvidia_device_files = true;
  facts.max_open_files = 65536;
  facts.cuda_built = facts.libcuda_found = true;
  facts.cuda.driver_version = facts.cuda.runtime_version = 13000;
  facts.cuda.device_count = 1;
  GpuFacts gpu;
  std::strcpy(gpu.info.name, "NVIDIA H100");
  gpu.info.major = 9;
  gpu.info.total_bytes = 80 * kGb;
  gpu.info.free_bytes = 79 * kGb;
  facts.gpus.push_back(gpu);
  return facts;
}

// Expects one problem that has these words.
void ExpectOne(const Facts& facts, bool fatal, const std::string& what, const std::string& fix) {
  const std::vector<Problem> problems = FindProblems(facts);
  ASSERT_EQ(problems.size(), 1u) << what;
  EXPECT_EQ(problems[0].fatal, fatal) << problems[0].what;
  EXPECT_NE(problems[0].what.find(what), std::string::npos) << problems[0].what;
  EXPECT_NE(problems[0].fix.find(fix), std::string::npos) << problems[0].fix;
  EXPECT_EQ((problems[0].what + problems[0].fix).find('\n'), std::string::npos);
}

TEST(Diagnosis, HealthyMachinesHaveNoProblem) {
  EXPECT_TRUE(FindProblems(Healthy()).empty());
  EXPECT_EQ(AutoGpu(Healthy()), 0);
  Facts cpu = Healthy();  // no GPU, and no build for one
  cpu.machine.nvidia_kernel_driver.clear();
  cpu.machine.nvidia_device_files = cpu.cuda_built = cpu.libcuda_found = false;
  cpu.cuda = {};
  cpu.gpus.clear();
  EXPECT_TRUE(FindProblems(cpu).empty());
  EXPECT_EQ(AutoGpu(cpu), std::nullopt);
  EXPECT_TRUE(CpuServes(cpu));
}

TEST(Diagnosis, Cpu) {
  Facts facts = Healthy();
  facts.machine.cpu_features = {"FMA"};
  ExpectOne(facts, true, "no AVX2, F16C", "-cpu host");
  EXPECT_FALSE(CpuServes(facts));
  facts = Healthy();
  facts.machine.transparent_huge_pages = "never";
  ExpectOne(facts, false, "huge pages are off", "echo madvise");
  facts = Healthy();
  facts.max_open_files = 1024;
  ExpectOne(facts, false, "at most 1024 files", "ulimit");
  facts = Healthy();
  facts.usable_memory_bytes = 5 * kGb;
  ExpectOne(facts, false, "5.0 GB of the 20.0 GB", "--memory");
  facts = Healthy();
  facts.machine.memory_free_bytes = facts.usable_memory_bytes = kGb / 2;
  ExpectOne(facts, false, "only 500.0 MB", "stop other programs");
}

TEST(Diagnosis, Threads) {
  Facts facts = Healthy();
  facts.topology.cpus = {{0, 0, 0}, {1, 0, 1}, {2, 0, 0}, {3, 0, 1}};  // 2 cores with siblings
  facts.topology.cores_known = true;
  const auto place = [&](int threads) {
    facts.placement = PlaceThreads(facts.topology, threads, Pinning::kWhereUseful);
  };
  place(0);
  EXPECT_TRUE(FindProblems(facts).empty());
  place(3);
  ExpectOne(facts, false, "--threads 3 exceeds the 2 cores for this process: two threads share",
            "--threads 2");
  place(5);
  ExpectOne(facts, false, "--threads 5 exceeds the 2 cores for this process: threads wait", "--threads 2");
  facts.topology.quota_cpus = 1.5;
  place(0);
  ExpectOne(facts, false, "quota of 1.5 CPUs leaves 1 of 2 cores idle", "limits.cpu");
  place(2);
  ExpectOne(facts, false, "--threads 2 exceeds the quota of 1.5 CPUs", "--threads 1");
  facts.topology.quota_cpus = 2;
  EXPECT_TRUE(FindProblems(facts).empty());
  facts.topology.quota_cpus = 0.5;
  place(0);
  ExpectOne(facts, false, "quota of 0.5 CPUs leaves 1 of 2", "docker --cpus");
}

TEST(Diagnosis, Driver) {
  Facts facts = Healthy();
  facts.cuda_built = false;
  facts.gpus.clear();
  ExpectOne(facts, false, "no CUDA kernels", "cmake --preset cuda");

  facts = Healthy();
  facts.gpus.clear();
  facts.cuda.device_count = 0;
  facts.cuda.error = "no CUDA-capable device is detected";
  ExpectOne(facts, false, "no CUDA-capable device is detected", "nvidia-smi");
  facts.cuda_visible_devices_set = true;
  facts.cuda_visible_devices = "7";
  ExpectOne(facts, false, "CUDA_VISIBLE_DEVICES is '7'", "unset");
  facts.cuda.driver_version = 12040;
  ExpectOne(facts, false, "580.65.06 knows CUDA 12.4, this program was built with 13.0", "580");
  facts.libcuda_found = false;
  ExpectOne(facts, false, "libcuda.so.1", "libcuda1");
  facts.machine.nvidia_device_files = false;
  facts.machine.nvidia_kernel_driver.clear();
  ExpectOne(facts, false, "kernel driver is not loaded", "modprobe");
}

TEST(Diagnosis, Gpu) {
  Facts facts = Healthy();
  facts.cuda.driver_version = 13020;  // newer is fine
  facts.gpus[0].info.free_bytes = 3 * kGb;
  ExpectOne(facts, false, "cuda:0 has 3.0 GB of 80.0 GB free", "another --device");
  EXPECT_TRUE(GpuServes(facts.gpus[0]));
  facts.gpus[0].info.major = 7;
  facts.gpus[0].info.minor = 5;
  ExpectOne(facts, true, "compute capability 7.5", "--device cpu");
  EXPECT_FALSE(GpuServes(facts.gpus[0]));
  facts = Healthy();
  facts.gpus[0].info.major = 10;
  facts.gpus[0].kernel_error = "no kernel image is available";
  ExpectOne(facts, true, "compute capability 10.0): no kernel image", "ARCHITECTURES='100-real'");
  EXPECT_FALSE(GpuServes(facts.gpus[0]));
  facts = Healthy();
  facts.gpus[0].error = "uncorrectable ECC error encountered";
  ExpectOne(facts, true, "uncorrectable ECC", "nvidia-smi -r");
  EXPECT_FALSE(GpuServes(facts.gpus[0]));
}

TEST(Diagnosis, Versions) {
  EXPECT_EQ(CudaVersion(13000), "13.0");
  EXPECT_EQ(CudaVersion(12040), "12.4");
  EXPECT_EQ(CublasVersion(130102), "13.1.2");
}

}  // namespace
}  // namespace fd
