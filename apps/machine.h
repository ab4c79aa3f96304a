// What /proc and /sys say about this machine, for `fastdeploy doctor`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace fd {

struct MachineFacts {
  std::string cpu_model;  // "" where /proc/cpuinfo does not say
  int processors = 0;     // of the machine, whatever this process may use
  // Those that matter here, names as in KnownCpuFeatures; what the kernel and the processor both allow.
  std::vector<std::string> cpu_features;
  int64_t memory_total_bytes = 0;
  int64_t memory_free_bytes = 0;       // MemAvailable of the whole machine
  std::string transparent_huge_pages;  // "always", "madvise", "never"; "" when unknown
  std::string nvidia_kernel_driver;    // "580.65.06"; "" when the module is not loaded
  bool nvidia_device_files = false;    // /dev/nvidiactl
  bool HasFeature(const std::string& name) const;
};

// `root` is "" in service; tests put a tree of their own there.
MachineFacts ReadMachine(const std::string& root = "");

// Names of all features that cpu_features may hold, in the order they are printed.
std::vector<std::string> KnownCpuFeatures();

}  // namespace fd
