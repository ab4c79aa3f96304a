// Events from the engine thread to a connection's thread. Any thread may Add; one thread takes.
#pragma once

#include <functional>
#include <mutex>
#include <utility>
#include <vector>

#include "engine/plan/request.h"

namespace fd {

class StreamInbox {
 public:
  // wake is called under the lock, from the engine thread, when the first event arrives after a Take and
  // when the inbox overflows; it must only post. max_tokens: how many tokens may lie here.
  StreamInbox(std::function<void()> wake, int64_t max_tokens)
      : wake_(std::move(wake)), max_tokens_(max_tokens) {}

  void Add(int choice, TokenEvent&& event) {
    std::lock_guard lock(mutex_);
    if (closed_ || overflowed_) return;
    tokens_ += static_cast<int64_t>(event.token_ids.size());
    if (tokens_ > max_tokens_) {
      overflowed_ = true;
      events_.clear();
      wake_();
      return;
    }
    events_.emplace_back(choice, std::move(event));
    if (std::exchange(notified_, true)) return;
    wake_();
  }
  std::vector<std::pair<int, TokenEvent>> Take() {
    std::lock_guard lock(mutex_);
    notified_ = false;
    tokens_ = 0;
    return std::exchange(events_, {});
  }
  bool empty() const {
    std::lock_guard lock(mutex_);
    return events_.empty() && !overflowed_;
  }
  // The reader is so far behind that it must be cut off: memory is bounded whatever a client does. It stays
  // so, and nothing is kept any more.
  bool overflowed() const {
    std::lock_guard lock(mutex_);
    return overflowed_;
  }
  // After it wake is never called again.
  void Close() {
    std::lock_guard lock(mutex_);
    closed_ = true;
    events_.clear();
  }

 private:
  mutable std::mutex mutex_;
  std::function<void()> wake_;
  const int64_t max_tokens_;
  std::vector<std::pair<int, TokenEvent>> events_;
  int64_t tokens_ = 0;
  bool notified_ = false;
  bool overflowed_ = false;
  bool closed_ = false;
};

}  // namespace fd
