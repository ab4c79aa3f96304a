#include "server/multimodal/video/media_nursery.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>

#include "base/strings.h"
#include "server/multimodal/video/media_process.h"
#include "server/multimodal/video/protocol.h"

namespace fd {
namespace {

constexpr int kAnswerSeconds = 30;

Status StartFailed(const char* what, int error) {
  return Unavailable(StrCat("the video decoder cannot be started now: ", what, ": ", std::strerror(error)));
}

struct Nursery {
  pid_t pid = -1;
  int socket = -1;
};

// Nurseries by program. They live as long as this process, and end when its end closes their socket.
struct Nurseries {
  std::mutex mutex;
  std::map<std::string, Nursery> by_program;
};
Nurseries& All() {
  static auto* nurseries = new Nurseries;  // never destroyed: threads may still use it at exit
  return *nurseries;
}

Status StartNursery(const std::string& program, Nursery* nursery) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    return StartFailed("socketpair", errno);
  // Above 2, as SpawnMedia wants them.
  const int theirs = fcntl(ends[1], F_DUPFD_CLOEXEC, 3);
  const int ours = fcntl(ends[0], F_DUPFD_CLOEXEC, 3);
  const int null = fcntl(theirs, F_DUPFD_CLOEXEC, 3);  // its stdout: nothing is written there
  close(ends[0]);
  close(ends[1]);
  Status status;
  if (theirs < 0 || ours < 0 || null < 0) {
    status = StartFailed("fcntl", errno);
  } else if (StatusOr<pid_t> pid = SpawnMedia(program, theirs, null, {std::string(kMediaNurseryArgument)});
             pid.ok()) {
    nursery->pid = *pid;
    nursery->socket = ours;
    timeval limit = {kAnswerSeconds, 0};
    setsockopt(ours, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  } else {
    status = pid.status();
  }
  for (int fd : {theirs, null, status.ok() ? -1 : ours}) {
    if (fd >= 0) close(fd);
  }
  return status;
}

// The reason why it ended, where it has one to tell.
Status EndNursery(Nursery* nursery) {
  close(nursery->socket);
  MediaExit exit = ReapMedia(nursery->pid, 1000);
  *nursery = Nursery{};
  return exit.exited && exit.exit_code != 0 ? MediaExitStatus(exit) : OkStatus();
}

// The fork's process id, or -1 with errno.
pid_t Ask(const Nursery& nursery, int stdin_fd, int stdout_fd, const std::vector<std::string>& arguments) {
  std::string text = Join(arguments, "\n");
  iovec piece = {text.data(), text.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(2 * sizeof(int));
  const int fds[2] = {stdin_fd, stdout_fd};
  std::memcpy(CMSG_DATA(header), fds, sizeof(fds));
  ssize_t done;
  do {
    done = sendmsg(nursery.socket, &message, MSG_NOSIGNAL);
  } while (done < 0 && errno == EINTR);
  if (done < 0) return -1;
  int32_t answer = 0;
  do {
    done = recv(nursery.socket, &answer, sizeof(answer), 0);
  } while (done < 0 && errno == EINTR);
  if (done == sizeof(answer) && answer > 0) return answer;
  if (done >= 0) errno = done == sizeof(answer) ? -answer : ECONNRESET;
  return -1;
}

}  // namespace

StatusOr<pid_t> SpawnMedia(const std::string& program, int stdin_fd, int stdout_fd,
                           const std::vector<std::string>& arguments) {
  std::string name = "fastdeploy-media";
  std::vector<std::string> copies = arguments;
  std::vector<char*> argv = {name.data()};
  for (std::string& argument : copies) argv.push_back(argument.data());
  argv.push_back(nullptr);
  char* environment[] = {nullptr};
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_adddup2(&actions, stdin_fd, 0);
  posix_spawn_file_actions_adddup2(&actions, stdout_fd, 1);
  // What libraries print is nobody's to read: it may hold addresses and the file's bytes. Reports of
  // sanitizers are.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
#endif
  posix_spawn_file_actions_addclosefrom_np(&actions, 3);
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  // A group of its own: Ctrl-C on the terminal is for the server, which may still finish its requests.
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  pid_t pid = -1;
  const int error = posix_spawn(&pid, program.c_str(), &actions, &attributes, argv.data(), environment);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error == ENOENT || error == EACCES || error == ENOEXEC)
    return MissingMedia("fastdeploy-media cannot be started");
  if (error != 0) return StartFailed("posix_spawn", error);
  return pid;
}

StatusOr<pid_t> ForkMedia(const std::string& program, int stdin_fd, int stdout_fd,
                          const std::vector<std::string>& arguments) {
  Nurseries& all = All();
  const std::lock_guard<std::mutex> lock(all.mutex);
  Nursery& nursery = all.by_program[program];
  for (int attempt = 0; attempt < 2; ++attempt) {
    if (nursery.pid < 0) FD_RETURN_IF_ERROR(StartNursery(program, &nursery));
    const pid_t pid = Ask(nursery, stdin_fd, stdout_fd, arguments);
    if (pid > 0) return pid;
    const int error = errno;
    if (error == EAGAIN || error == ENOMEM || error == EMFILE) {
      if (error == EAGAIN) (void)EndNursery(&nursery);  // also what a silent one looks like
      return StartFailed("fork", error);
    }
    FD_RETURN_IF_ERROR(EndNursery(&nursery));
  }
  return StartFailed("its waiting program ended twice", ECONNRESET);
}

void EndMediaNurseries() {
  Nurseries& all = All();
  const std::lock_guard<std::mutex> lock(all.mutex);
  for (auto& [program, nursery] : all.by_program) {
    if (nursery.pid > 0) (void)EndNursery(&nursery);
  }
}

}  // namespace fd
