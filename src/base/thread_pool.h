// Fork-join over a fixed set of threads: workers spin for a while after a job, then sleep.
// One caller at a time; the caller works too, as thread 0. Functions passed must not throw.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/cpu_topology.h"

namespace fd {

class ThreadPool {
 public:
  // num_threads includes the caller; 0 means DefaultThreads() of this machine. The scheduler places them.
  explicit ThreadPool(int num_threads);
  // Workers are pinned as it says; where the system refuses, a warning is logged once and they are not.
  explicit ThreadPool(const ThreadPlacement& placement);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return num_threads_; }

  // Keeps the calling thread, and every thread it will start, on the placement's caller_cpus: for a thread
  // that does nothing but call Run.
  void PlaceCaller() const;

  // Calls fn(thread) once for each thread in [0, num_threads) and returns when all are done.
  template <typename Fn>
  void Run(const Fn& fn) {
    RunErased([](const void* f, int thread) { (*static_cast<const Fn*>(f))(thread); }, &fn);
  }

  // Splits [0, count) into chunks of `grain`, handed out dynamically: fn(begin, end).
  template <typename Fn>
  void ParallelFor(int64_t count, int64_t grain, const Fn& fn) {
    if (count <= 0) return;
    if (num_threads_ == 1 || count <= grain) {
      fn(int64_t{0}, count);
      return;
    }
    ResetCursor();
    Run([&](int) {
      for (int64_t begin; (begin = NextChunk(grain)) < count;) {
        fn(begin, begin + grain < count ? begin + grain : count);
      }
    });
  }

 private:
  using ErasedFn = void (*)(const void* fn, int thread);
  void RunErased(ErasedFn fn, const void* arg);
  void ResetCursor();
  int64_t NextChunk(int64_t grain);

  struct State;
  int num_threads_;
  std::vector<int> caller_cpus_;
  std::unique_ptr<State> state_;
};

}  // namespace fd
