// fastdeploy-media: a video on descriptor 0 -> its sampled frames on descriptor 1
// (server/multimodal/video/protocol.h). fastdeploy starts it for each video and trusts nothing it says.
extern "C" {
#include <libavutil/log.h>
}
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include "base/strings.h"
#include "media/nursery.h"
#include "media/output.h"
#include "media/sandbox.h"
#include "media/video.h"
#include "server/multimodal/video/protocol.h"

namespace {

int Usage() {
  std::fputs(
      "fastdeploy-media decodes videos for fastdeploy, which starts it; it is not used by hand.\n"
      "Keep it beside fastdeploy, or in PATH.\n",
      stderr);
  return 2;
}

fd::Status Decode(const fd::VideoJob& options) {
  struct stat file = {};
  if (fstat(STDIN_FILENO, &file) != 0 || !S_ISREG(file.st_mode) || file.st_size <= 0) {
    return fd::InvalidArgument("the video is empty: 0 bytes");
  }
  const auto size = static_cast<size_t>(file.st_size);
  void* bytes = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, STDIN_FILENO, 0);
  if (bytes == MAP_FAILED)
    return fd::InvalidArgument("the video's file needs more memory than --video-memory allows");
  fd::SandboxLimits limits;
  limits.memory_bytes = options.memory_bytes;
  // All cores may be busy for the whole time that the server waits.
  limits.cpu_seconds =
      static_cast<int64_t>(std::ceil(options.timeout_s)) * std::max(1l, sysconf(_SC_NPROCESSORS_ONLN)) + 1;
  FD_RETURN_IF_ERROR(fd::EnterSandbox(limits));
  try {
    return fd::SendVideo({static_cast<const char*>(bytes), size}, options);
  } catch (const std::exception&) {  // bad_alloc, length_error
    return fd::InvalidArgument(fd::StrCat("decoding the video needs more memory than ", options.memory_bytes,
                                          " bytes (--video-memory)"));
  }
}

// Where memory is short, a video is lost and not the server. To be likelier to be killed is everybody's
// right.
void OfferOneself() {
  const int file = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (file < 0) return;
  [[maybe_unused]] const ssize_t written = write(file, "900", 3);
  close(file);
}

}  // namespace

int main(int argc, char** argv) {
  mallopt(M_ARENA_MAX, 2);  // an arena takes 64 MiB of address space
  av_log_set_level(AV_LOG_QUIET);
  OfferOneself();
  std::vector<std::string> arguments(argv + std::min(argc, 1), argv + argc);
  if (arguments.size() == 1 && arguments[0] == fd::kMediaNurseryArgument) {
    arguments = fd::WaitForVideo();
  } else {
    // The server's thread that waits for this process takes it along when it dies. A fork of the nursery has
    // another thread's life to follow, and goes by its broken pipe and its limit of processor time.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
  }
  const auto options = fd::ParseMediaArguments({arguments.begin(), arguments.end()});
  if (!options) return Usage();
  if (fd::Status status = Decode(*options); !status.ok()) {
    fd::SendError(status);
  } else {
    fd::SendEnd();
  }
  _exit(0);  // destructors of a hundred libraries are not waited for
}
