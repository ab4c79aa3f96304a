// One decoder per picture format, private to this folder. Each checks the header's size against the limits
// before it allocates pixels, prints nothing, and lets no longjmp of a C library pass a C++ destructor.
#pragma once

#include <string_view>

#include "server/multimodal/image.h"

namespace fd {

StatusOr<RgbImage> DecodePng(std::string_view bytes, const ImageLimits& limits);
StatusOr<RgbImage> DecodeJpeg(std::string_view bytes, const ImageLimits& limits);
StatusOr<RgbImage> DecodeWebp(std::string_view bytes, const ImageLimits& limits);
StatusOr<RgbImage> DecodeGif(std::string_view bytes, const ImageLimits& limits);

// Sides and area of a header against the limits; the message has the size, the limit and its flag.
Status CheckImageSize(std::string_view format, int64_t width, int64_t height, const ImageLimits& limits);

// round(a * b / 255) as Pillow computes it, for a, b in [0, 255].
inline uint8_t MulDiv255(int a, int b) {
  int t = a * b + 128;
  return static_cast<uint8_t>(((t >> 8) + t) >> 8);
}

// Writes the RGBA pixel pasted on white, rounding as Pillow's paste does; equal to its colour when opaque.
inline void PasteOnWhite(const uint8_t* rgba, uint8_t* rgb) {
  int alpha = rgba[3];
  for (int c = 0; c < 3; ++c) {
    int t = 255 * (255 - alpha) + rgba[c] * alpha + 128;
    rgb[c] = static_cast<uint8_t>(((t >> 8) + t) >> 8);
  }
}

}  // namespace fd
