// A decoded frame -> RGB as it is shown. One thread; owns a swscale context and a scratch picture.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "server/multimodal/image.h"

struct AVFrame;
struct SwsContext;

namespace fd {

// The EXIF orientation (1 to 8) that a container's display matrix of nine 16.16 numbers stands for, to the
// nearest right angle.
int OrientationOfMatrix(const int32_t* matrix);

class RgbConverter {
 public:
  RgbConverter() = default;
  ~RgbConverter();
  RgbConverter(const RgbConverter&) = delete;
  RgbConverter& operator=(const RgbConverter&) = delete;

  // 8 bits a channel from any format of the decoders. Matrix and range as the frame is flagged; BT.601 where
  // nothing is flagged, as OpenCV and decord do. Transparency is pasted on white. A frame of another size
  // than `size` (before turning) is scaled to it.
  StatusOr<RgbImage> Convert(const AVFrame& frame, ImageSize size, int orientation);

 private:
  Status Prepare(const AVFrame& frame, ImageSize size);

  SwsContext* context_ = nullptr;
  int format_ = -1, colorspace_ = -1;
  bool full_range_ = false;
  bool alpha_ = false;
  ImageSize from_, to_;
  std::vector<uint8_t> scratch_;
  int stride_ = 0;
};

}  // namespace fd
