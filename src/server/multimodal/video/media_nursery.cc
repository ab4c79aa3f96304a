#include "server/multimodal/video/media_nursery.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <map>
#include <mutex>

#include "base/descriptor.h"
#include "base/strings.h"
#include "server/multimodal/video/media_process.h"
#include "server/multimodal/video/protocol.h"

namespace fd {
namespace {

// A fork takes a few milliseconds; on a machine that is short of memory, seconds.
constexpr std::chrono::seconds kAnswerTime{30};

struct Nursery {
  pid_t pid = -1;
  Descriptor socket;
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
    return MediaStartFailed("socketpair", errno);
  Descriptor ours(ends[0]), theirs(ends[1]);
  FD_RETURN_IF_ERROR(MoveAboveStandard(&theirs));
  // It is its stdout too, where nothing is written.
  FD_ASSIGN_OR_RETURN(nursery->pid,
                      SpawnMedia(program, theirs.get(), theirs.get(), {std::string(kMediaNurseryArgument)}));
  nursery->socket = std::move(ours);
  return OkStatus();
}

// The reason why it ended, where it has one to tell.
Status EndNursery(Nursery* nursery) {
  shutdown(nursery->socket.get(), SHUT_WR);  // the end of its work
  const MediaExit exit = ReapMedia(nursery->pid, 1000);
  // An answer that came too late tells of a fork that nobody else would reap.
  int32_t late = 0;
  if (recv(nursery->socket.get(), &late, sizeof(late), MSG_DONTWAIT) == sizeof(late) && late > 0) {
    ReapMedia(late, 1);
  }
  *nursery = Nursery{};
  return exit.exited && exit.exit_code != 0 ? MediaExitStatus(exit) : OkStatus();
}

// Whether there is something to be read from it, or it has closed its end, before the deadline.
bool Answers(const Nursery& nursery, Clock::time_point deadline) {
  while (true) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd wait = {nursery.socket.get(), POLLIN, 0};
    const int ready = poll(&wait, 1, static_cast<int>(std::clamp<int64_t>(left, 0, INT_MAX)));
    if (ready > 0) return true;
    if (ready == 0 && left <= 0) return false;
  }
}

// The fork's process id, or -1 with errno; ETIMEDOUT: no answer by the deadline.
pid_t Ask(const Nursery& nursery, int stdin_fd, int stdout_fd, const std::vector<std::string>& arguments,
          Clock::time_point deadline) {
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
    done = sendmsg(nursery.socket.get(), &message, MSG_NOSIGNAL);
  } while (done < 0 && errno == EINTR);
  if (done < 0) return -1;
  if (!Answers(nursery, deadline)) {
    errno = ETIMEDOUT;
    return -1;
  }
  int32_t answer = 0;
  do {
    done = recv(nursery.socket.get(), &answer, sizeof(answer), 0);
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
  if (error != 0) return MediaStartFailed("posix_spawn", error);
  return pid;
}

StatusOr<pid_t> ForkMedia(const std::string& program, int stdin_fd, int stdout_fd,
                          const std::vector<std::string>& arguments, Clock::time_point deadline) {
  Nurseries& all = All();
  const std::lock_guard<std::mutex> lock(all.mutex);
  deadline = std::min(deadline, Clock::now() + kAnswerTime);
  Nursery& nursery = all.by_program[program];
  for (int attempt = 0; attempt < 2; ++attempt) {
    if (nursery.pid < 0) FD_RETURN_IF_ERROR(StartNursery(program, &nursery));
    const pid_t pid = Ask(nursery, stdin_fd, stdout_fd, arguments, deadline);
    if (pid > 0) return pid;
    const int error = errno;
    if (error == EAGAIN || error == ENOMEM || error == EMFILE) return MediaStartFailed("fork", error);
    FD_RETURN_IF_ERROR(EndNursery(&nursery));
    if (error == ETIMEDOUT) break;
  }
  return Clock::now() < deadline ? MediaStartFailed("its waiting program ended twice", ECONNRESET)
                                 : MediaStartFailed("its waiting program", ETIMEDOUT);
}

void EndMediaNurseries() {
  Nurseries& all = All();
  const std::lock_guard<std::mutex> lock(all.mutex);
  for (auto& [program, nursery] : all.by_program) {
    if (nursery.pid > 0) (void)EndNursery(&nursery);
  }
}

}  // namespace fd
