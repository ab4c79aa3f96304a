// Encoded pictures -> RGB pixels on the CPU, after a check of the header against limits. Pure functions; any
// thread.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace fd {

struct ImageLimits {
  int64_t max_file_bytes = 20 << 20;
  int64_t max_pixels = 64 << 20;
  int64_t max_side_pixels = 16384;
};

struct RgbImage {
  int64_t height = 0;
  int64_t width = 0;
  std::vector<uint8_t> pixels;  // [height, width, 3]
};

struct ImageSize {
  int64_t height = 0;
  int64_t width = 0;
};

// PNG, JPEG, WebP, GIF (first frame), told apart by their first bytes. Colour rules: golden/README
// "preprocess", rule `ernie`: transparency pasted on white, 16-bit grey / 256. apply_exif turns the picture
// upright.
StatusOr<RgbImage> DecodeImage(std::string_view bytes, const ImageLimits& limits, bool apply_exif);

// The size that the header of `bytes` tells, without pixels; it is checked against the limits and is the one
// of DecodeImage (turned upright where apply_exif says so). Errors are those that DecodeImage has for a
// header; data that are damaged behind it are only found by decoding.
StatusOr<ImageSize> ReadImageSize(std::string_view bytes, const ImageLimits& limits, bool apply_exif);

// The size a picture is resized to: multiples of `factor`, area between min and max pixels
// (reference/ernie45-architecture 6.1). Error texts are those of transformers.
StatusOr<ImageSize> SmartResize(int64_t height, int64_t width, int64_t factor, int64_t min_pixels,
                                int64_t max_pixels);

// Pillow's 8-bit bicubic (a = -0.5, antialias, 22-bit weights), horizontal pass first, bit-exact.
RgbImage ResizeBicubic(const RgbImage& image, ImageSize size);

// uint8 [grid_h * grid_w, 588]: channel, row, column inside a patch; patches in 2x2-block order. Sides are
// multiples of 28.
std::vector<uint8_t> PatchRows(const RgbImage& image, int64_t patch_size, int64_t merge_size);

// PatchRows(ResizeBicubic(image, size), ...) in one walk over rows, without the resized picture in between.
std::vector<uint8_t> ResizedPatchRows(const RgbImage& image, ImageSize size, int64_t patch_size,
                                      int64_t merge_size);

// How a picture becomes patches.
struct PatchRule {
  int64_t patch_size = 14;
  int64_t merge_size = 2;
  int64_t min_pixels = 56 * 56;
  int64_t max_pixels = 28 * 28 * 6177;
};
struct PatchImage {
  ImageSize size;             // after resizing
  std::vector<uint8_t> rows;  // as PatchRows
};
// DecodeImage, SmartResize and ResizedPatchRows in one: a JPEG or PNG is never in memory as a whole, rows go
// from the decoder through both passes into patches.
StatusOr<PatchImage> DecodePatchRows(std::string_view bytes, const ImageLimits& limits, bool apply_exif,
                                     const PatchRule& rule);

}  // namespace fd
