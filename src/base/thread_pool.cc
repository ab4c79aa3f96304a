#include "base/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>

#include "base/check.h"
#include "base/log.h"

namespace fd {
namespace {

// Empty: nothing is asked for.
void KeepOn(pthread_t thread, const std::vector<int>& cpus) {
  if (cpus.empty()) return;
  const int size = std::max(*std::max_element(cpus.begin(), cpus.end()) + 1, CPU_SETSIZE);
  cpu_set_t* set = CPU_ALLOC(static_cast<size_t>(size));
  FD_CHECK(set != nullptr, "out of memory");
  const size_t bytes = CPU_ALLOC_SIZE(static_cast<size_t>(size));
  CPU_ZERO_S(bytes, set);
  for (int cpu : cpus) CPU_SET_S(static_cast<size_t>(cpu), bytes, set);
  const int error = pthread_setaffinity_np(thread, bytes, set);
  CPU_FREE(set);
  static std::atomic<bool> warned{false};
  if (error != 0 && !warned.exchange(true)) {
    LogWarning("threads are not pinned: CPU ", CpuListText(cpus), ": ",
               static_cast<const char*>(std::strerror(error)), "; --cpu-affinity none asks for no pinning");
  }
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
    : ThreadPool(ThreadPlacement{num_threads > 0 ? num_threads : DefaultThreads(ReadCpuTopology())}) {}

ThreadPool::ThreadPool(const ThreadPlacement& placement)
    : num_threads_(placement.num_threads),
      caller_cpus_(placement.caller_cpus),
      state_(std::make_unique<State>()) {
  for (int t = 1; t < num_threads_; ++t) {
    state_->workers.emplace_back([s = state_.get(), t] { s->WorkerLoop(t); });
    if (!placement.cpus.empty())
      KeepOn(state_->workers.back().native_handle(), {placement.cpus[static_cast<size_t>(t)]});
  }
}

void ThreadPool::PlaceCaller() const { KeepOn(pthread_self(), caller_cpus_); }

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
