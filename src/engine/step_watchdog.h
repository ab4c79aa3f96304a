// Sees that a step takes too long, from a thread of its own: the engine's thread is the one that hangs then.
// The limit is fixed, or follows the longest step measured, so that a slow machine needs no other setting
// than a fast one. Time in which this process was stopped or its machine slept does not count.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "base/clock.h"

namespace fd {

class StepWatchdog {
 public:
  struct Options {
    double limit_s = 0;       // 0: kFactor times the longest turn so far, at least min_limit_s
    double min_limit_s = 60;  // not looked at with a limit_s
    // Both on the watchdog's thread. slow: once for a turn that takes a quarter of the limit; stuck: once,
    // then the watchdog is done.
    std::function<void(double seconds, double limit_s)> slow;
    std::function<void(double seconds, double limit_s)> stuck;
  };
  static constexpr double kFactor = 20;

  explicit StepWatchdog(Options options);
  ~StepWatchdog();
  StepWatchdog(const StepWatchdog&) = delete;
  StepWatchdog& operator=(const StepWatchdog&) = delete;

  // The watched thread: a turn with work begins, or it has ended.
  void Begin();
  void End();

  double limit_s() const;

 private:
  void Watch();

  const Options options_;
  // 0: nothing to watch; else a number of this turn alone.
  std::atomic<int64_t> turn_{0};
  std::atomic<double> longest_s_{0};
  // Watched thread alone.
  int64_t turns_ = 0;
  Clock::time_point begun_at_{};

  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace fd
