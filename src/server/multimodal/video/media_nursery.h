// A fastdeploy-media that has loaded its libraries and waits: FFmpeg is 135 shared libraries, whose loading
// takes longer than decoding a short video. It never sees a byte of a video; each video gets a fork of it,
// which enters the sandbox as a program started anew would, and which is a child of this process.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/clock.h"
#include "base/status.h"

namespace fd {

// Starts `program` with descriptors 0 to 2 alone, no environment and a process group of its own. stdin and
// stdout stay the caller's and must be above 2.
StatusOr<pid_t> SpawnMedia(const std::string& program, int stdin_fd, int stdout_fd,
                           const std::vector<std::string>& arguments);

// The same through the nursery of that program, which is started when there is none. Any thread; one fork at
// a time. A nursery that has ended is replaced once, one that has said nothing by the deadline is ended; it
// ends with this process.
StatusOr<pid_t> ForkMedia(const std::string& program, int stdin_fd, int stdout_fd,
                          const std::vector<std::string>& arguments, Clock::time_point deadline);

// Ends and collects all nurseries; the next ForkMedia starts one anew. Any thread. For whoever ends in order:
// a process that is killed leaves them to end by their closed socket.
void EndMediaNurseries();

}  // namespace fd
