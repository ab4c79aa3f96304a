// One connection: read a request within its limits, answer it or stream it, again. Internal to this folder.
// session.cc reads requests and writes replies, session_generate.cc is one request to the model,
// session_embed.cc one for embeddings.
//
// Owner: its coroutine, which StartSession begins, and what waits on its behalf. Thread: its loop's.
#pragma once

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "server/http/http_message.h"
#include "server/http/request_head.h"
#include "server/http/server_state.h"
#include "server/http/stream_inbox.h"
#include "server/openai/embeddings.h"
#include "server/openai/reply_writer.h"

namespace fd {

class Session : public std::enable_shared_from_this<Session> {
 public:
  // Counted in state.connections already, or with kRefused in state.refusing: it gets a 503 and is closed.
  enum class Place { kTaken, kRefused };
  Session(ServerState& state, Loop& loop, boost::asio::ip::tcp::socket socket, Listener listener,
          Place place);
  ~Session();

  boost::asio::awaitable<void> Run();

  void Drain() {
    if (idle_) CancelSocket();
  }
  void Stop() {
    if (generating_) {
      Wake();
    } else {
      CancelSocket();
    }
  }
  // The client is cut off, and nothing keeps the session any longer.
  void Close() {
    Disarm();
    deadline_.cancel();
    boost::system::error_code ignored;
    socket_.shutdown(boost::asio::ip::tcp::socket::shutdown_both, ignored);
    socket_.close(ignored);
  }
  void Wake() {
    wake_timer_.cancel();
    // The stream may be stuck in a write to a client that does not read.
    if (inbox_ && inbox_->overflowed()) CancelSocket();
  }
  // After it neither the engine nor the loader of media posts to the loop any more.
  void CloseInbox() {
    if (inbox_) std::exchange(inbox_, nullptr)->Close();
    if (media_load_) std::exchange(media_load_, nullptr)->Cancel();
  }

 private:
  // kAnswered: refused, and the connection ends; kNext: refused, and it carries another request.
  enum class Read { kRequest, kClosed, kAnswered, kNext };

  boost::asio::awaitable<bool> WaitForRequest();
  boost::asio::awaitable<bool> AnswerRequest();
  boost::asio::awaitable<Read> ReadRequest(HttpRequest& request);
  // Not whole: the request is over, with a refusal or, when the client has left, without one.
  struct BodyEnd {
    bool whole = false;
    std::optional<HttpResponse> refusal;
  };
  boost::asio::awaitable<BodyEnd> ReadBody(HttpRequest& request, const RequestFraming& framing);
  // Appends what has arrived to in_, waiting for it. False: the client left, the deadline passed, or Stop.
  boost::asio::awaitable<bool> ReadSome();
  // How many bytes of the present request's body this connection holds, for the limit of all of them.
  void CountBody(size_t bytes) {
    state_.body_bytes += static_cast<int64_t>(bytes) - body_bytes_;
    body_bytes_ = static_cast<int64_t>(bytes);
  }
  boost::asio::awaitable<void> Linger();
  boost::asio::awaitable<void> RefusePlace();
  boost::asio::awaitable<bool> Handle(HttpRequest& request, const Route& route);
  // Whose exceptions, memory mostly, end the request with an error.
  boost::asio::awaitable<bool> HandleOrFail(HttpRequest& request, const Route& route);
  boost::asio::awaitable<bool> Generate(HttpRequest& request, const Route& route);
  boost::asio::awaitable<bool> Embed(HttpRequest& request, const Route& route);
  boost::asio::awaitable<StatusOr<std::unique_ptr<Embedding>>> PrepareEmbedding(HttpRequest& request,
                                                                                const Route& route);
  // Null without an error: the client has left. The peer is watched from the first picture on.
  // A request to the model, and of its key: counted while it lives. Stop wakes it instead of cutting it.
  class AtWork {
   public:
    AtWork(Session& session, const HttpRequest& request);
    ~AtWork();
    AtWork(const AtWork&) = delete;
    AtWork& operator=(const AtWork&) = delete;

   private:
    Session& session_;
    const int key_;
  };
  // Becomes inbox_: the engine's events of the request at work, which wake it.
  std::shared_ptr<StreamInbox> OpenInbox();
  // Until there are events, the client has left or the server stops.
  boost::asio::awaitable<void> AwaitEvents();
  // Sets writer_. translate runs on a worker.
  using TranslateBody = std::function<StatusOr<TranslatedRequest>()>;
  boost::asio::awaitable<StatusOr<std::unique_ptr<Generation>>> PrepareGeneration(const Service& service,
                                                                                  HttpRequest& request,
                                                                                  TranslateBody translate);
  // request: moved from. Nothing after the deadline.
  boost::asio::awaitable<std::optional<StatusOr<LoadedMedia>>> LoadMedia(MediaRequest& request,
                                                                         Clock::time_point deadline);
  // Runs `work` on the worker pool.
  template <typename T>
  boost::asio::awaitable<StatusOr<T>> OnWorker(const std::function<StatusOr<T>()>& work);
  // response is a named object, never a temporary: GCC 12 destroys aggregates inside a co_await expression
  // twice.
  boost::asio::awaitable<bool> Reply(const HttpRequest& request, const char* route,
                                     const HttpResponse& response);
  boost::asio::awaitable<bool> Write(std::string_view bytes);
  std::optional<HttpResponse> CheckHead(const HttpRequest& request, const Route*& route) const;
  // Why the server ends: it was told to, or its engine is lost.
  Status Ending() const {
    const Status lost = state_.service->engine.lost();
    return lost.ok() ? Unavailable("the server is shutting down") : lost;
  }
  boost::asio::awaitable<bool> Health(const HttpRequest& request, const Route& route);
  boost::asio::awaitable<bool> AnswerTokens(HttpRequest& request, const Route& route);
  using PromptAnswer = std::function<HttpResponse(const Generation&)>;
  boost::asio::awaitable<bool> AnswerFromPrompt(const Service& service, HttpRequest& request,
                                                const Route& route, TranslateBody translate,
                                                PromptAnswer answer);
  void Account(const HttpRequest& request, const char* route, int status);

  // The socket's operation that runs then is cancelled at the deadline, and timed_out_ says so. A deadline
  // that moves away costs nothing: the timer looks again when it fires.
  void Arm(std::chrono::milliseconds duration) {
    timed_out_ = false;
    due_ = Clock::now() + duration;
    if (!timer_runs_ || due_ < deadline_.expiry()) WaitForDeadline();
  }
  void WaitForDeadline() {
    timer_runs_ = true;
    deadline_.expires_at(due_);
    deadline_.async_wait([weak = weak_from_this()](boost::system::error_code ec) {
      const auto self = weak.lock();
      if (ec || !self) return;
      self->timer_runs_ = false;
      if (self->due_ == Clock::time_point::max()) return;
      if (self->due_ > Clock::now()) return self->WaitForDeadline();
      self->due_ = Clock::time_point::max();
      self->timed_out_ = true;
      self->CancelSocket();
    });
  }
  void Disarm() { due_ = Clock::time_point::max(); }
  void CancelSocket() {
    boost::system::error_code ignored;
    socket_.cancel(ignored);
  }
  void WatchPeer();
  void PollPeer();
  void StopWatching() {
    watching_ = false;
    peer_poll_.cancel();
    CancelSocket();
  }
  void PeerGone() {
    peer_gone_ = true;
    Wake();
  }

  ServerState& state_;
  Loop& loop_;
  boost::asio::ip::tcp::socket socket_;
  const Listener listener_;
  boost::asio::steady_timer deadline_;
  boost::asio::steady_timer wake_timer_;  // never expires: cancelling it wakes the stream
  boost::asio::steady_timer peer_poll_;
  Clock::time_point due_ = Clock::time_point::max();  // of the deadline; max: there is none
  bool timer_runs_ = false;
  const Place place_;
  std::string in_;          // what has arrived and is not read yet; no memory while the connection is idle
  int64_t body_bytes_ = 0;  // CountBody
  size_t read_bytes_ = 0;   // since others had their turn on this loop
  std::shared_ptr<StreamInbox> inbox_;
  std::unique_ptr<ReplyWriter> writer_;    // of the present request to the model
  std::shared_ptr<MediaLoad> media_load_;  // while a request's media are on their way
  bool idle_ = true;                       // between requests
  bool generating_ = false;
  bool served_ = false;        // at least one request
  bool written_ = false;       // something of the present request's reply
  int64_t written_bytes_ = 0;  // of the present request's reply
  std::string reply_id_;       // "chatcmpl-..."; empty when nothing was generated
  bool timed_out_ = false;
  bool watching_ = false;
  bool peer_gone_ = false;
};

}  // namespace fd
