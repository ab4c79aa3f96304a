// Requests read within their limits, their replies written; what needs no model is answered here. Beast lives
// here.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <exception>
#include <new>

#include "base/json.h"
#include "base/log.h"
#include "base/log_sink.h"
#include "base/strings.h"
#include "server/http/endpoints.h"
#include "server/http/session.h"
#include "server/openai/errors.h"

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

// What a client may write must not become a metric of its own.
std::string_view MethodLabel(std::string_view method) {
  for (std::string_view known : {"GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"}) {
    if (method == known) return known;
  }
  return "other";
}

template <typename Name>
std::string Header(const Parser& parser, Name name) {
  const auto value = parser.get()[name];
  return std::string(value.data(), value.size());
}

// A request whose end a proxy before us may see elsewhere could carry a second one past it.
std::string FramingFault(const Parser& parser, bool is_http11) {
  const auto& head = parser.get();
  if (head.count(http::field::host) > 1) return "the Host header stands twice";
  // "5, 5" is one length to some readers and a fault to others.
  if (Header(parser, http::field::content_length).find_first_not_of("0123456789") != std::string::npos)
    return "the Content-Length is no number";
  const auto codings = head.count(http::field::transfer_encoding);
  if (codings == 0) return "";
  if (!is_http11) return "Transfer-Encoding needs HTTP/1.1";
  if (codings > 1 || LowerAscii(Trim(Header(parser, http::field::transfer_encoding))) != "chunked")
    return "the only Transfer-Encoding that is understood is chunked";
  return "";
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

Session::Session(ServerState& state, Loop& loop, asio::ip::tcp::socket socket, Listener listener)
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

Session::~Session() {
  CloseInbox();
  loop_.sessions.erase(this);
  --state_.connections;
}

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
      keep_alive = co_await HandleOrFail(request, *route);
    }
  }
  Close();
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
  written_bytes_ = 0;
  reply_id_.clear();
  request.id = FreshRequestId();
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
    request.x_api_key = Header(parser, "X-Api-Key");
    request.asked_method = Header(parser, http::field::access_control_request_method);
    request.asked_headers = Header(parser, http::field::access_control_request_headers);
    if (std::string id = Header(parser, "X-Request-Id"); IsSafeRequestId(id)) request.id = std::move(id);
    request.content_encoding = Header(parser, http::field::content_encoding);
    request.expect = Header(parser, http::field::expect);
    request.is_http11 = parser.get().version() >= 11;
    request.keep_alive = parser.get().keep_alive();
    request.has_body = !parser.is_done();
    request.framing_fault = FramingFault(parser, request.is_http11);
    if (!request.framing_fault.empty()) request.keep_alive = false;
    request.reply_headers = state_.gate.OriginHeaders(request);
    request.reply_headers.push_back({"x-request-id", request.id});
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
  if (request.reply_headers.empty()) request.reply_headers.push_back({"x-request-id", request.id});
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
  constexpr std::string_view kContinueToken = "100-continue";
  if (!request.expect.empty() && !boost::beast::iequals(request.expect, kContinueToken)) {
    return ErrorResponse(417, "expectation_failed",
                         "the only Expect header that is understood is 100-continue");
  }
  const bool generates = Generates(route->kind);
  if (auto refusal = RefuseOtherRunner(*state_.service, *route)) return refusal;
  if (generates && state_.draining) return ErrorResponse(Unavailable("the server is shutting down"));
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
  written_ = true;
  while (!bytes.empty()) {
    Arm(state_.options.write_timeout);
    const auto [ec, n] = co_await socket_.async_write_some(asio::buffer(bytes.data(), bytes.size()), kToken);
    if (ec) {
      Disarm();
      co_return false;
    }
    bytes.remove_prefix(n);
    written_bytes_ += static_cast<int64_t>(n);
  }
  Disarm();
  co_return true;
}

// True: the connection may carry another request.
awaitable<bool> Session::Reply(const HttpRequest& request, const char* route, const HttpResponse& response) {
  const bool keep_alive = request.keep_alive && !state_.draining;
  std::string bytes = ResponseHead(request, response, keep_alive);
  if (request.method != "HEAD" && response.status != 204) bytes += response.body;
  const bool written = co_await Write(bytes);
  Account(request, route, response.status);
  co_return written&& keep_alive;
}

// Counts an answered request and writes its line. What a scraper asks every few seconds is no news.
void Session::Account(const HttpRequest& request, const char* route, int status) {
  const double seconds = SecondsSince(request.arrived_at);
  state_.service->metrics->HttpResponse(MethodLabel(request.method), route, status, seconds);
  const std::string_view path = route;
  const bool is_probe = path == "/health" || path == "/ping" || path == "/metrics";
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
  switch (route.kind) {
    case RouteKind::kChat:
    case RouteKind::kRender:
      co_return co_await Generate(request, route, ApiEndpoint::kChat);
    case RouteKind::kCompletions:
      co_return co_await Generate(request, route, ApiEndpoint::kCompletions);
    case RouteKind::kEmbeddings:
    case RouteKind::kPooling:
      co_return co_await Embed(request, route);
    case RouteKind::kTokenize:
    case RouteKind::kDetokenize:
      co_return co_await AnswerTokens(request, route);
    case RouteKind::kHealth:
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

// A round trip through the engine: its loop must turn after the question was asked. A step may take longer
// than the question waits; then the engine is alive as long as its last turn is not too old.
awaitable<bool> Session::Health(const HttpRequest& request, const Route& route) {
  constexpr milliseconds kFirstPause{1}, kLongestPause{20};
  const EngineDoor& engine = state_.service->engine;
  const Clock::time_point asked_at = Clock::now();
  const auto deadline = asked_at + state_.options.health_timeout;
  HttpResponse response;
  if (state_.draining) {
    response = ErrorResponse(Unavailable("the server is shutting down"));
    co_return co_await Reply(request, route.path, response);
  }
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
