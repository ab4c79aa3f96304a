// --threads, --cpu-affinity, --cpu-isa: what of this machine's processors computes, and how.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/cpu_topology.h"
#include "compute/kernels/cpu/isa.h"
#include "flag_set.h"

namespace fd {

struct CpuFlags {
  int64_t threads = 0;          // 0: DefaultThreads
  bool pin = true;              // false: --cpu-affinity none
  std::vector<int> cpus;        // of --cpu-affinity LIST, checked; empty: all that are allowed
  std::optional<cpu::Isa> isa;  // none: as CPUID and FASTDEPLOY_ISA say
};

// In the flags' present group.
void AddCpuFlags(FlagSet& flags, CpuFlags* values);

// The CPUs that the flags leave.
CpuTopology TopologyFor(const CpuFlags& flags);

// What `flags` ask for on this topology. computes: false where a GPU does and threads only load; they are
// then pinned for a LIST alone.
ThreadPlacement PlacementFor(const CpuFlags& flags, const CpuTopology& topology, bool computes);

// Before anything large is allocated and while no kernel runs: sets the instruction set and, where threads
// compute on several nodes, the memory policy; returns where the threads go.
ThreadPlacement ApplyCpuFlags(const CpuFlags& flags, bool computes);

}  // namespace fd
