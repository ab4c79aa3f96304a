// Sees that loading does not move, from a thread of its own: a network file system that hangs stops the
// loading thread in the kernel, where nothing of it can look at a clock.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>

namespace fd {

class LoadWatch {
 public:
  struct Options {
    double warn_s = 30;    // without progress for so long: a line, and again after as long
    double timeout_s = 0;  // without progress for so long: give_up; 0: never
    // On the watch's thread; should not return.
    std::function<void(double seconds)> give_up;
  };
  explicit LoadWatch(Options options);
  ~LoadWatch() { Finish(); }
  LoadWatch(const LoadWatch&) = delete;
  LoadWatch& operator=(const LoadWatch&) = delete;

  void Update(int64_t done_bytes, int64_t total_bytes);
  void Finish();

 private:
  void Watch();

  const Options options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t done_bytes_ = 0, total_bytes_ = 0;
  double still_s_ = 0;  // since the last progress
  bool finished_ = false;
  std::thread thread_;
};

}  // namespace fd
