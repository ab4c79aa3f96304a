// What the listeners and all connections share. Internal to this folder.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/thread_pool.hpp>
#include <condition_variable>
#include <limits>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "server/http/gate.h"
#include "server/http/http_server.h"
#include "server/http/live_requests.h"

namespace fd {

class Session;

// One thread's share. `sessions` belongs to that thread, and outlives `context`, whose end ends the sessions.
struct Loop {
  static constexpr size_t kReadBytes = 64 << 10;
  std::set<Session*> sessions;
  // All connections read into it, one after the other, so that none has a buffer of its own while it waits.
  std::vector<char> scratch = std::vector<char>(kReadBytes);

  // Streams with events to send, from any thread: one message to the loop for all that a step of the engine
  // says.
  void WakeSoon(std::weak_ptr<Session> session);
  std::mutex ready_mutex;
  std::vector<std::weak_ptr<Session>> ready;

  boost::asio::io_context context{1};
};

inline Service WithoutMaxModelLen(const Service& service) {
  Service copy = service;
  copy.max_model_len = std::numeric_limits<int32_t>::max();  // positions are 32-bit
  return copy;
}

struct ServerState {
  std::shared_ptr<const Service> service;
  const Service unbounded;  // the same without --max-model-len: what /v1/messages/count_tokens counts with
  HttpOptions options;
  Gate gate;
  bool metrics_on_main = false;
  boost::asio::thread_pool workers;
  std::atomic<bool> draining{false};
  std::atomic<bool> stopping{false};
  std::atomic<int64_t> connections{0};
  std::atomic<int64_t> body_bytes{0};  // of requests that are being read and parsed
  std::atomic<int64_t> refusing{0};    // connections beyond the limit, which are told so

  // Requests that are being answered; WaitIdle waits for none.
  std::mutex mutex;
  std::condition_variable idle;
  int64_t in_flight = 0;
  std::atomic<int64_t> generating{0};
  std::vector<std::atomic<int64_t>> generating_by_key;  // by Gate::KeyIndex
  std::atomic<bool> paused{false};                      // /v1/pause
  LiveRequests live;

  ServerState(std::shared_ptr<const Service> s, const HttpOptions& o)
      : service(std::move(s)),
        unbounded(WithoutMaxModelLen(*service)),
        options(o),
        gate(o),
        workers(static_cast<size_t>(o.worker_threads)),
        generating_by_key(static_cast<size_t>(gate.num_keys())) {}
};

// Serves one connection on its loop until it ends. Called on the loop's thread. refused: it only gets a 503.
// The connection is counted in state.connections (state.refusing) already; the session's end counts it out.
void StartSession(ServerState& state, Loop& loop, boost::asio::ip::tcp::socket socket, Listener listener,
                  bool refused);
// On the loop's thread. Idle connections close.
void DrainSessions(Loop& loop);
// On the loop's thread: every connection ends soon; streams say why.
void StopSessions(Loop& loop);
// After the loop's thread has been joined: no engine event reaches the loop any more.
void CutSessions(Loop& loop);

}  // namespace fd
