// A device that can no longer be used: thrown by FD_CUDA_CHECK. In a step the executor (engine/executor)
// catches it and hands it on as a status, elsewhere main ends the program. After it every call to the device
// fails.
#pragma once

#include <stdexcept>

namespace fd {

class DeviceError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace fd
