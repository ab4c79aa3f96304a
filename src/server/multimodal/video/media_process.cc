#include "server/multimodal/video/media_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/strings.h"
#include "server/multimodal/video/media_nursery.h"

namespace fd {
namespace {

constexpr const char* kName = "fastdeploy-media";
constexpr const char* kInstall =
    "install FFmpeg's libraries (Debian 12: apt-get install libavformat59 libavcodec59 libswscale6 "
    "libseccomp2), or build "
    "fastdeploy where libavformat-dev, libavcodec-dev, libavutil-dev, libswscale-dev and libseccomp-dev are "
    "installed";
constexpr int kPipeBytes = 1 << 20;

bool IsExecutable(const std::string& path) { return access(path.c_str(), X_OK) == 0; }

Status SealedCopy(std::string_view file, Descriptor* out) {
  out->Reset(memfd_create("video", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!out->ok()) return MediaStartFailed("memfd_create", errno);
  while (!file.empty()) {
    const ssize_t written = write(out->get(), file.data(), file.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return MediaStartFailed("copying the video", written < 0 ? errno : ENOSPC);
    file.remove_prefix(static_cast<size_t>(written));
  }
  lseek(out->get(), 0, SEEK_SET);
  if (fcntl(out->get(), F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE) != 0) {
    return MediaStartFailed("sealing the video", errno);
  }
  return OkStatus();
}

}  // namespace

Status MediaStartFailed(std::string_view what, int error) {
  return Unavailable(StrCat("the video decoder cannot be started now: ", what, ": ", std::strerror(error)));
}

Status MoveAboveStandard(Descriptor* fd) {
  if (fd->get() > 2) return OkStatus();
  Descriptor moved(fcntl(fd->get(), F_DUPFD_CLOEXEC, 3));
  if (!moved.ok()) return MediaStartFailed("fcntl", errno);
  *fd = std::move(moved);
  return OkStatus();
}

Status MissingMedia(std::string_view why) {
  return Unimplemented(StrCat("this server cannot read videos: ", why, "; ", kInstall));
}

StatusOr<std::string> FindMediaProgram(const std::string& program) {
  if (!program.empty()) {
    if (IsExecutable(program)) return program;
    return MissingMedia("the program that was named for decoding them is not there or not executable");
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
  return MissingMedia("fastdeploy-media is neither beside fastdeploy nor in PATH");
}

Status MediaExitStatus(const MediaExit& exit) {
  if (exit.exited && exit.exit_code == 127)
    return MissingMedia("fastdeploy-media cannot be loaded, a shared library is missing");
  if (exit.exited && exit.exit_code == 2)
    return MissingMedia("fastdeploy-media is of another version than fastdeploy");
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

Status MediaProcess::Start(const std::string& program, bool keep_loaded, std::string_view file,
                           const std::vector<std::string>& arguments, Clock::time_point deadline) {
  Descriptor video;
  FD_RETURN_IF_ERROR(SealedCopy(file, &video));
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return MediaStartFailed("pipe2", errno);
  Descriptor read_end(ends[0]), write_end(ends[1]);
  for (Descriptor* fd : {&video, &read_end, &write_end}) FD_RETURN_IF_ERROR(MoveAboveStandard(fd));
  fcntl(read_end.get(), F_SETPIPE_SZ, kPipeBytes);  // fewer switches; a refusal costs only time
  fcntl(read_end.get(), F_SETFL, O_NONBLOCK);
  FD_ASSIGN_OR_RETURN(pid_, keep_loaded
                                ? ForkMedia(program, video.get(), write_end.get(), arguments, deadline)
                                : SpawnMedia(program, video.get(), write_end.get(), arguments));
  output_ = std::move(read_end);
  return OkStatus();
}

MediaExit ReapMedia(pid_t pid, int grace_ms) {
  MediaExit exit;
  int status = 0;
  pid_t collected = 0;
  for (int waited_ms = 0; waited_ms < grace_ms; ++waited_ms) {
    collected = waitpid(pid, &status, WNOHANG);
    if (collected != 0) break;
    usleep(1000);
  }
  if (collected == 0) {
    kill(pid, SIGKILL);
    do {
      collected = waitpid(pid, &status, 0);
    } while (collected < 0 && errno == EINTR);
  }
  if (collected == pid) {  // else SIGCHLD is ignored and the kernel has collected it
    exit.exited = WIFEXITED(status);
    exit.exit_code = exit.exited ? WEXITSTATUS(status) : 0;
    exit.signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  }
  return exit;
}

MediaExit MediaProcess::End(int grace_ms) {
  output_.Reset();
  return pid_ < 0 ? MediaExit{} : ReapMedia(std::exchange(pid_, -1), grace_ms);
}

}  // namespace fd
