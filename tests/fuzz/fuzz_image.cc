// Any bytes: an error, or a picture of the size it claims that can be resized and cut into patches.
#include <cstdlib>

#include "server/multimodal/processor.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view bytes(reinterpret_cast<const char*>(data), size);
  fd::MediaConfig config;
  config.limits.max_pixels = 1 << 20;
  config.image_max_pixels = 112 * 112;
  fd::StatusOr<fd::RgbImage> image = fd::DecodeImage(bytes, config.limits, false);
  fd::StatusOr<fd::RgbImage> upright = fd::DecodeImage(bytes, config.limits, true);
  if (image.ok() != upright.ok()) std::abort();
  if (!image.ok()) {
    if (image.status().message().empty()) std::abort();
    return 0;
  }
  if (image->height <= 0 || image->width <= 0 || image->height * image->width > config.limits.max_pixels ||
      static_cast<int64_t>(image->pixels.size()) != 3 * image->height * image->width ||
      upright->pixels.size() != image->pixels.size()) {
    std::abort();
  }
  auto item = fd::MakeImageItem(bytes, config);
  if (item.ok() &&
      static_cast<int64_t>((*item)->patch_rows.size()) != int64_t{588} * (*item)->grid_h * (*item)->grid_w) {
    std::abort();
  }
  return 0;
}
