// Any bytes: an error, or a picture of the size that its header alone says, that can be resized and cut into
// patches; the same patches whether it is decoded as a whole or row by row.
#include <cstdio>
#include <cstdlib>

#include "server/multimodal/processor.h"

namespace {

void Expect(bool truth, const char* what) {
  if (truth) return;
  std::fprintf(stderr, "fuzz_image: %s\n", what);
  std::abort();
}

// Picture and header must agree; the picture, where there is one.
fd::StatusOr<fd::RgbImage> CheckSize(std::string_view bytes, const fd::ImageLimits& limits, bool apply_exif) {
  const fd::StatusOr<fd::ImageSize> size = fd::ReadImageSize(bytes, limits, apply_exif);
  fd::StatusOr<fd::RgbImage> image = fd::DecodeImage(bytes, limits, apply_exif);
  if (!size.ok()) {
    Expect(!image.ok(), "a picture without a size");
    Expect(
        image.status().code() == size.status().code() && image.status().message() == size.status().message(),
        "two errors for one header");
  }
  if (!image.ok()) {
    Expect(!image.status().message().empty(), "an error without a message");
    return image;
  }
  Expect(image->height > 0 && image->width > 0 && image->height * image->width <= limits.max_pixels &&
             image->height <= limits.max_side_pixels && image->width <= limits.max_side_pixels,
         "a size beyond the limits");
  Expect(size->height == image->height && size->width == image->width, "header and picture differ in size");
  Expect(static_cast<int64_t>(image->pixels.size()) == 3 * image->height * image->width,
         "pixels are missing");
  return image;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  fd::MediaConfig config;
  config.limits.max_pixels = 1 << 20;
  config.image_max_pixels = 112 * 112;
  const fd::StatusOr<fd::RgbImage> image = CheckSize(bytes, config.limits, false);
  const fd::StatusOr<fd::RgbImage> upright = CheckSize(bytes, config.limits, true);
  Expect(image.ok() == upright.ok(), "the orientation decides whether a picture is one");
  const auto item = fd::MakeImageItem(bytes, config);
  if (!image.ok()) {
    Expect(!item.ok(), "patches of a picture that cannot be decoded");
    return 0;
  }
  Expect(upright->pixels.size() == image->pixels.size(), "turning loses pixels");
  if (!item.ok()) return 0;  // too long for its width
  const fd::ImageSize to{int64_t{14} * (*item)->grid_h, int64_t{14} * (*item)->grid_w};
  Expect((*item)->patch_rows == fd::PatchRows(fd::ResizeBicubic(*upright, to), 14, 2),
         "patches differ between the two ways");
  return 0;
}
