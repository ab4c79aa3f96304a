#include "device_flag.h"

#include <charconv>

#include "base/strings.h"
#include "compute/kernels/cuda/device.h"

namespace fd {

StatusOr<Device> ParseDevice(const std::string& text) {
  if (text == "cpu") return Device{};
  if (text == "auto") return cuda::DeviceCount() > 0 ? Device{DeviceType::kCuda, 0} : Device{};
  const auto wrong = [&](std::string why) {
    return InvalidArgument(StrCat("--device ", text, ": ", why), "--device");
  };
  int index = 0;
  if (text != "cuda") {
    const std::string_view prefix = "cuda:";
    const char* end = text.data() + text.size();
    const bool named = text.starts_with(prefix);
    const auto [stop, error] = std::from_chars(text.data() + (named ? prefix.size() : 0), end, index);
    if (!named || error != std::errc() || stop != end || index < 0) {
      return wrong("allowed are auto, cpu, cuda and cuda:N, for example --device cuda:0");
    }
  }
  if (!cuda::IsBuilt()) {
    return wrong("this program was built without CUDA kernels; build the preset cuda, or use --device cpu");
  }
  const int count = cuda::DeviceCount();
  if (count == 0)
    return wrong("no NVIDIA device or driver is found here (nvidia-smi lists them); use --device cpu");
  if (index >= count) {
    return wrong(StrCat("there ", count == 1 ? "is 1 device" : StrCat("are ", count, " devices"),
                        " here, counted from 0; the last is cuda:", count - 1));
  }
  return Device{DeviceType::kCuda, index};
}

std::string DescribeDevice(Device device) {
  if (device.type == DeviceType::kCpu) return "CPU";
  return StrCat("cuda:", device.index, ", ", cuda::GetDeviceInfo(device.index).name);
}

}  // namespace fd
