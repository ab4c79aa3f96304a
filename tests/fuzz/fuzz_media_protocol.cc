// Any bytes from fastdeploy-media, in pieces of any size: an error, or frames within the limits, in order,
// and as many as announced. The first two bytes of the input choose the size of the pieces.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "server/multimodal/video/protocol.h"

namespace {
void Require(bool condition) {
  if (!condition) std::abort();
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  constexpr fd::MediaParser::Limits kLimits = {
      .max_frame_pixels = 4096, .max_side_pixels = 1024, .max_frames = 8};
  if (size < 2) return 0;
  const size_t step = 1 + (data[0] | data[1] << 8);
  data += 2;
  size -= 2;
  fd::VideoInfo info;
  int infos = 0;
  int64_t frames = 0, last_index = -1;
  fd::MediaParser parser(
      kLimits,
      [&](const fd::VideoInfo& seen) {
        info = seen;
        Require(++infos == 1);
        Require(info.width >= 1 && info.height >= 1 && info.width <= kLimits.max_side_pixels &&
                info.height <= kLimits.max_side_pixels &&
                info.width * info.height <= kLimits.max_frame_pixels);
        Require(info.num_frames >= 1 && info.num_frames <= kLimits.max_frames &&
                info.num_frames <= info.total_frames);
        Require(info.duration_s >= 0 && info.duration_s < 1e308 * 10);
        return fd::OkStatus();
      },
      [&](fd::VideoFrame&& frame) {
        Require(infos == 1 && ++frames <= info.num_frames);
        Require(frame.index > last_index && frame.index < info.total_frames);
        last_index = frame.index;
        Require(frame.image.width == info.width && frame.image.height == info.height);
        Require(static_cast<int64_t>(frame.image.pixels.size()) == info.width * info.height * 3);
        return fd::OkStatus();
      });
  while (size > 0 && !parser.finished()) {
    const std::span<uint8_t> space = parser.Space();
    Require(!space.empty() && space.size() <= static_cast<size_t>(kLimits.max_frame_pixels) * 3);
    const size_t count = std::min({size, step, space.size()});
    std::memcpy(space.data(), data, count);
    data += count;
    size -= count;
    const fd::Status status = parser.Filled(count);
    if (status.ok()) continue;
    Require(status.message().size() <= fd::kMaxMediaErrorBytes);
    for (char c : status.message()) Require(c >= ' ' && c <= '~');
    return 0;
  }
  if (parser.finished()) Require(infos == 1 && frames == info.num_frames);
  return 0;
}
