#include "media/output.h"

#include <unistd.h>

#include <cerrno>
#include <string_view>

#include "server/multimodal/video/protocol.h"

namespace fd {
namespace {

void WriteAll(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(STDOUT_FILENO, bytes.data(), bytes.size());
    if (written > 0) {
      bytes.remove_prefix(static_cast<size_t>(written));
    } else if (errno != EINTR) {
      _exit(1);
    }
  }
}

}  // namespace

void SendInfo(const VideoInfo& info) { WriteAll(EncodeMediaInfo(info)); }

void SendFrame(int64_t index, const RgbImage& image) {
  WriteAll(EncodeMediaFrame(index, image.width, image.height));
  WriteAll({reinterpret_cast<const char*>(image.pixels.data()), image.pixels.size()});
}

void SendError(const Status& status) {
  const auto fault = status.code() == StatusCode::kUnavailable ? MediaFault::kMachine : MediaFault::kVideo;
  WriteAll(EncodeMediaError(fault, status.message()));
}

void SendEnd() { WriteAll(EncodeMediaEnd()); }

}  // namespace fd
