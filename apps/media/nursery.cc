#include "media/nursery.h"

#include <fcntl.h>
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

}  // namespace

std::vector<std::string> WaitForVideo() {
  Request request;
  while (Receive(&request)) {
    // The fork is the server's child, not this process's: the server kills and reaps it as if it had started
    // it.
    const long pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, nullptr, nullptr, nullptr, nullptr);
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
  _exit(0);
}

}  // namespace fd
