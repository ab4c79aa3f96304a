#include "base/thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "base/check.h"

namespace fd {
namespace {

// CPUs allowed by a cgroup quota, or 0 for no limit.
int CgroupCpus() {
  auto ceil_div = [](double quota, double period) { return static_cast<int>((quota + period - 1) / period); };
  std::string line;
  // Version 2: the group of this process is on the line "0::/path"; inside a container the path is often the
  // root.
  std::string group = "/";
  std::ifstream self("/proc/self/cgroup");
  while (std::getline(self, line)) {
    if (line.rfind("0::", 0) == 0) group = line.substr(3);
  }
  int cpus = 0;
  while (true) {  // a parent's quota binds too
    std::ifstream file("/sys/fs/cgroup" + (group == "/" ? std::string() : group) + "/cpu.max");
    std::string quota;
    double period = 0;
    if (file >> quota >> period && quota != "max" && period > 0) {
      int n = ceil_div(std::stod(quota), period);
      cpus = cpus == 0 ? n : std::min(cpus, n);
    }
    if (group == "/" || group.empty()) break;
    group = group.substr(0, std::max<size_t>(group.rfind('/'), 1));
    if (group.empty()) group = "/";
  }
  double quota = 0, period = 0;
  std::ifstream quota_file("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
  std::ifstream period_file("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
  if (quota_file >> quota && period_file >> period && quota > 0 && period > 0) {
    int n = ceil_div(quota, period);
    cpus = cpus == 0 ? n : std::min(cpus, n);
  }
  return cpus;
}

inline void CpuRelax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// About 50 us of spinning: longer than the gaps between the kernels of a step, shorter than anybody would
// notice.
constexpr int kSpins = 2000;

}  // namespace

int AvailableCpus() {
  int cpus = static_cast<int>(std::thread::hardware_concurrency());
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) cpus = CPU_COUNT(&set);
  int quota = CgroupCpus();
  if (quota > 0) cpus = std::min(cpus, quota);
  return std::max(cpus, 1);
}

struct ThreadPool::State {
  // A job is published by raising `generation`; workers count down `pending` when done. Both wait with
  // futexes after spinning.
  alignas(64) std::atomic<uint32_t> generation{0};
  alignas(64) std::atomic<int> pending{0};
  alignas(64) std::atomic<int64_t> cursor{0};
  std::atomic<bool> stop{false};
  ErasedFn fn = nullptr;
  const void* arg = nullptr;
  std::vector<std::thread> workers;

  void WorkerLoop(int thread) {
    uint32_t seen = 0;
    while (true) {
      uint32_t now = generation.load(std::memory_order_acquire);
      for (int spin = 0; now == seen && spin < kSpins; ++spin) {
        CpuRelax();
        now = generation.load(std::memory_order_acquire);
      }
      while (now == seen) {
        generation.wait(seen, std::memory_order_acquire);
        now = generation.load(std::memory_order_acquire);
      }
      seen = now;
      if (stop.load(std::memory_order_relaxed)) return;
      fn(arg, thread);
      if (pending.fetch_sub(1, std::memory_order_acq_rel) == 1) pending.notify_one();
    }
  }
};

ThreadPool::ThreadPool(int num_threads)
    : num_threads_(num_threads > 0 ? num_threads : AvailableCpus()), state_(std::make_unique<State>()) {
  for (int t = 1; t < num_threads_; ++t)
    state_->workers.emplace_back([s = state_.get(), t] { s->WorkerLoop(t); });
}

ThreadPool::~ThreadPool() {
  state_->stop.store(true, std::memory_order_relaxed);
  state_->generation.fetch_add(1, std::memory_order_release);
  state_->generation.notify_all();
  for (std::thread& worker : state_->workers) worker.join();
}

void ThreadPool::RunErased(ErasedFn fn, const void* arg) {
  if (num_threads_ == 1) {
    fn(arg, 0);
    return;
  }
  State& s = *state_;
  FD_DCHECK(s.pending.load() == 0, "one caller at a time");
  s.fn = fn;
  s.arg = arg;
  s.pending.store(num_threads_ - 1, std::memory_order_relaxed);
  s.generation.fetch_add(1, std::memory_order_release);
  s.generation.notify_all();
  fn(arg, 0);
  int left = s.pending.load(std::memory_order_acquire);
  for (int spin = 0; left != 0 && spin < kSpins; ++spin) {
    CpuRelax();
    left = s.pending.load(std::memory_order_acquire);
  }
  while (left != 0) {
    s.pending.wait(left, std::memory_order_acquire);
    left = s.pending.load(std::memory_order_acquire);
  }
}

void ThreadPool::ResetCursor() { state_->cursor.store(0, std::memory_order_relaxed); }
int64_t ThreadPool::NextChunk(int64_t grain) {
  return state_->cursor.fetch_add(grain, std::memory_order_relaxed);
}

}  // namespace fd
