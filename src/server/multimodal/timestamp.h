// The time that ERNIE-4.5-VL expects in the corner of each frame of a video: drawn before resizing, as Pillow
// with raqm layout draws it (reference/ernie45-architecture 6.3, golden/README "preprocess").
#pragma once

#include <memory>
#include <string>

#include "base/status.h"
#include "server/multimodal/image.h"

namespace fd {

// "time: 00:01:02.50": seconds of width 5 with two decimals.
std::string TimestampText(double seconds);

// A loaded font. Draw may be called from any thread, also at once.
class TimestampFont {
 public:
  // font_path: Roboto-Regular.ttf of the checkpoint.
  static StatusOr<std::unique_ptr<TimestampFont>> Load(const std::string& font_path);
  ~TimestampFont();

  // Size int(0.1 * shorter side), stroke int(0.1 * size) in white under black text at the top left. A frame
  // too small for a font of one pixel is left as it is.
  void Draw(double seconds, RgbImage* frame) const;

 private:
  struct Impl;
  explicit TimestampFont(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace fd
