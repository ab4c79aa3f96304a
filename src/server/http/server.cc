// Listeners, threads, drain and stop.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <thread>
#include <vector>

#include "base/fault.h"
#include "base/log.h"
#include "base/strings.h"
#include "server/http/http_message.h"
#include "server/http/request_body.h"
#include "server/http/server_state.h"

namespace fd {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

namespace {

constexpr int kBacklog = 4096;
constexpr auto kToken = asio::as_tuple(asio::use_awaitable);
constexpr std::chrono::milliseconds kAcceptPause{50};
constexpr std::chrono::seconds kStopGrace{3};
// Files beside the connections: weights, logs, pictures on their way, the helper of videos.
constexpr int64_t kOtherFiles = 256;
// How many connections beyond --max-connections are told so at a time; more are closed without a word.
constexpr int64_t kMaxRefusing = 128;
constexpr std::chrono::seconds kWarnAgain{10};

StatusOr<tcp::acceptor> Listen(asio::io_context& context, const std::string& host, int port,
                               const char* flag) {
  error_code ec;
  const std::string address_text = host == "localhost" ? "127.0.0.1" : host;
  const asio::ip::address address = asio::ip::make_address(address_text, ec);
  if (ec) {
    return InvalidArgument(StrCat("--host ", host, " is no IP address; examples: 127.0.0.1, 0.0.0.0, ::1"),
                           "--host");
  }
  if (port < 0 || port > 65535) {
    return InvalidArgument(StrCat(flag, " ", port, " is no port; allowed are 1 to 65535"), flag);
  }
  const tcp::endpoint endpoint(address, static_cast<unsigned short>(port));
  tcp::acceptor acceptor(context);
  const auto failed = [&](const error_code& why) {
    std::string message = StrCat("cannot listen on ", host, ":", port, " (", flag, "): ", why.message());
    if (why == asio::error::address_in_use) {
      message += StrCat("; stop the other program or choose another port, for example ", flag, " ",
                        port < 65535 ? port + 1 : port - 1);
    }
    return Status(StatusCode::kUnavailable, std::move(message), flag);
  };
  acceptor.open(endpoint.protocol(), ec);
  if (ec) return failed(ec);
  acceptor.set_option(tcp::acceptor::reuse_address(true), ec);
  acceptor.bind(endpoint, ec);
  if (ec) return failed(ec);
  acceptor.listen(kBacklog, ec);
  if (ec) return failed(ec);
  return acceptor;
}

// /metrics has a port of its own; 0 is a free one for each.
bool HasMetricsPort(const HttpOptions& options) {
  return options.metrics_port >= 0 && (options.metrics_port != options.port || options.port == 0);
}

// Every connection is a file descriptor: the soft limit, often 1024, is raised to the hard one. How many of
// `connections` fit.
int64_t RaiseFileLimit(int64_t connections) {
  const int64_t wanted = connections + kMaxRefusing + kOtherFiles;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return connections;
  const rlim_t before = limit.rlim_cur;
  limit.rlim_cur =
      limit.rlim_max == RLIM_INFINITY ? std::max(before, static_cast<rlim_t>(wanted)) : limit.rlim_max;
  if (limit.rlim_cur != before && setrlimit(RLIMIT_NOFILE, &limit) != 0) limit.rlim_cur = before;
  if (limit.rlim_cur >= static_cast<rlim_t>(wanted)) return connections;
  const auto files = static_cast<int64_t>(limit.rlim_cur);
  const int64_t fit = std::max<int64_t>(files - kMaxRefusing - kOtherFiles, std::max<int64_t>(files / 4, 1));
  LogWarning("--max-connections ", connections, " needs ", wanted, " open files and the system allows ",
             files, ": limited to ", std::min(fit, connections), " connections; raise the limit (ulimit -n ",
             wanted, ", LimitNOFILE=", wanted, " of systemd) or lower --max-connections");
  return std::min(fit, connections);
}

// One descriptor kept free, so that a client can be told when there is none left.
class SpareFile {
 public:
  SpareFile() { Take(); }
  ~SpareFile() { Give(); }
  SpareFile(const SpareFile&) = delete;
  SpareFile& operator=(const SpareFile&) = delete;
  void Take() {
    if (fd_ < 0) fd_ = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  }
  bool Give() {
    if (fd_ < 0) return false;
    ::close(std::exchange(fd_, -1));
    return true;
  }

 private:
  int fd_ = -1;
};

// At once and without a session, which would need a descriptor for longer.
void TellAndClose(int listening_fd, const std::string& reply) {
  const int fd = ::accept4(listening_fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return;
  // What lies unread at the close would make the kernel throw the reply away.
  char sink[4096];
  for (int i = 0; i < 16 && ::recv(fd, sink, sizeof(sink), MSG_DONTWAIT) == sizeof(sink); ++i) {
  }
  const ssize_t sent = ::send(fd, reply.data(), reply.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent > 0) ::shutdown(fd, SHUT_WR);
  ::close(fd);
}

// What is thrown here belongs to one connection, which ends with it; the others go on.
void RunLoop(asio::io_context& context) {
  while (true) {
    try {
      context.run();
      return;
    } catch (const std::exception& e) {
      LogError("a connection failed: ", e.what());
    }
  }
}

}  // namespace

Status CheckCanListen(const HttpOptions& options) {
  asio::io_context context;
  FD_RETURN_IF_ERROR(Listen(context, options.host, options.port, "--port").status());
  if (!HasMetricsPort(options)) return OkStatus();
  return Listen(context, options.host, options.metrics_port, "--metrics-port").status();
}

struct HttpServer::Impl {
  // Members are destroyed from the last to the first: the loops, and with them all connections, go before the
  // state that the connections point to.
  std::unique_ptr<ServerState> state;
  std::vector<std::unique_ptr<Loop>> loops;
  std::vector<asio::executor_work_guard<asio::io_context::executor_type>> guards;
  std::vector<std::unique_ptr<tcp::acceptor>> acceptors;
  std::vector<std::thread> threads;
  std::mutex threads_mutex;
  std::condition_variable thread_ended;
  size_t threads_ended = 0;
  int port = 0;
  int metrics_port = 0;
  bool stopped = false;
  size_t next_loop = 0;  // of the accepting thread

  asio::awaitable<void> Accept(tcp::acceptor& acceptor, Listener listener);
  void OnEveryLoop(void (*act)(Loop&)) {
    for (auto& loop : loops) {
      asio::post(loop->context, [act, l = loop.get()] { act(*l); });
    }
  }
};

asio::awaitable<void> HttpServer::Impl::Accept(tcp::acceptor& acceptor, Listener listener) {
  asio::steady_timer pause(acceptor.get_executor());
  SpareFile spare;
  Clock::time_point quiet_until{};
  const HttpResponse no_files = ErrorResponse(
      Unavailable("the server has no file descriptor left for this connection (ulimit -n); try again later"));
  const std::string no_files_reply = ResponseHead({}, no_files, /*keep_alive=*/false) + no_files.body;
  while (!state->stopping) {
    Loop& loop = *loops[next_loop++ % loops.size()];
    tcp::socket socket(loop.context);
    const auto [ec] = co_await acceptor.async_accept(socket, kToken);
    if (ec == asio::error::operation_aborted || ec == asio::error::bad_descriptor) co_return;
    if (ec) {  // out of descriptors, mostly: it passes
      if (Clock::now() >= quiet_until) {
        quiet_until = Clock::now() + kWarnAgain;
        LogWarning("connections cannot be accepted: ", ec.message(), " (ulimit -n); their clients get 503");
      }
      if (spare.Give()) TellAndClose(acceptor.native_handle(), no_files_reply);
      spare.Take();
      pause.expires_after(kAcceptPause);
      co_await pause.async_wait(kToken);
      continue;
    }
    const bool refused = state->connections >= state->options.max_connections;
    if (refused && state->refusing >= kMaxRefusing) continue;  // closes it
    std::atomic<int64_t>& count = refused ? state->refusing : state->connections;
    ++count;
    try {
      FaultBadAlloc(Fault::kAcceptAlloc);
      asio::post(loop.context,
                 [s = state.get(), &loop, listener, refused, socket = std::move(socket)]() mutable {
                   if (!s->stopping) StartSession(*s, loop, std::move(socket), listener, refused);
                 });
    } catch (const std::bad_alloc&) {  // this connection closes, others are accepted
      --count;
      LogWarning("a connection could not be served: the server has no memory left");
    }
  }
}

StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(std::shared_ptr<const Service> service,
                                                        const HttpOptions& options) {
  FD_CHECK(service != nullptr && service->metrics != nullptr && !service->model_names.empty());
  FD_CHECK_GE(options.io_threads, 1);
  FD_CHECK_GE(options.worker_threads, 1);
  HttpOptions possible = options;
  possible.max_connections = RaiseFileLimit(options.max_connections);
  auto impl = std::make_unique<Impl>();
  impl->state = std::make_unique<ServerState>(std::move(service), possible);
  for (int i = 0; i < options.io_threads; ++i) {
    impl->loops.push_back(std::make_unique<Loop>());
    impl->guards.push_back(asio::make_work_guard(impl->loops.back()->context));
  }
  asio::io_context& first = impl->loops.front()->context;
  const auto listen = [&](int port, const char* flag) -> StatusOr<int> {
    FD_ASSIGN_OR_RETURN(tcp::acceptor acceptor, Listen(first, options.host, port, flag));
    impl->acceptors.push_back(std::make_unique<tcp::acceptor>(std::move(acceptor)));
    return static_cast<int>(impl->acceptors.back()->local_endpoint().port());
  };
  FD_ASSIGN_OR_RETURN(impl->port, listen(options.port, "--port"));
  if (HasMetricsPort(options)) {
    FD_ASSIGN_OR_RETURN(impl->metrics_port, listen(options.metrics_port, "--metrics-port"));
  } else {
    impl->metrics_port = impl->port;
    impl->state->metrics_on_main = true;
  }
  for (size_t i = 0; i < impl->acceptors.size(); ++i) {
    asio::co_spawn(first, impl->Accept(*impl->acceptors[i], i == 0 ? Listener::kMain : Listener::kMetrics),
                   asio::detached);
  }
  for (auto& loop : impl->loops) {
    impl->threads.emplace_back([impl = impl.get(), l = loop.get()] {
      RunLoop(l->context);
      std::lock_guard lock(impl->threads_mutex);
      ++impl->threads_ended;
      impl->thread_ended.notify_all();
    });
  }
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpServer::~HttpServer() { Stop(); }

int HttpServer::port() const { return impl_->port; }
int HttpServer::metrics_port() const { return impl_->metrics_port; }

std::string HttpServer::url() const {
  const std::string& host = impl_->state->options.host;
  return StrCat("http://", host.find(':') != std::string::npos ? StrCat("[", host, "]") : host, ":",
                impl_->port);
}

void HttpServer::BeginDrain() {
  if (impl_->state->draining.exchange(true)) return;
  impl_->OnEveryLoop(DrainSessions);
}

bool HttpServer::WaitIdle(Clock::time_point deadline) {
  ServerState& state = *impl_->state;
  std::unique_lock lock(state.mutex);
  return state.idle.wait_until(lock, deadline, [&] { return state.in_flight == 0; });
}

void HttpServer::Stop() {
  if (impl_->stopped) return;
  impl_->stopped = true;
  ServerState& state = *impl_->state;
  state.draining = true;
  state.stopping = true;
  asio::post(impl_->loops.front()->context, [this] {
    for (auto& acceptor : impl_->acceptors) {
      error_code ignored;
      acceptor->close(ignored);
    }
  });
  impl_->OnEveryLoop(StopSessions);
  impl_->guards.clear();  // a loop ends when its last connection does
  {
    std::unique_lock lock(impl_->threads_mutex);
    impl_->thread_ended.wait_for(lock, kStopGrace,
                                 [&] { return impl_->threads_ended == impl_->threads.size(); });
  }
  for (auto& loop : impl_->loops) loop->context.stop();
  for (std::thread& thread : impl_->threads) thread.join();
  state.workers.join();
  for (auto& loop : impl_->loops) CutSessions(*loop);
  impl_->acceptors.clear();
  impl_->loops.clear();
}

}  // namespace fd
