// One run of fastdeploy-media: started with three descriptors and no environment, ended and reaped always.
// Owner and thread: one call of ReadVideo.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/descriptor.h"
#include "base/status.h"

namespace fd {

// `program` if it is not empty; else fastdeploy-media beside this program, else in PATH; else an error that
// says what to install.
StatusOr<std::string> FindMediaProgram(const std::string& program);

// Ways a program ends that are not its own word.
struct MediaExit {
  bool exited = false;
  int exit_code = 0;
  int signal = 0;
};
// Collects the process, after a grace_ms in which it may end by itself; what still runs then is killed.
MediaExit ReapMedia(pid_t pid, int grace_ms);
// It cannot be started now, where `what` failed with errno `error`; later it may.
Status MediaStartFailed(std::string_view what, int error);
// A copy above 2 in its place, so that moving descriptors onto 0 to 2 in the child overwrites none of them.
Status MoveAboveStandard(Descriptor* fd);
// Videos cannot be read on this machine: the reason, and what to install.
Status MissingMedia(std::string_view why);
// For an end before the last message: a signal, a missing shared library, or none of both.
Status MediaExitStatus(const MediaExit& exit);

class MediaProcess {
 public:
  MediaProcess() = default;
  ~MediaProcess();  // kills and reaps
  MediaProcess(const MediaProcess&) = delete;
  MediaProcess& operator=(const MediaProcess&) = delete;

  // The file is copied once, into sealed memory without a name. keep_loaded: a fork of the program that waits
  // (media_nursery.h), else the program started anew.
  Status Start(const std::string& program, bool keep_loaded, std::string_view file,
               const std::vector<std::string>& arguments, Clock::time_point deadline);
  // The end of its messages, not blocking; owned by this object.
  int output() const { return output_.get(); }
  // As ReapMedia: once its output is closed, its own status is about to come.
  MediaExit End(int grace_ms);

 private:
  pid_t pid_ = -1;
  Descriptor output_;
};

}  // namespace fd
