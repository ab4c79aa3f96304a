// Requests read within their limits, their replies written; what needs no model is answered here.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <exception>
#include <new>

#include "base/fault.h"
#include "base/json.h"
#include "base/log.h"
#include "base/log_sink.h"
#include "base/strings.h"
#include "server/http/endpoints.h"
#include "server/http/request_body.h"
#include "server/http/session.h"
#include "server/openai/errors.h"

namespace fd {

namespace asio = boost::asio;
using asio::awaitable;
using boost::system::error_code;
using std::chrono::milliseconds;

namespace {

constexpr auto kToken = asio::as_tuple(asio::use_awaitable);
// After so many bytes a connection lets the others of its loop have their turn.
constexpr size_t kTurnBytes = 256 << 10;
constexpr milliseconds kLinger{1000};

// What a client may write must not become a metric of its own.
std::string_view MethodLabel(std::string_view method) {
  for (std::string_view known : {"GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"}) {
    if (method == known) return known;
  }
  return "other";
}

bool SameWord(std::string_view a, std::string_view b) { return LowerAscii(a) == LowerAscii(b); }

// "application/json", "application/vnd.x+json"; a client that says nothing is believed.
bool IsJsonType(std::string_view content_type) {
  const std::string type = LowerAscii(Trim(content_type.substr(0, content_type.find(';'))));
  return type.empty() || type == "application/json" || type == "text/json" || type.ends_with("+json");
}

void AddRequestId(HttpRequest& request) {
  request.reply_headers.push_back({"x-request-id", request.id});
  if (ShapeOf(request.path, request.anthropic_client) == ApiShape::kAnthropic) {
    request.reply_headers.push_back({"request-id", request.id});  // where Anthropic's clients look
  }
}

// "http://host/path", as a client writes to a proxy: the host stands in the target.
void TakeAbsoluteTarget(std::string_view& target, std::string_view& host) {
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (target.size() < scheme.size() || LowerAscii(target.substr(0, scheme.size())) != scheme) continue;
    target.remove_prefix(scheme.size());
    const size_t end = std::min(target.find_first_of("/?#"), target.size());
    host = target.substr(0, end);
    target.remove_prefix(end);
    if (!target.starts_with('/')) target = "/";
    return;
  }
}

void TakeHead(const RequestHead& head, const RequestFraming& framing, HttpRequest& request) {
  const auto value = [&](std::string_view name) { return std::string(head.Find(name)); };
  std::string_view target = head.target, host = head.Find("Host");
  TakeAbsoluteTarget(target, host);
  request.method = std::string(head.method);
  request.path = std::string(target.substr(0, target.find_first_of("?#")));
  request.host = std::string(host);
  request.origin = value("Origin");
  request.authorization = value("Authorization");
  request.x_api_key = value("X-Api-Key");
  request.anthropic_client = !head.Find("Anthropic-Version").empty();
  request.asked_method = value("Access-Control-Request-Method");
  request.asked_headers = value("Access-Control-Request-Headers");
  if (std::string id = value("X-Request-Id"); IsSafeRequestId(id)) request.id = std::move(id);
  request.content_encoding = value("Content-Encoding");
  request.content_type = value("Content-Type");
  request.expect = value("Expect");
  request.is_http11 = head.is_http11;
  request.keep_alive = framing.keep_alive;
  request.has_length = framing.has_length;
  request.content_length = framing.content_length;
  request.framing_fault = framing.fault;
  // Where a request of faulty framing ends, nobody knows.
  request.has_body = framing.chunked || framing.content_length > 0 || !framing.fault.empty();
}

// A server generates or pools; whatever else is asked of it, it says how to start the other kind.
std::optional<HttpResponse> RefuseOtherRunner(const Service& service, const Route& route) {
  constexpr const char* kCode = "unsupported_endpoint";
  if (route.kind == RouteKind::kReward) {
    return ErrorResponse(400, kCode,
                         StrCat(route.path,
                                ": scores need a model with a score head, and this server knows none; "
                                "for embeddings use /v1/embeddings of a server with --runner pooling"));
  }
  const bool pools = service.embeddings.has_value();
  if (!Generates(route.kind) || Pools(route.kind) == pools) return std::nullopt;
  return ErrorResponse(400, kCode,
                       pools ? StrCat(route.path,
                                      ": this server makes embeddings (--runner pooling) and generates no "
                                      "text; use /v1/embeddings, or start one with --runner generate")
                             : StrCat(route.path,
                                      ": this server generates text; start one with --runner pooling for "
                                      "embeddings, for example: fastdeploy serve MODEL --runner pooling"));
}

}  // namespace

Session::Session(ServerState& state, Loop& loop, asio::ip::tcp::socket socket, Listener listener, Place place)
    : state_(state),
      loop_(loop),
      socket_(std::move(socket)),
      listener_(listener),
      deadline_(loop.context),
      wake_timer_(loop.context),
      peer_poll_(loop.context),
      place_(place) {
  loop_.sessions.insert(this);
}

Session::~Session() {
  CloseInbox();
  CountBody(0);
  loop_.sessions.erase(this);
  --(place_ == Place::kTaken ? state_.connections : state_.refusing);
}

awaitable<void> Session::Run() {
  const auto self = shared_from_this();
  bool goes_on = place_ == Place::kTaken;
  if (!goes_on) co_await RefusePlace();
  // GCC 12 miscompiles a co_await on the right of &&.
  while (goes_on) {
    goes_on = co_await WaitForRequest();
    if (goes_on) {
      goes_on = co_await AnswerRequest();
      if (!goes_on) co_await Linger();
    }
    // A client that sends requests without a pause must not keep the others of this loop waiting.
    if (goes_on) co_await asio::post(loop_.context, asio::use_awaitable);
  }
  Close();
}

// False: the connection is over.
awaitable<bool> Session::AnswerRequest() {
  HttpRequest request;
  struct Body {
    Session& session;
    ~Body() { session.CountBody(0); }
  } body{*this};
  const Read read = co_await ReadRequest(request);
  if (read != Read::kRequest) co_return read == Read::kNext;
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
  bool goes_on = false;
  if (refusal) {
    goes_on = co_await Reply(request, route != nullptr ? route->path : "other", *refusal);
  } else {
    goes_on = co_await HandleOrFail(request, *route);
  }
  co_return goes_on;
}

awaitable<void> Session::RefusePlace() {
  HttpRequest request;
  request.id = FreshRequestId();
  request.arrived_at = Clock::now();
  request.keep_alive = false;
  request.reply_headers = {{"x-request-id", request.id}};
  const HttpResponse response = ErrorResponse(Unavailable(StrCat(
      "the server has ", state_.options.max_connections, " connections, its limit (--max-connections)")));
  co_await Reply(request, "other", response);
  co_await Linger();
}

awaitable<bool> Session::ReadSome() {
  while (!timed_out_ && !state_.stopping) {
    const ssize_t n =
        ::recv(socket_.native_handle(), loop_.scratch.data(), loop_.scratch.size(), MSG_DONTWAIT);
    if (n > 0) {
      in_.append(loop_.scratch.data(), static_cast<size_t>(n));
      read_bytes_ += static_cast<size_t>(n);
      if (read_bytes_ > kTurnBytes) {
        read_bytes_ = 0;
        co_await asio::post(loop_.context, asio::use_awaitable);
      }
      co_return true;
    }
    if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) co_return false;
    read_bytes_ = 0;
    const auto [ec] = co_await socket_.async_wait(asio::ip::tcp::socket::wait_read, kToken);
    if (ec) co_return false;
  }
  co_return false;
}

// The whole of an idle connection: a small frame, and no buffer.
awaitable<bool> Session::WaitForRequest() {
  idle_ = true;
  // A new connection still gets its answer while the server drains: 503, which a closed port would not say.
  if (state_.stopping || (state_.draining && served_)) co_return false;
  served_ = true;
  if (in_.empty()) {
    in_ = std::string();
    Arm(state_.options.keep_alive_timeout);
    const bool arrived = co_await ReadSome();
    if (!arrived) co_return false;
  }
  idle_ = false;
  co_return true;
}

// Reads one request. What must be refused is refused before its body is read.
awaitable<Session::Read> Session::ReadRequest(HttpRequest& request) {
  const HttpOptions& options = state_.options;
  written_bytes_ = 0;
  reply_id_.clear();
  request.id = FreshRequestId();
  HeadParser parser({.max_line_bytes = options.max_request_line_bytes,
                     .max_head_bytes = options.max_header_bytes,
                     .max_headers = options.max_headers});
  Arm(options.header_timeout);
  HeadParser::Result result = parser.Parse(in_);
  std::optional<HttpResponse> refusal;
  while (result == HeadParser::Result::kMore && !refusal) {
    const bool arrived = co_await ReadSome();
    if (arrived) {
      result = parser.Parse(in_);
    } else if (timed_out_) {
      refusal = ErrorResponse(Status(StatusCode::kDeadlineExceeded,
                                     StrCat("the request's header did not arrive within ",
                                            options.header_timeout.count(), " ms (--header-timeout)")));
    } else {
      co_return Read::kClosed;  // the client left
    }
  }
  request.arrived_at = Clock::now();
  const Route* route = nullptr;
  if (result == HeadParser::Result::kFault) {
    const RequestFault& fault = parser.fault();
    refusal = ErrorResponse(fault.status, fault.code, fault.message);
  }
  RequestFraming framing;
  if (!refusal) {
    framing = FramingOf(parser.head());
    TakeHead(parser.head(), framing, request);
    in_.erase(0, parser.head().size_bytes);
  }
  if (!refusal) request.reply_headers = state_.gate.OriginHeaders(request);
  AddRequestId(request);
  // A refused body is not read: the reply goes out at once, and the connection closes unless the body is
  // here.
  bool skips_body = false;
  if (!refusal && request.has_body) {
    refusal = CheckHead(request, route);
    const auto size = static_cast<size_t>(framing.content_length);
    skips_body = refusal && !framing.chunked && framing.fault.empty() && size <= in_.size();
    if (skips_body) in_.erase(0, size);
  }
  if (!refusal && request.has_body) {
    if (!request.expect.empty()) {
      const bool written = co_await Write(kContinue);
      if (!written) co_return Read::kClosed;
    }
    BodyEnd end = co_await ReadBody(request, framing);
    if (!end.whole && !end.refusal) co_return Read::kClosed;
    refusal = std::move(end.refusal);
  }
  Disarm();
  if (!refusal) co_return Read::kRequest;
  request.keep_alive = request.keep_alive && skips_body;
  const bool goes_on = co_await Reply(request, route != nullptr ? route->path : "other", *refusal);
  co_return goes_on ? Read::kNext : Read::kAnswered;
}

awaitable<Session::BodyEnd> Session::ReadBody(HttpRequest& request, const RequestFraming& framing) {
  const HttpOptions& options = state_.options;
  ChunkDecoder decoder(options.max_body_bytes, options.max_chunk_overhead_bytes);
  const auto wanted = static_cast<size_t>(framing.content_length);  // within --max-body-bytes
  BodyEnd end;
  Arm(options.body_timeout);
  while (true) {
    if (!in_.empty()) {
      size_t taken = 0;
      auto result = ChunkDecoder::Result::kMore;
      if (framing.chunked) {
        result = decoder.Decode(in_, taken, request.body);
      } else {
        taken = std::min(wanted - request.body.size(), in_.size());
        request.body.append(in_, 0, taken);
        if (request.body.size() == wanted) result = ChunkDecoder::Result::kDone;
      }
      in_.erase(0, taken);
      CountBody(request.body.size());
      if (state_.body_bytes > options.max_bodies_bytes) {
        end.refusal = ErrorResponse(
            Unavailable(StrCat("the bodies of all requests that are being read have more than ",
                               options.max_bodies_bytes, " bytes (--max-bodies-bytes); try again later")));
        co_return end;
      }
      if (result == ChunkDecoder::Result::kFault) {
        const RequestFault& fault = decoder.fault();
        end.refusal = ErrorResponse(fault.status, fault.code, fault.message);
        co_return end;
      }
      end.whole = result == ChunkDecoder::Result::kDone;
      if (end.whole) co_return end;
    }
    const bool arrived = co_await ReadSome();
    if (arrived) continue;
    if (timed_out_) {
      end.refusal = ErrorResponse(Status(StatusCode::kDeadlineExceeded,
                                         StrCat("the request's body did not arrive within ",
                                                options.body_timeout.count(), " ms (--body-timeout)")));
    }
    co_return end;
  }
}

// What can be said from the header alone. Null route: 404.
std::optional<HttpResponse> Session::CheckHead(const HttpRequest& request, const Route*& route) const {
  const bool has_metrics = listener_ == Listener::kMetrics || state_.metrics_on_main;
  route = FindRoute(listener_, has_metrics, request.path);
  if (request.is_http11 && request.host.empty()) {
    return ErrorResponse(400, "bad_request", "the Host header is missing");
  }
  if (!request.framing_fault.empty()) return ErrorResponse(400, "bad_request", request.framing_fault);
  // A browser asks before it sends the key.
  if (route != nullptr) {
    if (auto answer = state_.gate.Preflight(request, route->allowed)) return answer;
  }
  if (auto refusal = state_.gate.Refuse(request, route != nullptr ? route->access : Access::kKey))
    return refusal;
  if (route == nullptr) {
    const std::string near = NearestPath(listener_, has_metrics, request.path);
    return ErrorResponse(
        NotFound(StrCat("there is no ", request.path.substr(0, 200), "; ",
                        near.empty() ? std::string("this server has /v1/chat/completions, /v1/completions, "
                                                   "/v1/models and /health; /openapi.json lists all")
                                     : StrCat("did you mean ", near, "?"))));
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
  if (!request.expect.empty() && !SameWord(request.expect, "100-continue")) {
    return ErrorResponse(417, "expectation_failed",
                         "the only Expect header that is understood is 100-continue");
  }
  if (request.content_length > state_.options.max_body_bytes) {
    return ErrorResponse(
        Status(StatusCode::kPayloadTooLarge,
               StrCat("the request's body has ", request.content_length, " bytes; the limit is ",
                      state_.options.max_body_bytes, " bytes (--max-body-bytes)")));
  }
  if (ReadsJson(route->kind)) {
    if (!request.has_length) {
      return ErrorResponse(411, "length_required",
                           StrCat(route->path,
                                  " reads a JSON body, and the request has neither a Content-Length "
                                  "nor Transfer-Encoding: chunked"));
    }
    if (request.has_body && !IsJsonType(request.content_type)) {
      return ErrorResponse(
          Status(StatusCode::kUnsupportedMedia,
                 StrCat("the Content-Type is ", request.content_type.substr(0, 100), ", but ", route->path,
                        " reads JSON; send the header Content-Type: application/json")));
    }
  }
  const bool generates = Generates(route->kind);
  if (auto refusal = RefuseOtherRunner(*state_.service, *route)) return refusal;
  if (generates && state_.draining) return ErrorResponse(Ending());
  if (generates && state_.paused) {
    return ErrorResponse(Unavailable("the server is paused by its admin (/v1/pause); try again later"));
  }
  if (generates && state_.generating >= state_.options.max_concurrency) {
    return ErrorResponse(Status(StatusCode::kResourceExhausted,
                                StrCat("the server already works on ", state_.options.max_concurrency,
                                       " requests, its limit (--max-concurrency); try again later")));
  }
  const int64_t key_limit = state_.options.max_concurrency_per_key;
  if (generates && key_limit > 0) {
    const int key = state_.gate.KeyIndex(request);
    if (key >= 0 && state_.generating_by_key[static_cast<size_t>(key)] >= key_limit) {
      return ErrorResponse(Status(
          StatusCode::kResourceExhausted,
          StrCat("the server already works on ", key_limit,
                 " requests of this API key, its limit (--max-concurrency-per-key); try again later")));
    }
  }
  return std::nullopt;
}

// Lets the last reply reach a client that is still sending, further requests for example: closing now would
// reset the connection and throw away what has not arrived.
awaitable<void> Session::Linger() {
  error_code ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  Arm(kLinger);
  in_ = std::string();
  bool more = true;
  while (more) {
    in_.clear();
    more = co_await ReadSome();
  }
  Disarm();
}

// Writes all; the deadline is for progress, not for the whole. False: the connection is dead.
awaitable<bool> Session::Write(std::string_view bytes) {
  written_ = true;
  while (!bytes.empty()) {
    const ssize_t n =
        ::send(socket_.native_handle(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0) {
      bytes.remove_prefix(static_cast<size_t>(n));
      written_bytes_ += n;
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK) co_return false;
    Arm(state_.options.write_timeout);
    const auto [ec] = co_await socket_.async_wait(asio::ip::tcp::socket::wait_write, kToken);
    Disarm();
    if (ec) co_return false;
  }
  co_return true;
}

// True: the connection may carry another request.
awaitable<bool> Session::Reply(const HttpRequest& request, const char* route, const HttpResponse& response) {
  const bool keep_alive = request.keep_alive && !state_.draining;
  HttpResponse error;
  if (response.error) {
    error = response;
    error.body = ErrorBody(request, *response.error);
  }
  const HttpResponse& reply = response.error ? error : response;
  std::string bytes = ResponseHead(request, reply, keep_alive);
  if (request.method != "HEAD" && reply.status != 204) bytes += reply.body;
  const bool written = co_await Write(bytes);
  Account(request, route, response.status);
  co_return written&& keep_alive;
}

// Counts an answered request and writes its line. What a scraper asks every few seconds is no news.
void Session::Account(const HttpRequest& request, const char* route, int status) {
  const double seconds = SecondsSince(request.arrived_at);
  state_.service->metrics->HttpResponse(MethodLabel(request.method), route, status, seconds);
  const std::string_view path = route;
  const bool is_probe =
      path == "/health" || path == "/ping" || path == "/readyz" || path == "/livez" || path == "/metrics";
  const LogLevel level = is_probe && status < 400 ? LogLevel::kDebug : LogLevel::kInfo;
  if (!state_.options.access_log || !LogEnabled(level)) return;
  constexpr size_t kMaxLoggedPath = 200;
  LogEvent(level, "request",
           {{"method", std::string(MethodLabel(request.method))},
            {"path", request.path.substr(0, kMaxLoggedPath)},
            {"status", StrCat(status), /*is_number=*/true},
            {"ms", Fixed(seconds * 1000, 1), /*is_number=*/true},
            {"bytes", StrCat(written_bytes_), /*is_number=*/true},
            {"request_id", request.id},
            {"id", reply_id_}});
}

awaitable<bool> Session::Handle(HttpRequest& request, const Route& route) {
  if (ReadsJson(route.kind)) FaultBadAlloc(Fault::kReplyAlloc);
  switch (route.kind) {
    case RouteKind::kChat:
    case RouteKind::kRender:
    case RouteKind::kCompletions:
    case RouteKind::kResponses:
    case RouteKind::kMessages:
      co_return co_await Generate(request, route);
    case RouteKind::kEmbeddings:
    case RouteKind::kPooling:
      co_return co_await Embed(request, route);
    case RouteKind::kTokenize:
    case RouteKind::kDetokenize:
    case RouteKind::kCountMessagesTokens:
      co_return co_await AnswerTokens(request, route);
    case RouteKind::kHealth:
    case RouteKind::kLive:
      co_return co_await Health(request, route);
    default:
      break;
  }
  const HttpResponse response = AnswerEndpoint(state_, route.kind, request);
  co_return co_await Reply(request, route.path, response);
}

awaitable<bool> Session::HandleOrFail(HttpRequest& request, const Route& route) {
  written_ = false;
  Status failure;
  try {
    co_return co_await Handle(request, route);
  } catch (const std::bad_alloc&) {
    failure = Unavailable("the server has no memory left for this request; try again later");
  } catch (const std::exception& e) {
    LogError("a request failed: ", e.what());
    failure = Internal("the server failed while it worked on this request");
  }
  StopWatching();
  CloseInbox();
  if (written_) co_return false;  // the client sees that its reply ends too early
  const HttpResponse response = ErrorResponse(failure);
  co_return co_await Reply(request, route.path, response);
}

// /livez only says whether starting the server again would help: it answers while the server drains or a step
// takes long. /health and the like say whether to send requests, by a round trip through the engine: its loop
// must turn after the question was asked. A step may take longer than the question waits; then the engine is
// alive as long as its last turn is not too old.
awaitable<bool> Session::Health(const HttpRequest& request, const Route& route) {
  constexpr milliseconds kFirstPause{1}, kLongestPause{20};
  const EngineDoor& engine = state_.service->engine;
  const Clock::time_point asked_at = Clock::now();
  const auto deadline = asked_at + state_.options.health_timeout;
  HttpResponse response;
  const Status lost = engine.lost();
  const bool ready_is_asked = route.kind == RouteKind::kHealth;
  if (!lost.ok() || (ready_is_asked && state_.draining)) response = ErrorResponse(Ending());
  if (!ready_is_asked || response.error) co_return co_await Reply(request, route.path, response);
  engine.wake();
  milliseconds pause = kFirstPause;
  asio::steady_timer timer(loop_.context);
  while (engine.last_heartbeat() < asked_at && Clock::now() < deadline && !state_.stopping) {
    timer.expires_after(pause);
    co_await timer.async_wait(kToken);
    pause = std::min(pause * 2, kLongestPause);
  }
  const auto age = std::chrono::duration_cast<milliseconds>(Clock::now() - engine.last_heartbeat());
  if (age > state_.options.heartbeat_timeout) {
    response = ErrorResponse(
        Unavailable(StrCat("the engine has not turned for ", age.count(), " ms; the limit is ",
                           state_.options.heartbeat_timeout.count(), " ms (--heartbeat-timeout)")));
  }
  co_return co_await Reply(request, route.path, response);
}

void Loop::WakeSoon(std::weak_ptr<Session> session) {
  bool first = false;
  {
    std::lock_guard lock(ready_mutex);
    first = ready.empty();
    ready.push_back(std::move(session));
  }
  if (!first) return;
  asio::post(context, [this] {
    std::vector<std::weak_ptr<Session>> woken;
    {
      std::lock_guard lock(ready_mutex);
      woken.swap(ready);
    }
    for (const auto& weak : woken) {
      if (const auto session = weak.lock()) session->Wake();
    }
  });
}

void StartSession(ServerState& state, Loop& loop, asio::ip::tcp::socket socket, Listener listener,
                  bool refused) {
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
  auto session = std::make_shared<Session>(state, loop, std::move(socket), listener,
                                           refused ? Session::Place::kRefused : Session::Place::kTaken);
  asio::co_spawn(
      loop.context, [session]() -> awaitable<void> { co_await session->Run(); },
      [session](std::exception_ptr error) {
        if (!error) return;
        session->Close();
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
