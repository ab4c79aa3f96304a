// A device that can no longer be used: thrown by FD_CUDA_CHECK and caught once, by the executor
// (engine/executor), which hands it on as a status. After it every call to the device fails.
#pragma once

#include <stdexcept>

namespace fd {

class DeviceError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace fd
