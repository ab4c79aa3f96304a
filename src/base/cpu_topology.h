// Which processors this process may use, how they share cores and memory, and which of them N threads take.
// Everything is read from /proc, /sys and the cgroup; what is missing or malformed there is taken as unknown,
// never as an error.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace fd {

struct LogicalCpu {
  int cpu = 0;   // the system's number
  int node = 0;  // of memory, the system's number; 0 where unknown
  int core = 0;  // the lowest number among the CPUs of the same physical core
};

struct CpuTopology {
  std::vector<LogicalCpu> cpus;  // that this process may use, ascending; at least one
  bool cores_known = false;      // of each of them which others share its core; else core is the CPU itself
  double quota_cpus = 0;         // CPU seconds a second that the cgroup grants; 0: no limit

  std::vector<int> Nodes() const;  // of the CPUs, ascending
  int NumCores() const;            // physical cores, or CPUs where unknown
};

// "0-7,16": ascending, without repetition; "" is none. Errors name the part that is wrong.
StatusOr<std::vector<int>> ParseCpuList(std::string_view text);
// The inverse: {0, 1, 2, 16} -> "0-2,16".
std::string CpuListText(const std::vector<int>& cpus);

// CPUs of the affinity mask of the process's first thread; empty when the system does not say.
std::vector<int> AffinityCpus();

// allowed: the affinity mask; cpuset and offline CPUs of the tree under `root` are taken from it. Empty, or
// nothing left of it: the tree's, else CPU 0.
CpuTopology ReadCpuTopology(const std::vector<int>& allowed = AffinityCpus(), const std::string& root = {});

// The part of it on these CPUs; an error names one that is not there.
StatusOr<CpuTopology> KeepCpus(const CpuTopology& topology, const std::vector<int>& cpus);

// Physical cores, at most the quota rounded down (a thread more would have the whole group stopped for the
// rest of each period, and stopped threads are waited for), at least 1. Siblings share the units and caches
// that the kernels fill, so they add nothing.
int DefaultThreads(const CpuTopology& topology);

enum class Pinning {
  kNever,
  // Threads are pinned where that can only help: they take every core, or lie on several nodes. Fewer threads
  // on one node stay with the scheduler, which moves them away from what else runs there; pinned, two
  // programs of half the cores each would meet on the same ones.
  kWhereUseful,
  kAlways,  // the user named the CPUs
};

struct ThreadPlacement {
  int num_threads = 1;
  // Of each thread its CPU, or empty: left to the scheduler, as always when threads outnumber CPUs.
  std::vector<int> cpus;
  // Where thread 0, the caller, may run: its node's CPUs. Not one CPU, since other threads that the program
  // has would meet it there while it works between kernels. Empty: anywhere.
  std::vector<int> caller_cpus;
  // Nodes over which the threads lie, ascending: more than one where memory is to be spread.
  std::vector<int> nodes;

  std::string ToString() const;  // "2 threads on CPUs 0-1"
};

// num_threads 0: the default. Nodes get equally many threads while they have cores, one thread a core before
// any core gets two; threads of a node follow each other.
ThreadPlacement PlaceThreads(const CpuTopology& topology, int num_threads, Pinning pinning);

}  // namespace fd
