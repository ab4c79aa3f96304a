#include "diagnosis.h"

#include "base/strings.h"

namespace fd {
namespace {

constexpr int64_t kLeastMemoryBytes = int64_t{1} << 30;
constexpr int64_t kLeastOpenFiles = 1280;  // serve's default of 1024 connections and what else it opens
constexpr int kLeastCapability = 8;
// A device with less than this share of its memory free has another user.
constexpr double kBusyShare = 0.8;

void FindThreadProblems(const Facts& facts, std::vector<Problem>* out) {
  const int threads = facts.placement.num_threads, cores = facts.topology.NumCores();
  const int cpus = static_cast<int>(facts.topology.cpus.size());
  const double quota = facts.topology.quota_cpus;
  if (threads > cores) {
    out->push_back(
        {false,
         StrCat("--threads ", threads, " exceeds the ", cores, cores == 1 ? " core" : " cores",
                " for this process: ",
                threads > cpus ? "threads wait for each other's processor in every step"
                               : "two threads share a core's units and caches, which one can fill"),
         StrCat("--threads ", DefaultThreads(facts.topology), ", which is the default")});
  }
  if (quota <= 0 || quota >= cores) return;
  if (threads > quota && threads > 1) {
    out->push_back({false,
                    StrCat("--threads ", threads, " exceeds the quota of ", Fixed(quota, 1),
                           " CPUs: all threads are stopped for a part of every period"),
                    StrCat("--threads ", DefaultThreads(facts.topology),
                           ", which is the default, or a larger quota (docker --cpus, Kubernetes "
                           "limits.cpu, CPUQuota= of systemd)")});
  } else {
    out->push_back(
        {false,
         StrCat("a quota of ", Fixed(quota, 1), " CPUs leaves ", cores - threads, " of ", cores,
                " cores idle"),
         "raise or remove the quota (docker --cpus, Kubernetes limits.cpu, CPUQuota= of systemd)"});
  }
}

void FindCpuProblems(const Facts& facts, std::vector<Problem>* out) {
  const MachineFacts& machine = facts.machine;
  std::vector<std::string> missing;
  for (const char* name : {"AVX2", "FMA", "F16C"}) {
    if (!machine.HasFeature(name)) missing.emplace_back(name);
  }
  if (!missing.empty()) {
    out->push_back(
        {true, StrCat("the processor has no ", Join(missing, ", "), ", which this program needs"),
         "use an x86-64 processor of 2015 or later; in a virtual machine pass the host's processor on "
         "(qemu: -cpu host)"});
  }
  if (machine.transparent_huge_pages == "never") {
    out->push_back({false, "transparent huge pages are off: weights on the CPU are read through 4 KiB pages",
                    "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled"});
  }
  if (facts.max_open_files > 0 && facts.max_open_files < kLeastOpenFiles) {
    out->push_back(
        {false,
         StrCat("at most ", facts.max_open_files,
                " files can be open; the server's 1024 connections "
                "need ",
                kLeastOpenFiles),
         "raise the hard limit (ulimit -Hn, LimitNOFILE= of systemd, docker --ulimit nofile=65536) or "
         "lower --max-connections"});
  }
  const bool limited =
      facts.usable_memory_bytes > 0 &&
      static_cast<double>(facts.usable_memory_bytes) < 0.9 * static_cast<double>(machine.memory_free_bytes);
  if (limited) {
    out->push_back({false,
                    StrCat("a memory limit (cgroup, container) leaves ",
                           HumanBytes(static_cast<double>(facts.usable_memory_bytes)), " of the ",
                           HumanBytes(static_cast<double>(machine.memory_free_bytes)), " that are free here"),
                    "if a model does not fit, raise it (docker --memory, MemoryMax= of systemd)"});
  }
  if (facts.usable_memory_bytes > 0 && facts.usable_memory_bytes < kLeastMemoryBytes) {
    out->push_back({false,
                    StrCat("only ", HumanBytes(static_cast<double>(facts.usable_memory_bytes)),
                           " of memory are available"),
                    "stop other programs or lower --max-model-len and --max-num-seqs"});
  }
}

void FindDriverProblems(const Facts& facts, std::vector<Problem>* out) {
  const MachineFacts& machine = facts.machine;
  const bool driver_here = !machine.nvidia_kernel_driver.empty() || machine.nvidia_device_files;
  if (!facts.cuda_built) {
    if (driver_here) {
      out->push_back({false, "this machine has an NVIDIA driver, but this build has no CUDA kernels",
                      "cmake --preset cuda && cmake --build --preset cuda (needs nvcc 13)"});
    }
    return;
  }
  if (facts.cuda.device_count > 0) return;  // whatever could not be read, it works
  if (!driver_here) {
    out->push_back(
        {false, "the NVIDIA kernel driver is not loaded (no /proc/driver/nvidia/version, no /dev/nvidiactl)",
         "install it and load it (modprobe nvidia), or start the container with its devices (docker run "
         "--gpus all); without a GPU nothing is to be done"});
    return;
  }
  if (!facts.libcuda_found) {
    out->push_back(
        {false, "libcuda.so.1, the driver's library, is not found",
         "install the driver's user part (Debian: libcuda1; containers: NVIDIA Container Toolkit) or add "
         "its folder to LD_LIBRARY_PATH"});
    return;
  }
  const cuda::Installation& cuda = facts.cuda;
  if (cuda.driver_version > 0 && cuda.driver_version / 1000 < cuda.runtime_version / 1000) {
    out->push_back(
        {false,
         StrCat("the driver", machine.nvidia_kernel_driver.empty() ? "" : " ", machine.nvidia_kernel_driver,
                " knows CUDA ", CudaVersion(cuda.driver_version), ", this program was built with ",
                CudaVersion(cuda.runtime_version)),
         cuda.runtime_version / 1000 == 13 ? "update the driver to 580 or later" : "update the driver"});
    return;
  }
  const std::string words = cuda.error == nullptr ? "no device" : cuda.error;
  if (facts.cuda_visible_devices_set) {
    out->push_back({false,
                    StrCat("CUDA finds no device: ", words, "; CUDA_VISIBLE_DEVICES is '",
                           facts.cuda_visible_devices, "'"),
                    "unset CUDA_VISIBLE_DEVICES, or name a device that nvidia-smi -L lists"});
  } else {
    out->push_back(
        {false, StrCat("CUDA finds no device: ", words),
         "see what nvidia-smi and dmesg say; often the driver was updated without a reboot, or the "
         "container lacks /dev/nvidia0"});
  }
}

void FindGpuProblems(const Facts& facts, std::vector<Problem>* out) {
  for (size_t i = 0; i < facts.gpus.size(); ++i) {
    const GpuFacts& gpu = facts.gpus[i];
    const std::string name = StrCat("cuda:", i);
    if (!gpu.error.empty()) {
      out->push_back(
          {true, StrCat(name, " does not answer: ", gpu.error),
           "see what nvidia-smi says: another process may use it alone (nvidia-smi -c DEFAULT allows "
           "several), or it needs a reset (nvidia-smi -r)"});
      continue;
    }
    const std::string capability = StrCat(gpu.info.major, ".", gpu.info.minor);
    if (gpu.info.major < kLeastCapability) {
      out->push_back({true,
                      StrCat(name, ", ", gpu.info.name, ", has compute capability ", capability,
                             "; bfloat16 kernels need 8.0"),
                      "use a device of the Ampere generation or later, or --device cpu"});
      continue;
    }
    if (!gpu.kernel_error.empty()) {
      out->push_back({true,
                      StrCat("this build has no kernels for ", name, ", ", gpu.info.name,
                             " (compute capability ", capability, "): ", gpu.kernel_error),
                      StrCat("build for it: cmake --preset cuda -DFASTDEPLOY_CUDA_ARCHITECTURES='",
                             gpu.info.major, gpu.info.minor, "-real'")});
      continue;
    }
    if (static_cast<double>(gpu.info.free_bytes) < kBusyShare * static_cast<double>(gpu.info.total_bytes)) {
      out->push_back(
          {false,
           StrCat(name, " has ", HumanBytes(static_cast<double>(gpu.info.free_bytes)), " of ",
                  HumanBytes(static_cast<double>(gpu.info.total_bytes)), " free: something else uses it"),
           "stop it (nvidia-smi lists processes) or choose another --device cuda:N"});
    }
  }
}

}  // namespace

std::vector<Problem> FindProblems(const Facts& facts) {
  std::vector<Problem> problems;
  FindCpuProblems(facts, &problems);
  FindThreadProblems(facts, &problems);
  FindDriverProblems(facts, &problems);
  FindGpuProblems(facts, &problems);
  return problems;
}

bool CpuServes(const Facts& facts) {
  return facts.machine.HasFeature("AVX2") && facts.machine.HasFeature("FMA") &&
         facts.machine.HasFeature("F16C");
}

bool GpuServes(const GpuFacts& gpu) {
  return gpu.error.empty() && gpu.kernel_error.empty() && gpu.info.major >= kLeastCapability;
}

std::optional<int> AutoGpu(const Facts& facts) {
  if (facts.gpus.empty()) return std::nullopt;
  return 0;
}

std::string CudaVersion(int version) { return StrCat(version / 1000, ".", version % 1000 / 10); }

std::string CublasVersion(int64_t version) {
  return StrCat(version / 10000, ".", version % 10000 / 100, ".", version % 100);
}

}  // namespace fd
