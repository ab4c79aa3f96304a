// What fastdeploy-media gives up before it looks at the first byte of a video. One thread, once.
#pragma once

#include <cstdint>

#include "base/status.h"

namespace fd {

struct SandboxLimits {
  int64_t memory_bytes = 0;  // address space, mapped file included; not set in sanitizer builds
  int64_t cpu_seconds = 0;   // over all threads
};

// Afterwards the process has descriptors 0 to 2 alone and cannot open another; it can read and write them,
// take memory up to the limit, start threads (not processes) and end. Nothing can be undone. Files (open and
// the like) are refused with EPERM, because codec libraries look for the machine's properties and do without;
// what only an intruder would call (processes, programs, sockets, tracing, mounts, kernel modules) ends the
// process with SIGSYS, so that it is seen. Everything else is refused with EPERM, and clone3 with ENOSYS,
// upon which glibc uses clone, whose flags can be checked. kUnavailable where the kernel or a container's
// policy grants no filter: a video is not decoded without one.
Status EnterSandbox(const SandboxLimits& limits);

}  // namespace fd
