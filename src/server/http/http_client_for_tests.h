// A client over a raw socket and a server with a scripted engine, for the tests of this folder.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <string_view>

#include "base/json.h"
#include "base/strings.h"
#include "server/http/http_server.h"
#include "server/openai/fakes_for_tests.h"

namespace fd {

using std::chrono::milliseconds;
inline constexpr int kPatienceMs = 10'000;

class Client {
 public:
  explicit Client(int port) {
    fd_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in a{};
    a.sin_family = AF_INET;
    a.sin_port = htons(static_cast<uint16_t>(port));
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&a), sizeof(a)) == 0;
  }
  ~Client() { Close(); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  bool connected() const { return connected_; }
  void Close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  bool Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }
  // Until `text` has arrived; false when the server closes or is silent for too long.
  bool ReadUntil(std::string_view text) {
    while (buffer_.find(text) == std::string::npos) {
      if (!Fill()) return false;
    }
    return true;
  }
  std::string ReadToEnd() {
    while (Fill()) {
    }
    return buffer_;
  }
  struct Response {
    int status = 0;
    std::string head;
    std::string body;
  };
  // One response with a Content-Length; what follows stays for the next call.
  Response Read(bool head_only = false) {
    if (!ReadUntil("\r\n\r\n")) return {};
    Response r;
    const size_t end = buffer_.find("\r\n\r\n") + 4;
    r.head = buffer_.substr(0, end);
    buffer_.erase(0, end);
    r.status = std::atoi(r.head.c_str() + 9);
    size_t length = 0;
    if (const size_t at = r.head.find("Content-Length: "); at != std::string::npos && !head_only) {
      length = static_cast<size_t>(std::atoll(r.head.c_str() + at + 16));
    }
    while (buffer_.size() < length) {
      if (!Fill()) return {};
    }
    r.body = buffer_.substr(0, length);
    buffer_.erase(0, length);
    return r;
  }
  std::string& buffer() { return buffer_; }
  int fd() const { return fd_; }

 private:
  bool Fill() {
    pollfd p{fd_, POLLIN, 0};
    if (::poll(&p, 1, kPatienceMs) != 1) return false;
    char chunk[16384];
    const ssize_t n = ::recv(fd_, chunk, sizeof(chunk), 0);
    if (n <= 0) return false;
    buffer_.append(chunk, static_cast<size_t>(n));
    return true;
  }
  int fd_ = -1;
  bool connected_ = false;
  std::string buffer_;
};

inline std::string Post(const std::string& path, const std::string& body, const std::string& headers = "") {
  return StrCat("POST ", path, " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n", headers,
                "Content-Length: ", body.size(), "\r\n\r\n", body);
}
inline std::string Get(const std::string& path, const std::string& headers = "",
                       const std::string& method = "GET") {
  return StrCat(method, " ", path, " HTTP/1.1\r\nHost: localhost\r\n", headers, "\r\n");
}
inline constexpr char kEndless[] = R"({"prompt":"ab","ignore_eos":true,"max_tokens":500})";
inline constexpr char kEndlessStream[] =
    R"({"prompt":"ab","ignore_eos":true,"max_tokens":500,"stream":true})";

class HttpTest : public ::testing::Test {
 protected:
  void Start(HttpOptions options = {}) {
    options.port = 0;
    auto server = HttpServer::Start(service_, options);
    ASSERT_TRUE(server.ok()) << server.status().message();
    server_ = std::move(server).value();
  }
  Client::Response Ask(const std::string& request) {
    Client client(server_->port());
    client.Send(request);
    return client.Read();
  }
  static std::string Code(const Client::Response& r) {
    auto json = ParseJson(r.body);
    const Json* error = json.ok() ? json->Find("error") : nullptr;
    const Json* code = error != nullptr ? error->Find("code") : nullptr;
    return code != nullptr && code->is_string() ? code->as_string() : "no error object: " + r.body;
  }
  ScriptedEngine engine_{"hello"};
  std::shared_ptr<Service> service_ = TestService(engine_);
  std::unique_ptr<HttpServer> server_;
};

}  // namespace fd
