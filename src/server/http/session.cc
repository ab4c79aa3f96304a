// One connection: read a request within its limits, answer it or stream it, again. Beast lives here.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <chrono>

#include "base/json.h"
#include "base/log.h"
#include "base/strings.h"
#include "server/http/http_message.h"
#include "server/http/server_state.h"
#include "server/http/stream_inbox.h"
#include "server/openai/errors.h"
#include "server/openai/generation.h"

namespace fd {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::awaitable;
using boost::system::error_code;
using Parser = http::request_parser<http::string_body>;
using std::chrono::milliseconds;

namespace {

constexpr auto kToken = asio::as_tuple(asio::use_awaitable);
constexpr size_t kReadBytes = 64 << 10;
constexpr milliseconds kLinger{1000};
constexpr milliseconds kPeerPoll{200};

double SecondsSince(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// What a client may write must not become a metric of its own.
std::string_view MethodLabel(std::string_view method) {
  for (std::string_view known : {"GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"}) {
    if (method == known) return known;
  }
  return "other";
}

std::string Header(const Parser& parser, http::field name) {
  const auto value = parser.get()[name];
  return std::string(value.data(), value.size());
}

}  // namespace

class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(ServerState& state, Loop& loop, asio::ip::tcp::socket socket, Listener listener)
      : state_(state),
        loop_(loop),
        socket_(std::move(socket)),
        listener_(listener),
        deadline_(loop.context),
        wake_timer_(loop.context),
        peer_poll_(loop.context),
        buffer_(static_cast<size_t>(state.options.max_header_bytes) + 2 * kReadBytes) {
    loop_.sessions.insert(this);
    ++state_.connections;
  }
  ~Session() {
    CloseInbox();
    loop_.sessions.erase(this);
    --state_.connections;
  }

  awaitable<void> Run();

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
  // After it neither the engine nor the loader of media posts to the loop any more.
  void CloseInbox() {
    if (inbox_) inbox_->Close();
    if (media_load_) std::exchange(media_load_, nullptr)->Cancel();
  }

 private:
  enum class Read { kRequest, kClosed, kAnswered };

  awaitable<Read> ReadRequest(HttpRequest& request);
  awaitable<void> Linger();
  awaitable<bool> Handle(HttpRequest& request, const Route& route);
  awaitable<bool> Generate(HttpRequest& request, const Route& route, ApiEndpoint endpoint);
  // Null without an error: the client has left. The peer is watched from the first picture on.
  awaitable<StatusOr<std::unique_ptr<Generation>>> PrepareGeneration(HttpRequest& request,
                                                                     ApiEndpoint endpoint);
  awaitable<StatusOr<LoadedMedia>> LoadMedia(MediaRequest& request);  // moved from
  // Runs `work` on the worker pool.
  template <typename T>
  awaitable<StatusOr<T>> OnWorker(const std::function<StatusOr<T>()>& work);
  // response is a named object, never a temporary: GCC 12 destroys aggregates inside a co_await expression
  // twice.
  awaitable<bool> Reply(const HttpRequest& request, const char* route, const HttpResponse& response);
  awaitable<bool> Write(std::string_view bytes);
  std::optional<HttpResponse> CheckHead(const HttpRequest& request, const Route*& route) const;
  HttpResponse Health() const;
  HttpResponse Models(const HttpRequest& request, RouteKind kind) const;
  HttpResponse MetricsText() const;

  // The operation that runs now is cancelled at the deadline, and timed_out_ says so.
  void Arm(milliseconds duration) {
    timed_out_ = false;
    deadline_.expires_after(duration);
    deadline_.async_wait([self = shared_from_this()](error_code ec) {
      // A handler that was already on its way when the deadline was moved must not fire.
      if (ec || self->deadline_.expiry() > Clock::now()) return;
      self->timed_out_ = true;
      self->CancelSocket();
    });
  }
  void Disarm() { deadline_.expires_at(Clock::time_point::max()); }
  void CancelSocket() {
    error_code ignored;
    socket_.cancel(ignored);
  }
  void Wake() {
    wake_timer_.cancel();
    // The stream may be stuck in a write to a client that does not read.
    if (inbox_ && inbox_->overflowed()) CancelSocket();
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
  asio::ip::tcp::socket socket_;
  const Listener listener_;
  asio::steady_timer deadline_;
  asio::steady_timer wake_timer_;  // never expires: cancelling it wakes the stream
  asio::steady_timer peer_poll_;
  boost::beast::flat_buffer buffer_;
  std::shared_ptr<StreamInbox> inbox_;
  std::shared_ptr<MediaLoad> media_load_;  // while a request's media are on their way
  bool idle_ = true;                       // between requests
  bool generating_ = false;
  bool served_ = false;  // at least one request
  bool timed_out_ = false;
  bool watching_ = false;
  bool peer_gone_ = false;
};

awaitable<void> Session::Run() {
  const auto self = shared_from_this();
  bool keep_alive = true;
  while (keep_alive) {
    HttpRequest request;
    const Read read = co_await ReadRequest(request);
    if (read == Read::kClosed) break;
    if (read == Read::kAnswered) {
      co_await Linger();
      break;
    }
    const Route* route = nullptr;
    std::optional<HttpResponse> refusal = CheckHead(request, route);
    {
      std::lock_guard lock(state_.mutex);
      ++state_.in_flight;
    }
    // The count goes down whatever way the handling ends, destroyed coroutines included.
    struct InFlight {
      ServerState& state;
      ~InFlight() {
        std::lock_guard lock(state.mutex);
        if (--state.in_flight == 0) state.idle.notify_all();
      }
    } in_flight{state_};
    if (refusal) {
      keep_alive = co_await Reply(request, route != nullptr ? route->path : "other", *refusal);
    } else {
      keep_alive = co_await Handle(request, *route);
    }
  }
  Disarm();
  error_code ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_both, ignored);
  socket_.close(ignored);
}

// Reads one request. What must be refused is refused before its body is read.
awaitable<Session::Read> Session::ReadRequest(HttpRequest& request) {
  const HttpOptions& options = state_.options;
  idle_ = true;
  // A new connection still gets its answer while the server drains: 503, which a closed port would not say.
  if (state_.draining && served_) co_return Read::kClosed;
  served_ = true;
  if (buffer_.size() == 0) {
    Arm(options.keep_alive_timeout);
    const auto [ec] = co_await socket_.async_wait(asio::ip::tcp::socket::wait_read, kToken);
    if (ec) co_return Read::kClosed;
  }
  idle_ = false;
  Parser parser;
  parser.header_limit(static_cast<uint32_t>(options.max_header_bytes));
  parser.body_limit(static_cast<uint64_t>(options.max_body_bytes));
  buffer_.reserve(4096);
  Arm(options.header_timeout);
  auto [ec, header_bytes] = co_await http::async_read_header(socket_, buffer_, parser, kToken);
  bool reading_body = false;
  if (!ec) {
    request.arrived_at = Clock::now();
    request.method = std::string(parser.get().method_string());
    const std::string_view target(parser.get().target().data(), parser.get().target().size());
    request.path = std::string(target.substr(0, target.find_first_of("?#")));
    request.host = Header(parser, http::field::host);
    request.origin = Header(parser, http::field::origin);
    request.authorization = Header(parser, http::field::authorization);
    request.content_encoding = Header(parser, http::field::content_encoding);
    request.expect = Header(parser, http::field::expect);
    request.is_http11 = parser.get().version() >= 11;
    request.keep_alive = parser.get().keep_alive();
    request.has_body = !parser.is_done();
    if (request.has_body) {
      // A refused body is not read: the reply goes out at once and the connection closes.
      const Route* route = nullptr;
      if (std::optional<HttpResponse> refusal = CheckHead(request, route)) {
        request.keep_alive = false;
        Disarm();
        co_await Reply(request, route != nullptr ? route->path : "other", *refusal);
        co_return Read::kAnswered;
      }
      reading_body = true;
      Arm(options.body_timeout);
      if (!request.expect.empty() && !co_await Write(kContinue)) co_return Read::kClosed;
      buffer_.reserve(kReadBytes);
      Arm(options.body_timeout);
      std::tie(ec, header_bytes) = co_await http::async_read(socket_, buffer_, parser, kToken);
    }
  }
  if (!ec) {
    Disarm();
    request.body = std::move(parser.get().body());
    co_return Read::kRequest;
  }

  // A request that could not be read.
  Disarm();
  HttpResponse response;
  if (timed_out_) {
    if (buffer_.size() == 0 && !reading_body && header_bytes == 0) co_return Read::kClosed;
    response = ErrorResponse(Status(StatusCode::kDeadlineExceeded,
                                    reading_body
                                        ? StrCat("the request's body did not arrive within ",
                                                 options.body_timeout.count(), " ms (--body-timeout)")
                                        : StrCat("the request's header did not arrive within ",
                                                 options.header_timeout.count(), " ms (--header-timeout)")));
  } else if (ec == http::error::header_limit || ec == http::error::buffer_overflow) {
    response = ErrorResponse(431, "header_too_large",
                             StrCat("the request line and headers are longer than ", options.max_header_bytes,
                                    " bytes (--max-header-bytes)"));
  } else if (ec == http::error::body_limit) {
    response = ErrorResponse(Status(
        StatusCode::kPayloadTooLarge,
        StrCat("the request's body is longer than ", options.max_body_bytes, " bytes (--max-body-bytes)")));
  } else if (ec.category() == http::make_error_code(http::error::bad_method).category() &&
             ec != http::error::end_of_stream && ec != http::error::partial_message) {
    response = ErrorResponse(400, "bad_request", StrCat("this is no HTTP/1.1 request: ", ec.message()));
  } else {
    co_return Read::kClosed;  // the client left
  }
  request.keep_alive = false;
  if (request.arrived_at == Clock::time_point{}) request.arrived_at = Clock::now();
  co_await Reply(request, "other", response);
  co_return Read::kAnswered;
}

// What can be said from the header alone. Null route: 404.
std::optional<HttpResponse> Session::CheckHead(const HttpRequest& request, const Route*& route) const {
  const bool has_metrics = listener_ == Listener::kMetrics || state_.metrics_on_main;
  route = FindRoute(listener_, has_metrics, request.path);
  if (request.is_http11 && request.host.empty()) {
    return ErrorResponse(400, "bad_request", "the Host header is missing");
  }
  if (auto refusal = state_.gate.Refuse(request, route != nullptr && route->is_public)) return refusal;
  if (route == nullptr) {
    return ErrorResponse(
        NotFound(StrCat("there is no ", request.path.substr(0, 200),
                        "; this server has /v1/chat/completions, /v1/completions, /v1/models and "
                        "/health")));
  }
  if (!MethodAllowed(*route, request.method)) {
    HttpResponse response = ErrorResponse(405, "method_not_allowed",
                                          StrCat(request.method.substr(0, 20), " is not allowed on ",
                                                 route->path, "; allowed: ", route->allowed));
    response.headers.push_back({"Allow", route->allowed});
    return response;
  }
  if (request.method == "OPTIONS") return HttpResponse{.status = 204, .headers = {{"Allow", route->allowed}}};
  if (!request.content_encoding.empty() && request.content_encoding != "identity") {
    return ErrorResponse(Status(StatusCode::kUnsupportedMedia,
                                "compressed request bodies are not accepted; send the body without "
                                "Content-Encoding"));
  }
  constexpr std::string_view kContinueToken = "100-continue";
  if (!request.expect.empty() && !boost::beast::iequals(request.expect, kContinueToken)) {
    return ErrorResponse(417, "expectation_failed",
                         "the only Expect header that is understood is 100-continue");
  }
  const bool generates = route->kind == RouteKind::kChat || route->kind == RouteKind::kCompletions;
  if (generates && state_.draining) return ErrorResponse(Unavailable("the server is shutting down"));
  if (generates && state_.generating >= state_.options.max_concurrency) {
    return ErrorResponse(Status(StatusCode::kResourceExhausted,
                                StrCat("the server already works on ", state_.options.max_concurrency,
                                       " requests, its limit (--max-concurrency); try again later")));
  }
  return std::nullopt;
}

// Lets the reply reach a client that is still sending: closing now would make its kernel throw the reply
// away.
awaitable<void> Session::Linger() {
  error_code ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  Arm(kLinger);
  buffer_.clear();
  std::string sink(kReadBytes, '\0');
  while (true) {
    const auto [ec, n] = co_await socket_.async_read_some(asio::buffer(sink), kToken);
    if (ec || timed_out_) break;
  }
  Disarm();
}

// Writes all; the deadline is for progress, not for the whole. False: the connection is dead.
awaitable<bool> Session::Write(std::string_view bytes) {
  while (!bytes.empty()) {
    Arm(state_.options.write_timeout);
    const auto [ec, n] = co_await socket_.async_write_some(asio::buffer(bytes.data(), bytes.size()), kToken);
    if (ec) {
      Disarm();
      co_return false;
    }
    bytes.remove_prefix(n);
  }
  Disarm();
  co_return true;
}

// True: the connection may carry another request.
awaitable<bool> Session::Reply(const HttpRequest& request, const char* route, const HttpResponse& response) {
  const bool keep_alive = request.keep_alive && !state_.draining;
  std::string bytes = ResponseHead(response, keep_alive);
  if (request.method != "HEAD" && response.status != 204) bytes += response.body;
  const bool written = co_await Write(bytes);
  state_.service->metrics->HttpResponse(MethodLabel(request.method), route, response.status,
                                        SecondsSince(request.arrived_at));
  co_return written&& keep_alive;
}

awaitable<bool> Session::Handle(HttpRequest& request, const Route& route) {
  HttpResponse response;
  switch (route.kind) {
    case RouteKind::kChat:
      co_return co_await Generate(request, route, ApiEndpoint::kChat);
    case RouteKind::kCompletions:
      co_return co_await Generate(request, route, ApiEndpoint::kCompletions);
    case RouteKind::kModels:
    case RouteKind::kModel:
      response = Models(request, route.kind);
      break;
    case RouteKind::kHealth:
      response = Health();
      break;
    case RouteKind::kMetrics:
      response = MetricsText();
      break;
    case RouteKind::kRoutes:
      response.body = RoutesJson();
      break;
  }
  co_return co_await Reply(request, route.path, response);
}

HttpResponse Session::Health() const {
  if (state_.draining) return ErrorResponse(Unavailable("the server is shutting down"));
  const auto age =
      std::chrono::duration_cast<milliseconds>(Clock::now() - state_.service->engine.last_heartbeat());
  if (age > state_.options.heartbeat_timeout) {
    return ErrorResponse(
        Unavailable(StrCat("the engine has not turned for ", age.count(), " ms; the limit is ",
                           state_.options.heartbeat_timeout.count(), " ms (--heartbeat-timeout)")));
  }
  return {};
}

HttpResponse Session::Models(const HttpRequest& request, RouteKind kind) const {
  const Service& service = *state_.service;
  const auto describe = [&](const std::string& name) {
    return JsonObject{{"id", name},
                      {"object", "model"},
                      {"created", service.created_unix_s},
                      {"owned_by", "FastDeploy"},
                      {"root", service.model_names.front()},
                      {"parent", Json()},
                      {"max_model_len", service.max_model_len},
                      {"permission", JsonArray{}}};
  };
  if (kind == RouteKind::kModel) {
    const std::string name = request.path.substr(std::string_view("/v1/models/").size());
    for (const std::string& known : service.model_names) {
      if (known == name) return {.body = WriteJson(describe(known))};
    }
    return ErrorResponse(ModelNotFound(name, service.model_names.front()));
  }
  JsonArray data;
  for (const std::string& name : service.model_names) data.push_back(describe(name));
  return {.body = WriteJson(JsonObject{{"object", "list"}, {"data", std::move(data)}})};
}

HttpResponse Session::MetricsText() const {
  const EngineStats stats = state_.service->engine.stats();
  const MediaLoader* loader = state_.service->media_loader.get();
  return {.content_type = "text/plain; version=0.0.4; charset=utf-8",
          .body = state_.service->metrics->Text({.running = stats.running,
                                                 .waiting = stats.waiting,
                                                 .max_num_seqs = state_.service->max_num_seqs,
                                                 .free_pages = stats.free_pages,
                                                 .cached_pages = stats.cached_pages,
                                                 .used_pages = stats.used_pages,
                                                 .total_pages = stats.total_pages,
                                                 .media_jobs = loader ? loader->jobs_in_flight() : 0,
                                                 .media_bytes = loader ? loader->bytes_in_flight() : 0,
                                                 .encoded_items = stats.encoded_items,
                                                 .encoded_tokens = stats.encoded_tokens,
                                                 .encode_seconds = stats.encode_ms / 1000,
                                                 .encoder_hits = stats.encoder_hits,
                                                 .encoder_hit_tokens = stats.encoder_hit_tokens,
                                                 .encoder_kept_tokens = stats.encoder_kept_tokens,
                                                 .encoder_capacity_tokens = stats.encoder_capacity_tokens})};
}

// Sees the client leave while nothing is written: readable with nothing to read means closed.
void Session::WatchPeer() {
  watching_ = true;
  peer_gone_ = false;
  socket_.async_wait(asio::ip::tcp::socket::wait_read, [self = shared_from_this()](error_code ec) {
    if (!self->watching_) return;
    if (ec) return self->PeerGone();
    char byte;
    const ssize_t n = ::recv(self->socket_.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) return self->PeerGone();
    // A next request is waiting already, so the socket stays readable; its state tells the rest.
    self->PollPeer();
  });
}

void Session::PollPeer() {
  peer_poll_.expires_after(kPeerPoll);
  peer_poll_.async_wait([self = shared_from_this()](error_code ec) {
    if (ec || !self->watching_) return;
    tcp_info info{};
    socklen_t size = sizeof(info);
    if (::getsockopt(self->socket_.native_handle(), IPPROTO_TCP, TCP_INFO, &info, &size) != 0 ||
        info.tcpi_state != TCP_ESTABLISHED) {
      return self->PeerGone();
    }
    self->PollPeer();
  });
}

template <typename T>
awaitable<StatusOr<T>> Session::OnWorker(const std::function<StatusOr<T>()>& work) {
  StatusOr<T> result = Internal("not done");
  co_await asio::co_spawn(
      state_.workers,
      [&]() -> awaitable<void> {
        try {
          result = work();
        } catch (const std::exception& e) {  // a library below, or memory
          LogError("preparing a request failed: ", e.what());
          result = Internal("the server failed while it read the request");
        }
        co_return;
      },
      asio::use_awaitable);
  co_return result;
}

// Waits on the loop, not on a worker: pictures hold up nobody's text.
awaitable<StatusOr<LoadedMedia>> Session::LoadMedia(MediaRequest& request) {
  const auto result = std::make_shared<std::optional<StatusOr<LoadedMedia>>>();
  media_load_ = state_.service->media_loader->Start(
      std::move(request),
      [weak = weak_from_this(), &context = loop_.context, result](StatusOr<LoadedMedia> loaded) {
        const auto moved = std::make_shared<StatusOr<LoadedMedia>>(std::move(loaded));
        asio::post(context, [weak, result, moved] {
          result->emplace(std::move(*moved));
          if (const auto self = weak.lock()) self->Wake();
        });
      });
  WatchPeer();
  while (!*result && !peer_gone_ && !state_.stopping) {
    wake_timer_.expires_at(Clock::time_point::max());
    co_await wake_timer_.async_wait(kToken);
  }
  if (media_load_) std::exchange(media_load_, nullptr)->Cancel();
  if (*result) co_return std::move(**result);
  co_return Unavailable("the server is shutting down");
}

awaitable<StatusOr<std::unique_ptr<Generation>>> Session::PrepareGeneration(HttpRequest& request,
                                                                            ApiEndpoint endpoint) {
  using Draft = std::unique_ptr<GenerationDraft>;
  using Ready = std::unique_ptr<Generation>;
  const Service& service = *state_.service;
  peer_gone_ = false;
  // JSON, template, tokens: not on the thread that serves the other connections.
  std::function<StatusOr<Draft>()> parse = [&]() -> StatusOr<Draft> {
    return Generation::Parse(service, endpoint, std::string_view(request.body), state_.gate.Scope(request),
                             request.arrived_at);
  };
  StatusOr<Draft> draft = co_await OnWorker<Draft>(parse);
  request.body = std::string();
  if (!draft.ok()) co_return draft.status();
  LoadedMedia media;
  if ((*draft)->has_media()) {
    MediaRequest wanted = (*draft)->TakeMedia();
    StatusOr<LoadedMedia> loaded = co_await LoadMedia(wanted);
    if (peer_gone_) co_return Ready();
    if (!loaded.ok()) co_return loaded.status();
    media = std::move(loaded).value();
  }
  std::function<StatusOr<Ready>()> finish = [&]() -> StatusOr<Ready> {
    return Generation::Finish(std::move(*draft), std::move(media));
  };
  StatusOr<Ready> ready = co_await OnWorker<Ready>(finish);
  co_return ready;
}

awaitable<bool> Session::Generate(HttpRequest& request, const Route& route, ApiEndpoint endpoint) {
  ++state_.generating;
  generating_ = true;
  struct Counted {
    Session& session;
    ~Counted() {
      session.generating_ = false;
      --session.state_.generating;
    }
  } counted{*this};

  const Service& service = *state_.service;
  StatusOr<std::unique_ptr<Generation>> prepared = co_await PrepareGeneration(request, endpoint);
  if (prepared.ok() && *prepared == nullptr) {
    StopWatching();
    service.metrics->HttpResponse(request.method, route.path, 499, SecondsSince(request.arrived_at));
    co_return false;
  }
  if (!prepared.ok()) {
    StopWatching();
    const HttpResponse response = ErrorResponse(prepared.status());
    co_return co_await Reply(request, route.path, response);
  }
  const std::unique_ptr<Generation> generation = std::move(prepared).value();

  const auto inbox = std::make_shared<StreamInbox>(
      [weak = weak_from_this(), &context = loop_.context] {
        asio::post(context, [weak] {
          if (const auto self = weak.lock()) self->Wake();
        });
      },
      state_.options.max_stream_lag_tokens);
  inbox_ = inbox;
  const Status submitted =
      generation->Submit([inbox](int choice, TokenEvent&& event) { inbox->Add(choice, std::move(event)); });
  if (!submitted.ok()) {
    StopWatching();
    CloseInbox();
    const HttpResponse response = ErrorResponse(submitted);
    co_return co_await Reply(request, route.path, response);
  }

  const bool chunked = request.is_http11;
  const bool stream = generation->stream();
  std::vector<bool> begun(static_cast<size_t>(generation->num_choices()), false);
  bool head_sent = false;
  bool alive = true;
  Status failure;
  std::string out;
  if (!watching_) WatchPeer();
  while (alive && failure.ok() && !generation->finished()) {
    while (inbox->empty() && !peer_gone_ && !state_.stopping) {
      wake_timer_.expires_at(Clock::time_point::max());
      co_await wake_timer_.async_wait(kToken);
    }
    if (peer_gone_) {
      alive = false;
      break;
    }
    if (state_.stopping) {
      failure = Unavailable("the server is shutting down");
      break;
    }
    if (inbox->overflowed()) {
      alive = false;
      break;
    }
    out.clear();
    for (auto& [choice, event] : inbox->Take()) {
      const Delta delta = generation->Push(choice, std::move(event));
      if (!stream || delta.empty()) continue;
      if (!begun[static_cast<size_t>(choice)]) {
        begun[static_cast<size_t>(choice)] = true;
        const std::string first = generation->FirstChunkJson(choice);
        if (!first.empty()) AppendEvent(out, first, chunked);
      }
      for (const std::string& chunk : generation->ChunksJson(choice, delta)) AppendEvent(out, chunk, chunked);
    }
    failure = generation->status();
    if (!out.empty()) {
      if (!std::exchange(head_sent, true)) out.insert(0, StreamHead(request));
      alive = co_await Write(out);
    }
  }
  StopWatching();
  CloseInbox();
  if (!alive) {
    if (inbox->overflowed()) {
      LogWarning(generation->id(), ": the client reads too slowly; more than ",
                 state_.options.max_stream_lag_tokens, " tokens were waiting (--max-stream-lag-tokens)");
    }
    // 499 as nginx counts it; the generation's end aborts its sequences.
    service.metrics->HttpResponse(request.method, route.path, 499, SecondsSince(request.arrived_at));
    co_return false;
  }
  if (!failure.ok() && !head_sent) {
    const HttpResponse response = ErrorResponse(failure);
    co_return co_await Reply(request, route.path, response);
  }
  if (!stream) {
    HttpResponse response;
    response.body = generation->ReplyJson();
    co_return co_await Reply(request, route.path, response);
  }

  out.clear();
  if (!std::exchange(head_sent, true)) out += StreamHead(request);
  if (!failure.ok()) {
    AppendEvent(out, ErrorJson(failure), chunked);
  } else if (generation->wants_usage_chunk()) {
    AppendEvent(out, generation->UsageChunkJson(), chunked);
  }
  AppendEvent(out, "[DONE]", chunked);
  if (chunked) out += kLastChunk;
  const bool written = co_await Write(out);
  service.metrics->HttpResponse(request.method, route.path, 200, SecondsSince(request.arrived_at));
  co_return written&& chunked&& request.keep_alive && !state_.draining;
}

void StartSession(ServerState& state, Loop& loop, asio::ip::tcp::socket socket, Listener listener) {
  error_code ignored;
  socket.set_option(asio::ip::tcp::no_delay(true), ignored);
  socket.set_option(asio::socket_base::keep_alive(true), ignored);
  // Without it the kernel swallows megabytes for a client that does not read, and no back-pressure is seen.
  const int not_sent_bytes = 16 << 10;
  ::setsockopt(socket.native_handle(), IPPROTO_TCP, TCP_NOTSENT_LOWAT, &not_sent_bytes,
               sizeof(not_sent_bytes));
  const auto unacknowledged_ms = static_cast<unsigned>(state.options.write_timeout.count());
  ::setsockopt(socket.native_handle(), IPPROTO_TCP, TCP_USER_TIMEOUT, &unacknowledged_ms,
               sizeof(unacknowledged_ms));
  auto session = std::make_shared<Session>(state, loop, std::move(socket), listener);
  asio::co_spawn(
      loop.context, [session]() -> awaitable<void> { co_await session->Run(); },
      [session](std::exception_ptr error) {
        if (!error) return;
        try {
          std::rethrow_exception(error);
        } catch (const std::exception& e) {
          LogError("a connection failed: ", e.what());
        }
      });
}

void DrainSessions(Loop& loop) {
  for (Session* session : loop.sessions) session->Drain();
}

void StopSessions(Loop& loop) {
  for (Session* session : loop.sessions) session->Stop();
}

void CutSessions(Loop& loop) {
  for (Session* session : loop.sessions) session->CloseInbox();
}

}  // namespace fd
