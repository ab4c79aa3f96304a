#include "engine/step_watchdog.h"

#include <algorithm>

namespace fd {
namespace {

constexpr double kSlowShare = 0.25;
// How often the watchdog looks, in shares of its limit.
constexpr double kLookShare = 1.0 / 32;
constexpr std::chrono::duration<double> kShortestPause{0.01}, kLongestPause{1.0};

}  // namespace

StepWatchdog::StepWatchdog(Options options) : options_(std::move(options)) {
  thread_ = std::thread([this] { Watch(); });
}

StepWatchdog::~StepWatchdog() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void StepWatchdog::Begin() {
  begun_at_ = Clock::now();
  turn_.store(++turns_, std::memory_order_relaxed);
}

void StepWatchdog::End() {
  if (turn_.exchange(0, std::memory_order_relaxed) == 0) return;
  const double seconds = SecondsSince(begun_at_);
  if (seconds > longest_s_.load(std::memory_order_relaxed))
    longest_s_.store(seconds, std::memory_order_relaxed);
}

double StepWatchdog::limit_s() const {
  if (options_.limit_s > 0) return options_.limit_s;
  return std::max(options_.min_limit_s, kFactor * longest_s_.load(std::memory_order_relaxed));
}

void StepWatchdog::Watch() {
  int64_t seen = 0;
  double busy_s = 0;
  bool told = false;
  Clock::time_point looked_at = Clock::now();
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    const double limit = limit_s();
    const auto pause =
        std::clamp(std::chrono::duration<double>(limit * kLookShare), kShortestPause, kLongestPause);
    changed_.wait_for(lock, pause, [&] { return stopping_; });
    const Clock::time_point now = Clock::now();
    // A process that was stopped finds that much time has passed since its last look; so does one that gets
    // no processor. Neither says anything about the step.
    const double passed_s = std::min(std::chrono::duration<double>(now - looked_at), 2 * pause).count();
    looked_at = now;
    const int64_t turn = turn_.load(std::memory_order_relaxed);
    if (turn == 0 || turn != seen) {
      seen = turn;
      busy_s = 0;
      told = false;
      continue;
    }
    busy_s += passed_s;
    const bool slow = !told && busy_s > limit * kSlowShare;
    const bool stuck = busy_s > limit;
    if (!slow && !stuck) continue;
    lock.unlock();
    if (slow && options_.slow) options_.slow(busy_s, limit);
    if (stuck && options_.stuck) options_.stuck(busy_s, limit);
    lock.lock();
    told = true;
    if (stuck) return;
  }
}

}  // namespace fd
