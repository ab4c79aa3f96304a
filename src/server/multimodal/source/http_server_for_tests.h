// A small HTTP server of hostile habits. Each connection is handed to a function on the server's thread.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/strings.h"

namespace fd {

class Connection {
 public:
  Connection(int fd, std::stop_token stop) : fd_(fd), stop_(std::move(stop)) {}
  // false: the other side is gone or the test ends.
  bool Send(std::string_view bytes) {
    while (!bytes.empty() && !stop_.stop_requested()) {
      pollfd ready{fd_, POLLOUT, 0};
      if (poll(&ready, 1, 20) <= 0) continue;
      ssize_t sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return bytes.empty();
  }
  bool Sleep(int ms) {
    for (int i = 0; i < ms && !stop_.stop_requested(); i += 10) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      pollfd gone{fd_, POLLIN, 0};
      char c;
      if (poll(&gone, 1, 0) > 0 && recv(fd_, &c, 1, MSG_DONTWAIT) == 0) return false;
    }
    return !stop_.stop_requested();
  }
  // Ends with a reset instead of a close.
  void Reset() {
    linger hard{1, 0};
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
  }
  void Answer(std::string_view status, std::string_view headers, std::string_view body) {
    Send(StrCat("HTTP/1.1 ", status, "\r\nContent-Length: ", body.size(), "\r\n", headers, "\r\n", body));
  }

 private:
  int fd_;
  std::stop_token stop_;
};

class HttpServerForTests {
 public:
  using Handler = std::function<void(Connection&, const std::string& path)>;

  explicit HttpServerForTests(Handler handler, const char* address = "127.0.0.1")
      : handler_(std::move(handler)) {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in where{};
    where.sin_family = AF_INET;
    inet_pton(AF_INET, address, &where.sin_addr);
    socklen_t size = sizeof(where);
    if (bind(listener_, reinterpret_cast<sockaddr*>(&where), size) != 0 || listen(listener_, 64) != 0)
      std::abort();
    getsockname(listener_, reinterpret_cast<sockaddr*>(&where), &size);
    port_ = ntohs(where.sin_port);
    host_ = address;
    thread_ = std::jthread([this](std::stop_token stop) { Serve(stop); });
  }
  ~HttpServerForTests() {
    thread_.request_stop();
    thread_.join();
    close(listener_);
  }
  int port() const { return port_; }
  int connections() const { return connections_; }
  std::string endpoint() const { return StrCat(host_, ":", port_); }
  std::string url(std::string_view path = "/") const { return StrCat("http://", host_, ":", port_, path); }
  // Request line and headers of each connection.
  std::vector<std::string> requests() {
    std::lock_guard lock(mutex_);
    return requests_;
  }

 private:
  void Serve(std::stop_token stop) {
    while (!stop.stop_requested()) {
      pollfd ready{listener_, POLLIN, 0};
      if (poll(&ready, 1, 10) <= 0) continue;
      int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
      if (fd < 0) continue;
      ++connections_;
      std::string request;
      char buffer[4096];
      while (request.find("\r\n\r\n") == std::string::npos && !stop.stop_requested()) {
        pollfd readable{fd, POLLIN, 0};
        if (poll(&readable, 1, 10) <= 0) continue;
        ssize_t got = recv(fd, buffer, sizeof(buffer), 0);
        if (got <= 0) break;
        request.append(buffer, static_cast<size_t>(got));
      }
      {
        std::lock_guard lock(mutex_);
        requests_.push_back(request);
      }
      const size_t begin = request.find(' ');
      const size_t end = begin == std::string::npos ? begin : request.find(' ', begin + 1);
      if (end != std::string::npos) {
        Connection connection(fd, stop);
        handler_(connection, request.substr(begin + 1, end - begin - 1));
      }
      close(fd);
    }
  }

  Handler handler_;
  int listener_ = -1;
  int port_ = 0;
  std::string host_;
  std::atomic<int> connections_{0};
  std::mutex mutex_;
  std::vector<std::string> requests_;
  std::jthread thread_;
};

}  // namespace fd
