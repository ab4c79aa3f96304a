#include "server/multimodal/video/media_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/strings.h"

namespace fd {
namespace {

constexpr const char* kName = "fastdeploy-media";
constexpr const char* kInstall =
    "install FFmpeg's libraries (Debian 12: apt-get install libavformat59 libavcodec59 libswscale6 "
    "libseccomp2), or build "
    "fastdeploy where libavformat-dev, libavcodec-dev, libavutil-dev, libswscale-dev and libseccomp-dev are "
    "installed";
constexpr int kPipeBytes = 1 << 20;

struct Fd {
  int value = -1;
  Fd() = default;
  explicit Fd(int fd) : value(fd) {}
  ~Fd() {
    if (value >= 0) close(value);
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  int release() { return std::exchange(value, -1); }
};

Status Missing(std::string_view why) {
  return Unimplemented(StrCat("this server cannot read videos: ", why, "; ", kInstall));
}

bool IsExecutable(const std::string& path) { return access(path.c_str(), X_OK) == 0; }

Status StartFailed(const char* what, int error) {
  return Unavailable(StrCat("the video decoder cannot be started now: ", what, ": ", std::strerror(error)));
}

// A copy above 2, so that moving descriptors onto 0 to 2 in the child overwrites none of them.
Status MoveUp(Fd* fd) {
  if (fd->value > 2) return OkStatus();
  const int moved = fcntl(fd->value, F_DUPFD_CLOEXEC, 3);
  if (moved < 0) return StartFailed("fcntl", errno);
  close(fd->release());
  fd->value = moved;
  return OkStatus();
}

Status SealedCopy(std::string_view file, Fd* out) {
  out->value = memfd_create("video", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (out->value < 0) return StartFailed("memfd_create", errno);
  while (!file.empty()) {
    const ssize_t written = write(out->value, file.data(), file.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return StartFailed("copying the video", written < 0 ? errno : ENOSPC);
    file.remove_prefix(static_cast<size_t>(written));
  }
  lseek(out->value, 0, SEEK_SET);
  if (fcntl(out->value, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) != 0) {
    return StartFailed("sealing the video", errno);
  }
  return OkStatus();
}

}  // namespace

StatusOr<std::string> FindMediaProgram(const std::string& program) {
  if (!program.empty()) {
    if (IsExecutable(program)) return program;
    return Missing("the program that was named for decoding them is not there or not executable");
  }
  char self[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", self, sizeof(self));
  if (length > 0 && static_cast<size_t>(length) < sizeof(self)) {
    const std::string_view path(self, static_cast<size_t>(length));
    const std::string beside = StrCat(path.substr(0, path.rfind('/') + 1), kName);
    if (IsExecutable(beside)) return beside;
  }
  const char* path = std::getenv("PATH");
  for (const std::string& folder : Split(path != nullptr ? path : "", ':')) {
    // A relative entry would depend on the working directory.
    if (folder.empty() || folder[0] != '/') continue;
    const std::string candidate = StrCat(folder, "/", kName);
    if (IsExecutable(candidate)) return candidate;
  }
  return Missing("fastdeploy-media is neither beside fastdeploy nor in PATH");
}

Status MediaExitStatus(const MediaExit& exit) {
  if (exit.exited && exit.exit_code == 127)
    return Missing("fastdeploy-media cannot be loaded, a shared library is missing");
  if (exit.exited && exit.exit_code == 2)
    return Missing("fastdeploy-media is of another version than fastdeploy");
  if (exit.exited) {
    return InvalidArgument(
        StrCat("the video cannot be decoded: the decoder stopped early (code ", exit.exit_code, ")"));
  }
  std::string_view why = "a damaged or hostile file, or the machine is short of memory";
  if (exit.signal == SIGSYS) why = "it made a call that its sandbox forbids";
  if (exit.signal == SIGXCPU) why = "it used all of its processor time";
  return InvalidArgument(StrCat("the video cannot be decoded: the video decoder was ended by signal ",
                                exit.signal, " (", why, ")"));
}

MediaProcess::~MediaProcess() { End(0); }

Status MediaProcess::Start(const std::string& program, std::string_view file,
                           const std::vector<std::string>& arguments) {
  Fd video, read_end, write_end, null;
  FD_RETURN_IF_ERROR(SealedCopy(file, &video));
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return StartFailed("pipe2", errno);
  read_end.value = ends[0];
  write_end.value = ends[1];
  null.value = open("/dev/null", O_WRONLY | O_CLOEXEC);
  if (null.value < 0) return StartFailed("/dev/null", errno);
  for (Fd* fd : {&video, &read_end, &write_end, &null}) FD_RETURN_IF_ERROR(MoveUp(fd));
  fcntl(read_end.value, F_SETPIPE_SZ, kPipeBytes);  // fewer switches; a refusal costs only time
  fcntl(read_end.value, F_SETFL, O_NONBLOCK);

  std::vector<char*> argv = {const_cast<char*>(kName)};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  char* environment[] = {nullptr};
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_init(&actions);
  posix_spawnattr_init(&attributes);
  posix_spawn_file_actions_adddup2(&actions, video.value, 0);
  posix_spawn_file_actions_adddup2(&actions, write_end.value, 1);
  // What libraries print is nobody's to read: it may hold addresses and the file's bytes. Reports of
  // sanitizers are.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  posix_spawn_file_actions_adddup2(&actions, null.value, 2);
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
  const int error = posix_spawn(&pid_, program.c_str(), &actions, &attributes, argv.data(), environment);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) {
    pid_ = -1;
    if (error == ENOENT || error == EACCES || error == ENOEXEC)
      return Missing("fastdeploy-media cannot be started");
    return StartFailed("posix_spawn", error);
  }
  output_ = read_end.release();
  return OkStatus();
}

MediaExit MediaProcess::End(int grace_ms) {
  MediaExit exit;
  if (output_ >= 0) close(std::exchange(output_, -1));
  if (pid_ < 0) return exit;
  int status = 0;
  pid_t collected = 0;
  for (int waited_ms = 0; waited_ms < grace_ms; ++waited_ms) {
    collected = waitpid(pid_, &status, WNOHANG);
    if (collected != 0) break;
    usleep(1000);
  }
  if (collected == 0) {
    kill(pid_, SIGKILL);
    do {
      collected = waitpid(pid_, &status, 0);
    } while (collected < 0 && errno == EINTR);
  }
  if (collected == pid_) {  // else SIGCHLD is ignored and the kernel has collected it
    exit.exited = WIFEXITED(status);
    exit.exit_code = exit.exited ? WEXITSTATUS(status) : 0;
    exit.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  }
  pid_ = -1;
  return exit;
}

}  // namespace fd
