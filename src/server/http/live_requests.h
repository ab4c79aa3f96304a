// The requests that the engine works on, by their ids, so that an admin can end one. Any thread.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>

#include "server/openai/errors.h"
#include "server/openai/generation.h"

namespace fd {

// What an ended request answers. No 5xx: clients would send it again.
inline ApiError AbortedByAdmin() {
  return {.http_status = 400,
          .type = "invalid_request_error",
          .code = "request_aborted",
          .param = "",
          .message = "the request was ended by the server's admin (/v1/abort_requests)"};
}

class LiveRequests {
 public:
  // On the list while it lives. The generation must outlive it, and must have been submitted.
  class Entry {
   public:
    // request_id: of the HTTP request. The reply's id is the generation's.
    Entry(LiveRequests& list, std::string request_id, Generation& generation)
        : Entry(list, std::move(request_id), generation.reply().id, [&generation] { generation.Abort(); }) {}
    // Of any other request: its reply's id, and what ends it on any thread.
    Entry(LiveRequests& list, std::string request_id, std::string id, std::function<void()> abort)
        : list_(list), request_id_(std::move(request_id)), id_(std::move(id)), abort_(std::move(abort)) {
      std::lock_guard lock(list_.mutex_);
      list_.entries_.emplace(id_, this);
    }
    ~Entry() {
      std::lock_guard lock(list_.mutex_);
      auto [begin, end] = list_.entries_.equal_range(id_);
      for (auto it = begin; it != end; ++it) {
        if (it->second != this) continue;
        list_.entries_.erase(it);
        break;
      }
    }
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;
    bool aborted() const { return aborted_; }

   private:
    friend class LiveRequests;
    LiveRequests& list_;
    const std::string request_id_;
    const std::string id_;
    const std::function<void()> abort_;
    std::atomic<bool> aborted_{false};
  };

  // Ends what has this id, the reply's or the HTTP request's; how many were found.
  int64_t Abort(std::string_view id) {
    return AbortIf([&](const Entry& e) { return e.id_ == id || e.request_id_ == id; });
  }
  int64_t AbortAll() {
    return AbortIf([](const Entry&) { return true; });
  }

 private:
  template <typename Chosen>
  int64_t AbortIf(const Chosen& chosen) {
    std::lock_guard lock(mutex_);
    int64_t count = 0;
    for (auto& [id, entry] : entries_) {
      if (!chosen(*entry)) continue;
      entry->aborted_ = true;
      entry->abort_();
      ++count;
    }
    return count;
  }

  std::mutex mutex_;
  std::multimap<std::string, Entry*> entries_;
};

}  // namespace fd
