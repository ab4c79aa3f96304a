// --device: which device computes.
#pragma once

#include <string>

#include "base/status.h"
#include "compute/tensor/dtype.h"

namespace fd {

// "auto": the first CUDA device where this build has CUDA kernels and the machine has one, else the CPU;
// "cpu"; "cuda" or "cuda:N". An error says what is missing.
StatusOr<Device> ParseDevice(const std::string& text);

// "CPU" or "cuda:0, NVIDIA H100 80GB HBM3".
std::string DescribeDevice(Device device);

}  // namespace fd
