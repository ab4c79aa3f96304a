#include "load_watch.h"

#include <algorithm>

#include "base/clock.h"
#include "base/log.h"
#include "base/strings.h"

namespace fd {

LoadWatch::LoadWatch(Options options) : options_(std::move(options)) {
  thread_ = std::thread([this] { Watch(); });
}

void LoadWatch::Update(int64_t done_bytes, int64_t total_bytes) {
  std::lock_guard lock(mutex_);
  if (done_bytes == done_bytes_ && total_bytes == total_bytes_) return;
  done_bytes_ = done_bytes;
  total_bytes_ = total_bytes;
  still_s_ = 0;
}

void LoadWatch::Finish() {
  {
    std::lock_guard lock(mutex_);
    finished_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void LoadWatch::Watch() {
  double shortest = options_.warn_s;
  if (options_.timeout_s > 0) shortest = std::min(shortest, options_.timeout_s);
  const std::chrono::duration<double> pause(std::clamp(shortest / 16, 0.01, 1.0));
  double warned_s = 0;
  std::unique_lock lock(mutex_);
  Clock::time_point looked_at = Clock::now();
  while (!finished_) {
    changed_.wait_for(lock, pause, [&] { return finished_; });
    if (finished_) return;
    const Clock::time_point now = Clock::now();
    // Time in which the whole process stood still says nothing about the files.
    still_s_ += std::min(std::chrono::duration<double>(now - looked_at), 2 * pause).count();
    looked_at = now;
    if (still_s_ < options_.warn_s) warned_s = 0;
    const double still = still_s_;
    const bool warns = still >= warned_s + options_.warn_s;
    const bool gives_up = options_.timeout_s > 0 && still >= options_.timeout_s;
    if (!warns && !gives_up) continue;
    const int64_t done = done_bytes_, total = total_bytes_;
    lock.unlock();
    if (warns) {
      warned_s = still;
      LogWarning("loading has not moved for ", Fixed(still, 0), " s, at ",
                 HumanBytes(static_cast<double>(done)), " of ", HumanBytes(static_cast<double>(total)),
                 "; does the file system of --model answer?");
    }
    if (gives_up && options_.give_up) return options_.give_up(still);
    lock.lock();
  }
}

}  // namespace fd
