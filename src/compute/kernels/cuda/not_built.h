// For the *_stub.cc files of a build without CUDA: no device is ever found there, so nothing reaches them.
#pragma once

#include "base/check.h"

namespace fd::cuda {

[[noreturn]] inline void NotBuilt(const char* function) {
  CheckFailed(__FILE__, __LINE__, function, "this build has no CUDA kernels (-DFASTDEPLOY_CUDA=ON)");
}

}  // namespace fd::cuda
