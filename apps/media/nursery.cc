#include "media/nursery.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "base/strings.h"
#include "server/multimodal/video/protocol.h"

namespace fd {
namespace {

constexpr int kOrphanMs = 500;  // below what the server waits for the nursery's end

struct Request {
  std::string text;
  int fds[2] = {-1, -1};
};

// False when the server has gone or speaks another protocol.
bool Receive(Request* request) {
  char text[kMaxMediaRequestBytes];
  iovec piece = {text, sizeof(text)};
  alignas(cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  ssize_t size;
  do {
    size = recvmsg(STDIN_FILENO, &message, MSG_CMSG_CLOEXEC);
  } while (size < 0 && errno == EINTR);
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (size <= 0 || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 || header == nullptr ||
      header->cmsg_type != SCM_RIGHTS || header->cmsg_len != CMSG_LEN(sizeof(request->fds))) {
    return false;
  }
  std::memcpy(request->fds, CMSG_DATA(header), sizeof(request->fds));
  request->text.assign(text, static_cast<size_t>(size));
  return true;
}

// The forks that run, each by a descriptor that never means another process.
class Forks {
 public:
  // As fork(); the caller's parent becomes the fork's.
  pid_t Fork() {
    Prune();
    int pidfd = -1;
    long pid = Clone(CLONE_PARENT | CLONE_PIDFD, &pidfd);
    if (pid < 0 && errno == EINVAL) pid = Clone(CLONE_PARENT, nullptr);  // before Linux 5.2
    if (pid > 0 && pidfd >= 0) pidfds_.push_back(pidfd);
    return static_cast<pid_t>(pid);
  }
  // A stopped fork, or one whose next frame is far, does not notice that nobody reads any more.
  void KillAll() const {
    for (int pidfd : pidfds_) syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, nullptr, 0);
  }

 private:
  static long Clone(unsigned long flags, int* pidfd) {
    return syscall(SYS_clone, flags | SIGCHLD, nullptr, pidfd, nullptr, nullptr);
  }
  void Prune() {
    std::erase_if(pidfds_, [](int pidfd) {
      pollfd ended = {pidfd, POLLIN, 0};
      if (poll(&ended, 1, 0) == 0) return false;
      close(pidfd);
      return true;
    });
  }
  std::vector<int> pidfds_;
};

// The socket closes before a dying process has lost its children; one that lives on only gave up this
// nursery, and its forks are its own.
bool HasDied(pid_t server) {
  for (int waited_ms = 0; waited_ms < kOrphanMs && getppid() == server; waited_ms += 10) usleep(10'000);
  return getppid() != server;
}

}  // namespace

std::vector<std::string> WaitForVideo() {
  const pid_t server = getppid();
  Forks forks;
  Request request;
  while (Receive(&request)) {
    // The fork is the server's child, not this process's: the server kills and reaps it as if it had started
    // it.
    const pid_t pid = forks.Fork();
    if (pid == 0) {
      // Received descriptors are above 2. The socket goes with descriptor 0.
      dup2(request.fds[0], STDIN_FILENO);
      dup2(request.fds[1], STDOUT_FILENO);
      return Split(request.text, '\n');
    }
    const auto answer = static_cast<int32_t>(pid > 0 ? pid : -errno);
    close(request.fds[0]);
    close(request.fds[1]);
    if (send(STDIN_FILENO, &answer, sizeof(answer), MSG_NOSIGNAL) != sizeof(answer)) break;
  }
  if (HasDied(server)) forks.KillAll();
  _exit(0);
}

}  // namespace fd
