// From what is on this machine to what is wrong with it: every finding with its fix. Plain functions of
// facts, so that tests need no broken machine.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/cpu_topology.h"
#include "compute/kernels/cuda/installation.h"
#include "machine.h"

namespace fd {

struct GpuFacts {
  cuda::DeviceInfo info;
  std::string error;         // "" when info is filled
  std::string kernel_error;  // "" when this build has machine code for it
};

struct Facts {
  MachineFacts machine;
  CpuTopology topology;             // of the CPUs that this process may use, less what --cpu-affinity names
  ThreadPlacement placement;        // what serve, run and bench would make of the same flags
  int64_t usable_memory_bytes = 0;  // AvailableMemoryBytes
  int64_t max_open_files = 0;       // the hard limit; the server raises the soft one
  bool cuda_built = false;
  bool libcuda_found = false;        // the user part of the driver
  std::string cuda_visible_devices;  // of the environment; "" when unset
  bool cuda_visible_devices_set = false;
  cuda::Installation cuda;
  std::vector<GpuFacts> gpus;
};

struct Problem {
  bool fatal = false;  // the device it speaks of cannot serve
  std::string what;
  std::string fix;
};

std::vector<Problem> FindProblems(const Facts& facts);

// The devices that can serve.
bool CpuServes(const Facts& facts);
bool GpuServes(const GpuFacts& gpu);
// What --device auto takes: an index into gpus, or none for the CPU.
std::optional<int> AutoGpu(const Facts& facts);

// 13000 -> "13.0".
std::string CudaVersion(int version);
// 130100 -> "13.1.0".
std::string CublasVersion(int64_t version);

}  // namespace fd
