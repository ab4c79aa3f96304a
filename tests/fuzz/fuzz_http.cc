// Any bytes on a connection to a whole server whose engine answers at once, cut where the input says: every
// reply is well framed, none is a 5xx, every event of a stream is JSON, the connection ends soon, and the
// same bytes cut elsewhere get the same statuses.
//
// The first byte: bit 0, our side is closed after the bytes; else one more request follows that ends the
// connection. The second byte says where the bytes are cut. A seed file begins with two printable bytes.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "base/json.h"
#include "base/log.h"
#include "base/strings.h"
#include "fuzz_service.h"
#include "reply_check.h"
#include "server/http/http_server.h"

namespace {

using fd::fuzz::Require;
// A connection that is still open after so many waits hangs. Counted, so that a time in which the whole
// program was stopped is one of them.
constexpr int kWaits = 200, kWaitMs = 100;
// Bytes that come too late change what is answered: seen once in a while, not always.
constexpr int kAttempts = 4;
constexpr std::string_view kLast = "GET /ping HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
constexpr std::string_view kResume =
    "POST /v1/resume HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer admin\r\nContent-Length: 0\r\n"
    "Connection: close\r\n\r\n";

fd::HttpServer& Server() {
  static fd::fuzz::InstantEngine engine("hello \xE4\xBD\xA0 <tool_call>");
  static const std::unique_ptr<fd::HttpServer> server = [] {
    fd::SetLogLevel(fd::LogLevel::kError);
    fd::HttpOptions options;
    options.port = 0;
    options.io_threads = 1;
    options.worker_threads = 1;
    options.access_log = false;
    options.admin_keys = {"admin"};
    options.max_header_bytes = 2048;
    options.max_body_bytes = 8192;
    // An input that ends in the middle of a request waits for these; one that does not ends its connection.
    options.header_timeout = options.body_timeout = std::chrono::milliseconds(40);
    options.keep_alive_timeout = std::chrono::seconds(10);
    auto made = fd::HttpServer::Start(fd::fuzz::FuzzService(engine, fd::fuzz::FuzzModel::kText), options);
    Require(made.ok(), "the server starts");
    return std::move(made).value();
  }();
  return *server;
}

// Each connection from another address of the loopback net, so that ports in TIME_WAIT do not run out.
int Connect() {
  static uint32_t count = 0;
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in from{};
  from.sin_family = AF_INET;
  from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + count++ % 60'000);
  const int one = 1;
  ::setsockopt(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  Require(::bind(fd, reinterpret_cast<sockaddr*>(&from), sizeof(from)) == 0, "bind");
  sockaddr_in to = from;
  to.sin_port = htons(static_cast<uint16_t>(Server().port()));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int error = ::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof(to)) == 0 ? 0 : errno;
  if (error == EINTR) {  // by the fuzzer's clock; the connection is made all the same
    pollfd p{fd, POLLOUT, 0};
    while (::poll(&p, 1, kWaitMs) != 1) continue;
    socklen_t size = sizeof(error);
    ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
  }
  if (error != 0) std::fprintf(stderr, "connect: %s\n", std::strerror(error));
  Require(error == 0, "connect");
  return fd;
}

std::string Exchange(std::string_view bytes, uint32_t cuts, bool half_close) {
  const int fd = Connect();
  std::minstd_rand random(cuts + 1);
  while (!bytes.empty()) {
    // Whole at 0, else a few bytes or many.
    size_t count = bytes.size();
    if (cuts != 0) count = std::min<size_t>(count, 1 + random() % (random() % 4 == 0 ? 4 : 400));
    const ssize_t sent = ::send(fd, bytes.data(), count, MSG_NOSIGNAL);
    if (sent <= 0) break;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  if (half_close) ::shutdown(fd, SHUT_WR);
  std::string answer;
  char chunk[16384];
  while (true) {
    pollfd p{fd, POLLIN, 0};
    int waits = 0;
    while (::poll(&p, 1, kWaitMs) != 1) Require(++waits < kWaits, "the connection ends soon");
    const ssize_t n = ::recv(fd, chunk, sizeof(chunk), 0);
    if (n <= 0) break;
    answer.append(chunk, static_cast<size_t>(n));
  }
  const linger reset{.l_onoff = 1, .l_linger = 0};
  ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
  ::close(fd);
  return answer;
}

// The body of a chunked reply; false when it is cut.
bool Dechunk(std::string_view& rest, std::string& body) {
  while (true) {
    const size_t line = rest.find("\r\n");
    if (line == std::string_view::npos) return false;
    size_t size = 0;
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + line, size, 16);
    Require(error == std::errc() && end == rest.data() + line, "a chunk's size is hexadecimal");
    if (rest.size() < line + 2 + size + 2) return false;
    Require(rest.substr(line + 2 + size, 2) == "\r\n", "a chunk ends with a line");
    body += rest.substr(line + 2, size);
    rest.remove_prefix(line + 2 + size + 2);
    if (size == 0) return true;
  }
}

// The statuses of the replies; may_be_cut: our side was closed, so the last one may end early. paused: an
// admin among the clients may have stopped the work, which is a 503 for the others.
std::vector<int> CheckReplies(std::string_view rest, bool may_be_cut, bool paused) {
  constexpr int kAllowed[] = {100, 200, 204, 400, 401, 403, 404, 405, 408, 411, 413, 414, 415, 417, 429, 431};
  std::vector<int> statuses;
  while (!rest.empty()) {
    const size_t end = rest.find("\r\n\r\n");
    if (end == std::string_view::npos && may_be_cut) break;
    Require(end != std::string_view::npos && rest.starts_with("HTTP/1.1 "), "a reply begins with its status");
    const std::string head = fd::LowerAscii(rest.substr(0, end));
    const int status = std::atoi(head.c_str() + 9);
    const bool allowed = std::find(std::begin(kAllowed), std::end(kAllowed), status) != std::end(kAllowed);
    if (!allowed && !(paused && status == 503)) {
      std::fprintf(stderr, "status %d\n", status);
      Require(false, "the status is one of ours");
    }
    for (const char c : head) Require((c >= ' ' && c <= '~') || c == '\r' || c == '\n', "a header is plain");
    statuses.push_back(status);
    rest.remove_prefix(end + 4);
    if (head.find("\r\ntransfer-encoding: chunked") != std::string::npos) {
      std::string body;
      if (!Dechunk(rest, body)) {
        Require(may_be_cut, "a stream ends with its last chunk");
        break;
      }
      fd::fuzz::ReadEvents(body);
      continue;
    }
    if (head.find("\r\ncontent-type: text/event-stream") != std::string::npos) {  // HTTP/1.0
      if (!may_be_cut) fd::fuzz::ReadEvents(rest);
      break;
    }
    size_t length = 0;
    if (const size_t at = head.find("\r\ncontent-length: "); at != std::string::npos)
      length = static_cast<size_t>(std::atoll(head.c_str() + at + 18));
    if (length == 0 || rest.empty() || rest.starts_with("HTTP/1.1 ")) continue;  // HEAD
    if (rest.size() < length && may_be_cut) break;
    Require(rest.size() >= length, "a body is as long as its head says");
    if (head.find("application/json") != std::string::npos)
      Require(fd::ParseJson(rest.substr(0, length)).ok(), "a body is JSON");
    rest.remove_prefix(length);
  }
  return statuses;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const bool half_close = (data[0] & 1) != 0;
  const uint32_t cuts = data[1];
  std::string bytes(reinterpret_cast<const char*>(data) + 2, size - 2);
  if (!half_close) bytes += kLast;
  const bool paused = bytes.find("/pause") != std::string::npos;
  const std::vector<int> statuses = CheckReplies(Exchange(bytes, cuts, half_close), half_close, paused);
  if (paused) {
    Exchange(kResume, 0, false);
    return 0;
  }
  if (half_close || cuts == 0) return 0;
  // Time passes as the machine likes, and ends connections (408); a refusal ends one unless the body that it
  // does not read is there already. Everything else is decided by the bytes.
  const auto agree = [](const std::vector<int>& a, const std::vector<int>& b) {
    const auto& [less, more] = a.size() < b.size() ? std::tie(a, b) : std::tie(b, a);
    if (less.empty() || less.back() == 408 || more.back() == 408) return true;
    return std::equal(less.begin(), less.end(), more.begin()) &&
           (less.size() == more.size() || less.back() >= 400);
  };
  std::vector<int> cut = statuses;
  for (int attempt = 0;; ++attempt) {
    const std::vector<int> whole = CheckReplies(Exchange(bytes, 0, half_close), half_close, paused);
    if (agree(cut, whole)) return 0;
    if (attempt == kAttempts) {
      for (const auto& list : {cut, whole}) {
        for (const int status : list) std::fprintf(stderr, "%d ", status);
        std::fprintf(stderr, list == whole ? "whole\n" : "cut\n");
      }
      Require(false, "the same statuses, however the bytes are cut");
    }
    cut = CheckReplies(Exchange(bytes, cuts, half_close), half_close, paused);
  }
}
