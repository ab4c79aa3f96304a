#include "stop_signal.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <utility>

#include "base/check.h"

namespace fd {
namespace {

std::atomic<int> g_signals{0};
std::atomic<bool> g_armed{false};
std::atomic<bool> g_terminated{false};
std::atomic<bool> g_hung_up{false};
std::atomic<int> g_write_fd{-1};
int g_read_fd = -1;

void OnSignal(int number) {
  int saved_errno = errno;
  if (!g_armed.load() || g_signals.fetch_add(1) > 0) _exit(128 + number);
  if (number == SIGTERM) g_terminated = true;
  char byte = 1;
  [[maybe_unused]] ssize_t written = write(g_write_fd.load(), &byte, 1);
  errno = saved_errno;
}

void OnHangupSignal(int) {
  const int saved_errno = errno;
  g_hung_up = true;
  const char byte = 2;
  [[maybe_unused]] const ssize_t written = write(g_write_fd.load(), &byte, 1);
  errno = saved_errno;
}

}  // namespace

StopSignal::StopSignal() {
  int fds[2];
  FD_CHECK(g_read_fd == -1, "one StopSignal in a process");
  FD_CHECK(pipe2(fds, O_CLOEXEC | O_NONBLOCK) == 0, "pipe2");
  g_read_fd = fds[0];
  g_write_fd = fds[1];
  struct sigaction action{};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

StopSignal::~StopSignal() { g_armed = false; }

void StopSignal::OnHangup(std::function<void()> hangup) {
  if (isatty(STDERR_FILENO) == 1) return;
  hangup_ = std::move(hangup);
  struct sigaction action{};
  action.sa_handler = OnHangupSignal;
  action.sa_flags = SA_RESTART;
  sigaction(SIGHUP, &action, nullptr);
}

void StopSignal::Arm() { g_armed = true; }

void StopSignal::Disarm() {
  g_armed = false;
  g_signals = 0;
  g_terminated = false;
  char bytes[16];
  while (read(g_read_fd, bytes, sizeof(bytes)) > 0) {
  }
}

bool StopSignal::terminated() const { return g_terminated.load(); }

bool StopSignal::requested() const { return g_signals.load() > 0; }

void StopSignal::Request() {
  g_signals.fetch_add(1);
  const char byte = 1;
  [[maybe_unused]] ssize_t written = write(g_write_fd.load(), &byte, 1);
}

bool StopSignal::Wait(int timeout_ms) {
  while (!requested()) {
    pollfd entry{g_read_fd, POLLIN, 0};
    int ready = poll(&entry, 1, timeout_ms);
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return requested();
    char bytes[16];  // what they say has been counted
    [[maybe_unused]] const ssize_t n = read(g_read_fd, bytes, sizeof(bytes));
    if (g_hung_up.exchange(false) && hangup_) hangup_();
  }
  return true;
}

}  // namespace fd
